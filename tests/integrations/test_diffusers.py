"""Conversion of `AutoencoderKL` of diffusers and back, compared with diffusers itself, which runs on PyTorch."""

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

from keras_vae import VAE, likelihoods
from keras_vae.cli import app
from keras_vae.core.errors import InputError
from keras_vae.core.typing import Array
from keras_vae.integrations.diffusers import CONFIG, WEIGHTS, from_diffusers, to_diffusers
from keras_vae.networks import Autoencoder, Conv
from keras_vae.runs.run import Run

pytest.importorskip("safetensors")

CONFIGS: dict[str, dict[str, Any]] = {
    "three sizes": {"block_out_channels": [4, 8, 8], "norm_num_groups": 4},
    "two blocks, without attention": {
        **{"block_out_channels": [8, 16], "norm_num_groups": 8, "layers_per_block": 2, "latent_channels": 3},
        **{"mid_block_add_attention": False, "use_quant_conv": False},
    },
    "one size, without both 1×1 convolutions": {
        **{"block_out_channels": [32], "norm_num_groups": 32, "latent_channels": 2},
        **{"use_quant_conv": False, "use_post_quant_conv": False, "scaling_factor": 0.3611, "shift_factor": 0.1159},
    },
}


def reference(config: dict[str, Any]) -> Any:
    """Return a model of diffusers with random weights, none of which is zero or one."""
    torch, diffusers = pytest.importorskip("torch"), pytest.importorskip("diffusers")
    torch.manual_seed(0)
    levels = len(config["block_out_channels"])
    blocks = {"down_block_types": ["DownEncoderBlock2D"] * levels, "up_block_types": ["UpDecoderBlock2D"] * levels}
    model = diffusers.AutoencoderKL(**blocks, **config, sample_size=8).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def apply(model: Any, images: Array) -> tuple[Array, Array, Array]:
    """Return means and log-variances of images in [0, 1], and the images of the means, before they are clipped."""
    import torch

    with torch.no_grad():
        posterior = model.encode(torch.tensor(images.transpose(0, 3, 1, 2) * 2 - 1)).latent_dist
        decoded = model.decode(posterior.mean).sample
    mean, log_var, outputs = (
        values.detach().cpu().numpy().transpose(0, 2, 3, 1) for values in (posterior.mean, posterior.logvar, decoded)
    )
    return mean, log_var, (outputs + 1) / 2


def images(*size: int) -> Array:
    return np.random.default_rng(1).random((2, *size, 3), dtype="float32")


def assert_same_functions(model: VAE, expected: tuple[Array, Array, Array], inputs: Array) -> None:
    mean, log_var, outputs = expected
    encoding = model.encode(inputs)
    np.testing.assert_allclose(encoding.z_mean, mean, atol=1e-4)
    np.testing.assert_allclose(encoding.z_log_var, log_var, atol=1e-4)
    np.testing.assert_allclose(ops.convert_to_numpy(model.decoder(mean)), outputs, atol=1e-4)
    np.testing.assert_allclose(model.decode(mean), np.clip(outputs, 0, 1), atol=1e-4)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_round_trip_keeps_functions_and_weights(config: dict[str, Any], tmp_path: Path) -> None:
    original = reference(config)
    original.save_pretrained(tmp_path / "original")
    model = from_diffusers(tmp_path / "original")
    # Neither square nor of the size of the configuration.
    inputs = images(8, 12)
    expected = apply(original, inputs)
    assert_same_functions(model, expected, inputs)

    back = type(original).from_pretrained(to_diffusers(model, tmp_path / "back")).eval()
    for actual, wanted in zip(apply(back, inputs), expected, strict=True):
        np.testing.assert_allclose(actual, wanted, atol=1e-4)
    weights, found = original.state_dict(), back.state_dict()
    assert weights.keys() == found.keys()
    for name, weight in weights.items():
        if name == "decoder.conv_out.bias":
            np.testing.assert_allclose(found[name].numpy(), weight.numpy(), atol=1e-6)
        else:
            np.testing.assert_array_equal(found[name].numpy(), weight.numpy(), err_msg=name)
    assert {key: back.config[key] for key in config if "factor" not in key} == {
        key: value for key, value in config.items() if "factor" not in key
    }
    # The factors of Flux, and the default.
    assert back.config.scaling_factor == pytest.approx(config.get("scaling_factor", 0.18215))
    assert (back.config.shift_factor or 0) == pytest.approx(config.get("shift_factor", 0))
    normalized = (expected[0] - (config.get("shift_factor") or 0)) * back.config.scaling_factor
    np.testing.assert_allclose(model.encode(inputs, normalized=True).z_mean, normalized, atol=1e-4)


