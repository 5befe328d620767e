"""Keras idiom on every backend: metrics, callbacks, targets, export and constructor arguments."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from keras_vae import ELBO, VAE, InputError, priors
from keras_vae.components.conditions import ClassLabel
from keras_vae.core.errors import RunError
from keras_vae.core.typing import Array
from keras_vae.networks import Conv

MakeVAE = Callable[..., VAE]
LABELS = np.arange(24) % 3


@pytest.fixture
def conditional() -> VAE:
    network = Conv(widths=(4,), dense_units=6)
    vae = VAE(network.encoder((9, 11, 4), 2), network.decoder(5, (9, 11, 1)), condition=ClassLabel(3), seed=5)
    vae.compile(keras.optimizers.SGD(0.0))
    return vae


@keras.saving.register_keras_serializable("tests")
class LargestError(keras.metrics.Metric):
    def __init__(self, name: str = "largest_error", **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)
        self.largest = self.add_variable((), "zeros")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        self.largest.assign(keras.ops.maximum(self.largest, keras.ops.max(keras.ops.abs(y_true - y_pred))))

    def result(self) -> Any:
        return self.largest + 0.0


def test_metrics_compare_images_with_reconstructions(make_vae: MakeVAE, images: Array, tmp_path: Path) -> None:
    vae = make_vae()
    vae.compile(keras.optimizers.SGD(0.0), metrics=["mse", keras.metrics.MeanAbsoluteError(), LargestError()])
    history = vae.fit(images, validation_data=images, batch_size=10, verbose=0).history
    names = {"mean_squared_error" if "mean_squared_error" in history else "mse", "mean_absolute_error", "largest_error"}
    assert names <= set(history)
    assert {f"val_{name}" for name in names} <= set(history)
    x = images / np.float32(255)
    # The reconstructions of an untrained model hardly depend on the sample of z.
    error = np.abs(x - vae.reconstruct(images))
    for prefix in ("", "val_"):
        assert history[f"{prefix}mean_absolute_error"][0] == pytest.approx(error.mean(), rel=0.02)
        assert history[f"{prefix}largest_error"][0] == pytest.approx(error.max(), rel=0.25)
    vae.save(tmp_path / "vae.keras")
    loaded = keras.saving.load_model(tmp_path / "vae.keras")
    assert set(loaded.fit(images, verbose=0).history) == {name for name in history if not name.startswith("val_")}


def test_metrics_use_the_reconstructions_of_the_same_step(make_vae: MakeVAE, images: Array) -> None:
    vae = make_vae()
    vae.compile("adam", metrics="mse")
    found = vae.test_on_batch(images, return_dict=True)
    vae.sampler.seed_generator.state.assign(make_vae().sampler.seed_generator.state)
    output = vae.predict_on_batch(images)
    expected = np.mean((images / 255 - np.asarray(output.reconstruction)) ** 2)
    assert found.get("mse", found.get("mean_squared_error")) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("name", ["loss", "loss_weights", "weighted_metrics"])
def test_compile_rejects_losses_and_weights(name: str, make_vae: MakeVAE) -> None:
    with pytest.raises(InputError, match=f"{name} = .*objective="):
        make_vae().compile("adam", **{name: ["mse"]})


def test_loss_is_reported_once(make_vae: MakeVAE, images: Array) -> None:
    class Doubled(VAE):
        def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
            return 2 * super().compute_loss(*args, **kwargs)

    parts = make_vae()
    for vae in (parts, Doubled(parts.encoder, parts.decoder)):
        vae.compile("adam")
        history = vae.fit(images, validation_split=0.5, verbose=0).history
        assert {"total_loss", "val_total_loss"} <= set(history)
        assert not {"loss", "val_loss"} & set(history)


def test_callbacks_that_monitor_a_missing_loss_are_rejected(make_vae: MakeVAE, images: Array) -> None:
    vae = make_vae()
    vae.compile("adam")
    with pytest.raises(InputError, match='monitor="val_total_loss" or "val_negative_elbo"'):
        vae.fit(images, callbacks=[keras.callbacks.EarlyStopping()], verbose=0)
    with pytest.raises(InputError, match="TerminateOnNaN"):
        vae.fit(images, callbacks=[keras.callbacks.TerminateOnNaN()], verbose=0)
    stop = keras.callbacks.EarlyStopping("val_negative_elbo", mode="min", patience=0, min_delta=1e9)
    assert len(vae.fit(images, validation_split=0.5, callbacks=[stop], epochs=5, verbose=0).history["total_loss"]) == 2


def test_targets_of_a_conditional_model_are_its_condition(conditional: VAE, images: Array) -> None:
    expected = conditional.evaluate({"images": images, "condition": LABELS}, verbose=0, return_dict=True)["kl_loss"]
    assert conditional.evaluate(images, LABELS, verbose=0, return_dict=True)["kl_loss"] == pytest.approx(expected)
    others = conditional.evaluate(images, (LABELS + 1) % 3, verbose=0, return_dict=True)["kl_loss"]
    assert others != pytest.approx(expected, rel=1e-6)
    history = conditional.fit(images, LABELS, validation_data=(images, LABELS), batch_size=8, verbose=0).history
    assert history["kl_loss"][0] == pytest.approx(expected, rel=1e-5, abs=1e-6)
    assert history["val_kl_loss"][0] == pytest.approx(expected, rel=1e-5, abs=1e-6)
    assert conditional.train_on_batch(images, LABELS, return_dict=True)["kl_loss"] == pytest.approx(
        expected, rel=1e-5, abs=1e-6
    )
    assert conditional.test_on_batch(images, LABELS, return_dict=True)["kl_loss"] == pytest.approx(
        expected, rel=1e-5, abs=1e-6
    )


def test_pairs_from_a_source_are_images_and_conditions(conditional: VAE, images: Array) -> None:
    expected = conditional.evaluate(images, LABELS, batch_size=8, verbose=0, return_dict=True)["kl_loss"]

    class Pairs(keras.utils.PyDataset):
        def __len__(self) -> int:
            return 3

        def __getitem__(self, index: int) -> tuple[Array, Array]:
            rows = slice(8 * index, 8 * index + 8)
            return images[rows], LABELS[rows]

    conditional.compile(keras.optimizers.SGD(0.0), metrics=["mae"])
    history = conditional.fit(Pairs(), validation_data=Pairs(), verbose=0).history
    assert history["kl_loss"][0] == pytest.approx(expected, rel=1e-5, abs=1e-6)
    assert history["val_kl_loss"][0] == pytest.approx(expected, rel=1e-5, abs=1e-6)
    np.testing.assert_allclose(
        conditional.predict(Pairs(), verbose=0).z_mean, conditional.encode(images, condition=LABELS).z_mean, atol=1e-6
    )


def test_dict_is_accepted_wherever_images_are(conditional: VAE, images: Array) -> None:
    both = {"images": images, "condition": LABELS}
    for call in (conditional.elbo, conditional.reconstruct, conditional.sample_posterior):
        np.testing.assert_array_equal(call(both), call(images, condition=LABELS))
    np.testing.assert_array_equal(conditional.encode(both).z_mean, conditional.encode(images, condition=LABELS).z_mean)
    with pytest.raises(InputError, match="the condition is given twice"):
        conditional.elbo(both, condition=LABELS)
    with pytest.raises(InputError, match="condition = None: this model is conditioned on"):
        conditional.fit(images)


def test_list_of_one_array_is_accepted_and_a_longer_one_rejected(make_vae: MakeVAE, images: Array) -> None:
    vae = make_vae()
    vae.compile("adam")
    assert len(vae.fit([images], verbose=0).history["total_loss"]) == 1
    with pytest.raises(InputError, match=r"x = list of 2: .*pass one array"):
        vae.fit([images, images], verbose=0)


@pytest.mark.parametrize(
    "call",
    [
        lambda vae, x: vae.encode(x, 5),
        lambda vae, x: vae.decode(np.zeros((2, 3)), 5),
        lambda vae, x: vae.elbo(x, 5),
        lambda vae, x: vae.elbo_terms(x, 5),
        lambda vae, x: vae.log_likelihood(x, 5),
        lambda vae, x: vae.reconstruct(x, 5),
        lambda vae, x: vae.sample(2, 5),
        lambda vae, x: vae.sample_posterior(x, 5),
        lambda vae, x: vae.sample_prior(2, 5),
    ],
)
def test_options_of_inference_methods_are_keyword_only(
    call: Callable[..., Any], make_vae: MakeVAE, images: Array
) -> None:
    with pytest.raises(TypeError, match="positional"):
        call(make_vae(), images)


def test_image_shape_latent_dim_and_beta_define_a_model() -> None:
    vae = VAE(latent_dim=8, image_shape=(16, 20, 3), beta=4, condition=ClassLabel(2), seed=0)
    assert (vae.image_shape, vae.latent_dim, vae.objective) == ((16, 20, 3), 8, ELBO(beta=4))
    assert vae.sample(2, seed=0, condition=1).shape == (2, 16, 20, 3)
    keras.utils.set_random_seed(3)
    classic = VAE(seed=0).get_weights()
    keras.utils.set_random_seed(3)
    same = VAE(latent_dim=2, image_shape=(28, 28, 1), beta=1.0, seed=0).get_weights()
    assert all(np.array_equal(one, other) for one, other in zip(classic, same, strict=True))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"latent_dim": 0}, "latent_dim = 0: not a positive integer"),
        ({"latent_dim": "8"}, "^latent_dim = '8': not a positive integer; pass an integer ≥ 1$"),
        ({"image_shape": 28}, r"^image_shape = 28: not three integers"),
        ({"beta": "4"}, "^beta = '4': not a number; pass a finite number ≥ 0$"),
        (
            {"prior": "mixture"},
            r"^prior = 'mixture': not an instance of Prior; pass keras_vae\.priors\.MixtureOfNormals\(\)$",
        ),
        ({"prior": priors.VampPrior}, r"^prior = VampPrior: a class; pass an instance, such as VampPrior\(\)$"),
        (
            {"posterior": 3},
            r"^posterior = 3: not an instance of Posterior; .* in keras_vae\.posteriors: Deterministic, ",
        ),
        (
            {"likelihood": "gauss"},
            r"^likelihood = 'gauss': not an instance of Likelihood; .* in keras_vae\.likelihoods: Bernoulli, ",
        ),
        (
            {"objective": "elbo"},
            r"^objective = 'elbo': not an instance of Objective; pass keras_vae\.objectives\.ELBO\(\)$",
        ),
        (
            {"condition": 10},
            r"^condition = 10: not an instance of Condition; .* in keras_vae\.conditions: ClassLabel, Cont",
        ),
        ({"encoder": 8}, r"^encoder = 8: not a Keras model; did you mean latent_dim=8\?"),
        ({"image_shape": (28, 28)}, r"image_shape = \(28, 28\): .*pass \(height, width, channels\)"),
        ({"beta": 2.0, "objective": ELBO()}, "beta = 2.0: objective = .* pass one of the two"),
    ],
)
def test_invalid_or_contradictory_arguments_are_rejected(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        VAE(**arguments)


def test_one_network_without_the_other_is_rejected(make_vae: MakeVAE) -> None:
    with pytest.raises(
        InputError, match=r"^decoder = None: an encoder needs its decoder; pass both of them, or neither$"
    ):
        VAE(make_vae().encoder)


@pytest.mark.parametrize("count", [0, 2.5, "3", True])
def test_numbers_of_samples_are_whole_numbers(count: Any, make_vae: MakeVAE, images: Array) -> None:
    vae = make_vae()
    for name, call in (
        ("n", vae.sample),
        ("n", vae.sample_prior),
        ("samples", lambda count: vae.log_likelihood(images, samples=count)),
        ("draws", lambda count: vae.elbo_terms(images, draws=count)),
    ):
        with pytest.raises(InputError, match=f"^{name} = {count!r}: not a positive integer; pass an integer ≥ 1$"):
            call(count)


def test_sizes_and_networks_together_are_rejected(make_vae: MakeVAE) -> None:
    vae = make_vae()
    for argument in ({"latent_dim": 3}, {"image_shape": (9, 11, 1)}):
        with pytest.raises(InputError, match="the encoder and the decoder determine it"):
            VAE(vae.encoder, vae.decoder, **argument)


def test_exported_graph_equals_reconstruct(make_vae: MakeVAE, images: Array, tmp_path: Path) -> None:
    vae = make_vae()
    try:
        vae.export(tmp_path / "graph", verbose=False)
    except RunError as error:
        assert keras.backend.backend() != "tensorflow"
        assert "vae export" in str(error)  # noqa: PT017
        return
    tf = pytest.importorskip("tensorflow")
    graph = tf.saved_model.load(str(tmp_path / "graph"))
    np.testing.assert_allclose(graph.serve(images), vae.reconstruct(images), atol=1e-5)


def test_export_errors_name_a_way_that_works(make_vae: MakeVAE, tmp_path: Path) -> None:
    vae = make_vae()
    for model in (vae, vae.image_encoder):
        with pytest.raises(InputError, match=r"^format = 'onx': unknown; did you mean 'onnx'\? accepted: litert, onnx"):
            model.export(tmp_path / "graph", format="onx")
    if keras.backend.backend() == "tensorflow":
        # Only PyTorch writes this format.
        with pytest.raises(RunError, match=r"^format = 'torch': .*; use `vae export`$"):
            vae.export(tmp_path / "graph", format="torch")
