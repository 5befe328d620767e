"""Distributions over latent codes and over images, and the bijectors that transform them."""
