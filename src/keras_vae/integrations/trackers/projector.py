"""Files of TensorBoard's projector: codes of images with labels and thumbnails."""

import io
import math
from pathlib import Path

import numpy as np
from PIL import Image

from keras_vae.core.files import printable, replacing, write_text, writing
from keras_vae.core.typing import Array
from keras_vae.data.dataset import Dataset
from keras_vae.models.inputs import dataset_condition
from keras_vae.report.context import PlotContext
from keras_vae.report.figures import tile_images

MAX_CODES = 2000
"""Largest number of codes."""

MAX_SPRITE = 8192
"""Longest side of the picture of all thumbnails in pixels, the limit of TensorBoard."""

CODES, LABELS, SPRITE = "codes.tsv", "labels.tsv", "sprite.png"
"""The files in the folder `projector`."""


def write_projector(context: PlotContext, folder: Path) -> None:
    """Write the posterior means of held-out images, or of training images if none were held out.

    Args:
        context: A model with a latent vector, and its images.
        folder: The folder of the event files.
    """
    from google.protobuf import text_format
    from tensorboard.plugins.projector import metadata
    from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig

    dataset = context.images(MAX_CODES)
    encoding = context.model.encode(dataset.images, condition=dataset_condition(context.model, dataset))
    codes = encoding.flattened().z_mean
    # The projector draws in three dimensions, and nothing if there are fewer.
    codes = np.pad(codes, [(0, 0), (0, max(0, 3 - codes.shape[1]))])
    picture, size = sprite(dataset.images, MAX_SPRITE)
    png = io.BytesIO()
    picture.save(png, "PNG")
    files = folder / "projector"
    with writing(files):
        files.mkdir(exist_ok=True)
    write_text(files / CODES, "".join("\t".join(map(repr, row)) + "\n" for row in codes.tolist()))
    write_text(files / LABELS, _labels(dataset))
    with replacing(files / SPRITE) as temporary:
        temporary.write_bytes(png.getvalue())
    config = ProjectorConfig()
    embedding = config.embeddings.add(
        tensor_name=f"codes of {dataset.name}",
        tensor_shape=codes.shape,
        tensor_path=f"{files.name}/{CODES}",
        metadata_path=f"{files.name}/{LABELS}",
    )
    embedding.sprite.image_path = f"{files.name}/{SPRITE}"
    embedding.sprite.single_image_dim.extend(size)
    # TensorBoard reads the other files once it finds this one.
    write_text(folder / metadata.PROJECTOR_FILENAME, text_format.MessageToString(config))


def sprite(images: Array, longest: int) -> tuple[Image.Image, tuple[int, int]]:
    """Return thumbnails as one picture without gaps, row by row in ⌈√N⌉ columns, and the size of one, (width, height).

    Args:
        images: uint8 levels, (N, H, W, C), C = 1 or 3. Images that do not fit are reduced.
        longest: Longest side of the picture in pixels.
    """
    columns = math.ceil(math.sqrt(len(images)))
    height, width = images.shape[1:3]
    scale = min(1.0, longest // columns / max(height, width))
    if scale < 1:
        size = max(1, int(width * scale)), max(1, int(height * scale))
        pixels = images.squeeze(-1) if images.shape[-1] == 1 else images
        reduced = [np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX)) for image in pixels]
        images = np.stack(reduced).reshape(len(images), size[1], size[0], -1)
    picture = Image.fromarray(tile_images(images, columns=columns, pad=0)).convert("RGB")
    return picture, (images.shape[2], images.shape[1])


def _labels(dataset: Dataset) -> str:
    """Return the table of labels, one row per image. A table of one column must not have a title."""
    if dataset.labels is None:
        return "".join(f"{number}\n" for number in range(len(dataset)))
    rows = enumerate(dataset.labels.tolist())
    return "label\timage\n" + "".join(f"{printable(dataset.classes[label])}\t{number}\n" for number, label in rows)
