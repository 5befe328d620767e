"""Where figures look for codes: quantiles and centers from independent computations."""

from collections.abc import Callable
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
from keras import ops

from keras_vae import VAE
from keras_vae.components.conditions import ClassLabel
from keras_vae.components.posteriors import Deterministic
from keras_vae.components.priors import ConditionalNormal, MixtureOfNormals, RealNVP, StandardNormal
from keras_vae.core.errors import InputError
from keras_vae.core.typing import Array
from keras_vae.data.dataset import Dataset
from keras_vae.networks import Conv
from keras_vae.report.context import PlotContext
from keras_vae.report.latent_range import LatentRange, latent_grid_points
from keras_vae.report.plots import PLOTS, grid
from keras_vae.runs.run import Run

MakeVAE = Callable[..., VAE]


@pytest.fixture(scope="module")
def shots() -> Array:
    """Forty images of noise."""
    return np.random.default_rng(7).integers(0, 256, (40, 9, 11, 1), dtype="uint8")


def set_codes(vae: VAE, shift: list[float], scale: list[float], log_var: list[float]) -> None:
    """Scale and shift the posterior means of an encoder, and make the log-variances constant."""
    kernel, _ = vae.encoder.get_layer("z_mean").get_weights()
    vae.encoder.get_layer("z_mean").set_weights([kernel * scale, np.array(shift)])
    kernel, _ = vae.encoder.get_layer("z_log_var").get_weights()
    vae.encoder.get_layer("z_log_var").set_weights([np.zeros_like(kernel), np.array(log_var)])


def draws(vae: VAE, images: Array) -> np.ndarray:
    """Return 2,000 draws from the posteriors of 40 images, from the encoder's raw outputs."""
    z_mean, z_log_var = (ops.convert_to_numpy(part) for part in vae.encoder(images.astype("float32") / 255))
    noise = np.random.default_rng(0).standard_normal((50, *z_mean.shape), dtype="float32")
    return np.concatenate([z_mean + np.exp(z_log_var / 2) * part for part in noise]).astype("float64")


def shifted(make_vae: MakeVAE, **components: Any) -> VAE:
    vae = make_vae(latent_dim=4, **components)
    set_codes(vae, [10.0, -7.0, 22.0, 3.0], [30.0, 8.0, 20.0, 15.0], [0.0, -1.0, 0.5, -2.0])
    return vae


def test_traversals_cover_the_quantiles_of_the_codes(make_vae: MakeVAE, shots: Array) -> None:
    vae = shifted(make_vae)
    context = PlotContext.of(vae, shots)
    codes = draws(vae, shots)
    low, high = np.quantile(codes, 0.01, axis=0), np.quantile(codes, 0.99, axis=0)
    np.testing.assert_allclose(context.latent_range().quantiles((0.01, 0.99)), [low, high], rtol=1e-4)
    decoded: list[np.ndarray] = []
    decode = vae.decode
    vae.decode = lambda z, **options: decoded.append(z) or decode(z, **options)  # type: ignore[assignment, method-assign]
    strips = PLOTS["traversals"](context, n=5)
    z = decoded[0].reshape(4, 5, 4)
    for row, name in zip(z, strips.names, strict=True):
        dimension = int(name[2])
        np.testing.assert_allclose(row[:, dimension], np.linspace(low[dimension], high[dimension], 5), rtol=1e-4)
        assert name.splitlines()[1] == f"{low[dimension]:.1f} … {high[dimension]:.1f}".replace("-", "−")
        others = [other for other in range(4) if other != dimension]
        assert np.ptp(row[:, others], axis=0).max() == 0
        # The other dimensions are those of an actual image.
        means = ops.convert_to_numpy(vae.encoder(shots.astype("float32") / 255)[0])
        assert np.abs(means[:, others] - row[0, others]).max(axis=1).min() < 1e-4
    assert "the other dimensions are those of the image nearest to the mean" in strips.title.replace("\n", " ")


