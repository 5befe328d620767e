"""Held-out likelihood: the ELBO, and importance-weighted estimates of log p(x)."""

import contextlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from keras_vae.core.blocks import BlockFolder
from keras_vae.core.errors import InputError
from keras_vae.core.parts import Part
from keras_vae.core.progress import Progress, silent
from keras_vae.core.typing import Array
from keras_vae.data.dataset import Dataset, Splits, evenly_spaced
from keras_vae.data.lazy import is_lazy
from keras_vae.evaluation.neighbors import blocks
from keras_vae.evaluation.per_image import StageResult, mean_and_error
from keras_vae.models.importance_sampling import Estimate, ImportanceSampling, PosteriorProposal, Proposal
from keras_vae.models.inputs import dataset_condition
from keras_vae.models.pareto import reliable_shape
from keras_vae.models.proposals import choose_proposal

if TYPE_CHECKING:
    from keras_vae.models.base import BaseVAE

BINARIZATION_SEED = 777
"""Seed of the published numbers on dynamically binarized MNIST."""

TRUSTED_SAMPLE_SIZE = 5.0
"""Effective sample size that 95 % of the images must reach for an importance-weighted estimate to be trusted."""

TOLERATED_GAP = 0.1
"""Nats per image that the posterior, as a proposal, may miss on average for its estimate to be trusted."""

_IMAGES_BETWEEN_SAVES = 50
_CHECKED_IMAGES = 16


SLOW_DENSITY = "this prior solves an ODE for each draw; measure it under the original prior"
"""Reason why a prior is not evaluated at many draws per image."""


def estimates_nll(model: "BaseVAE", samples: int) -> bool:
    """Return whether `measure_likelihood` estimates −log p(x) of a model, given the number of draws."""
    return samples > 0 and model.is_stochastic and model.density == "direct"


def provenance(splits: Splits, measured: Dataset, seed: int) -> dict[str, Any]:
    """Return the provenance that every section records: the images, whether they were held out, and the seed."""
    return {
        "data": measured.name,
        "split": measured.split,
        "held_out": splits.held_out is not None and not _are_training_images(splits),
        "images": len(measured),
        "checksum": measured.checksum,
        "seed": seed,
    }


def check_complete(splits: Splits, stage: str) -> None:
    """Reject images with missing pixels, for a stage that compares whole images or their features.

    Raises:
        InputError: Pixels are missing.
    """
    if not splits.are_complete:
        raise InputError(f"stages = {stage}: it compares whole images, and pixels of these are missing; leave it out")


def _are_training_images(splits: Splits) -> bool:
    """Return whether at least half of the held-out images are training images, as when the same file is given twice."""
    held_out, train = splits.held_out, splits.train
    if held_out is None:
        return False
    if is_lazy(held_out.images) and is_lazy(train.images) and held_out.images.source == train.images.source:
        return bool(2 * np.isin(held_out.images.rows, train.images.rows).sum() >= len(held_out))
    images, known = held_out.sample().images, {hash(image.tobytes()) for image in train.sample().images}
    return 2 * sum(hash(image.tobytes()) in known for image in images) >= len(images)


def binarize(splits: Splits, dataset: Dataset) -> Dataset:
    """Return one of the splits in black and white: each pixel is drawn once, with its gray value as the probability.

    The draws follow the protocol of published numbers (the code of Tomczak and Welling, arXiv 1705.07120): NumPy's
    legacy generator with seed 777. If a source has more training images than test images, as MNIST does, the
    same number of its last training images is drawn before the test images.

    Args:
        splits: The images of a run.
        dataset: The split to binarize.

    Returns:
        Images with the values 0 and 255, of a large streamed split those of its sample.
    """
    generator, whole = np.random.RandomState(BINARIZATION_SEED), dataset
    dataset = whole.sample()
    if whole is splits.test and whole.positions is None and len(dataset) == len(whole):
        _draw_pixels(_last_training_images(splits, len(dataset)), generator)
    images = _draw_pixels(dataset.images, generator) * np.uint8(255)
    if dataset.has_missing:
        images = np.ma.masked_array(images, np.ma.getmaskarray(dataset.images))
    return replace(dataset, images=images)


