"""Fitting of a prior to the codes of a trained model, which improves generated images."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_vae.components.priors import FlowMatching, MixtureOfNormals, Prior, PriorInputs
from keras_vae.components.schedules import Cosine, ScheduledRate
from keras_vae.core import backend, registry
from keras_vae.core.errors import InputError, alternatives, check_count
from keras_vae.core.progress import Progress, silent
from keras_vae.core.typing import Tensor
from keras_vae.data.dataset import Dataset, Splits
from keras_vae.evaluation.likelihood import measure_likelihood
from keras_vae.models.inputs import dataset_condition
from keras_vae.models.latent_maps import flat_codes
from keras_vae.models.vae import VAE
from keras_vae.runs.loading import given_or_own_splits
from keras_vae.runs.run import Run
from keras_vae.training.flow_fitting import fit_flow

EPOCHS = 30
"""Default number of passes over the codes, except for `flow-matching`."""

FITTED = ("realnvp", "mixture", "flow-matching")
"""Short names of the priors that can be fitted."""

_BATCH_SIZE = 256
_CODES_PER_EPOCH = 10_000
_LEARNING_RATE = 2e-3
_MEASURED_IMAGES = 1000


class DensityModel(keras.Model):
    """A prior trained by maximum likelihood: its loss is −log p(z), in nats per code."""

    def __init__(self, prior: Prior, latent_dim: int) -> None:
        super().__init__()
        self.prior, self.latent_dim = prior, latent_dim
        self.built = True

    def call(self, z: Tensor) -> Tensor:
        """Return log p(z) in nats, (N,)."""
        return self.prior(PriorInputs(self.latent_dim, encode=_no_encoder)).log_prob(z)

    def compute_loss(
        self,
        x: Tensor = None,
        y: Tensor = None,
        y_pred: Tensor = None,
        sample_weight: Tensor = None,
        training: bool = True,
    ) -> Tensor:
        """Return the mean of −log p(z) over the batch, in nats."""
        return -ops.mean(self(x) if y_pred is None else y_pred)


def fit_prior(
    run: Run | str | Path,
    prior: str | Mapping[str, Any] = "realnvp",
    splits: Splits | None = None,
    *,
    epochs: int | None = None,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Fit a prior to the aggregate posterior of a run's model, and store the model with this prior in the run.

    The fit maximizes the mean of log p(z) over z ~ q(z|x) of the training images, sampled again in every epoch (ex-post
    density estimation; Ghosh et al., arXiv 1903.12436). Encoder and decoder do not change. With a normal posterior,
    `negative_elbo` under the new prior is therefore also a bound, and usually a lower one.

    `flow-matching` is fitted by regression instead; see `priors.FlowMatching`. Its density is expensive, so that the
    ELBO is measured on at most 1,000 images and, in more than 64 dimensions, under the original prior only.

    Args:
        run: A complete run of a `VAE`, its folder, or the name of a pretrained run, of which a copy is changed.
        prior: `realnvp`, `mixture` or `flow-matching`, or a dict with this short name under `name` and the arguments of
            the prior.
        splits: The images of the run; None loads them.
        epochs: Number of passes over the codes; None for 30 or, for `flow-matching`, for 9,000 training steps.
        progress: Reports the progress over the epochs.

    Returns:
        The terms of the ELBO, in nats per image, under the `original` and, if it has a density, the `fitted` prior.

    Raises:
        InputError: The run is unfinished, its model has no latent vector, the prior cannot be fitted, or `epochs` is
            below 1.
    """
    run = Run.open(run)
    run.require_complete()
    spec = {"name": prior} if isinstance(prior, str) else prior
    if spec["name"] not in FITTED:
        raise InputError(f"prior = {spec['name']}: cannot be fitted to codes; choose {alternatives(FITTED)}")
    if epochs is not None:
        check_count("epochs", epochs)
    splits = given_or_own_splits(run, splits, progress)
    run.require_same_images(splits)
    run = run.writable_copy()
    # The size of the last batch of codes may not be a multiple of the number of devices.
    with run.lock(), backend.distributed(1):
        return _fit_and_measure(run, spec, splits, epochs, progress)


def _fit_and_measure(
    run: Run, spec: Mapping[str, Any], splits: Splits, epochs: int | None, progress: Progress
) -> dict[str, Any]:
    """Fit a prior to the model of a locked run, save it, and return the terms of the ELBO under both priors."""
    model = run.load_model(prior="original")
    if not model.has_latent_vector:
        raise InputError(f"run = {run.path}: a {type(model).__name__} learns its prior in training; choose a VAE")
    seed = run.experiment.seed
    keras.utils.set_random_seed(seed)
    density = build_prior(model, spec)
    dataset = enough_images(splits.train.sample())
    if isinstance(density, FlowMatching):
        fit_flow(density, model, dataset, epochs, seed, progress)
    else:
        _fit(density, model, dataset, epochs or EPOCHS, seed, progress)
    fitted = model.with_prior(density)
    run.save_model(fitted, fitted=True)
    measured = {"original": model} | ({} if density.density == "none" else {"fitted": fitted})
    if density.density != "direct":
        splits = _few_images(splits)
    return {
        name: measure_likelihood(model, splits, seed=seed).section
        for name, model in progress(measured.items(), "measuring the ELBO")
    }


def build_prior(model: VAE, spec: Mapping[str, Any]) -> Any:
    """Return a built prior for the codes of a model; only `flow-matching` depends on the model's condition.

    Args:
        model: The model.
        spec: A short name in `FITTED` under `name`, and the arguments of the prior.
    """
    condition_dim = 0
    if spec["name"] == "flow-matching":
        condition_dim = 0 if model.condition is None else model.condition.dim
        spec = {"map_shape": model.latent_shape if len(model.latent_shape) == 3 else (), **spec}
    prior = registry.build("prior", spec)
    prior.build((None, model.latent_dim), (None, *model.image_shape), (None, condition_dim))
    return prior


def enough_images(dataset: Dataset) -> Dataset:
    """Repeat the images of a small data set, so that an epoch has several codes per image and enough steps."""
    if len(dataset) >= _CODES_PER_EPOCH:
        return dataset
    return dataset.subset(np.arange(_CODES_PER_EPOCH) % len(dataset), dataset.split)


def _few_images(splits: Splits) -> Splits:
    """Return the splits with evenly spaced images in place of the measured ones."""
    measured = splits.held_out or splits.train
    few = measured.subsample_evenly(_MEASURED_IMAGES)
    if splits.held_out is None:
        return splits._replace(train=few)
    return splits._replace(test=few) if measured is splits.test else splits._replace(validation=few)


def _fit(prior: Prior, model: VAE, dataset: Dataset, epochs: int, seed: int, progress: Progress) -> None:
    images, conditions = dataset.images, dataset_condition(model, dataset)
    density = DensityModel(prior, model.latent_dim)
    steps = epochs * -(-len(images) // _BATCH_SIZE)
    density.compile(keras.optimizers.Adam(ScheduledRate(_LEARNING_RATE, Cosine(steps=steps, warm_up=0.05))))
    for epoch in progress(range(epochs), "fitting the prior"):
        codes = flat_codes(model.sample_posterior(images, seed=epoch, condition=conditions))
        if epoch == 0 and isinstance(prior, MixtureOfNormals):
            prior.initialize(codes)
        order = np.random.default_rng([seed, epoch]).permutation(len(codes))
        density.fit(codes[order], batch_size=_BATCH_SIZE, shuffle=False, verbose=0)


def _no_encoder(inputs: Tensor) -> Any:
    raise InputError("prior: a fitted prior cannot use the encoder; choose another one")
