"""Models: each combines networks, a prior, a likelihood and an objective in one `keras.Model`."""
