"""Samples: how a model's images, as a set, compare with images that it has not seen."""

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import numpy as np
from keras import ops
from numpy.typing import NDArray

from keras_vae.components.likelihoods import Bernoulli
from keras_vae.core.errors import InputError, RunError
from keras_vae.core.images import to_unit
from keras_vae.core.progress import Progress, silent
from keras_vae.core.typing import Array
from keras_vae.data.dataset import Splits
from keras_vae.evaluation.features import Features, choose
from keras_vae.evaluation.likelihood import provenance
from keras_vae.models.batching import fitting_batch_size, in_batches
from keras_vae.models.inputs import dataset_condition

if TYPE_CHECKING:
    from keras_vae.models.base import BaseVAE

Scored = Literal["means", "draws"]

NEIGHBORS = 5
"""k of precision, recall, density and coverage."""

FEATURE_SEED = 0
"""Of the features' network: one for all runs, whatever their own seeds, so that their numbers compare."""

_SUBSETS, _LARGEST_SUBSET = 10, 1000
_VALUES_AT_ONCE = 2**24
_ENOUGH_HELD_OUT = 100


class Neighbors(NamedTuple):
    """For each of n images, the nearest of others.

    Args:
        indices: Which one it is, (n,).
        distances: The Euclidean distance to it, (n,).
    """

    indices: NDArray[np.intp]
    distances: NDArray[np.float64]


class Manifold(NamedTuple):
    r"""How much two sets of vectors overlap, each set taken for the union of balls about its vectors.

    A ball reaches to its center's k-th nearest neighbor in its own set.

    Args:
        precision: The share of samples within a ball of the real ones (Kynkäänniemi et al., arXiv 1904.06991).
        recall: The share of real ones within a ball of the samples.
        density: The mean number of real balls around a sample, over k (Naeem et al., arXiv 2002.09797); may exceed 1.
        coverage: The share of real balls with a sample in them.
    """

    precision: float
    recall: float
    density: float
    coverage: float


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
    """Compare samples of a model with the images held out, and those with the training images.

    All sets are of one size, the largest that samples, held-out and training images allow: every one of the numbers
    depends on it. The memorization check takes all of them. Models with a condition draw labels in the proportions of
    the training data. Pixels are rounded to 8 bits.

    Args:
        model: A trained model.
        splits: The images of its run. Where nothing was held out, samples are compared with the training images, and
            there is neither a floor nor a check for memorization.
        n: How many samples, at least 2.
        features: By what to compare; see `features.choose`.
        scored: `"means"`, mean images; or `"draws"`, pixels drawn from p(x|z), which only a Bernoulli has: the real
            images are then binarized as the model takes them, and drawn with the gray level as the probability if it
            takes gray.
        seed: Fixes samples, draws, and which images are compared.
        progress: Shown for each of the steps.

    Returns:
        The section `samples` of `evaluation.json`; what cannot be computed is None, and `notes` say why.

    Raises:
        InputError: `n` is below 2, or the model's likelihood has no draws.
        RunError: The weights of InceptionV3 are not to be had, or samples are not finite.
    """
    if n < 2:
        raise InputError(f"n = {n}: sets of samples are compared; ask for at least 2, better 10000")
    observed = _binarizing(model, scored)
    if not isinstance(features, Features):
        features = choose(features, splits, seed=FEATURE_SEED, progress=progress)
    held = splits.held_out
    reference = splits.train if held is None else held
    sampled = _draw(model, splits, n, seed, progress)
    real, trained = reference.images, splits.train.images
    if observed is not None:
        sampled = _binarized(Bernoulli(binarize="dynamic"), sampled, [seed, 1])
        real, trained = _binarized(observed, real, [seed, 2]), _binarized(observed, trained, [seed, 3])
    fakes = features(sampled, progress, "features of the samples")
    trains = features(trained, progress, "features of the training images")
    reals = trains if held is None else features(real, progress, "features of the held-out images")

    count = min(n, len(reals), len(trains))
    rng = np.random.default_rng([seed, 4])
    compared_real, compared_fake, compared_train = (
        rows[rng.permutation(len(rows))[:count]] for rows in (reals, fakes, trains)
    )
    sets = [compared_fake] if held is None else [compared_fake, compared_train]
    numbers = [compare(rows, compared_real) for rows in progress(sets, "comparing sets of images")]
    return {
        **provenance(splits, reference, seed),
        "images": count,
        "training_checksum": splits.train.checksum,
        "samples": n,
        "images_scored": scored,
        "binarization": "none" if observed is None else observed.binarize,
        "features": features.describe(),
        "neighbors": NEIGHBORS,
        **numbers[0],
        "floor": numbers[1] if held is not None else None,
        "memorization": None if held is None else memorization(fakes, reals, trains, progress=progress),
        "notes": [*features.notes, *_notes(splits, n, count, fakes.shape[1])],
    }


