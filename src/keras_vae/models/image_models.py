"""The encoder and the decoder of a model as separate Keras models, for transfer learning and for export."""

import abc
import functools
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Self

import keras

from keras_vae.components.conditions import Condition
from keras_vae.core import backend, tracing
from keras_vae.core.errors import InputError, RunError, first_line, unknown
from keras_vae.core.registry import PACKAGE
from keras_vae.core.typing import Shape, Tensor
from keras_vae.models.arguments import check_options
from keras_vae.models.batching import check_divisible
from keras_vae.models.inputs import is_symbolic

if TYPE_CHECKING:
    from keras_vae.models.base import BaseVAE

THRESHOLD = 0.5
"""Gray level above which a pixel becomes white under stochastic binarization: these models are deterministic."""

EXPORT_FORMATS = ("tf_saved_model", "onnx", "openvino", "litert", "torch")
"""Formats of `keras.Model.export`."""


class _ImageModel(keras.Model, abc.ABC):
    """A Keras model that computes a part of a VAE and shares its weights. It checks inputs that are not symbolic.

    Args:
        vae: A built model.
        parts: The components of the VAE to use. Those with weights become layers of this model.
        name: Name of this model.
    """

    def __init__(self, vae: "BaseVAE", parts: Iterable[Any], name: str) -> None:
        super().__init__(autocast=False, name=name)
        # A closure, because Keras would track the VAE itself with weights that this model does not use.
        self._vae_config = lambda: keras.saving.serialize_keras_object(vae)
        self.parts = [part for part in parts if isinstance(part, keras.layers.Layer)]
        self.supports_jit = vae.supports_jit
        self.built = True
        self._input_checks = vae._network_checks

    @abc.abstractmethod
    def _check(self, inputs: Any) -> None:
        """Raise an InputError if inputs that are not symbolic do not fit the model."""

    @abc.abstractmethod
    def _graph(self) -> keras.Model:
        """Return a functional model that computes the same outputs."""

    def __call__(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Call the model as Keras does, after a check of the inputs that are not symbolic."""
        self._check(inputs)
        return super().__call__(inputs, *args, **kwargs)

    def predict(self, x: Any, batch_size: int | None = None, verbose: Any = "auto", **kwargs: Any) -> Any:
        """Return the outputs as `keras.Model.predict` does, after a check of arrays; data sources are not checked."""
        check_options(batch_size=batch_size, verbose=verbose, **kwargs)
        if not backend.is_data_source(x):
            self._check(x)
            check_divisible("x", x, batch_size)
        with tracing.expected_tracing():
            return super().predict(x, batch_size, verbose, **kwargs)

    def predict_on_batch(self, x: Any) -> Any:
        """Return the output for a batch as `keras.Model.predict_on_batch` does, after a check."""
        self._check(x)
        return self.predict_checked_batch(x)

    def predict_checked_batch(self, x: Any) -> Any:
        """Return the output for a batch that has been checked already."""
        with tracing.expected_tracing():
            return backend.map_rows(super().predict_on_batch, x)

    def export(self, filepath: Any, format: str = "tf_saved_model", **kwargs: Any) -> None:
        """Export the model as `keras.Model.export` does; arguments and errors as for `BaseVAE.export`."""
        export_graph(self._graph, filepath, format, **kwargs)

    def get_config(self) -> dict[str, Any]:
        """Return the serialized VAE without its compile configuration."""
        return {"vae": {key: value for key, value in self._vae_config().items() if key != "compile_config"}}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None) -> Self:
        """Build the model from the result of `get_config`."""
        return cls(keras.saving.deserialize_keras_object(config["vae"], custom_objects))  # type: ignore[call-arg]


@keras.saving.register_keras_serializable(PACKAGE)
class ImageEncoder(_ImageModel):
    """Keras model from images to the result of `encode`, as a dict of tensors; use it as `vae.image_encoder`.

    Args:
        vae: A built model.

    Example:
        >>> from keras_vae import VAE
        >>> images = keras.Input((28, 28, 1), dtype="uint8")
        >>> VAE(seed=0).image_encoder(images)["z_mean"].shape
        (None, 2)
    """

    def __init__(self, vae: "BaseVAE") -> None:
        super().__init__(vae, vae._encoding_parts, "image_encoder")
        self._encode, self._inputs = vae.encode_tensors, lambda: _image_inputs(vae)

    def _check(self, inputs: Any) -> None:
        self._input_checks.check(inputs)

    def _graph(self) -> keras.Model:
        inputs = self._inputs()
        return keras.Model(inputs, self(inputs), name=self.name)

    def call(self, inputs: Any) -> dict[str, Tensor]:
        """Return the fields of the `Encoding` of images, by name.

        Args:
            inputs: Images (N, H, W, C), uint8 or floats in [0, 1]; for a conditional model, a dict with `images` and
                `condition`.
        """
        inputs = inputs if isinstance(inputs, dict) else {"images": inputs}
        return self._encode({"pixel_noise": THRESHOLD, **inputs})


@keras.saving.register_keras_serializable(PACKAGE)
class ImageDecoder(_ImageModel):
    """Keras model from codes to the mean images that `decode` returns, in [0, 1]; use it as `vae.image_decoder`.

    Args:
        vae: A built model.

    Example:
        >>> from keras_vae import VAE
        >>> VAE(seed=0).image_decoder(keras.Input((2,))).shape
        (None, 28, 28, 1)
    """

    def __init__(self, vae: "BaseVAE") -> None:
        super().__init__(vae, vae._decoding_parts, "image_decoder")
        self._decode, self._condition = vae.decode_tensors, vae.condition
        self._check_codes, self._encoder = vae._check_codes, lambda: vae.image_encoder

    def _check(self, inputs: Any) -> None:
        condition = None
        if isinstance(inputs, Mapping):
            if "codes" not in inputs or set(inputs) - {"codes", "condition"}:
                names = ", ".join(map(str, inputs)) or "nothing"
                raise InputError(
                    f'inputs = dict of {names}: not the codes; pass {{"codes": z}}, with "condition" if any'
                )
            inputs, condition = inputs["codes"], inputs.get("condition")
        if self._condition is not None and condition is None:
            raise InputError(
                f'condition = None: this model is conditioned on {self._condition}; pass {{"codes": z, "condition": c}}'
            )
        if not is_symbolic(inputs):
            codes = self._check_codes(inputs)
            if not is_symbolic(condition):
                self._input_checks.conditions(condition, len(codes))

    def _graph(self) -> keras.Model:
        codes = next(iter(self._encoder()._graph().output.values()))
        inputs = keras.Input(codes.shape[1:], dtype=codes.dtype, name="codes")
        if self._condition is not None:
            inputs = {"codes": inputs, "condition": _condition_input(self._condition)}
        return keras.Model(inputs, self(inputs), name=self.name)

    def call(self, inputs: Any) -> Tensor:
        """Return the mean images (N, H, W, C) of codes.

        Args:
            inputs: Codes, as for `decode`; for a conditional model, a dict with `codes` and `condition`.
        """
        if self._condition is None:
            return self._decode(inputs["codes"] if isinstance(inputs, dict) else inputs, None)
        return self._decode(inputs["codes"], self._condition.encode(inputs["condition"]))


class ImageModels:
    """The encoder and the decoder of a model as Keras models of their own, and the export of both as one graph."""

    _check_built: Callable[[], None]

    def __dir__(self) -> list[str]:
        """Return the attribute names, without two models that Keras would save as further copies of the weights."""
        return [name for name in super().__dir__() if name not in ("image_encoder", "image_decoder")]

    @functools.cached_property
    def image_encoder(self) -> ImageEncoder:
        """A Keras model from images to the result of `encode`, as a dict of tensors. It shares this model's weights.

        Use it as a layer of other models, or save it by itself. It differs from `encoder`, the network passed to the
        constructor, which takes floats in [0, 1] with the condition as further channels and returns raw outputs. Gray
        pixels are rounded if the likelihood binarizes stochastically.

        Raises:
            InputError: The model is not built.
        """
        self._check_built()
        return ImageEncoder(self)  # type: ignore[arg-type]

    @functools.cached_property
    def image_decoder(self) -> ImageDecoder:
        """A Keras model from codes to the mean images of `decode`, in [0, 1]. It shares this model's weights.

        It differs from `decoder`, the network passed to the constructor, which returns parameters of the likelihood.

        Raises:
            InputError: The model is not built.
        """
        self._check_built()
        return ImageDecoder(self)  # type: ignore[arg-type]

    def export(self, filepath: Any, format: str = "tf_saved_model", **kwargs: Any) -> None:
        """Export the graph of `reconstruct`, from uint8 images to mean images, as `keras.Model.export` does.

        `vae export` also exports an encoder, a decoder and a sampler, and compares them with the model.

        Args:
            filepath: See `keras.Model.export`.
            format: See `keras.Model.export`.
            **kwargs: Other arguments of `keras.Model.export`.

        Raises:
            InputError: The format is unknown, or the model is not built.
            RunError: This backend cannot write the format.
        """
        export_graph(lambda: reconstruction_graph(self), filepath, format, **kwargs)  # type: ignore[arg-type]


def reconstruction_graph(vae: "BaseVAE") -> keras.Model:
    """Return the functional model from uint8 images, and their condition if any, to the mean images of their codes."""
    # These two properties raise an error if the model is not built.
    encoder, decoder = vae.image_encoder, vae.image_decoder
    inputs = _image_inputs(vae)
    codes = next(iter(encoder(inputs).values()))
    if isinstance(inputs, dict):
        codes = {"codes": codes, "condition": inputs["condition"]}
    return keras.Model(inputs, decoder(codes), name="reconstruct")


def export_graph(make_graph: Callable[[], keras.Model], filepath: Any, format: str, **kwargs: Any) -> None:
    """Export a functional model as `keras.Model.export` does.

    Args:
        make_graph: Returns the model.
        filepath: See `keras.Model.export`.
        format: See `keras.Model.export`.
        **kwargs: Other arguments of `keras.Model.export`.

    Raises:
        InputError: The format is unknown.
        RunError: This backend cannot write the format.
    """
    if format not in EXPORT_FORMATS:
        raise unknown("format", format, EXPORT_FORMATS)
    others = ", or KERAS_BACKEND=tensorflow" if format == "tf_saved_model" and backend.name() != "tensorflow" else ""
    if backend.name() == "jax":
        # With Keras 3.15, reconstructions of the SavedModel differ from those of the model by about 1e-3.
        raise RunError(f"format = {format!r}: Keras's export from JAX changes the outputs; use `vae export`{others}")
    graph = make_graph()
    # Keras exports some formats only after a call, which building a functional model does not count as.
    graph(graph.input)
    try:
        graph.export(filepath, format=format, **kwargs)
    except Exception as error:
        raise RunError(
            f"format = {format!r}: Keras on {backend.name()} cannot export it ({first_line(error).rstrip('.')}); use "
            f"`vae export`{others}"
        ) from error


def symbolic_inputs(vae: "BaseVAE", image_shape: Shape) -> dict[str, keras.KerasTensor]:
    """Return symbolic inputs of a model for images (H, W, C)."""
    inputs = {"images": keras.KerasTensor((None, *image_shape), dtype="uint8")}
    if vae.condition is not None:
        inputs["condition"] = keras.KerasTensor((None, *vae.condition.value_shape), dtype=vae.condition.dtype)
    return inputs


def _image_inputs(vae: "BaseVAE") -> Any:
    """Return symbolic uint8 images; for a conditional model, in a dict with their condition."""
    images = keras.Input(vae.image_shape, dtype="uint8", name="images")
    return images if vae.condition is None else {"images": images, "condition": _condition_input(vae.condition)}


def _condition_input(condition: Condition) -> Tensor:
    return keras.Input(condition.value_shape, dtype=condition.dtype, name="condition")
