"""Sample quality: distances between generated images and real images."""

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import numpy as np
from keras import ops
from numpy.typing import NDArray

from keras_vae.components.likelihoods import Bernoulli
from keras_vae.core.errors import InputError, RunError, unknown
from keras_vae.core.images import to_unit
from keras_vae.core.progress import Progress, silent
from keras_vae.data.dataset import Splits
from keras_vae.evaluation.features import Features, load_features
from keras_vae.evaluation.likelihood import check_complete, provenance
from keras_vae.evaluation.memorization import MIN_HELD_OUT, memorization
from keras_vae.evaluation.set_distances import NEIGHBORS, compare_sets
from keras_vae.models.batching import fitting_batch_size, in_batches
from keras_vae.models.inputs import dataset_condition

if TYPE_CHECKING:
    from keras_vae.models.base import BaseVAE

Images = NDArray[np.uint8]
Scored = Literal["means", "draws"]

FEATURE_SEED = 0
"""Seed of the feature network: the same for all runs, so that their numbers are comparable."""


class _Sets(NamedTuple):
    """The sets to compare, as images or as feature vectors.

    Args:
        samples: Samples of the model.
        train: All training images.
        reserved: The training images that the feature network was not trained on.
        held_out: The held-out images, or None.
    """

    samples: NDArray[Any]
    train: NDArray[Any]
    reserved: NDArray[Any]
    held_out: NDArray[Any] | None


