"""Figures of a run, and the HTML report that shows them next to its numbers."""
