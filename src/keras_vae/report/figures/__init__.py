"""Figures of arrays: plain functions without global state, in one style.

Images are floats in [0, 1] or uint8, `(N, height, width, channels)`, with 1 or 3 channels. Every image pixel covers a
whole number of figure pixels, so nothing is blurred or resampled.
"""

from keras_vae.report.figures.curves import curves, kl_per_dimension, overlay, rate_distortion
from keras_vae.report.figures.heat_maps import heat_maps
from keras_vae.report.figures.image_grids import (
    ImageStrips,
    image_grid,
    image_rows,
    image_sheet,
    image_strips,
    latent_grid,
    save_animation,
    save_images,
    tile_images,
)
from keras_vae.report.figures.scatter import latents
from keras_vae.report.figures.style import FORMATS, PALETTE, save

__all__ = [
    "FORMATS",
    "PALETTE",
    "ImageStrips",
    "curves",
    "heat_maps",
    "image_grid",
    "image_rows",
    "image_sheet",
    "image_strips",
    "kl_per_dimension",
    "latent_grid",
    "latents",
    "overlay",
    "rate_distortion",
    "save",
    "save_animation",
    "save_images",
    "tile_images",
]
