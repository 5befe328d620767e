"""Experiments and run folders: what is trained, and what a training leaves on disk."""
