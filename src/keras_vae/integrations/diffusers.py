"""Conversion of `AutoencoderKL` of diffusers to the network `autoencoder`, and back, without diffusers or PyTorch.

Both have the same layers. diffusers reads images in [−1, 1], and our encoders rescale images in [0, 1] first. Decoders
return images in different ranges; their last convolution contains the difference.
"""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from keras_vae.components.likelihoods import Laplace, Likelihood, Normal
from keras_vae.core import registry
from keras_vae.core.errors import InputError, first_line, require_packages, shown
from keras_vae.core.files import check_destination, reading, replacing_folder, write_text, writing
from keras_vae.core.typing import Array, ImageShape
from keras_vae.models.encoding import LatentStatistics
from keras_vae.models.vae import VAE
from keras_vae.networks.autoencoder import Autoencoder
from keras_vae.runs.experiment import Experiment
from keras_vae.runs.loading import load
from keras_vae.runs.run import Run

CONFIG, WEIGHTS = "config.json", "diffusion_pytorch_model.safetensors"

_OWN = ("quant_conv", "post_quant_conv")
"""Layers that diffusers counts neither to its encoder nor to its decoder."""

_FORMER_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
"""Names of the layers of attention in files that early versions of diffusers wrote."""

_DEFAULTS = {
    "block_out_channels": [64],
    "layers_per_block": 1,
    "latent_channels": 4,
    "norm_num_groups": 32,
    "in_channels": 3,
    "out_channels": 3,
    "sample_size": 32,
    "use_quant_conv": True,
    "use_post_quant_conv": True,
    "mid_block_add_attention": True,
    "act_fn": "silu",
    "scaling_factor": 0.18215,
    "shift_factor": None,
    "latents_mean": None,
    "latents_std": None,
}
"""Defaults of `AutoencoderKL`; its files may omit them."""


def from_diffusers(
    path: str | Path, *, config: Mapping[str, Any] | str | Path | None = None, image_shape: ImageShape | None = None
) -> VAE:
    """Load an `AutoencoderKL` of diffusers as a `VAE`.

    Its likelihood is `Normal()`, whose mean is the decoder's output, rescaled from [−1, 1] to [0, 1].
    `encode(images, normalized=True)` shifts and scales codes as `scaling_factor` and `shift_factor` do in diffusers.

    Args:
        path: A folder with `config.json` and `diffusion_pytorch_model.safetensors`, or a pipeline that contains such a
            folder `vae`, or a file of weights.
        config: The content of `config.json`, or its path, for weights without one next to them.
        image_shape: (H, W, C) of the images for which the model is built; it accepts images of any other size as well.
            None means the `sample_size` of the configuration.

    Returns:
        The model, not compiled.

    Raises:
        InputError: A file is missing or damaged, the model has a setting without a counterpart, or safetensors is not
            installed.

    Example:
        >>> from_diffusers("nowhere")
        Traceback (most recent call last):
        keras_vae.core.errors.InputError: path = nowhere: does not exist; pass a folder or file of diffusers
    """
    require_packages(f"path = {path}", ["safetensors"], "safetensors")
    file, settings = _find(Path(path).expanduser(), config)
    network = _network(settings, file)
    if image_shape is None:
        size = settings["sample_size"]
        height, width = size if isinstance(size, list | tuple) else (size, size)
        image_shape = (int(height), int(width), int(settings["in_channels"]))
    decoder = network.decoder(None, image_shape)
    model = VAE(network.encoder(image_shape), decoder, likelihood=Normal())
    model.build((None, *image_shape))
    _assign(model, _read_weights(file), file)
    _rescale_outputs(decoder, 0.5, 0.5)
    model.latent_statistics = _statistics(settings)
    return model