def compare(samples: Array, real: Array) -> dict[str, Any]:
    """Return every distance between two sets of feature vectors, None for those that so few do not have.

    Args:
        samples: (N, F), in any order that does not depend on the values.
        real: (N, F), likewise.

    Returns:
        `frechet_distance`, `kid` with its standard error, and the fields of `Manifold`.
    """
    count = min(len(samples), len(real))
    overlap = manifold(samples, real)._asdict() if count > NEIGHBORS else dict.fromkeys(Manifold._fields)
    return {
        "frechet_distance": frechet_distance(samples, real) if count > 1 else None,
        "kid": kid(samples, real) if count > 1 else None,
        **overlap,
    }


def frechet_distance(first: Array, second: Array) -> float:
    r"""Return the squared Fréchet distance between the normal distributions with the moments of two sets of vectors.

    \(\|\mu_1 - \mu_2\|^2 + \operatorname{tr}(C_1 + C_2 - 2 (C_1^{1/2} C_2 C_1^{1/2})^{1/2})\), Heusel et al., arXiv
    1706.08500. With \(C_i = R_i^T R_i\) the last trace is the sum of the singular values of \(R_1 R_2^T\), which needs
    no root of a matrix, and no root of a rounding error where a covariance is singular.

    Args:
        first: (N, F), N ≥ 2.
        second: (M, F), M ≥ 2.

    Returns:
        The distance, biased upwards by an amount that falls as 1/N.

    Example:
        >>> square = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
        >>> round(frechet_distance(square, square + 3.0), 6)
        18.0
    """
    (mean, root), (other_mean, other_root) = (_normal(rows) for rows in (first, second))
    squares = (mean - other_mean) @ (mean - other_mean) + np.sum(root**2) + np.sum(other_root**2)
    return max(0.0, float(squares - 2 * np.linalg.svdvals(root @ other_root.T).sum()))


