"""Anomaly scores of VAEs for digits that were held out of training, for letters and for simple pictures.

    python -m benchmarks.anomaly --out docs/anomaly.md          # a quarter of an hour of processor time
    python -m benchmarks.anomaly --also fashion_mnist           # adds another source of gray 28×28 images

For each of the ten digits, models with 2 and with 32 latent dimensions are trained on the other digits of MNIST and
score all 10,000 test images. ROC-AUC is the probability that a test image of the held-out digit has a higher score than
one of another digit. Two models of all digits then score other pictures as well as the test images. The scores are
those of `keras_vae.evaluation.anomaly`.

The tables are printed, or written between two markers in a Markdown file, with figures next to it.
"""

import argparse
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import matplotlib
import numpy as np
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont
from sklearn.metrics import roc_auc_score

from benchmarks.results import replace_between
from keras_vae.core.files import write_text
from keras_vae.core.typing import Array
from keras_vae.data import sources
from keras_vae.data.dataset import Dataset
from keras_vae.data.info import DatasetInfo
from keras_vae.evaluation.anomaly import SCORES, Scorer, Scores, error_map
from keras_vae.models.base import BaseVAE
from keras_vae.report import figures
from keras_vae.report.figures.style import PALETTE, style
from keras_vae.runs.build import build_model
from keras_vae.runs.experiment import Experiment

LATENT_DIMS = (2, 32)
NUM_SAMPLES = 16
"""K, the number of importance samples per image."""

NUM_REFERENCE = 2000
"""Number of training images whose scores serve as the reference."""

PUBLISHED = {
    2: (0.96, 0.73, 0.97, 0.94, 0.73, 0.92, 0.95, 0.77, 0.92, 0.66),
    32: (0.81, 0.09, 0.92, 0.87, 0.78, 0.86, 0.87, 0.51, 0.89, 0.58),
}
"""Tonnaer's thesis, table 3.3: convolutional VAEs with a normal likelihood of fixed variance, scored by −ELBO."""

START, END = "<!-- from here on written by benchmarks/anomaly.py -->", "<!-- to here -->"


def main() -> None:
    """Measure everything, and print or write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="a Markdown file with the two markers; figures are written next to it")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument(
        "--images", type=int, default=60_000, help="number of training images; reduce it for a quick run"
    )
    parser.add_argument(
        "--also",
        action="append",
        default=[],
        metavar="SOURCE",
        help="also score the images of this source; may be repeated",
    )
    arguments = parser.parse_args()
    loaded = sources.load("mnist")
    train, test = loaded.train.subsample_evenly(arguments.images), loaded.test
    pictures = simple_pictures() | {name: load_images(name) for name in arguments.also}

    areas = {(size, score): [] for size in LATENT_DIMS for score in SCORES}
    held_out_pairs: dict[int, list[tuple[Array, Array]]] = {size: [] for size in LATENT_DIMS}
    for digit in range(10):
        for size in LATENT_DIMS:
            normal = train.subset(np.flatnonzero(train.labels != digit), "train")
            model = train_model(normal, size, arguments.epochs)
            scores = fit_scorer(model, normal)(test.images)
            for name, values in scores.items():
                areas[size, name].append(roc_auc_score(test.labels == digit, values))
            held_out_pairs[size].append(
                median_image(model, test.images[test.labels == digit], scores["nll"][test.labels == digit])
            )
            print(f"without {digit}, {size:2} dimensions: nll {areas[size, 'nll'][-1]:.3f}", flush=True)

    tables, scores_by_picture = [table_of_digits(areas)], {}
    for size in LATENT_DIMS:
        model = train_model(train, size, arguments.epochs)
        scorer = fit_scorer(model, train)
        scores_by_picture = {"MNIST, test": scorer(test.images)} | {
            name: scorer(images) for name, images in pictures.items()
        }
        tables.append(table_of_pictures(scores_by_picture, size))
    tables.append(
        f"{len(train):,} training images, {arguments.epochs} epochs, K = {NUM_SAMPLES}, one training each (seed 0), "
        f"{keras.backend.backend()}; {time.process_time() / 60:.0f} minutes of processor time."
    )
    text = "\n\n".join(tables)
    if arguments.out is None:
        print(text)
        return
    write_text(arguments.out, replace_between(arguments.out.read_text("utf-8"), START, END, text))
    stem = arguments.out.with_suffix("")
    figures.save(histograms(scores_by_picture), Path(f"{stem}.png"))
    for size, pairs in held_out_pairs.items():
        images, reconstructions = map(np.concatenate, zip(*pairs, strict=True))
        title = f"Each digit, reconstructed by a {size}-dimensional model trained without it"
        heat = figures.heat_maps(images, reconstructions, error_map(images, reconstructions), title)
        figures.save(heat, Path(f"{stem}-heat-maps-{size}.png"))


def train_model(dataset: Dataset, latent_dim: int, epochs: int) -> BaseVAE:
    """Return a small VAE trained on images, reproducibly."""
    keras.utils.set_random_seed(0)
    settings = [f"model.latent_dim={latent_dim}", 'model.network={ name = "mlp", widths = [256, 256] }']
    model = build_model(Experiment().with_overrides(settings), DatasetInfo(dataset.image_shape, len(dataset)))
    model.compile(optimizer=keras.optimizers.Adam(2e-3))
    model.fit(dataset.images, batch_size=500, epochs=epochs, verbose=0)
    return model


def fit_scorer(model: BaseVAE, dataset: Dataset) -> Scorer:
    """Return the anomaly scorer of a model, fitted to some of its training images."""
    return Scorer.fit(model, dataset.subsample_evenly(NUM_REFERENCE).images, samples=NUM_SAMPLES)


def median_image(model: BaseVAE, images: Array, scores: Array) -> tuple[Array, Array]:
    """Return the image with the median score, and its reconstruction."""
    chosen = images[np.argsort(scores)[len(scores) // 2]][np.newaxis]
    return chosen, model.reconstruct(chosen)


def load_images(source: str) -> Array:
    """Return at most 10,000 images of a source, from its test split if it has one."""
    loaded = sources.load(source)
    return (loaded.test or loaded.train).subsample_evenly(10_000).images


def simple_pictures(count: int = 2000) -> dict[str, Array]:
    """Return pictures other than digits by name, each (N, 28, 28, 1), uint8."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:28, :28]
    centers = rng.uniform(8, 20, (count, 2, 1, 1))
    distance = (rows - centers[:, 0]) ** 2 + (columns - centers[:, 1]) ** 2
    width, height = rng.uniform(2, 4, (count, 1, 1)), rng.uniform(40, 160, (count, 1, 1))
    drawn = {
        "letters": letters(count),
        "black": np.zeros((count, 28, 28)),
        "faint blobs": height * np.exp(-distance / (2 * width**2)),
        "even gray": np.broadcast_to(rng.integers(1, 256, (count, 1, 1)), (count, 28, 28)),
        "noise": rng.integers(0, 256, (count, 28, 28)),
    }
    return {name: np.rint(images).astype("uint8")[..., np.newaxis] for name, images in drawn.items()}