def test_own_model_gives_the_same_images_in_diffusers(tmp_path: Path) -> None:
    diffusers = pytest.importorskip("diffusers")
    shape, network = (8, 8, 3), Autoencoder(widths=(4, 8), groups=4, latent_channels=2)
    # Its decoder has further outputs, the scales.
    likelihood = likelihoods.Laplace(scale="pixel")
    decoder = network.decoder(None, (8, 8, likelihood.decoder_channels(3)))
    model = VAE(network.encoder(shape), decoder, likelihood=likelihood)
    model.build((None, *shape))
    rng = np.random.default_rng(0)
    model.set_weights([rng.normal(0, 0.3, w.shape) if "float" in str(w.dtype) else w for w in model.weights])
    model.save(tmp_path / "model.keras")
    written = to_diffusers(tmp_path / "model.keras", tmp_path / "diffusers")
    inputs = images(8, 4)
    mean, log_var, outputs = apply(diffusers.AutoencoderKL.from_pretrained(written).eval(), inputs)
    encoding = model.encode(inputs)
    np.testing.assert_allclose(encoding.z_mean, mean, atol=1e-4)
    np.testing.assert_allclose(encoding.z_log_var, log_var, atol=1e-4)
    np.testing.assert_allclose(ops.convert_to_numpy(model.decoder(mean))[..., :3], outputs, atol=1e-4)


def test_files_of_early_versions_and_of_half_precision_are_read(tmp_path: Path) -> None:
    save_file = pytest.importorskip("safetensors.torch").save_file
    import torch

    original = reference({"block_out_channels": [4, 8], "norm_num_groups": 4})
    original.save_pretrained(tmp_path)
    model = from_diffusers(tmp_path)
    former = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    state = {}
    for name, weight in original.state_dict().items():
        for new, old in former.items():
            if f".{new}." in name:
                name = name.replace(new, old)
                weight = weight[..., None, None] if weight.ndim == 2 else weight
        state[name] = weight.to(torch.bfloat16)
    file = tmp_path / "other" / "weights.safetensors"
    file.parent.mkdir()
    save_file(state, file)
    loaded = from_diffusers(file, config=tmp_path / CONFIG)
    for weight, other in zip(model.encoder.weights, loaded.encoder.weights, strict=True):
        # bfloat16 has eight significant bits.
        np.testing.assert_allclose(ops.convert_to_numpy(other), ops.convert_to_numpy(weight), rtol=2**-8)


def small_folder(folder: Path) -> Path:
    """Write a small model without diffusers, and return its folder."""
    network = Autoencoder(widths=(4,), groups=2, latent_channels=2)
    model = VAE(network.encoder((8, 8, 3)), network.decoder(None, (8, 8, 3)), likelihood=likelihoods.Normal())
    model.build((None, 8, 8, 3))
    return to_diffusers(model, folder)


REFUSED = [
    ({"_class_name": "VQModel"}, "configuration of VQModel; pass a model of class AutoencoderKL"),
    ({"act_fn": "gelu"}, "act_fn = 'gelu'"),
    ({"down_block_types": ["AttnDownEncoderBlock2D"]}, "only DownEncoderBlock2D is supported"),
    ({"norm_num_groups": 3}, "norm_num_groups = 3: does not divide 4"),
    ({"layers_per_block": 2}, "weight encoder.down_blocks.0.resnets.1.*is missing"),
    ({"use_quant_conv": False}, "weight quant_conv.* has no counterpart"),
    ({"latent_channels": 3}, r"weight encoder.conv_out.weight has shape \(4, 4, 3, 3\), and its .*\(6, 4, 3, 3\)"),
]


def test_models_without_a_counterpart_are_refused(tmp_path: Path) -> None:
    folder = small_folder(tmp_path / "model")
    config = json.loads((folder / CONFIG).read_text())
    for changes, message in REFUSED:
        with pytest.raises(InputError, match=message) as error:
            from_diffusers(folder, config=config | changes)
        assert "\n" not in str(error.value)


