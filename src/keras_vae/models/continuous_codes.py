"""`ContinuousCodes`: what models whose codes are vectors or maps of real numbers have in common."""

import abc
import dataclasses
import math
from typing import Any, Self

import numpy as np
from keras import ops

from keras_vae.components.conditions import concat_condition
from keras_vae.components.posteriors import Posterior
from keras_vae.components.priors import Prior
from keras_vae.core.errors import InputError
from keras_vae.core.typing import Array, Shape, Tensor
from keras_vae.models.base import BaseVAE
from keras_vae.models.encoding import Encoding, LatentStatistics
from keras_vae.models.inputs import ModelInputs
from keras_vae.models.latent_maps import LatentGeometry
from keras_vae.models.tiling import TiledNetwork, tile_sizes


class ContinuousCodes(BaseVAE, abc.ABC):
    """Base class of models with one code of real numbers per image, a vector or a map.

    If both networks accept images of any size, so does the model; `elbo` also needs a prior that is elementwise.

    Attributes:
        latent_statistics: Means and standard deviations of the codes of the training images, after training in a run or
            `measure_latent_statistics`, otherwise None.
    """

    prior: Prior
    posterior: Posterior
    _geometry: LatentGeometry

    @property
    def has_latent_vector(self) -> bool:
        """Whether the code of an image is a single vector: True. A map is one of `latent_dim` entries."""
        return True

    @property
    def has_continuous_codes(self) -> bool:
        """Whether codes are real numbers: True."""
        return True

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """Shape of the code of an image: (latent_dim,) of a vector, or (rows, columns, c) of a map."""
        return self._geometry.shape

    def encode(
        self,
        x: Any,
        *,
        batch_size: int | None = None,
        condition: Any = None,
        seed: int = 0,
        normalized: bool = False,
        tile: int | None = None,
        overlap: int | None = None,
    ) -> Encoding:
        """Return the codes of images.

        Args:
            x: Images (N, H, W, C), uint8 or floats in [0, 1].
            batch_size: Images per batch; None for a default that bounds memory.
            condition: Condition of the images, one for all or one per image.
            seed: Seed of a dynamic binarization, whose noise also depends on the pixels of the image, but not on its
                row.
            normalized: Whether to subtract the mean of `latent_statistics` and divide by the standard deviation.
            tile: Height and width, in pixels, of tiles that are encoded one after another, so that memory does not grow
                with the image; None encodes whole images. The network must accept images of any size.
            overlap: Pixels that neighboring tiles share and blend; None for half of `tile`.

        Returns:
            An `Encoding`, whose `codes` are the input of `decode`.

        Raises:
            InputError: The images or the tiles do not fit the model, or its statistics were not measured.
        """
        if tile is None:
            return super().encode(x, batch_size=batch_size, condition=condition, seed=seed, normalized=normalized)
        statistics = self._statistics() if normalized else None
        inputs = self._prepare_inputs(x, condition, seed, by_content=True, checks=self._network_checks)
        size, shared = tile_sizes(tile, overlap, self._geometry.factors)
        encodings = []
        for row in range(len(inputs["images"])):
            batch = {name: values[row : row + 1] for name, values in inputs.items()}
            network_input = ops.convert_to_numpy(self._encoder_inputs(*self._preprocess(batch)))[0]
            outputs = self._tiled("encoder", network_input, size)(network_input, shared)
            features = [ops.convert_to_tensor(output[None]) for output in outputs]
            posterior = self.posterior(features)
            moments = (posterior.mean, posterior.log_var) if self.is_stochastic else (posterior.mean,)
            encodings.append([ops.convert_to_numpy(moment) for moment in moments])
        encoding = Encoding(*map(np.concatenate, zip(*encodings, strict=True)))
        return encoding if statistics is None else statistics.normalize(encoding)

    def decode(
        self,
        z: Any,
        *,
        batch_size: int | None = None,
        condition: Any = None,
        normalized: bool = False,
        tile: int | None = None,
        overlap: int | None = None,
    ) -> Array:
        """Return the mean images of codes.

        Args:
            z: Codes such as `encode(x).codes`: (N, latent_dim), or maps (N, rows, columns, c).
            batch_size: Codes per batch; None for a default that bounds memory.
            condition: Condition of the codes, one for all or one per code.
            normalized: Whether the codes are normalized, as those of `encode(…, normalized=True)`.
            tile: As for `encode`, in pixels of the images.
            overlap: As for `encode`.

        Returns:
            Images in [0, 1], (N, H, W, C), float32.

        Raises:
            InputError: The codes, conditions or tiles do not fit the model, or its statistics were not measured.
        """
        if tile is None:
            return super().decode(z, batch_size=batch_size, condition=condition, normalized=normalized)
        self._check_built()
        codes = self._check_codes(z)
        codes = self._statistics().denormalize(codes) if normalized else codes
        size, shared = tile_sizes(tile, overlap, self._geometry.factors)
        conditions = self._input_checks.conditions(condition, len(codes))
        if self.condition is not None:
            codes = ops.convert_to_numpy(concat_condition(codes, self.condition.encode(conditions)))
        images = [self._tiled("decoder", code, size)(code, shared, self._mean_image)[0] for code in codes]
        return np.stack(images)

    def sample_posterior(self, x: Any, *, seed: int = 0, condition: Any = None) -> Array:
        """Return one sample of z from the posterior of each image.

        Args:
            x: Images (N, H, W, C), uint8 or floats in [0, 1].
            seed: Seed of the samples.
            condition: Condition of the images, one for all or one per image.

        Returns:
            Codes (N, latent_dim) or (N, rows, columns, c), float32.

        Raises:
            InputError: The images do not fit the model.
        """
        inputs = self._prepare_inputs(x, condition, seed)
        shape = self._latent_shape_for(inputs["images"].shape[1:])
        noise_shape = (len(inputs["images"]), 1, math.prod(shape))
        inputs["noise"] = np.random.default_rng(seed).standard_normal(noise_shape, dtype="float32")
        codes = self._in_batches(lambda batch: self.predict_on_batch(batch).z, inputs, None)
        return codes.reshape(-1, *shape)

    def _mean_image(self, outputs: Tensor) -> Tensor:
        return self.likelihood(ops.cast(outputs, "float32")).mean_image()

    def _tiled(self, name: str, inputs: Array, size: tuple[int, int]) -> TiledNetwork:
        """Return a network for tiles of a size in positions, at most that of the inputs (H, W, C)."""
        assert self._geometry.factors is not None
        unit = self._geometry.factors if name == "encoder" else (1, 1)
        rows, columns = (
            min(at_most, side // one) for at_most, side, one in zip(size, inputs.shape, unit, strict=False)
        )
        return TiledNetwork(getattr(self, name), unit, (rows, columns), inputs.shape[-1])

    def measure_latent_statistics(self, x: Any, *, condition: Any = None, seed: int = 0) -> LatentStatistics:
        """Measure the means and standard deviations that `encode(…, normalized=True)` uses, and keep them.

        They are those of one sample from q(z|x) per image: per channel of a map, or per dimension of a vector. `vae
        train` measures them on the training images.

        Args:
            x: Images (N, H, W, C), uint8 or floats in [0, 1].
            condition: Condition of the images, one for all or one per image.
            seed: Seed of the samples.

        Returns:
            The statistics.

        Raises:
            InputError: The images do not fit the model.

        Example:
            >>> from keras_vae import VAE
            >>> len(VAE(seed=0).measure_latent_statistics(np.zeros((4, 28, 28, 1), "uint8")).mean)
            2
        """
        inputs = self._prepare_inputs(x, condition, seed, checks=self._network_checks)
        shape = self._latent_shape_for(inputs["images"].shape[1:])
        size = (len(inputs["images"]), math.prod(shape))
        inputs["noise"] = np.random.default_rng(seed).standard_normal(size, dtype="float32")

        def draw(batch: dict[str, Array]) -> Tensor:
            noise = ops.convert_to_tensor(batch["noise"])
            inputs = {name: values for name, values in batch.items() if name != "noise"}
            features: Any = self.encode_features(inputs)
            return self.posterior([ops.convert_to_tensor(feature) for feature in features]).rsample(noise).z

        codes: Any = self._in_batches(draw, inputs, None)
        self.latent_statistics = LatentStatistics.of(codes.reshape(-1, *shape))
        return self.latent_statistics

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor, serialized, and the statistics of the codes, if measured."""
        statistics = self.latent_statistics
        return super().get_config() | ({} if statistics is None else {"latent_statistics": statistics._asdict()})

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None) -> Self:
        """Build the model from the result of `get_config`."""
        config = dict(config)
        statistics = config.pop("latent_statistics", None)
        model = super().from_config(config, custom_objects)
        if statistics is not None:
            mean, std = (tuple(map(float, statistics[name])) for name in ("mean", "std"))
            model.latent_statistics = LatentStatistics(mean, std, statistics["images"])
        return model

    def _statistics(self) -> LatentStatistics:
        if self.latent_statistics is None:
            raise InputError(
                "normalized = True: the codes were not measured; call measure_latent_statistics(x) on training images"
            )
        return self.latent_statistics

    def _latent_shape_for(self, image_shape: Shape) -> Shape:
        return self._geometry.shape_for(image_shape)

    @property
    def _input_checks(self) -> ModelInputs:
        return self._network_checks if self.prior.is_elementwise else super()._input_checks

    @property
    def _network_checks(self) -> ModelInputs:
        checks = super()._input_checks
        return dataclasses.replace(checks, factors=self._geometry.factors) if self.built else checks

    def _check_codes(self, z: Any) -> Array:
        """Check codes, vectors or maps, and return them in the form of the decoder, float32."""
        return self._geometry.check_codes(z)
