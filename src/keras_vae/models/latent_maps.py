"""Latent maps: the outputs of a fully convolutional encoder, and their conversion to and from vectors."""

import math
from typing import Any, NamedTuple, Self

import keras
from keras import ops

from keras_vae.components.conditions import concat_condition
from keras_vae.components.posteriors import Posterior
from keras_vae.core.errors import InputError
from keras_vae.core.typing import Array, Shape, Tensor
from keras_vae.models.inputs import check_numbers


class LatentGeometry(NamedTuple):
    """Shape of the codes of a `VAE`, and its dependence on the size of the images.

    Args:
        shape: (D,) of a vector, or (h, w, c) of a map, for images of the size for which the model was built.
        factors: Height and width in pixels per position of the map, if the networks accept images of any size that
            these factors divide; None if the size is fixed.
    """

    shape: tuple[int, ...]
    factors: tuple[int, int] | None = None

    @classmethod
    def measure(cls, model: Any, image_shape: Shape, feature: Tensor) -> Self:
        """Return the geometry of the codes of a `VAE`.

        Args:
            model: The model, with its networks and its condition.
            image_shape: (H, W, C) of the images.
            feature: The first output of the encoder for these images, a symbolic tensor.

        Raises:
            InputError: The size of the map is not known, or the decoder does not accept the map.
        """
        shape = tuple(feature.shape[1:])
        if None in shape:
            raise InputError(
                f"image_shape = {tuple(image_shape)}: the size of the latent map is not fixed; call build((None, H, W, "
                "C)) with the size of the training images"
            )
        if len(shape) == 1:
            return cls(shape)
        check_map_decoder(model.decoder, shape, model._condition_dim)
        if not all(_accepts_any_size(network) for network in (model.encoder, model.decoder)):
            return cls(shape)
        factors = [divmod(size, positions) for size, positions in zip(image_shape[:2], shape[:2], strict=True)]
        if any(rest for _, rest in factors):
            return cls(shape)
        return cls(shape, (factors[0][0], factors[1][0]))

    @property
    def is_map(self) -> bool:
        """Whether a code is a map."""
        return len(self.shape) == 3

    def shape_for(self, image_shape: Shape) -> Shape:
        """Return the shape of the codes of images (H, W, C), whose sizes are integers or tensors."""
        if self.factors is None:
            return self.shape
        rows, columns = (size // factor for size, factor in zip(image_shape[:2], self.factors, strict=True))
        return rows, columns, self.shape[-1]

    def check_codes(self, z: Any) -> Array:
        """Check codes, vectors (n, D) or maps (n, h, w, c), and return them in the form of the decoder, float32.

        Raises:
            InputError: The codes are not finite numbers, or have another shape.
        """
        codes = check_numbers("z", z)
        shape, size = codes.shape[1:], math.prod(self.shape)
        fits = shape in (self.shape, (size,))
        if self.factors is not None and len(shape) == 3:
            fits = shape[-1] == self.shape[-1]
        if fits and codes.size:
            return codes.reshape(-1, *self.shape) if codes.ndim == 2 else codes
        if not self.is_map:
            raise InputError(f"z.shape = {codes.shape}: this model decodes vectors; pass (n, {size}), n ≥ 1")
        sizes = "rows, columns" if self.factors else f"{self.shape[0]}, {self.shape[1]}"
        accepted = f"(n, {sizes}, {self.shape[2]}) or (n, {size}), n ≥ 1"
        raise InputError(f"z.shape = {codes.shape}: this model decodes maps; pass {accepted}")


def _accepts_any_size(network: keras.Model) -> bool:
    shape = getattr(network, "input_shape", None)
    return isinstance(shape, tuple) and len(shape) == 4 and shape[1:3] == (None, None)


def has_fixed_outputs(network: keras.Model) -> bool:
    """Return whether all output sizes of a network are known before it is called; True if it is subclassed."""
    outputs = keras.tree.flatten(getattr(network, "output", None))
    return all(None not in tuple(output.shape[1:]) for output in outputs if output is not None)


def check_features(outputs: Any, posterior: Posterior) -> list[Tensor]:
    """Return the encoder's outputs in float32, vectors (N, size) or maps (N, h, w, channels), after a check.

    Args:
        outputs: A tensor, or a list of tensors.
        posterior: The posterior, whose `param_sizes` the outputs must have.

    Raises:
        InputError: The outputs do not fit the posterior, or it is not defined on maps.
    """
    if isinstance(outputs, dict):
        raise InputError(
            f"encoder outputs a dict of {', '.join(map(str, outputs))}: the order is ambiguous; return a list of "
            f"{', '.join(posterior.param_sizes(1))}"
        )
    features = keras.tree.flatten(outputs)
    rank = len(features[0].shape)
    sizes = posterior.param_sizes(int(features[0].shape[-1]) if rank in (2, 4) else 1)
    if rank == 4 and not posterior.is_elementwise:
        raise InputError(
            f"posterior = {type(posterior).__name__}: relates all dimensions of a vector, but the encoder outputs maps "
            f"{tuple(features[0].shape[1:])}; use DiagonalNormal() or Deterministic()"
        )
    positions = tuple(features[0].shape[1:3]) if rank == 4 else ()
    if [tuple(feature.shape[1:]) for feature in features] != [(*positions, size) for size in sizes.values()]:
        shape = "n, rows, columns" if positions else "n"
        expected = ", ".join(f"{name} ({shape}, {size})" for name, size in sizes.items())
        raise InputError(
            f"encoder outputs {[tuple(feature.shape) for feature in features]}: does not fit the posterior, which "
            f"draws z itself; return [{expected}]"
        )
    return [ops.cast(feature, "float32") for feature in features]


def check_map_decoder(decoder: keras.Model, map_shape: Shape, condition_dim: int) -> None:
    """Reject a decoder that does not accept the encoder's map with the condition as constant channels.

    Args:
        decoder: The decoder.
        map_shape: (rows, columns, channels) of the map.
        condition_dim: Size of the encoded condition.

    Raises:
        InputError: The decoder has another input shape.
    """
    expected = (None, *map_shape[:-1], map_shape[-1] + condition_dim)
    shape = getattr(decoder, "input_shape", expected)
    fits = len(shape) == 4 and all(size in (None, wanted) for size, wanted in zip(shape[1:], expected[1:], strict=True))
    if not fits:
        raise InputError(
            f"decoder.input_shape = {shape}: does not fit the encoder's map and the condition; build a decoder for "
            f"{expected}"
        )


def flatten(features: Tensor) -> Tensor:
    """Return maps (N, h, w, c) as vectors (N, h·w·c), and vectors unchanged."""
    if len(features.shape) == 2:
        return features
    _, *sizes = ops.shape(features)
    return ops.reshape(features, (-1, math.prod(sizes)))


def with_condition(codes: Tensor, condition: Tensor) -> Tensor:
    """Append encoded conditions (N, size) to vectors as entries, or to maps as constant channels."""
    if condition is None or len(codes.shape) == 4:
        return concat_condition(codes, condition)
    return ops.concatenate([codes, condition], axis=-1)


def flat_codes(codes: Array) -> Array:
    """Return codes as vectors (N, D), whether the model's codes are maps or vectors."""
    return codes.reshape(len(codes), -1)
