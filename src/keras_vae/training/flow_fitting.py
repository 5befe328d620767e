"""Fitting of a flow-matching prior to the codes of a trained model."""

import keras
import numpy as np
from keras import ops

from keras_vae.components.optimizers import AveragingOptimizer
from keras_vae.components.posteriors import DiagonalNormal
from keras_vae.components.priors import FlowMatching
from keras_vae.components.priors.velocity import VelocityUNet
from keras_vae.components.schedules import Cosine, ScheduledRate
from keras_vae.core import backend
from keras_vae.core.progress import Progress
from keras_vae.core.typing import Array, Floats, Tensor
from keras_vae.data.dataset import Dataset
from keras_vae.models.inputs import dataset_condition
from keras_vae.models.latent_maps import flat_codes
from keras_vae.models.vae import VAE

STEPS = 9_000
"""Default number of training steps."""

_BATCH_SIZE = 512
# Each position of a map contributes to the gradient.
_BATCH_SIZE_OF_MAPS = 128
_LEARNING_RATE = 1e-3
_AVERAGED_FRACTION = 0.05
_DROPPED_CONDITIONS = 0.1
_PASSES = 3


class VelocityRegression(keras.Model):
    r"""Training of a flow-matching prior: the loss is the mean of \(\|v(u_t, t) - (u_1 - u_0)\|^2 / D\).

    Args:
        prior: A built prior.
        seed: Seed of the noise, the times and the dropped conditions.
    """

    def __init__(self, prior: FlowMatching, seed: int) -> None:
        super().__init__()
        self.prior = prior
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.supports_jit = not backend.runs_faster_without_xla()
        self.built = True

    def call(self, inputs: dict[str, Tensor]) -> Tensor:
        """Return the loss of each code, (N,), for random noise and times.

        Args:
            inputs: `codes`, (N, D), and, if the prior has a condition, `condition`, (N, size), encoded.
        """
        prior, seed = self.prior, self.seed_generator
        codes = (inputs["codes"] - prior.mean) / prior.scale
        rows = (ops.shape(codes)[0], 1)
        noise = keras.random.normal(ops.shape(codes), dtype="float32", seed=seed)
        time = stratified_times(rows[0], seed)
        keep = 1.0
        if prior.condition_dim:
            keep = ops.cast(keras.random.uniform(rows, dtype="float32", seed=seed) >= _DROPPED_CONDITIONS, "float32")
        points = noise + time * (codes - noise)
        velocity = prior.conditional_velocity(points, time, inputs.get("condition"), keep)
        return ops.mean(ops.square(velocity - (codes - noise)), axis=-1)

    def compute_loss(
        self,
        x: Tensor = None,
        y: Tensor = None,
        y_pred: Tensor = None,
        sample_weight: Tensor = None,
        training: bool = True,
    ) -> Tensor:
        """Return the mean of the losses of a batch."""
        return ops.mean(self(x) if y_pred is None else y_pred)


def stratified_times(count: Tensor, seed: keras.random.SeedGenerator) -> Tensor:
    r"""Return the times of a batch, (count, 1): \((i / N + s) \bmod 1\) with one random shift s.

    Each time is uniform, and a batch covers [0, 1] evenly, so that gradients vary less than with independent times
    (Kingma et al., arXiv 2107.00630).

    Args:
        count: Number N of codes.
        seed: Generator of the shift.
    """
    index = ops.cast(ops.arange(count), "float32")
    shift = keras.random.uniform((1,), dtype="float32", seed=seed)
    return ops.mod(index / ops.cast(count, "float32") + shift, 1.0)[:, None]


def batch_size(prior: FlowMatching) -> int:
    """Return the number of codes per training step."""
    return _BATCH_SIZE_OF_MAPS if isinstance(prior.network, VelocityUNet) else _BATCH_SIZE