def to_diffusers(model: VAE | Run | str | Path, folder: str | Path, *, force: bool = False) -> Path:
    """Write a model with the network `autoencoder` as an `AutoencoderKL` of diffusers.

    Images that diffusers decodes are the locations of the likelihood, before they are clipped to the range of images.
    `scaling_factor` and `shift_factor` normalize the codes with the statistics of all channels together.

    Args:
        model: A model, a run, its folder, the name of a pretrained run, or a `.keras` file.
        folder: The folder to write: `config.json` and `diffusion_pytorch_model.safetensors`.
        force: Whether to replace an earlier export.

    Returns:
        The folder, an argument of `AutoencoderKL.from_pretrained`.

    Raises:
        InputError: The model has no counterpart in diffusers, the folder exists, or safetensors is not installed.
    """
    folder = Path(folder).expanduser()
    require_packages("format = diffusers", ["safetensors"], "safetensors")
    from safetensors.numpy import save_file

    check_destination(folder, force=force, marker=CONFIG, kind="export")
    loaded = load(model) if isinstance(model, Run | str | Path) else model
    settings = _config(loaded)
    arrays = {key: _to_torch(ops.convert_to_numpy(variable)) for key, variable in _variables(loaded).items()}
    channels = settings["out_channels"]
    # Behind the means of a likelihood with a scale per pixel are the scales.
    arrays["decoder.conv_out.weight"] = 2 * arrays["decoder.conv_out.weight"][:channels]
    arrays["decoder.conv_out.bias"] = 2 * arrays["decoder.conv_out.bias"][:channels] - 1
    with replacing_folder(folder, replace=force) as temporary:
        write_text(temporary / CONFIG, json.dumps(settings, indent=2) + "\n")
        with writing(folder / WEIGHTS):
            contiguous = {key: np.ascontiguousarray(array, "float32") for key, array in arrays.items()}
            # diffusers rejects files without this entry.
            save_file(contiguous, temporary / WEIGHTS, metadata={"format": "pt"})
    return folder


def experiment_of(model: VAE) -> Experiment:
    """Return an experiment with the network and the likelihood of a converted model, and default settings otherwise.

    Args:
        model: A result of `from_diffusers`.
    """
    specs = {
        "network": registry.spec("network", _network_of(model)),
        "likelihood": registry.spec("likelihood", model.likelihood),
    }
    return Experiment.from_tables({"model": specs})


def _find(path: Path, config: Mapping[str, Any] | str | Path | None) -> tuple[Path, dict[str, Any]]:
    """Return the file of the weights, and the configuration with its defaults."""
    if not path.exists():
        raise InputError(f"path = {path}: does not exist; pass a folder or file of diffusers")
    if path.is_dir():
        folder = path / "vae" if (path / "vae" / CONFIG).is_file() else path
        files = [folder / WEIGHTS] if (folder / WEIGHTS).is_file() else sorted(folder.glob("*.safetensors"))
        if len(files) != 1:
            raise InputError(f"path = {path}: contains {len(files)} files *.safetensors; pass one of the files")
        file = files[0]
    else:
        file = path
    if config is None or isinstance(config, str | Path):
        source = file.parent / CONFIG if config is None else Path(config).expanduser()
        if not source.is_file():
            raise InputError(f"config = {source}: does not exist; pass the configuration of the model as `config`")
        with reading(source):
            try:
                config = json.loads(source.read_text("utf-8"))
            except ValueError as error:
                raise InputError(f"not JSON ({first_line(error)}); restore the file") from None
    if not isinstance(config, Mapping):
        raise InputError(f"config = {shown(config)}: not a table; pass the configuration of an AutoencoderKL")
    return file, {**_DEFAULTS, **config}


def _network(config: Mapping[str, Any], file: Path) -> Autoencoder:
    """Return the network that a configuration of `AutoencoderKL` describes."""
    kind = config.get("_class_name", "AutoencoderKL")
    if kind != "AutoencoderKL":
        raise InputError(f"path = {file}: the configuration of {kind}; pass a model of class AutoencoderKL")
    levels = len(config["block_out_channels"])
    for key, block in (("down_block_types", "DownEncoderBlock2D"), ("up_block_types", "UpDecoderBlock2D")):
        if list(config.get(key, [block] * levels)) != [block] * levels:
            raise InputError(f"{key} = {shown(config[key])}: has no counterpart; only {block} is supported")
    if config["act_fn"] not in ("silu", "swish"):
        raise InputError(f"act_fn = {shown(config['act_fn'])}: has no counterpart; only 'silu' is supported")
    if config["in_channels"] != config["out_channels"]:
        raise InputError(
            f"out_channels = {config['out_channels']}: other than in_channels = {config['in_channels']}; pass an "
            "autoencoder of images"
        )
    groups = config["norm_num_groups"]
    if uneven := [width for width in config["block_out_channels"] if width % groups]:
        raise InputError(f"norm_num_groups = {groups}: does not divide {uneven[0]}; correct the configuration")
    return Autoencoder(
        widths=tuple(config["block_out_channels"]),
        blocks=config["layers_per_block"],
        attention=config["mid_block_add_attention"],
        latent_channels=config["latent_channels"],
        groups=groups,
        quant_conv=config["use_quant_conv"],
        post_quant_conv=config["use_post_quant_conv"],
    )


