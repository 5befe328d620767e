"""Arrays to figures: plain functions, no global state, one style.

Images come as floats in [0, 1] or as uint8, `(N, height, width, channels)` with 1 or 3 channels. Every image pixel is
drawn as a whole number of figure pixels, so nothing is blurred or resampled.
"""

from keras_vae.report.figures.curves import curves, overlay, rate_distortion, rates
from keras_vae.report.figures.image_grids import (
    Strips,
    contact_sheet,
    heat_maps,
    latent_grid,
    save_animation,
    save_images,
    sheet,
    stacks,
    strips,
)
from keras_vae.report.figures.scatter import latents
from keras_vae.report.figures.style import PALETTE, save

__all__ = [
    "PALETTE",
    "Strips",
    "contact_sheet",
    "curves",
    "heat_maps",
    "latent_grid",
    "latents",
    "overlay",
    "rate_distortion",
    "rates",
    "save",
    "save_animation",
    "save_images",
    "sheet",
    "stacks",
    "strips",
]