def letters(count: int, seed: int = 0) -> Array:
    """Return capital letters in the format of MNIST, (N, 28, 28): 20 pixels high or wide, centered by mass.

    The fonts are those of Matplotlib. I, O, S and Z are omitted because they resemble digits.
    """
    rng = np.random.default_rng(seed)
    fonts = [
        ImageFont.truetype(str(path), 96)
        for path in sorted(Path(matplotlib.get_data_path(), "fonts", "ttf").glob("DejaVu*.ttf"))
        if "Display" not in path.name
    ]
    images = np.zeros((count, 28, 28))
    for index in range(count):
        page = Image.new("L", (224, 224))
        letter = "ABCDEFGHJKLMNPQRTUVWXY"[index % 22]
        ink = {"font": fonts[rng.integers(len(fonts))], "stroke_width": int(rng.integers(0, 5)), "fill": 255}
        ImageDraw.Draw(page).text((112, 112), letter, anchor="mm", **ink)
        page = page.rotate(rng.uniform(-15, 15), Image.Resampling.BICUBIC)
        page = page.crop(page.getbbox())
        page.thumbnail((20, 20), Image.Resampling.LANCZOS)
        pixels = np.asarray(page, float)
        masses = [pixels.sum(1), pixels.sum(0)]
        places = [round(14 - np.average(np.arange(len(mass)) + 0.5, weights=mass)) for mass in masses]
        top, left = (int(np.clip(place, 0, 28 - len(mass))) for place, mass in zip(places, masses, strict=True))
        images[index, top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels
    return images


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table with text in the first column and numbers in the others."""
    rule = ["---", *["--:"] * (len(header) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, rule, *rows))


def table_of_digits(areas: Mapping[tuple[int, str], Sequence[float]]) -> str:
    """Return a table of ROC-AUC by held-out digit, with the published values."""
    rows = [
        [f"{size} dimensions, `{score}`", *(f"{area:.2f}" for area in values), f"**{np.mean(values):.3f}**"]
        for (size, score), values in areas.items()
    ]
    rows += [
        [f"Tonnaer, {size} dimensions, −ELBO", *(f"{area:.2f}" for area in values), f"{np.mean(values):.3f}"]
        for size, values in PUBLISHED.items()
    ]
    return table(["ROC-AUC, the digit held out", *map(str, range(10)), "mean"], rows)


def table_of_pictures(scores_by_picture: Mapping[str, Scores], latent_dim: int) -> str:
    """Return a table of mean −log p(x) and of the ROC-AUC of each score against the test images, by kind of picture."""
    (_, reference), *rest = scores_by_picture.items()
    rows = [["MNIST, test", f"{reference['nll'].mean():.1f}", *[""] * len(SCORES)]]
    for name, scores in rest:
        truth = np.repeat([0, 1], [len(reference["nll"]), len(scores["nll"])])
        areas = [roc_auc_score(truth, np.concatenate([reference[score], scores[score]])) for score in SCORES]
        rows.append([name, f"{scores['nll'].mean():.1f}", *(f"{area:.3f}" for area in areas)])
    return table([f"{latent_dim} dimensions, ROC-AUC", "mean `nll`", *(f"`{score}`" for score in SCORES)], rows)


def histograms(scores_by_picture: Mapping[str, Scores]) -> Figure:
    """Return histograms of −log p(x) and of its distance from the mean, by kind of picture; tall peaks are clipped."""
    scores = {"nll": "−log p(x) in nats", "typicality": "its distance from the mean of training images"}
    with style():
        figure = Figure(figsize=(9, 3.4), layout="constrained")
        for axes, (score, label) in zip(figure.subplots(1, 2), scores.items(), strict=True):
            edges = np.geomspace(
                max(1, min(values[score].min() for values in scores_by_picture.values())),
                max(values[score].max() for values in scores_by_picture.values()),
                90,
            )
            for (name, values), color in zip(scores_by_picture.items(), PALETTE, strict=False):
                heights, _ = np.histogram(values[score], edges)
                axes.stairs(100 * heights / len(values[score]), edges, color=color, label=name, linewidth=1.5)
            axes.set(xscale="log", xlabel=label, ylabel="images, %", ylim=(0, 14))
            axes.xaxis.set_major_formatter("{x:g}")
        figure.legend(*axes.get_legend_handles_labels(), loc="outside right center")
    return figure


if __name__ == "__main__":
    main()
