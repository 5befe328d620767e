"""Images: where they come from, what a data set is, how it is split and encoded."""