def _network_of(model: VAE) -> Autoencoder:
    """Return the network family from which the encoder and the decoder of a model were built.

    Raises:
        InputError: It is not `autoencoder`, or groups differ from layer to layer.
    """
    encoder, decoder = ({layer.name: layer for layer in part.layers} for part in (model.encoder, model.decoder))
    if not {"conv_in", "mid_block_resnets_0_conv1", "conv_norm_out"} <= encoder.keys() & decoder.keys():
        raise InputError(
            f"model = {type(model).__name__}: its networks have no counterpart in diffusers; train a model with "
            "network = autoencoder"
        )
    widths: list[int] = []
    while (name := f"down_blocks_{len(widths)}_resnets_0_conv1") in encoder:
        widths.append(encoder[name].filters)
    norms = [layer for part in (encoder, decoder) for layer in part.values() if isinstance(layer, _GROUP_NORM)]
    if len(groups := sorted({norm.groups for norm in norms})) > 1:
        raise InputError(
            f"groups = {groups[-1]}: does not divide every width of {widths}, and diffusers uses one number of groups; "
            f"train a model with groups = {np.gcd.reduce(widths)}"
        )
    return Autoencoder(
        widths=tuple(widths),
        blocks=sum(bool(re.fullmatch(r"down_blocks_0_resnets_\d+_conv1", name)) for name in encoder),
        attention="mid_block_attentions_0" in encoder,
        latent_channels=model.latent_shape[-1],
        groups=groups[0],
        quant_conv="quant_conv" in encoder,
        post_quant_conv="post_quant_conv" in decoder,
    )


_GROUP_NORM = layers.GroupNormalization


def _config(model: VAE) -> dict[str, Any]:
    """Return the configuration of `AutoencoderKL` for a model."""
    if not isinstance(model, VAE) or not model.built:
        raise InputError(f"model = {type(model).__name__}: not a built VAE; pass a trained model with one latent map")
    network, channels = _network_of(model), model.image_shape[-1]
    _check_likelihood(model.likelihood)
    if not model.is_stochastic:
        raise InputError("posterior = deterministic: diffusers needs means and variances; use posterior = normal")
    if model.condition is not None:
        raise InputError("condition: diffusers has no conditional autoencoders; train a model without a condition")
    if model.mask_channels:
        raise InputError("mask_channels = True: encoders of diffusers receive no mask; train a model without it")
    levels, (height, width, _) = len(network.widths), model.image_shape
    return {
        "_class_name": "AutoencoderKL",
        "in_channels": channels,
        "out_channels": channels,
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "block_out_channels": list(network.widths),
        "layers_per_block": network.blocks,
        "act_fn": "silu",
        "latent_channels": network.latent_channels,
        "norm_num_groups": network.groups,
        "sample_size": height if height == width else [height, width],
        "mid_block_add_attention": network.attention,
        "use_quant_conv": network.quant_conv,
        "use_post_quant_conv": network.post_quant_conv,
        **_factors(model.latent_statistics),
    }


def _factors(statistics: LatentStatistics | None) -> dict[str, float | None]:
    """Return the numbers with which (z − `shift_factor`) · `scaling_factor` has mean 0 and variance 1."""
    if statistics is None:
        return {"scaling_factor": 1.0, "shift_factor": None}
    mean, std = np.array(statistics.mean), np.array(statistics.std)
    shift = float(mean.mean())
    variance = float(np.mean(std**2 + (mean - shift) ** 2))
    return {"scaling_factor": variance**-0.5, "shift_factor": shift or None}


def _statistics(config: Mapping[str, Any]) -> LatentStatistics:
    """Return the mean and the standard deviation of each channel with which a configuration normalizes codes."""
    channels, scale = config["latent_channels"], config["scaling_factor"] or 1.0
    mean = config["latents_mean"] or [config["shift_factor"] or 0.0] * channels
    std = config["latents_std"] or [1.0] * channels
    return LatentStatistics(tuple(map(float, mean)), tuple(value / scale for value in std), 0)