def binarize_if_needed(model: "BaseVAE", splits: Splits, dataset: Dataset) -> Dataset:
    """Return the images to measure a model on: binarized once if its likelihood binarizes at random."""
    return binarize(splits, dataset) if model.likelihood.stochastic_binarization else dataset


def measure_likelihood(
    model: "BaseVAE",
    splits: Splits,
    *,
    seed: int,
    samples: int = 0,
    proposal: str | None = None,
    progress: Progress = silent,
    folder: BlockFolder | None = None,
    force: bool = False,
) -> StageResult:
    r"""Measure the terms of the ELBO at β = 1, and −log p(x) by importance sampling.

    `bits_per_dim` is \(\mathrm{nll} / (H W C \ln 2)\). If pixels are missing, all terms are sums over the observed
    ones, and the mean number of observed values takes the place of HWC.

    Args:
        model: A trained model.
        splits: The images of its run. If none were held out, the training images are measured and marked as such.
        seed: Fixes the draws of z: one per image for the ELBO, `samples` per image for −log p(x).
        samples: K, or 0 to skip −log p(x). Models with deterministic or discrete codes always skip it, and so do models
            whose prior solves an ODE for each of the K draws.
        proposal: The name of the proposal of importance sampling; None for the default of the model. See
            `BaseVAE.log_likelihood`.
        progress: Shows the progress over the images.
        folder: A folder for the estimates of −log p(x), from which an interrupted measurement resumes, and which
            contains those of `measure_likelihood_part`.
        force: Whether to discard parts that were measured with other settings.

    Returns:
        The section `likelihood` of `evaluation.json`: means and standard errors over images in nats per image, the
        settings of the measurement, and whether the estimate can be trusted. The terms of the ELBO, `nll`, the
        effective sample size and the Pareto shape are also returned per image.

    Raises:
        InputError: `samples` is negative, the prior has no density, the proposal is unknown or does not suit the model,
            or there are parts with other settings.
        RunError: Parts are missing, or another process measures them.
    """
    from keras import ops

    if samples < 0:
        raise InputError(
            f"samples = {samples}: negative; use at least 1, or 0 to skip the importance-weighted estimate"
        )
    measured = binarize_if_needed(model, splits, splits.held_out or splits.train)
    condition = dataset_condition(model, measured)
    terms = model.elbo_terms(measured.images, seed=seed, condition=condition)
    per_image: dict[str, Array] = {
        name: ops.convert_to_numpy(getattr(terms, name)) for name in ("negative_elbo", "reconstruction_loss", "kl_loss")
    }
    section: dict[str, Any] = {
        **provenance(splits, measured, seed),
        **_describe_model(model, measured),
        **{name: mean_and_error(values) for name, values in per_image.items()},
        **model.describe_codes(measured.images, terms=terms, condition=condition),
        "lossy": measured.is_lossy,
    }
    if samples and model.density == "ode":
        section["notes"] = [f"nll: left out: {SLOW_DENSITY}"]
    if estimates_nll(model, samples):
        weighted = _importance_weighted(
            model, measured, choose_proposal(model, proposal), samples, seed, progress, folder, force
        )
        section |= weighted.section
        per_image |= weighted.per_image
    return StageResult(section, per_image)