def _normal(rows: Array) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the mean of vectors and an R with RᵀR their covariance."""
    values = rows.astype(np.float64)
    mean = values.mean(axis=0)
    root = np.linalg.qr((values - mean) / math.sqrt(len(rows) - 1), mode="r")
    return mean, np.asarray(root, np.float64)


def kid(first: Array, second: Array) -> dict[str, float | None]:
    r"""Return the unbiased squared maximum mean discrepancy under \(k(x, y) = (x \cdot y / F + 1)^3\), and its error.

    The kernel Inception distance of Bińkowski et al., arXiv 1801.01401. It is the mean over at most ten disjoint
    subsets of at most 1000 vectors of each set, which are independent, so that their spread is an honest error; of
    fewer than twenty vectors there is one subset, and no error.

    Args:
        first: (N, F), N ≥ 2, in any order that does not depend on the values.
        second: (M, F), M ≥ 2, likewise.

    Returns:
        `mean`, zero in expectation for two sets from one distribution and so at times negative, and `standard_error`.
    """
    count = min(len(first), len(second))
    size = min(_LARGEST_SUBSET, count // _SUBSETS) if count >= 2 * _SUBSETS else count
    subsets = min(_SUBSETS, count // size)
    values = np.array(
        [
            _discrepancy(*(np.asarray(rows[index * size : (index + 1) * size], np.float64) for rows in (first, second)))
            for index in range(subsets)
        ]
    )
    error = float(values.std(ddof=1) / math.sqrt(subsets)) if subsets > 1 else None
    return {"mean": float(values.mean()), "standard_error": error}


def _discrepancy(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    def kernel(left: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
        return (left @ right.T / left.shape[1] + 1) ** 3

    def within(rows: NDArray[np.float64]) -> float:
        matrix = kernel(rows, rows)
        return float((matrix.sum() - np.trace(matrix)) / (len(rows) * (len(rows) - 1)))

    return within(first) + within(second) - 2 * float(kernel(first, second).mean())


def manifold(samples: Array, real: Array, k: int = NEIGHBORS) -> Manifold:
    """Return precision, recall, density and coverage of samples.

    Args:
        samples: (N, F), N > k.
        real: (M, F), M > k.
        k: Which neighbor a ball reaches to.

    Returns:
        The four; 1 each, but for the density, where the sets are the same. Distances are found block by block, so
        that memory does not grow with N·M.
    """
    from sklearn.metrics import euclidean_distances

    fake_radii, real_radii = _radii(samples, k), _radii(real, k)
    nearest_sample = np.full(len(real), np.inf)
    real_balls = np.empty(len(samples))
    recalled = np.zeros(len(real), bool)
    for start, stop in _blocks(len(samples), len(real)):
        distances = euclidean_distances(samples[start:stop], real)
        real_balls[start:stop] = (distances <= real_radii).sum(axis=1)
        recalled |= (distances <= fake_radii[start:stop, None]).any(axis=0)
        nearest_sample = np.minimum(nearest_sample, distances.min(axis=0))
    return Manifold(
        precision=float((real_balls > 0).mean()),
        recall=float(recalled.mean()),
        density=float(real_balls.mean() / k),
        coverage=float((nearest_sample <= real_radii).mean()),
    )


def _radii(rows: Array, k: int) -> NDArray[np.floating]:
    """Return the distance of each vector from its k-th neighbor."""
    from sklearn.neighbors import NearestNeighbors

    return NearestNeighbors(n_neighbors=k, algorithm="brute").fit(rows).kneighbors()[0][:, -1]


def nearest(images: Array, among: Array, *, progress: Progress = silent, label: str = "nearest neighbors") -> Neighbors:
    """Return the nearest of a set for each image, block by block, so that memory does not grow with the set.

    Args:
        images: uint8 images (n, H, W, C), whose distances are then in units where white is 1, or vectors (n, F).
        among: The set, (m, …) of the same kind and size.
        progress: Shown meanwhile.
        label: What the progress is called.

    Raises:
        InputError: The two are not of one kind and size, or one of them is empty.

    Example:
        >>> nearest(np.array([[0.0, 3.0]]), np.array([[9.0, 9.0], [0.0, 1.0]]))
        Neighbors(indices=array([1]), distances=array([2.]))
    """
    from sklearn.metrics import pairwise_distances_argmin_min

    if images.shape[1:] != among.shape[1:] or images.dtype != among.dtype or not (len(images) and len(among)):
        kinds = " and ".join(f"{array.dtype} of shape {array.shape}" for array in (images, among))
        raise InputError(f"images, among: {kinds}; accepted: images or vectors of one size, at least one of each")
    indices, distances = np.zeros(len(images), np.intp), np.full(len(images), np.inf)
    queries = _vectors(images)
    for start, stop in progress(list(_blocks(len(among), queries.shape[1])), label):
        found, gaps = pairwise_distances_argmin_min(queries, _vectors(among[start:stop]))
        closer = gaps < distances
        indices[closer], distances[closer] = found[closer] + start, gaps[closer]
    return Neighbors(indices, distances)


def memorization(samples: Array, held: Array, trained: Array, *, progress: Progress = silent) -> dict[str, Any]:
    r"""Ask whether samples lie nearer to training images than images that the model has never seen.

    The three-sample test of Meehan et al., arXiv 2004.05675, in one cell: the distances of samples and of held-out
    images to their nearest training image are compared by the Mann–Whitney statistic. The samples of a model that
    copies lie nearer; those of one that only smooths do too, so that the numbers are to be read with the precision and
    with pictures of the neighbors.

    Args:
        samples: Vectors of samples, (N, F).
        held: Vectors of held-out images, (M, F).
        trained: Vectors of the training images, (T, F).
        progress: Shown meanwhile.

    Returns:
        `mann_whitney_auc`, the probability that a sample is nearer to its training image than a held-out image is to
        its own, one half if nothing is copied; `three_sample_z`, the same in standard deviations, negative if samples
        are nearer; the median distances and their ratio; `share_of_near_copies`, how many samples are nearer than all
        but the nearest hundredth of the held-out images, 0.01 if nothing is copied; and `copying_suspected`, a z below
        −5 or near copies above 0.05. The last two are None below 100 held-out images.
    """
    ours = nearest(samples, trained, progress=progress, label="nearest training images of the samples").distances
    theirs = nearest(held, trained, progress=progress, label="nearest training images of the held-out").distances
    n, m = len(ours), len(theirs)
    sides: tuple[Literal["left"], Literal["right"]] = ("left", "right")
    farther = sum(int(np.searchsorted(np.sort(theirs), ours, side).sum()) for side in sides) / 2
    ties = np.unique(np.concatenate([ours, theirs]), return_counts=True)[1].astype(np.float64)
    tied = float((ties**3 - ties).sum()) / ((n + m) * (n + m - 1))
    spread = math.sqrt(max(0.0, n * m / 12 * (n + m + 1 - tied)))
    medians = float(np.median(ours)), float(np.median(theirs))
    z = (farther - n * m / 2) / spread if spread > 0 else 0.0
    copies = float((ours < np.quantile(theirs, 0.01)).mean())
    enough = m >= _ENOUGH_HELD_OUT
    return {
        "samples": n,
        "held_out_images": m,
        "training_images": len(trained),
        "mann_whitney_auc": 1 - farther / (n * m),
        "three_sample_z": z,
        "median_distance": medians[0],
        "median_distance_held_out": medians[1],
        "median_distance_ratio": medians[0] / medians[1] if medians[1] > 0 else None,
        "share_of_near_copies": copies if enough else None,
        "copying_suspected": z < -5 or copies > 0.05 if enough else None,
    }


def _draw(model: "BaseVAE", splits: Splits, n: int, seed: int, progress: Progress) -> NDArray[np.uint8]:
    """Return n mean images in 8 bits, a few at a time."""
    labels = dataset_condition(model, splits.train)
    rng = np.random.default_rng([seed, 0])
    told = None if labels is None else rng.choice(labels, n)
    size = fitting_batch_size(splits.train.image_shape)
    images = np.empty((n, *splits.train.image_shape), np.uint8)
    for start in progress(range(0, n, size), "drawing samples"):
        stop = min(start + size, n)
        part = None if told is None else told[start:stop]
        means = model.sample(stop - start, seed=int(rng.integers(2**31)), condition=part)
        if not np.isfinite(means).all():
            raise RunError("samples: images are not finite: the training diverged; see `vae doctor`")
        images[start:stop] = np.rint(np.multiply(means, 255))
    return images


def _binarizing(model: "BaseVAE", scored: Scored) -> Bernoulli | None:
    """Return how real images become comparable with the draws that are scored, or None for means."""
    if scored not in get_args(Scored):
        raise InputError(f"scored = {scored!r}: accepted: {', '.join(get_args(Scored))}")
    if scored == "means":
        return None
    likelihood = model.likelihood
    if not isinstance(likelihood, Bernoulli):
        raise InputError(f"scored = 'draws': {likelihood} is no Bernoulli, which alone is drawn from; pass 'means'")
    return likelihood if likelihood.binarize != "none" else replace(likelihood, binarize="dynamic")


def _binarized(likelihood: Bernoulli, images: NDArray[np.uint8], seed: list[int]) -> NDArray[np.uint8]:
    """Return images in black and white as a likelihood observes them, with noise from NumPy."""
    rng = np.random.default_rng(seed)

    def preprocess(batch: NDArray[np.uint8]) -> Any:
        noise = rng.random(batch.shape, dtype="float32") if likelihood.draws_pixels else None
        return likelihood.preprocess(to_unit(batch), None if noise is None else ops.convert_to_tensor(noise))

    size = fitting_batch_size(images.shape[1:])
    return (in_batches(preprocess, images, batch_size=size) * 255).astype(np.uint8)


def _notes(splits: Splits, n: int, count: int, dimensions: int) -> Iterator[str]:
    """Yield what to keep in mind of numbers from `count` images a side."""
    held = splits.held_out
    if count < n:
        fewest = "training" if held is None or len(splits.train) < len(held) else "held-out"
        yield f"{count} samples of {n} compared: as many as there are {fewest} images"
    if count < 2:
        yield "the Fréchet and kernel distances need more than 1 image a side"
    if count <= NEIGHBORS:
        yield f"precision, recall, density and coverage need more than {NEIGHBORS} images a side, not {count}"
    if 1 < count <= dimensions:
        yield (
            f"{count} images a side for {dimensions} features: the Fréchet distance is far above what many images"
            " would give, and compares with its floor only"
        )
    if held is None:
        yield "no held-out data: compared with the training images, without floor and memorization check"
    elif len(held) < _ENOUGH_HELD_OUT:
        yield f"{len(held)} held-out images are too few to tell copies from chance: {_ENOUGH_HELD_OUT} are needed"


def _blocks(count: int, width: int) -> Iterator[tuple[int, int]]:
    """Yield the ends of consecutive blocks of rows so that one of `width` values a row stays small."""
    size = max(1, _VALUES_AT_ONCE // width)
    for start in range(0, count, size):
        yield start, min(start + size, count)


def _vectors(images: Array) -> Array:
    """Return images in [0, 1], or vectors as they are, as rows."""
    rows = images.reshape(len(images), -1)
    return rows.astype(np.float32) / 255 if images.dtype == np.uint8 else rows