def measure_samples(
    model: "BaseVAE",
    splits: Splits,
    *,
    n: int = 10_000,
    features: Features | str | None = None,
    scored: Scored = "means",
    seed: int = 0,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Compare samples of a model with held-out images and, as a baseline, training images with held-out images.

    Every distance depends on the sizes of its sets. All sets therefore have the same size: the largest that the
    samples, held-out images and training images allow. Training images that the classifier of `features` was trained on
    are not compared. Only the memorization test uses all images: the classifier was trained on neither of the two sets
    whose distances to the training images it compares. Conditional models draw their labels in the proportions of the
    training data. Pixels are rounded to 8 bits.

    Args:
        model: A trained model.
        splits: The images of its run. If none were held out, samples are compared with the training images, without a
            baseline and without a memorization test.
        n: Number of samples, at least 2.
        features: The features to compare; see `features.load_features`.
        scored: `"means"` compares mean images. `"draws"` compares pixels drawn from p(x|z), for Bernoulli likelihoods
            only: real images are then binarized as the model binarizes them, or by drawing pixels with the gray value
            as the probability if the model does not binarize.
        seed: Fixes the samples, the draws, and the choice of the compared images.
        progress: Shows the progress of each step.

    Returns:
        The section `samples` of `evaluation.json`, with the baseline as `floor`. Numbers that cannot be computed are
        None, and `notes` explain why.

    Raises:
        InputError: `n` is below 2, pixels are missing, or `scored` is unknown or `"draws"` for a likelihood that is not
            Bernoulli.
        RunError: The weights of InceptionV3 are not available, or samples are not finite.
    """
    if n < 2:
        raise InputError(f"n = {n}: too few samples to compare; use at least 2, better 10000")
    check_complete(splits, "samples")
    binarization = _binarization(model, scored)
    if not isinstance(features, Features):
        features = load_features(features, splits.sample(), seed=FEATURE_SEED, progress=progress)
    images = _collect_images(model, splits.sample(), features.reserved, n, binarization, seed, progress)
    vectors = _extract_features(features, images, progress)
    count, numbers, floor = _compare(vectors, seed, progress)
    return {
        **provenance(splits, splits.held_out or splits.train, seed),
        "images": count,
        "training_checksum": splits.train.checksum,
        "samples": n,
        "images_scored": scored,
        "binarization": "none" if binarization is None else binarization.binarize,
        "features": features.describe(),
        "neighbors": NEIGHBORS,
        **numbers,
        "floor": floor,
        "memorization": _test_memorization(vectors, progress),
        "notes": [*features.notes, *_notes(splits, n, count, vectors)],
    }


def _collect_images(
    model: "BaseVAE",
    splits: Splits,
    reserved: Images | None,
    n: int,
    binarization: Bernoulli | None,
    seed: int,
    progress: Progress,
) -> _Sets:
    """Return the samples and the real images to compare, binarized if draws are compared."""
    samples, train = _draw_samples(model, splits, n, seed, progress), splits.train.images
    held_out = None if splits.held_out is None else splits.held_out.images
    if binarization is None:
        return _Sets(samples, train, train if reserved is None else reserved, held_out)
    binarized = _binarize(binarization, train, [seed, 3])
    return _Sets(
        _binarize(Bernoulli(binarize="dynamic"), samples, [seed, 1]),
        binarized,
        binarized if reserved is None else _binarize(binarization, reserved, [seed, 5]),
        None if held_out is None else _binarize(binarization, held_out, [seed, 2]),
    )


def _extract_features(features: Features, images: _Sets, progress: Progress) -> _Sets:
    train = features(images.train, progress, "features of the training images")
    return _Sets(
        features(images.samples, progress, "features of the samples"),
        train,
        train
        if images.reserved is images.train
        else features(images.reserved, progress, "features of reserved images"),
        None if images.held_out is None else features(images.held_out, progress, "features of the held-out images"),
    )


def _compare(vectors: _Sets, seed: int, progress: Progress) -> tuple[int, dict[str, Any], dict[str, Any] | None]:
    """Return the size of the compared sets, the distances of the samples, and those of the training images, if any."""
    train = vectors.reserved
    real = train if vectors.held_out is None else vectors.held_out
    count = min(len(vectors.samples), len(real), len(train))
    rng = np.random.default_rng([seed, 4])
    # The order of these draws fixes the numbers.
    real, samples, train = (rows[rng.permutation(len(rows))[:count]] for rows in (real, vectors.samples, train))
    sets = [samples] if vectors.held_out is None else [samples, train]
    numbers = [compare_sets(rows, real) for rows in progress(sets, "comparing sets of images")]
    return count, numbers[0], None if vectors.held_out is None else numbers[1]


def _draw_samples(model: "BaseVAE", splits: Splits, n: int, seed: int, progress: Progress) -> Images:
    """Return n mean images in 8 bits, drawn batch by batch."""
    labels = dataset_condition(model, splits.train)
    rng = np.random.default_rng([seed, 0])
    conditions = None if labels is None else rng.choice(labels, n)
    size = fitting_batch_size(splits.train.image_shape)
    images = np.empty((n, *splits.train.image_shape), np.uint8)
    for start in progress(range(0, n, size), "drawing samples"):
        stop = min(start + size, n)
        condition = None if conditions is None else conditions[start:stop]
        means = model.sample(stop - start, seed=int(rng.integers(2**31)), condition=condition)
        if not np.isfinite(means).all():
            raise RunError("samples: some images are NaN or infinite: the training diverged; run `vae doctor`")
        images[start:stop] = np.rint(np.multiply(means, 255))
    return images


def _binarization(model: "BaseVAE", scored: Scored) -> Bernoulli | None:
    """Return the likelihood that binarizes real images, to compare them with draws; None if means are compared."""
    if scored not in get_args(Scored):
        raise unknown("scored", scored, get_args(Scored))
    if scored == "means":
        return None
    likelihood = model.likelihood
    if not isinstance(likelihood, Bernoulli):
        raise InputError(f"scored = 'draws': {likelihood} is not a Bernoulli likelihood; use scored = 'means'")
    return likelihood if likelihood.binarize != "none" else replace(likelihood, binarize="dynamic")


def _test_memorization(vectors: _Sets, progress: Progress) -> dict[str, Any] | None:
    """Return the result of the memorization test; None if no images were held out."""
    if vectors.held_out is None:
        return None
    return memorization(vectors.samples, vectors.held_out, vectors.train, progress=progress)


def _binarize(likelihood: Bernoulli, images: Images, seed: list[int]) -> Images:
    """Return images binarized by a likelihood, with noise from NumPy."""
    rng = np.random.default_rng(seed)

    def preprocess(batch: Images) -> Any:
        noise = rng.random(batch.shape, dtype="float32") if likelihood.requires_noise else None
        return likelihood.preprocess(to_unit(batch), None if noise is None else ops.convert_to_tensor(noise))

    size = fitting_batch_size(images.shape[1:])
    return (in_batches(preprocess, images, batch_size=size) * 255).astype(np.uint8)


def _notes(splits: Splits, n: int, count: int, vectors: _Sets) -> Iterator[str]:
    """Yield the limitations of numbers computed from sets of `count` images."""
    held_out, dimensions = splits.held_out, vectors.samples.shape[1]
    if len(vectors.train) < len(splits.train):
        yield f"streamed: {len(vectors.train):,} of {len(splits.train):,} training images represent all, evenly spaced"
    if count < n:
        smallest = "training" if held_out is None or len(vectors.reserved) < len(held_out) else "held-out"
        kind = "training images that the classifier was not trained on"
        kind = kind if smallest == "training" and vectors.reserved is not vectors.train else f"{smallest} images"
        yield f"compared {count:,} of {n:,} samples, because there are only {count:,} {kind}"
    if count < 2:
        yield "the Fréchet distance and the KID need more than 1 image per set"
    if count <= NEIGHBORS:
        yield f"precision, recall, density and coverage need more than {NEIGHBORS} images per set, not {count}"
    if 1 < count <= dimensions:
        yield (
            f"{count:,} images per set for {dimensions:,} features: the Fréchet distance is far above that of larger "
            "sets; compare it only with its floor"
        )
    if held_out is None:
        yield "no held-out data: samples are compared with the training images, without floor and memorization test"
    elif len(held_out) < MIN_HELD_OUT:
        yield f"{len(held_out)} held-out images are too few to detect copies; at least {MIN_HELD_OUT} are needed"