def measure_likelihood_part(
    model: "BaseVAE",
    splits: Splits,
    part: Part,
    folder: BlockFolder,
    *,
    seed: int,
    samples: int,
    proposal: str | None = None,
    progress: Progress = silent,
    force: bool = False,
) -> None:
    """Estimate −log p(x) of a part of the images, and keep the estimates in a folder for `measure_likelihood`.

    The noise of an image follows from its position and the seed, and parts consist of whole blocks of images, so that
    the estimates are, bit for bit, those of one process. Processes can measure parts in one folder at the same time.

    Args:
        model: A trained model.
        splits: The images of its run.
        part: The part.
        folder: The folder, whose key determines the estimates.
        seed: As for `measure_likelihood`, like all following arguments.
        samples: K, at least 1.
        proposal: The name of the proposal.
        progress: Shows the progress over the blocks.
        force: Whether to discard parts that were measured with other settings.

    Raises:
        InputError: There are more parts than blocks of images, or there is no −log p(x) to measure in parts.
        RunError: Another process measures this part.
    """
    if not estimates_nll(model, samples):
        reason = "without importance samples"
        if samples:
            reason = "because the codes are not random" if not model.is_stochastic else f"because {SLOW_DENSITY}"
        raise InputError(f"part = {part}: there is no nll to divide, {reason}; leave out the part")
    measured = binarize_if_needed(model, splits, splits.held_out or splits.train)
    sampling = _importance_sampling(model, measured, choose_proposal(model, proposal), samples, seed)
    _estimate(sampling, progress, folder, part, force)


def _describe_model(model: "BaseVAE", measured: Dataset) -> dict[str, Any]:
    """Return the properties of the model on which the meaning of its likelihood depends."""
    from keras_vae.core import registry

    return {
        "likelihood": registry.spec("likelihood", model.likelihood)["name"],
        "binarization": getattr(model.likelihood, "binarize", "none"),
        "binarization_seed": BINARIZATION_SEED if model.likelihood.stochastic_binarization else None,
        "condition": None if model.condition is None else registry.spec("condition", model.condition)["name"],
        "normalized": _is_normalized(model, measured),
        "density": model.likelihood.is_density,
        "bound": model.has_bound,
        **({"observed": _mean_observed(measured) / math.prod(measured.image_shape)} if measured.has_missing else {}),
        "image_losses": [registry.describe(loss)["name"] for loss in model.image_losses],
    }


def _mean_observed(measured: Dataset) -> float:
    """Return the mean number of observed values per image: H·W·C if none is missing."""
    if not isinstance(measured.images, np.ma.MaskedArray):
        return math.prod(measured.image_shape)
    return float(measured.images.count()) / len(measured)


def _is_normalized(model: "BaseVAE", measured: Dataset) -> bool:
    """Return whether p(x|z) is normalized on all images, which are read block by block."""
    images = measured.images
    ends = blocks(len(images), math.prod(measured.image_shape))
    return all(model.likelihood.is_normalized_on(images[start:stop]) for start, stop in ends)


def _importance_weighted(
    model: "BaseVAE",
    measured: Dataset,
    proposal: Proposal,
    samples: int,
    seed: int,
    progress: Progress,
    folder: BlockFolder | None,
    force: bool,
) -> StageResult:
    sampling = _importance_sampling(model, measured, proposal, samples, seed)
    log_likelihood, sample_size, shape = _estimate(sampling, progress, folder, None, force)
    nll = mean_and_error(-log_likelihood)
    has_bits = _is_normalized(model, measured) and not model.likelihood.is_density
    bits = math.log(2) * _mean_observed(measured)
    check = _missed_by_posterior(model, measured, proposal, samples, seed, log_likelihood)
    section = {
        "proposal": proposal.name,
        "samples": samples,
        "nll": nll,
        "bits_per_dim": {key: value and value / bits for key, value in nll.items()} if has_bits else None,
        "effective_sample_size": {
            "median": float(np.median(sample_size)),
            "percentile_5": float(np.percentile(sample_size, 5)),
        },
        "pareto_shape": None
        if np.isnan(shape).any()
        else {"median": float(np.median(shape)), "percentile_95": float(np.percentile(shape, 95))},
        "missed_by_posterior": check,
    }
    section["trusted"] = _is_trusted(section)
    return StageResult(section, {"nll": -log_likelihood, "effective_sample_size": sample_size, "pareto_shape": shape})


def _is_trusted(section: Mapping[str, Any]) -> bool:
    """Return whether the weights of nearly all images have a mean that their number makes reliable."""
    shape, missed = section["pareto_shape"], section["missed_by_posterior"]
    return bool(
        section["effective_sample_size"]["percentile_5"] >= TRUSTED_SAMPLE_SIZE
        and shape is not None
        and shape["percentile_95"] <= reliable_shape(section["samples"])
        and (missed is None or missed["mean"] <= TOLERATED_GAP)
    )


