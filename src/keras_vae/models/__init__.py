"""Models: networks, a prior, a likelihood and an objective, trained and used as one."""