def steps_per_epoch(prior: FlowMatching, codes: int) -> int:
    """Return the number of training steps of a pass over the codes."""
    return -(-codes // batch_size(prior))


def fit_flow(
    prior: FlowMatching, model: VAE, dataset: Dataset, epochs: int | None, seed: int, progress: Progress
) -> None:
    """Fit a flow-matching prior to codes z ~ q(z|x) of images.

    The learning rate falls along half a cosine. The fitted weights are an exponential moving average over the last
    twentieth of the steps.

    Args:
        prior: A built prior, which is changed.
        model: The model whose posterior draws the codes.
        dataset: The images.
        epochs: Number of passes over the codes; None for as many as `STEPS` steps need.
        seed: Fixes all draws and the order of the codes.
        progress: Reports the progress over the epochs.
    """
    batches = CodeBatches(model, dataset, seed, batch_size(prior))
    prior.initialize(batches.codes)
    epochs = epochs or -(-STEPS // len(batches))
    steps = epochs * len(batches)
    adam = keras.optimizers.Adam(ScheduledRate(_LEARNING_RATE, Cosine(steps=steps, warm_up=0.05)))
    regression = VelocityRegression(prior, seed)
    regression.compile(AveragingOptimizer(adam, window=max(2.0, _AVERAGED_FRACTION * steps)))
    passes = iter(progress(range(epochs), "fitting the prior"))
    report = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: next(passes, None))
    # A single call of `fit`, at whose end the averages replace the weights.
    regression.fit(batches, epochs=epochs, shuffle=False, verbose=0, callbacks=[report])
    # Exhaust the report, so that its bar disappears.
    next(passes, None)


class CodeBatches(keras.utils.PyDataset):
    """Batches of codes in random order, which are drawn from q(z|x) again and again.

    Images are encoded once if the posterior is a diagonal normal, whose moments then give new codes for every pass.
    Other posteriors, and likelihoods that binarize at random, encode the images after every third pass.

    Args:
        model: The model whose posterior draws the codes.
        dataset: The images.
        seed: Fixes the draws and the order.
        batch_size: Number of codes per batch.
    """

    def __init__(self, model: VAE, dataset: Dataset, seed: int, batch_size: int = _BATCH_SIZE) -> None:
        super().__init__()
        self._model, self._images, self._seed, self._batch_size = model, dataset.images, seed, batch_size
        self._values = dataset_condition(model, dataset)
        self._condition = None
        if model.condition is not None:
            values = model.condition.check(np.asarray(self._values))
            self._condition = ops.convert_to_numpy(model.condition.encode(values))
        self._moments: tuple[Floats, Floats] | None = None
        if isinstance(model.posterior, DiagonalNormal) and not model.likelihood.requires_noise:
            encoding = model.encode(self._images, condition=self._values)
            mean, log_var = (flat_codes(moment).astype("float32") for moment in (encoding.z_mean, encoding.z_log_var))
            self._moments = mean, np.exp(0.5 * log_var)
        self._epoch = -1
        self.on_epoch_end()

    def __len__(self) -> int:
        """Return the number of batches of a pass."""
        return -(-len(self._images) // self._batch_size)

    def __getitem__(self, index: int) -> tuple[dict[str, Array]]:
        """Return the inputs of `VelocityRegression` for a batch."""
        rows = self._order[index * self._batch_size :][: self._batch_size]
        condition = {} if self._condition is None else {"condition": self._condition[rows]}
        return ({"codes": self.codes[rows], **condition},)

    def on_epoch_end(self) -> None:
        """Draw codes, and shuffle them."""
        self._epoch += 1
        rng = np.random.default_rng([self._seed, self._epoch])
        if self._moments is not None:
            mean, deviation = self._moments
            self.codes = mean + deviation * rng.standard_normal(mean.shape, dtype="float32")
        elif self._epoch % _PASSES == 0:
            codes = self._model.sample_posterior(self._images, seed=self._epoch, condition=self._values)
            self.codes = flat_codes(codes).astype("float32")
        order = rng.permutation(len(self._images))
        # The last batch has the same size, because some backends compile a program for each size.
        self._order = np.resize(order, len(self) * self._batch_size)
