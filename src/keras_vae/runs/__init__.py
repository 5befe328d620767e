"""Experiments, which hold all settings of a training, and run folders, which store its results."""
