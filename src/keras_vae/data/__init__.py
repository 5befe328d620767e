"""Image data: sources, data sets, splits and conversion."""
