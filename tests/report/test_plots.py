"""Plots of runs and models: accepted inputs, the dimensions that they show, and errors."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from figure_helpers import axes_of
from matplotlib import pyplot

from keras_vae import VAE
from keras_vae.components.posteriors import Deterministic, DiagonalNormal
from keras_vae.components.priors import MixtureOfNormals
from keras_vae.core.errors import InputError
from keras_vae.core.typing import Array
from keras_vae.data.dataset import Dataset, Splits
from keras_vae.networks import Conv
from keras_vae.report import figures
from keras_vae.report.context import PlotContext
from keras_vae.report.plots import PLOTS, available_plots, interpolation, kl_per_dimension, latents, plot
from keras_vae.runs.run import Run


def title(figure: Any) -> str:
    return str(axes_of(figure)[0].get_title(loc="left"))


def test_plot_accepts_a_run_its_path_and_its_name() -> None:
    run = Run.open("mnist-2d")
    pngs = {plot(source, "rate-distortion")._repr_png_() for source in (run, run.path, str(run.path), "mnist-2d")}
    assert len(pngs) == 1


def test_plot_of_a_model_uses_the_images_that_are_given(make_vae: Callable[..., VAE], images: Array) -> None:
    vae = make_vae()
    dataset = Dataset.from_arrays(images, name="frames", split="test")
    assert title(plot(vae, "reconstructions", splits=images, n=3)) == f"{vae.name}: reconstructions of images"
    for splits in (dataset, Splits(dataset.subset(np.arange(2), "train"), None, dataset)):
        assert title(plot(vae, "reconstructions", splits=splits)) == f"{vae.name}: reconstructions of test images"
    expected = figures.image_grid(vae.sample(4, seed=7), f"{vae.name}: samples from the prior")
    assert plot(vae, "samples", n=4, seed=7)._repr_png_() == expected._repr_png_()
    with pytest.raises(InputError, match=r"splits = None: .* has no images of its own; pass splits"):
        plot(vae, "reconstructions")


def test_plot_shows_the_losses_of_a_fitted_model(make_vae: Callable[..., VAE], images: Array) -> None:
    vae = make_vae()
    with pytest.raises(InputError, match="no epoch is complete yet; call fit first"):
        plot(vae, "curves")
    vae.compile(optimizer="adam")
    history = vae.fit(images, epochs=2, verbose=0).history
    line = axes_of(plot(vae, "curves"))[0].lines[0]
    np.testing.assert_allclose(line.get_ydata(), history["negative_elbo"])


def test_plot_writes_a_file_and_leaves_no_figure_in_pyplot(make_vae: Callable[..., VAE], tmp_path: Path) -> None:
    before = pyplot.get_fignums()
    figure = plot(make_vae(), "samples", n=2, out=tmp_path / "samples.png")
    assert (tmp_path / "samples.png").read_bytes() == figure._repr_png_()
    assert pyplot.get_fignums() == before


@pytest.mark.parametrize(
    ("run", "kind", "options", "message"),
    [
        ("mnist-2d", "worst", {}, "'worst': .*worst-reconstructions"),
        ("mnist-2d", "samples", {"seeds": 1}, "samples plot: option.* 'seeds'.*did you mean 'seed'"),
        ("mnist-2d", "samples", {"out": "samples.gif"}, r"out = samples.gif: cannot write .* as '.gif'; use .png"),
        ("mnist-2d", "interpolation", {"out": "a.jpg"}, r"use .png or .gif"),
        ("mnist-3d", "samples", {}, "mnist-3d"),
        ("mnist-2d", None, {}, "kind = None: unknown; accepted: "),
        (3, "samples", {}, "run = 3: neither a run nor a model"),
    ],
)
def test_invalid_plot_is_rejected(run: Any, kind: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        plot(run, kind, **options)
    assert len(str(error.value).splitlines()) == 1


@pytest.fixture
def context(make_vae: Callable[..., VAE], images: Array) -> PlotContext:
    """A model whose dimensions 3 and 1 have a KL divergence of 1/2 and 1/8 nats, and the others of zero."""
    vae = make_vae(latent_dim=4)
    for name, bias in (("z_mean", [0.0, 0.5, 0.0, -1.0]), ("z_log_var", [0.0, 0.0, 0.0, 0.0])):
        kernel, _ = vae.encoder.get_layer(name).get_weights()
        vae.encoder.get_layer(name).set_weights([np.zeros_like(kernel), np.array(bias)])
    return PlotContext.of(vae, images)


def test_most_informative_dimensions_are_shown(context: PlotContext) -> None:
    np.testing.assert_allclose(context.kl_per_dimension, [0, 0.125, 0, 0.5], atol=1e-6)
    assert context.plane == (1, 3)
    axes = axes_of(latents(context))[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("z[1]", "z[3]")


@pytest.mark.parametrize("components", [{"prior": MixtureOfNormals(3)}, {"posterior": Deterministic()}])
def test_variance_orders_the_dimensions_if_their_kl_is_unknown(components: dict[str, Any], images: Array) -> None:
    network, sizes = Conv(widths=(4, 6), dense_units=8), components.get("posterior", DiagonalNormal()).param_sizes(4)
    vae = VAE(network.encoder((9, 11, 1), 4, sizes), network.decoder(4, (9, 11, 1)), seed=5, **components)
    kernel = vae.encoder.get_layer("z_mean").get_weights()[0]
    vae.encoder.get_layer("z_mean").set_weights([kernel * np.array([0.0, 1.0, 0.0, 50.0]), np.zeros(4)])
    context = PlotContext.of(vae, images)
    assert context.kl_per_dimension is None
    assert context.order[0] == 3
    assert context.plane == (1, 3)
    assert "kl-per-dimension" not in available_plots(context)
    assert PLOTS["traversals"](context, n=2).names[0].splitlines()[0] == "z[3]"
    with pytest.raises(InputError, match="only the sum over dimensions"):
        kl_per_dimension(context)


def test_plane_of_one_or_two_dimensions_needs_no_images(make_vae: Callable[..., VAE]) -> None:
    assert PlotContext.of(make_vae(latent_dim=1)).plane == (0, 1)


def test_latents_show_the_contours_of_the_actual_prior(make_vae: Callable[..., VAE], images: Array) -> None:
    vae = make_vae(latent_dim=3, prior=MixtureOfNormals(2))
    vae.prior.means.assign([[8.0, 0.0, -5.0], [8.0, 0.0, -5.0]])
    axes = axes_of(latents(PlotContext.of(vae, images), dims=(0, 2)))[0]
    assert not axes.patches
    outer = max(np.ptp(path.vertices[:, 0]) for lines in axes.collections[1:] for path in lines.get_paths())
    assert outer == pytest.approx(4, rel=0.1)
    for lines in axes.collections[1:]:
        outline = np.concatenate([path.vertices for path in lines.get_paths()])
        np.testing.assert_allclose((outline.min(axis=0) + outline.max(axis=0)) / 2, [8, -5], atol=0.15)
    # A standard normal prior has the circles.
    normal = axes_of(latents(PlotContext.of(make_vae(latent_dim=3), images), dims=(0, 2)))[0]
    assert [patch.get_radius() for patch in normal.patches] == [1, 2]


def test_spherical_interpolation_turns_around_the_mean_of_the_codes(
    make_vae: Callable[..., VAE], images: Array
) -> None:
    vae = make_vae(latent_dim=4)
    kernel, _ = vae.encoder.get_layer("z_mean").get_weights()
    vae.encoder.get_layer("z_mean").set_weights([30 * kernel, np.array([50.0, -40.0, 30.0, 60.0])])
    context = PlotContext.of(vae, images)
    decoded: list[np.ndarray] = []
    decode = vae.decode
    vae.decode = lambda z, **options: decoded.append(z) or decode(z, **options)  # type: ignore[assignment, method-assign]
    interpolation(context, n=9, rows=12, spherical=True)
    z_mean = vae.encode(images).z_mean
    mean = context.latent_range().mean
    # The mean of 2,000 draws and that of the posterior means differ by sampling noise.
    np.testing.assert_allclose(mean, z_mean.mean(axis=0), atol=0.2)
    for pair, path in zip(zip(z_mean[:12], z_mean[12:], strict=True), decoded[0].reshape(12, 9, 4), strict=True):
        first, last = (end - mean for end in pair)
        angle = np.arccos(first @ last / (np.linalg.norm(first) * np.linalg.norm(last)))
        t = np.linspace(0, 1, 9)[:, None]
        expected = (np.sin((1 - t) * angle) * first + np.sin(t * angle) * last) / np.sin(angle)
        np.testing.assert_allclose(path - mean, expected, atol=1e-2)