def test_the_grid_covers_the_quantiles_of_codes_that_do_not_follow_the_prior(make_vae: MakeVAE, shots: Array) -> None:
    vae = shifted(make_vae)
    points = latent_grid_points(PlotContext.of(vae, shots), 7, dims=(2, 1))
    quantiles = np.quantile(draws(vae, shots), (np.arange(7) + 0.5) / 7, axis=0)
    np.testing.assert_allclose(points.grid.x, quantiles[:, 2], rtol=1e-4)
    np.testing.assert_allclose(points.grid.y, quantiles[::-1, 1], rtol=1e-4)
    np.testing.assert_allclose(points.codes[:, 2], np.tile(quantiles[:, 2], 7), rtol=1e-4)
    np.testing.assert_array_equal(points.codes, points.grid.z)
    assert points.names == ("z[2]", "z[1]")
    means = ops.convert_to_numpy(vae.encoder(shots.astype("float32") / 255)[0])
    assert np.abs(means[:, [0, 3]] - points.codes[0, [0, 3]]).max(axis=1).min() < 1e-4


@pytest.mark.parametrize("latent_dim", [1, 2, 5])
@pytest.mark.parametrize("with_images", [True, False])
def test_the_classic_grid_covers_the_standard_normal(
    latent_dim: int, with_images: bool, make_vae: MakeVAE, shots: Array
) -> None:
    vae = make_vae(latent_dim=latent_dim)
    # Codes that are a little off, as those of any trained model.
    set_codes(vae, [-0.4] * latent_dim, [0.2] * latent_dim, [-0.3] * latent_dim)
    context = PlotContext.of(vae, shots if with_images else None)
    points = latent_grid_points(context, 30)
    quantiles = [NormalDist().inv_cdf((i + 0.5) / 30) for i in range(30)]
    rows = [(x, y) for y in quantiles[::-1] for x in quantiles] if latent_dim > 1 else [(x,) for x in quantiles]
    expected = np.zeros((len(rows), latent_dim), "float32")
    expected[:, list(context.plane)[:latent_dim]] = rows
    np.testing.assert_array_equal(points.codes, expected)
    corner = latent_grid_points(context, 3, bounds=(-1.0, 2.0)).codes[0]
    np.testing.assert_array_equal(corner[list(context.plane)[:latent_dim]], [-1, 2][:latent_dim])


def test_a_flow_prior_that_fits_has_a_grid_over_its_noise(make_vae: MakeVAE, shots: Array) -> None:
    vae = make_vae(latent_dim=3, prior=RealNVP(num_couplings=2, hidden=(4,)))
    for weight in vae.prior.weights:
        weight.assign(np.random.default_rng(1).normal(0, 0.5, weight.shape))
    context = PlotContext.of(vae)
    points = latent_grid_points(context, 3)
    assert context.latent_range().follows_prior
    dims = [int(name.removeprefix("noise[").removesuffix("]")) for name in points.names]
    noise = np.zeros((9, 3), "float32")
    middle = NormalDist().inv_cdf(5 / 6)
    noise[:, dims] = [(x, y) for y in (middle, 0, -middle) for x in (-middle, 0, middle)]
    np.testing.assert_allclose(points.grid.z, noise, atol=1e-6)
    # The direction of the flow that computes densities maps the codes back to the noise.
    u = ops.convert_to_tensor(points.codes)
    for bijector in vae.prior.flow:
        u = bijector.transform(u, None)[0]
    np.testing.assert_allclose(ops.convert_to_numpy(u), noise, atol=1e-4)
    # With dimensions given, the grid is in the space of codes.
    assert latent_grid_points(context, 3, dims=(0, 1)).names == ("z[0]", "z[1]")
    np.testing.assert_array_equal(context.latent_range().center, points.codes[4])


def test_codes_that_do_not_follow_their_flow_are_shown_where_they_are(make_vae: MakeVAE, shots: Array) -> None:
    vae = shifted(make_vae, prior=RealNVP(num_couplings=2, hidden=(4,)))
    context = PlotContext.of(vae, shots)
    points = latent_grid_points(context, 4, dims=(0, 2))
    assert not context.latent_range().follows_prior
    codes = draws(vae, shots)
    assert (points.codes.min(axis=0) >= codes.min(axis=0) - 0.01).all()
    assert (points.codes.max(axis=0) <= codes.max(axis=0) + 0.01).all()