def test_missing_and_damaged_files_are_refused(tmp_path: Path) -> None:
    folder = small_folder(tmp_path / "model")
    save_file = pytest.importorskip("safetensors.numpy").save_file
    save_file({"bias": np.zeros(2, "int8")}, tmp_path / "integers.safetensors")
    with pytest.raises(InputError, match=r"path = .*integers.safetensors: contains weights of type I8"):
        from_diffusers(tmp_path / "integers.safetensors", config=folder / CONFIG)
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-8])
    with pytest.raises(InputError, match=f"{WEIGHTS}.*not a file of safetensors"):
        from_diffusers(folder)
    (folder / WEIGHTS).unlink()
    with pytest.raises(InputError, match=r"contains 0 files \*.safetensors"):
        from_diffusers(folder)
    (folder / "x.safetensors").touch()
    (folder / CONFIG).unlink()
    with pytest.raises(InputError, match=r"config = .*does not exist"):
        from_diffusers(folder)


@pytest.mark.parametrize(
    ("network", "likelihood", "message"),
    [
        (Conv(widths=(4,), dense_units=4), likelihoods.Normal(), "networks have no counterpart in diffusers"),
        (Autoencoder(widths=(4,), groups=2), likelihoods.DiscretizedLogistic(), "likelihood = discretized-logistic"),
        (Autoencoder(widths=(4, 6), groups=4), likelihoods.Normal(), "groups = 4: does not divide.*with groups = 2"),
    ],
)
def test_own_models_without_a_counterpart_are_refused(
    tmp_path: Path, network: Any, likelihood: likelihoods.Likelihood, message: str
) -> None:
    shape = (8, 8, 3)
    latent_dim = 2 if isinstance(network, Conv) else int(np.prod(network.latent_shape(shape)))
    decoder = network.decoder(latent_dim, (8, 8, likelihood.decoder_channels(3)))
    model = VAE(network.encoder(shape, latent_dim), decoder, likelihood=likelihood)
    model.build((None, *shape))
    with pytest.raises(InputError, match=message):
        to_diffusers(model, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_models_with_masks_are_refused(tmp_path: Path) -> None:
    network = Autoencoder(widths=(4,), groups=2, latent_channels=2)
    encoder, decoder = network.encoder((8, 8, 6)), network.decoder(None, (8, 8, 3))
    model = VAE(encoder, decoder, likelihood=likelihoods.Normal(), mask_channels=True)
    model.build((None, 8, 8, 3))
    with pytest.raises(InputError, match="mask_channels = True: encoders of diffusers receive no mask"):
        to_diffusers(model, tmp_path / "out")


@pytest.mark.usefixtures("one_figure")
def test_command_line_fine_tunes_the_decoder_and_exports_the_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    source = small_folder(tmp_path / "source")
    np.savez("photos.npz", images=np.random.default_rng(0).integers(0, 256, (24, 8, 8, 3), dtype="uint8"))
    settings = ["training.epochs=1", "training.batch_size=8", "training.ema_window=0.5", "training.weight_decay=0.1"]
    command = ["train", "--init", "source", "--freeze", "encoder", "--data", "photos.npz", "--out", "tuned"]
    options = ["--backend", keras.backend.backend(), *(word for text in settings for word in ("--set", text))]
    app([*command, *options], standalone_mode=False)
    run = Run("tuned")
    assert run.experiment.training.freeze == ["encoder"]
    assert run.experiment.training.init == str(source)
    assert run.experiment.model.network["widths"] == [4]
    app(["export", "tuned", "--format", "diffusers"], standalone_mode=False)
    assert "tuned/export/diffusers" in capsys.readouterr().out
    before, after = from_diffusers(source), from_diffusers("tuned/export/diffusers")
    assert after.latent_statistics == before.latent_statistics
    for name, frozen in (("encoder", True), ("decoder", False)):
        pairs = zip(getattr(before, name).trainable_weights, getattr(after, name).trainable_weights, strict=True)
        same = [np.array_equal(*map(ops.convert_to_numpy, pair)) for pair in pairs]
        assert all(same) if frozen else not any(same)
