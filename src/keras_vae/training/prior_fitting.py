"""A density fitted to the codes of a trained model: a prior from which better images are drawn."""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_vae.components.priors import MixtureOfNormals, Prior, PriorInputs
from keras_vae.components.schedules import Cosine, ScheduledRate
from keras_vae.core import registry
from keras_vae.core.errors import InputError
from keras_vae.core.progress import Progress, silent
from keras_vae.core.registry import ComponentLayer
from keras_vae.core.typing import Tensor
from keras_vae.data.dataset import Splits
from keras_vae.evaluation.likelihood import measure_likelihood
from keras_vae.models.inputs import dataset_condition
from keras_vae.models.vae import VAE
from keras_vae.runs.run import Run

EPOCHS = 30
_BATCH_SIZE = 256
_CODES_AN_EPOCH = 10_000
_LEARNING_RATE = 2e-3


class DensityModel(keras.Model):
    """A prior under maximum likelihood: its loss is −log p(z) in nats a code."""

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
        """Return −log p(z), the mean over the batch."""
        return -ops.mean(self(x) if y_pred is None else y_pred)


def fit_prior(
    run: Run,
    splits: Splits,
    spec: Mapping[str, Any],
    *,
    epochs: int = EPOCHS,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Fit a density to the aggregate posterior of a run's model, and store the model with it as prior in the run.

    Maximizes the mean of log p(z) over z ~ q(z|x) of the training images, drawn anew every epoch (ex-post density
    estimation; Ghosh et al., arXiv 1903.12436). Encoder and decoder stay as they are, so that with a normal posterior
    `negative_elbo` under the new prior is a bound as well, and mostly a lower one.

    Args:
        run: A complete run of a `VAE`; of one that comes with the package, its copy is written into.
        splits: Its images.
        spec: The prior's short name under `name`, `realnvp` or `mixture`, and its arguments.
        epochs: Passes over the codes.
        progress: Shown over the epochs.

    Returns:
        The evaluations under the `original` and the `fitted` prior.

    Raises:
        InputError: The run is unfinished, its model has no vector of codes, or the prior cannot be fitted.
    """
    run.check_complete()
    run = run.writable_copy()
    run.check_images(splits)
    model = run.load_model(prior="original")
    if not model.has_latent_vector:
        raise InputError(f"{run.path} holds a {type(model).__name__}, whose prior is part of it; fit-prior takes a VAE")
    seed = run.experiment.seed
    keras.utils.set_random_seed(seed)
    prior = registry.build("prior", spec)
    if not isinstance(prior, ComponentLayer) or spec["name"] not in _FITTED:
        raise InputError(f"prior = {spec['name']}: cannot be fitted to codes; take {' or '.join(_FITTED)}")
    prior.build((None, model.latent_dim), (None, *model.image_shape), (None, 0))
    _fit(prior, model, splits, epochs, seed, progress or silent)
    fitted = model.with_prior(prior)
    run.save_model(fitted, fitted=True)
    priors = {"original": model, "fitted": fitted}
    return {name: measure_likelihood(under, splits, seed=seed) for name, under in priors.items()}


_FITTED = ("realnvp", "mixture")


def _fit(prior: Prior, model: VAE, splits: Splits, epochs: int, seed: int, progress: Progress) -> None:
    # Few images are drawn from several times an epoch, or the fit would end before it has begun.
    dataset = splits.train
    if len(dataset) < _CODES_AN_EPOCH:
        dataset = dataset.take(np.arange(_CODES_AN_EPOCH) % len(dataset), dataset.split)
    images, told = dataset.images, dataset_condition(model, dataset)
    density = DensityModel(prior, model.latent_dim)
    steps = epochs * -(-len(images) // _BATCH_SIZE)
    density.compile(keras.optimizers.Adam(ScheduledRate(_LEARNING_RATE, Cosine(steps=steps, warm_up=0.05))))
    for epoch in progress(range(epochs), "fitting the prior"):
        codes = model.sample_posterior(images, seed=epoch, condition=told)
        if epoch == 0 and isinstance(prior, MixtureOfNormals):
            prior.initialize(codes)
        order = np.random.default_rng([seed, epoch]).permutation(len(codes))
        density.fit(codes[order], batch_size=_BATCH_SIZE, shuffle=False, verbose=0)


def _no_encoder(inputs: Tensor) -> Any:
    raise InputError("a fitted prior has no encoder to look through; take realnvp or mixture")