@pytest.mark.parametrize("latent_dim", [1, 2, 3])
def test_a_model_without_images_is_drawn_over_samples_from_its_prior(latent_dim: int, make_vae: MakeVAE) -> None:
    vae = make_vae(latent_dim=latent_dim, prior=MixtureOfNormals(2))
    means = np.stack([np.full(latent_dim, 40.0), np.full(latent_dim, 60.0)])
    vae.prior.means.assign(means)
    context = PlotContext.of(vae)
    latent = context.latent_range()
    # Half of the samples are N(40, 1), the others N(60, 1).
    ends = [40 + NormalDist().inv_cdf(0.02), 60 + NormalDist().inv_cdf(0.98)]
    np.testing.assert_allclose(latent.quantiles((0.01, 0.99)), np.tile(ends, (latent_dim, 1)).T, atol=0.6)
    assert np.abs(latent.center - 50).max() < 14
    points = latent_grid_points(context, 4)
    assert points.codes.min() > 35
    assert points.codes.max() < 65
    strips = PLOTS["traversals"](context, n=2)
    assert len(strips.names) == latent_dim
    if latent_dim > 1:
        assert "those of the sample from the prior nearest to the mean" in strips.title
    grid(context, n=2)


def test_dimensions_that_no_image_uses_vary_over_the_prior(make_vae: MakeVAE, shots: Array) -> None:
    vae = make_vae(latent_dim=3)
    set_codes(vae, [5.0, 0.0, 9.0], [30.0, 30.0, 0.0], [-6.0, 0.0, -8.0])
    context = PlotContext.of(vae, shots)
    latent = context.latent_range()
    assert latent.is_used.tolist() == [True, True, False]
    normal = NormalDist().inv_cdf(0.99)
    np.testing.assert_allclose(latent.quantiles((0.01, 0.99))[:, 2], [-normal, normal], atol=0.35)
    assert latent.center[2] == pytest.approx(9, abs=0.1)
    names = {name[:4]: name for name in PLOTS["traversals"](context, n=2).names}
    assert names["z[2]"].endswith(", unused")
    assert not names["z[0]"].endswith(", unused")
    assert latent_grid_points(context, 2, dims=(2, 0)).names == ("z[2] (unused by images)", "z[0]")


def test_deterministic_codes_have_no_noise(shots: Array) -> None:
    network, posterior = Conv(widths=(4, 6), dense_units=8), Deterministic()
    vae = VAE(
        network.encoder((9, 11, 1), 2, posterior.param_sizes(2)),
        network.decoder(2, (9, 11, 1)),
        posterior=posterior,
        seed=5,
    )
    latent = PlotContext.of(vae, shots).latent_range()
    codes = ops.convert_to_numpy(vae.encoder(shots.astype("float32") / 255)).astype("float64")
    np.testing.assert_allclose(
        latent.quantiles((0.01, 0.5, 0.99)), np.quantile(codes.reshape(40, 2), (0.01, 0.5, 0.99), axis=0), atol=1e-5
    )


def conditional(shots: Array) -> tuple[VAE, Dataset]:
    """Return a model whose prior is N(20·label, 1) and whose codes have the same means, and its images."""
    network = Conv(widths=(4, 6), dense_units=8)
    vae = VAE(
        network.encoder((9, 11, 3), 2),
        network.decoder(4, (9, 11, 1)),
        condition=ClassLabel(2),
        prior=ConditionalNormal(hidden=2),
        seed=5,
    )
    for layer in (vae.prior.inner, vae.prior.outer):
        layer.kernel.assign(np.zeros(layer.kernel.shape))
        layer.bias.assign(np.zeros(layer.bias.shape))
    vae.prior.inner.kernel.assign([[0.0, 0.0], [1.0, 0.0]])
    vae.prior.outer.kernel.assign([[20.0, 20.0, 0.0, 0.0], [0.0] * 4])
    return vae, Dataset.from_arrays(shots, np.arange(40) % 2, name="frames")