def _check_likelihood(likelihood: Likelihood) -> None:
    if not isinstance(likelihood, Normal | Laplace):
        name = registry.describe(likelihood)["name"]
        raise InputError(
            f"likelihood = {name}: its mean is not linear in the decoder's output, as in diffusers; train with "
            "likelihood = normal or laplace"
        )


def _variables(model: VAE) -> dict[str, keras.Variable]:
    """Return the weights of both networks by their names in diffusers."""
    return dict(_named("encoder", model.encoder)) | dict(_named("decoder", model.decoder))


def _named(prefix: str, network: keras.Model) -> Iterator[tuple[str, keras.Variable]]:
    suffixes = {"kernel": "weight", "gamma": "weight", "beta": "bias", "bias": "bias"}
    for layer in network.layers:
        for variable in layer.weights:
            # The layers of attention are in another layer. The bias of its keys is its own weight.
            path = "_".join(variable.path.split("/")[variable.path.split("/").index(layer.name) :])
            name, _, kind = path.rpartition("_")
            key = re.sub(r"_(\d+)(?=_|$)", r".\1", name)
            key = re.sub(r"(?<=\d)_", ".", key).replace("mid_block_", "mid_block.")
            owner = "" if name in _OWN else f"{prefix}."
            yield f"{owner}{key}.{suffixes[kind]}", variable


def _assign(model: VAE, arrays: Mapping[str, Array], file: Path) -> None:
    """Assign the weights of a file to a model."""
    variables = _variables(model)
    if missing := [key for key in variables if key not in arrays]:
        raise InputError(f"path = {file}: the weight {missing[0]} is missing; pass the configuration of this file")
    if unused := [key for key in arrays if key not in variables]:
        raise InputError(
            f"path = {file}: the weight {unused[0]} has no counterpart; pass the configuration of this file"
        )
    for key, variable in variables.items():
        array = _from_torch(arrays[key])
        if array.shape != tuple(variable.shape):
            raise InputError(
                f"path = {file}: the weight {key} has shape {arrays[key].shape}, and its configuration describes "
                f"{_to_torch(np.empty(variable.shape)).shape}; pass the configuration of this file"
            )
        if not np.isfinite(array).all():
            raise InputError(f"path = {file}: the weight {key} contains NaN or infinity; restore the file")
        variable.assign(array)


def _to_torch(array: Array) -> Array:
    """Return a weight with the axes of PyTorch: kernels (F, C, h, w) instead of (h, w, C, F), matrices transposed."""
    return array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T


def _from_torch(array: Array) -> Array:
    return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T


def _rescale_outputs(decoder: keras.Model, scale: float, shift: float) -> None:
    """Change the last convolution of a decoder so that it returns `scale` · outputs + `shift`."""
    layer = decoder.get_layer("conv_out")
    layer.kernel.assign(layer.kernel * scale)
    layer.bias.assign(layer.bias * scale + shift)


def _read_weights(file: Path) -> dict[str, Array]:
    """Return the weights of a file by name, in float32."""
    from safetensors import SafetensorError, deserialize

    with reading(file):
        content = file.read_bytes()
        try:
            entries = deserialize(content)
        except SafetensorError as error:
            raise InputError(f"not a file of safetensors ({first_line(error)}); restore the file") from None
    arrays = {}
    for name, entry in entries:
        module, _, kind = name.rpartition(".")
        block, _, layer = module.rpartition(".")
        array = _decoded(entry, file).reshape(entry["shape"])
        if layer in _FORMER_NAMES and "attentions" in block:
            name, array = f"{block}.{_FORMER_NAMES[layer]}.{kind}", array.reshape(array.shape[:2])
        arrays[name] = array
    return arrays


def _decoded(entry: Mapping[str, Any], file: Path) -> Array:
    """Return the values of an entry of a file, in float32."""
    dtype, data = entry["dtype"], bytes(entry["data"])
    if dtype == "BF16":
        # The upper half of the bits of float32; NumPy has no such type.
        return (np.frombuffer(data, "<u2").astype("<u4") << 16).view("<f4")
    if dtype not in ("F16", "F32", "F64"):
        raise InputError(f"path = {file}: contains weights of type {dtype}; convert them to F32")
    return np.frombuffer(data, f"<f{int(dtype[1:]) // 8}").astype("float32")