def _missed_by_posterior(
    model: "BaseVAE", measured: Dataset, proposal: Proposal, samples: int, seed: int, log_likelihood: Array
) -> dict[str, Any] | None:
    """Return by how many nats the mixture proposal exceeds the posterior on a few images; None if not applicable."""
    default = choose_proposal(model, None)
    if not isinstance(proposal, PosteriorProposal) or isinstance(default, PosteriorProposal):
        return None
    indices = evenly_spaced(len(measured), _CHECKED_IMAGES)
    subset = measured.subset(indices, measured.split)
    exact = model.log_likelihood(
        subset.images, samples=min(samples, 500), seed=seed, condition=dataset_condition(model, subset)
    )
    return {"images": len(indices), **mean_and_error(np.subtract(exact, log_likelihood[indices]))}


def _importance_sampling(
    model: "BaseVAE", measured: Dataset, proposal: Proposal, samples: int, seed: int
) -> ImportanceSampling:
    condition = dataset_condition(model, measured)
    return model.importance_sampling(
        measured.images, samples=samples, seed=seed, condition=condition, proposal=proposal
    )


def _estimate(
    sampling: ImportanceSampling, progress: Progress, folder: BlockFolder | None, part: Part | None, force: bool
) -> Array:
    """Return the estimates of all images, one row per field of `Estimate`; NaN for images outside of a part."""
    groups = _grouped(sampling.blocks)
    spans = [slice(blocks[0].start, blocks[-1].stop) for blocks in groups]
    estimates: Array = np.full((len(Estimate._fields), spans[-1].stop), np.nan)
    everything = contextlib.nullcontext(list(range(len(groups))))
    with everything if folder is None else folder.open(len(groups), part, force=force) as missing:
        work = [(group, block) for group in missing for block in groups[group]]
        label = f"−log p(x), {sampling.proposal.name}, K = {sampling.samples:,}"
        results = sampling.over([block for _, block in work])
        for (group, block), estimate in zip(progress(work, label), results, strict=True):
            estimates[:, block] = estimate
            if folder is not None and block.stop == spans[group].stop:
                folder.save(group, dict(zip(Estimate._fields, estimates[:, spans[group]], strict=True)))
        if folder is not None and part is None:
            for group in set(range(len(groups))).difference(missing):
                estimates[:, spans[group]] = [folder.load(group)[name] for name in Estimate._fields]
    return estimates


def _grouped(blocks: Sequence[slice]) -> list[list[slice]]:
    """Return blocks in groups whose estimates are saved together, because blocks may be single images."""
    groups: list[list[slice]] = [[]]
    for block in blocks:
        if groups[-1] and groups[-1][-1].stop - groups[-1][0].start >= _IMAGES_BETWEEN_SAVES:
            groups.append([])
        groups[-1].append(block)
    return groups


def _last_training_images(splits: Splits, count: int) -> NDArray[np.uint8]:
    """Return the last `count` training images of the source, or none if it does not have more than `count`."""
    parts = [part for part in (splits.train, splits.validation) if part is not None]
    total = sum(map(len, parts))
    images = np.empty((count if total > count else 0, *splits.train.image_shape), np.uint8)
    for part in parts:
        indices = (np.arange(len(part)) if part.positions is None else part.positions) - (total - len(images))
        images[indices[indices >= 0]] = part.images[indices >= 0]
    return images


def _draw_pixels(images: NDArray[np.uint8], generator: np.random.RandomState) -> NDArray[np.uint8]:
    """Return 0 or 1 for every pixel, block by block because the generator needs float64 probabilities."""
    parts = [
        np.asarray(generator.binomial(1, images[start : start + 1000] / 255.0), np.uint8)
        for start in range(0, len(images), 1000)
    ]
    return np.concatenate(parts) if parts else images
