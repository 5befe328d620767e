"""Experiments, which contain all settings of a training, and run folders, which store its results."""