def test_a_conditional_prior_is_followed_per_label(shots: Array) -> None:
    vae, dataset = conditional(shots)
    latent = [LatentRange.measure(vae, None, label) for label in (0, 1)]
    for label, measured in enumerate(latent):
        np.testing.assert_allclose(measured.center, [20 * label] * 2, atol=1e-4)
        np.testing.assert_allclose(measured.quantiles((0.5,))[0], [20 * label] * 2, atol=0.15)
        points = latent_grid_points(PlotContext.of(vae), 3, label=label)
        assert points.names == ("noise[0]", "noise[1]")
        middle = NormalDist().inv_cdf(5 / 6)
        np.testing.assert_allclose(points.codes - 20 * label, points.grid.z, atol=1e-4)
        np.testing.assert_allclose(points.grid.x, [-middle, 0, middle], atol=1e-6)
    # All labels in turn.
    np.testing.assert_allclose(LatentRange.measure(vae, None).codes.mean(axis=0), [10, 10], atol=0.3)
    # The codes of all images lie near zero, so that they do not follow the prior of label 1.
    context = PlotContext.of(vae, dataset)
    near, far = context.latent_range(0), context.latent_range(1)
    assert near.follows_prior
    assert not far.follows_prior
    assert len(near.z_mean) == len(far.z_mean) == 20
    assert np.abs(far.center).max() < 5
    assert latent_grid_points(context, 2, label=1).names[0].startswith("z[0]")


@pytest.mark.parametrize("count", [1, 3])
def test_a_few_images_show_whether_codes_are_elsewhere(count: int, make_vae: MakeVAE, shots: Array) -> None:
    vae = make_vae(latent_dim=2)
    set_codes(vae, [0.5, -0.5], [0.0, 0.0], [-4.0, -4.0])
    assert PlotContext.of(vae, shots[:count]).latent_range().follows_prior
    set_codes(vae, [0.5, -9.0], [0.0, 0.0], [-4.0, -4.0])
    far = PlotContext.of(vae, shots[:count]).latent_range()
    assert not far.follows_prior
    np.testing.assert_allclose(far.quantiles((0.5,))[0], [0.5, -9], atol=0.3)


def test_the_mean_of_standard_normal_codes_is_exactly_zero(make_vae: MakeVAE, shots: Array) -> None:
    vae = make_vae(latent_dim=2)
    set_codes(vae, [0.1, -0.2], [0.2, 0.2], [0.0, 0.0])
    assert LatentRange.measure(vae, Dataset.from_arrays(shots, name="frames")).mean.tolist() == [0, 0]
    far = shifted(make_vae)
    codes = draws(far, shots)
    measured = LatentRange.measure(far, Dataset.from_arrays(shots, name="frames"))
    np.testing.assert_allclose(measured.mean, codes.mean(axis=0), rtol=1e-4)
    assert isinstance(far.prior, StandardNormal)


def test_codes_that_are_not_finite_are_rejected(make_vae: MakeVAE, shots: Array) -> None:
    vae = make_vae(latent_dim=2)
    set_codes(vae, [np.nan, 0.0], [1.0, 1.0], [0.0, 0.0])
    with pytest.raises(InputError, match="codes: not finite, so the model has diverged"):
        grid(PlotContext.of(vae, shots), n=2)


def test_a_run_without_its_data_is_measured_on_the_images_in_its_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("KERAS_VAE_DATA", raising=False)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr("keras_vae.data.published.urlopen", lambda *_, **__: pytest.fail("accessed the network"))
    context = PlotContext.of("mnist-16d")
    with np.load(Run.open("mnist-16d").path / "images.npz") as archive:
        images = archive["images"]
    assert context.examples is not None
    np.testing.assert_array_equal(context.examples.images, images)
    assert len(context.latent_range().z_mean) == len(images)
    assert context.latent_range().follows_prior
