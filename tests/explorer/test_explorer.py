"""The arrays that the page shows."""

import functools
import json
import re
import shutil
import time
from collections.abc import Callable

import keras
import numpy as np
import pytest
from explorer_runs import CLASSIC, LADDER, QUANTIZERS, VQ, MakeRun, vq

from helpers import on_tensorflow
from keras_vae import Run
from keras_vae.core.errors import InputError
from keras_vae.core.typing import Array
from keras_vae.explorer import pictures
from keras_vae.explorer.engine import Engine
from keras_vae.explorer.explorer import NUM_INTERPOLATED, Explorer
from keras_vae.explorer.latent_space import grid_sizes
from keras_vae.report.report import write_report

Explored = Callable[..., Explorer]

pytestmark = on_tensorflow("calls methods of models that their own tests cover on every backend")


@pytest.fixture(scope="module")
def explored(make_run: MakeRun) -> Explored:
    """Return a function that explores a run with the given settings, the same one each time. Do not change it."""
    return functools.cache(lambda *settings: Explorer(make_run(*settings)))


@pytest.fixture(scope="module")
def classic(explored: Explored) -> Explorer:
    return explored(*CLASSIC, "model.latent_dim=3")


def test_padded_batches_decode_to_the_same_images(classic: Explorer) -> None:
    engine = classic.engine
    small = Engine(engine.model, (1, 4))
    for count in (1, 2, 4, 7):
        codes = np.random.default_rng(count).normal(size=(count, 3)).astype("float32")
        np.testing.assert_allclose(small.decode(codes), engine.model.decode(codes), atol=1e-6)


def test_a_point_of_the_map_decodes_to_the_image_of_its_grid_cell(classic: Explorer) -> None:
    space = classic.latent_space
    plane = space.plane("dimensions", (0, 2))
    view = space.default_view(plane)
    grid = space.decode_grid(plane, view)
    assert grid.shape == (space.grid_size**2, 9, 11, 1)
    half_cell = view.half / space.grid_size
    center_of_top_left = (view.u - view.half + half_cell, view.v + view.half - half_cell)
    image = classic.decode(plane.codes([center_of_top_left])[0])
    np.testing.assert_allclose(image, grid[0], atol=1e-5)


def test_zooming_in_decodes_a_grid_of_more_similar_images(classic: Explorer) -> None:
    space, plane = classic.latent_space, classic.latent_space.plane()
    view = space.default_view(plane)
    first, closer = (space.decode_grid(plane, shown) for shown in (view, view.zoom(0.1)))
    assert closer.std(axis=0).mean() < 0.5 * first.std(axis=0).mean()


def test_an_analysis_agrees_with_the_model(classic: Explorer, frames: tuple[Array, Array]) -> None:
    model, image = classic.engine.model, frames[0][5]
    analysis = classic.analyzer.analyze(image)
    np.testing.assert_allclose(analysis.code, model.encode(image[None]).z_mean[0], atol=1e-5)
    np.testing.assert_allclose(analysis.reconstruction, model.reconstruct(image[None])[0], atol=1e-5)
    error = np.abs(image / 255 - analysis.reconstruction).mean(axis=-1, keepdims=True)
    np.testing.assert_allclose(analysis.error_map, error, atol=1e-6)
    assert analysis.score == "nll"
    assert -analysis.nats == pytest.approx(model.log_likelihood(image[None], samples=64)[0], abs=3)


def test_percentiles_rank_images_once_the_reference_is_scored(make_run: MakeRun, frames: tuple[Array, Array]) -> None:
    run = make_run(*CLASSIC)
    model = run.load_model()
    # This model expects dark pixels for every code, so that brighter images score higher.
    last = next(layer for layer in reversed(model.decoder.layers) if layer.weights)
    kernel, bias = last.get_weights()
    last.set_weights([kernel, bias - 3])
    run.save_model(model)
    explorer = Explorer(run)
    analyze, reference = explorer.analyzer.analyze, explorer.sources.reference.images
    assert analyze(reference[0]).percentile is None
    explorer.analyzer.score_reference()
    assert analyze(np.full((9, 11, 1), 255, "uint8")).percentile == 100
    assert analyze(np.zeros((9, 11, 1), "uint8")).percentile == 0
    by_brightness = reference[np.argsort(reference.mean(axis=(1, 2, 3)))[:: len(reference) // 5]]
    found = [analyze(image).percentile for image in by_brightness]
    assert found == sorted(found)
    assert found[0] < 10
    assert found[-1] > 70


def test_interpolations_start_and_end_at_the_reconstructions(classic: Explorer, frames: tuple[Array, Array]) -> None:
    first, second = frames[0][:2]
    for spherical in (False, True):
        strip = classic.interpolate(first, second, spherical=spherical)
        assert strip.shape == (NUM_INTERPOLATED, 9, 11, 1)
        ends = classic.engine.model.reconstruct(np.stack([first, second]))
        np.testing.assert_allclose(strip[[0, -1]], ends, atol=1e-4)


def test_arithmetic_decodes_a_plus_b_minus_c(classic: Explorer, frames: tuple[Array, Array]) -> None:
    model, (a, b, c) = classic.engine.model, frames[0][[0, 4, 8]]
    images = classic.arithmetic(a, b, c)
    code_a, code_b, code_c = model.encode(np.stack([a, b, c])).z_mean
    expected = model.decode(np.stack([code_a, code_a + 0.5 * (code_b - code_c), code_a + code_b - code_c]))
    np.testing.assert_allclose(images[[0, len(images) // 2, -1]], expected, atol=1e-4)
    # b − b is nothing.
    np.testing.assert_allclose(classic.arithmetic(a, b, b)[-1], model.reconstruct(a[None])[0], atol=1e-4)


def test_neighbors_are_the_nearest_training_images(classic: Explorer) -> None:
    train, neighbors = classic.sources.splits.train.images, classic.neighbors
    images = train[[4, 9]].astype("float32") / 255
    nearest, found = neighbors.nearest(images)
    assert found.indices.tolist() == [4, 9]
    np.testing.assert_array_equal(nearest, train[[4, 9]])
    assert neighbors.num_searched == neighbors.num_images == len(train)
    samples = classic.sampler.sample(20, 1)
    distances = np.linalg.norm(samples.reshape(20, 1, -1) - train.reshape(1, len(train), -1) / 255, axis=2)
    np.testing.assert_array_equal(neighbors.nearest(samples)[1].indices, distances.argmin(axis=1))
    np.testing.assert_allclose(neighbors.nearest(samples)[1].distances, distances.min(axis=1), rtol=1e-4)


def test_dimensions_are_sorted_by_their_kl_divergence(make_run: MakeRun) -> None:
    run = make_run(*CLASSIC, "model.latent_dim=3")
    rates = [{"dimension": 2, "mean": 1.5}, {"dimension": 0, "mean": 0.4}, {"dimension": 1, "mean": 0.001}]
    latents = {"kl_per_dimension": rates, "active_units": {"count": 2, "dimensions": [0, 2]}}
    (run.path / "evaluation.json").write_text(json.dumps({"latents": latents}))
    space = Explorer(run).latent_space
    assert space.order == [2, 0, 1]
    assert space.top_dims == (0, 2)
    assert [space.is_active(dimension) for dimension in range(3)] == [True, False, True]


def test_a_dimension_with_a_constant_mean_is_inactive_whatever_its_kl(make_run: MakeRun) -> None:
    run = make_run(*CLASSIC, "model.latent_dim=3")
    rates = [{"dimension": dimension, "mean": mean} for dimension, mean in enumerate((0.4, 9.0, 1.5))]
    latents = {"kl_per_dimension": rates, "active_units": {"count": 2, "dimensions": [0, 2]}}
    (run.path / "evaluation.json").write_text(json.dumps({"latents": latents}))
    space = Explorer(run).latent_space
    assert space.order == [2, 0, 1]
    assert not space.is_active(1)


def test_a_plane_through_a_code_holds_the_other_dimensions(make_run: MakeRun) -> None:
    explorer = Explorer(make_run(*CLASSIC, "model.latent_dim=4"))
    space, code = explorer.latent_space, np.array([0.3, -0.2, 1.0, 0.5], "float32")
    plane, images = space.plane_through(code)
    first, second = sorted(space.order[:2])
    assert plane.names == (f"z[{first}]", f"z[{second}]")
    held = [dimension for dimension in range(4) if dimension not in (first, second)]
    corner = plane.codes(space.default_view(plane).cell_centers(7))[0]
    np.testing.assert_allclose(corner[held], code[held])
    assert images.shape == (49, *explorer.image_shape)
    np.testing.assert_allclose(images[0], explorer.decode(corner), atol=1e-5)


def test_a_plane_needs_two_dimensions(explored: Explored) -> None:
    explorer = explored(*CLASSIC, "model.latent_dim=1")
    assert (explorer.has_vector, explorer.has_plane) == (True, False)
    with pytest.raises(InputError, match="latent_dim = 1: a plane needs two dimensions"):
        explorer.latent_space.plane()


def test_preparation_releases_the_lock_between_batches(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    explorer, held = Explorer(make_run(*CLASSIC)), []
    monkeypatch.setattr(time, "sleep", lambda _: held.append(Engine.lock.locked()))
    explorer.prepare()
    assert len(held) > 1
    assert not any(held)
    assert {"html", "findings"} <= vars(explorer.report).keys()


def test_temperature_scales_random_codes(classic: Explorer) -> None:
    assert classic.engine.has_temperature
    warm, hot = (classic.engine.sample_code(3, temperature) for temperature in (1.0, 2.0))
    np.testing.assert_allclose(hot, 2 * warm, rtol=1e-5)
    assert not classic.engine.sample_code(3, 0.0).any()


def test_sliders_and_map_cover_a_prior_that_is_not_standard(make_run: MakeRun) -> None:
    run = make_run(*CLASSIC, "model.latent_dim=3", 'model.prior={ name = "realnvp", num_couplings = 2, hidden = [4] }')
    model = run.load_model()
    # Move the codes of all images far away from zero.
    far = np.array([9.0, 0.0, -20.0], "float32")
    model.encoder.get_layer("z_mean").bias.assign(far)
    run.save_model(model)
    explorer = Explorer(run)
    space = explorer.latent_space
    # The sliders cover the codes of images and the samples of the prior.
    low, high = space.limits
    for codes in (model.sample_prior(300, seed=0), model.encode(space.dataset.images).z_mean):
        assert (low - 1e-4 <= codes).all()
        assert (codes <= high + 1e-4).all()
    assert low[2] <= -20
    # The prior is not fitted to these codes: the center is the code of an image, not that of zero noise.
    assert np.abs(space.codes - space.center).max(axis=1).min() == 0
    plane = space.plane("dimensions", (0, 2))
    view, points = space.default_view(plane), plane.points(space.codes)
    assert (np.abs(points - [view.u, view.v]) <= view.half).mean() > 0.95
    assert view.half < 4
    np.testing.assert_allclose(plane.codes([[1.0, 2.0]])[0], [1.0, space.center[1], 2.0], atol=1e-5)


def test_the_center_of_a_prior_that_covers_the_codes_is_that_of_zero_noise(make_run: MakeRun) -> None:
    run = make_run(*CLASSIC, "model.latent_dim=3", 'model.prior={ name = "realnvp", num_couplings = 2, hidden = [4] }')
    space = Explorer(run).latent_space
    np.testing.assert_allclose(space.center, space.engine.sample_code(5, 0.0), atol=1e-5)
    view = space.default_view(space.plane())
    # The 1 % and 99 % quantiles of a standard normal are ±2.33.
    assert view.half == pytest.approx(2.33 * 1.1, rel=0.2)


def test_a_mixture_prior_has_no_temperature(make_run: MakeRun) -> None:
    explorer = Explorer(make_run(*CLASSIC, 'model.prior={ name = "mixture", num_components = 3 }'))
    assert not explorer.engine.has_temperature
    assert explorer.engine.sample_code(0, 1.0).shape == (2,)


def test_a_conditional_model_is_conditioned_on_the_chosen_label(
    explored: Explored, frames: tuple[Array, Array]
) -> None:
    explorer = explored(*CLASSIC, 'model.condition="label"')
    assert explorer.classes == ("0", "1", "2")
    assert explorer.label_index("2") == explorer.label_index(2) == 2
    assert explorer.label_index(None) == 0
    with pytest.raises(InputError, match="label = '7': unknown; accepted: 0, 1, 2"):
        explorer.label_index("7")
    code = np.zeros(2)
    assert np.abs(explorer.decode(code, 0) - explorer.decode(code, 1)).max() > 1e-4
    explorer.warm_up()
    space = explorer.latent_space
    assert space.codes.shape == (len(space.dataset), 2)
    assert explorer.analyzer.analyze(frames[0][0], 1).code is not None


def test_classes_named_by_numbers_are_found_by_their_names(make_run: MakeRun, frames: tuple[Array, Array]) -> None:
    explorer = Explorer(make_run(*CLASSIC, 'model.condition="label"', labels=frames[1] + 1))
    model, names = explorer.engine.model, ("1", "2", "3")
    assert explorer.classes == names
    assert [explorer.label_index(name) for name in names] == [0, 1, 2]
    with pytest.raises(InputError, match="label = '0': unknown; accepted: 1, 2, 3"):
        explorer.label_index("0")
    code = np.zeros(2, "float32")
    for name in names:
        expected = model.decode(code[None], condition=name)[0]
        np.testing.assert_allclose(explorer.decode(code, explorer.label_index(name)), expected, atol=1e-6)
        one = explorer.sampler.sample(2, 5, label=explorer.label_index(name))
        np.testing.assert_allclose(one, model.sample(2, seed=5, condition=name), atol=1e-5)
    every = explorer.sampler.sample(6, 3)
    np.testing.assert_allclose(every, model.sample(6, seed=3, condition=[*names, *names]), atol=1e-5)
    space = explorer.latent_space
    legend = pictures.legend(space.dataset.labels, space.dataset.classes)
    shown = {names[label] for label in space.dataset.labels}
    assert set(re.findall(r'data-name="(\w+)"', legend)) == shown


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "tabs"),
    [
        ((*CLASSIC, 'model.condition="label"'), "Latent map, Sliders, Draw, Interpolate, Arithmetic, Samples, Report"),
        ((*CLASSIC, "model.latent_dim=70"), "Latent map, Sliders, Draw, Interpolate, Arithmetic, Samples, Report"),
        ((*CLASSIC, "model.latent_dim=1"), "Sliders, Draw, Interpolate, Arithmetic, Samples, Report"),
        (LADDER, "Draw, Interpolate, Arithmetic, Samples, Report"),
        (VQ, "Draw, Samples, Report"),
    ],
)
def test_the_page_has_the_tabs_that_apply(settings: tuple[str, ...], tabs: str, explored: Explored) -> None:
    pytest.importorskip("gradio", reason="keras-vae[explore] is not installed")
    from keras_vae.explorer import app

    built = app.build(explored(*settings)).config["components"]
    assert ", ".join(part["props"]["label"] for part in built if part["type"] == "tabitem") == tabs


@pytest.mark.slow
@pytest.mark.parametrize(("settings", "has_lines"), [(VQ, False), (LADDER, True)])
def test_other_architectures_offer_the_methods_that_apply(
    settings: tuple[str, ...], has_lines: bool, explored: Explored, frames: tuple[Array, Array]
) -> None:
    explorer = explored(*settings)
    assert (explorer.has_vector, explorer.has_plane, explorer.has_lines) == (False, False, has_lines)
    explorer.warm_up()
    analysis = explorer.analyzer.analyze(frames[0][0])
    assert analysis.score == ("nll" if has_lines else "negative_elbo")
    assert analysis.reconstruction.shape == (9, 11, 1)
    assert explorer.sampler.sample(3, 0).shape == (3, 9, 11, 1)
    with pytest.raises(InputError, match="its code is not one vector"):
        _ = explorer.latent_space
    if not has_lines:
        with pytest.raises(InputError, match="its code is discrete"):
            explorer.interpolate(*frames[0][:2])
        with pytest.raises(InputError, match="its code is discrete"):
            explorer.arithmetic(*frames[0][:3])


@pytest.mark.parametrize("quantizer", QUANTIZERS)
def test_every_quantizer_can_be_explored_and_reported(
    quantizer: str, make_run: MakeRun, frames: tuple[Array, Array]
) -> None:
    run = make_run(*vq(quantizer))
    explorer = Explorer(run)
    analysis = explorer.analyzer.analyze(frames[0][0])
    model = run.load_model()
    # A residual quantizer has two indices per position of the 3×3 map.
    assert model.latent_shape == ((3, 3, 2) if "residual" in quantizer else (3, 3))
    np.testing.assert_allclose(analysis.reconstruction, model.reconstruct(frames[0][:1])[0], atol=1 / 255)
    assert explorer.sampler.sample(2, 0).shape == (2, 9, 11, 1)
    page = write_report(run, model=model).read_text("utf-8")
    assert all(f"<h2>{title}</h2>" in page for title in ("Reconstructions", "Samples"))


def test_large_color_images_have_a_smaller_grid(make_run: MakeRun) -> None:
    images = np.random.default_rng(0).integers(0, 256, (60, 64, 48, 3), dtype="uint8")
    explorer = Explorer(make_run(*CLASSIC, 'model.likelihood="normal"', images=images))
    assert grid_sizes((64, 48, 3)) == (10, 7)
    explorer.warm_up()
    space, plane = explorer.latent_space, explorer.latent_space.plane()
    assert space.decode_grid(plane, space.default_view(plane)).shape == (100, 64, 48, 3)


def test_samples_come_from_the_chosen_prior(make_run: MakeRun) -> None:
    run = make_run(*CLASSIC)
    model = run.load_model()
    from keras_vae.components.priors import MixtureOfNormals

    prior = MixtureOfNormals(num_components=2)
    prior.build((None, 2), (None, 9, 11, 1), (None, 0))
    for weight in prior.weights:
        weight.assign(keras.ops.ones_like(weight) * 5)
    run.save_model(model.with_prior(prior), fitted=True)
    sampler = Explorer(Run.open(run.path)).sampler
    assert sampler.priors == ("fitted", "original")
    original = sampler.sample(4, 0, prior="original")
    np.testing.assert_allclose(original, model.sample(4, seed=0), atol=1e-5)
    assert np.abs(sampler.sample(4, 0, prior="fitted") - original).max() > 1e-3
    with pytest.raises(InputError, match="prior = 'other': unknown"):
        sampler.sample(1, 0, prior="other")


def test_models_conditioned_on_vectors_are_rejected(make_run: MakeRun) -> None:
    run = make_run(*CLASSIC)
    from keras_vae import VAE
    from keras_vae.components.conditions import ContinuousCondition
    from keras_vae.networks import Conv

    network = Conv(widths=(2,), dense_units=4)
    vae = VAE(network.encoder((9, 11, 3), 2), network.decoder(4, (9, 11, 1)), condition=ContinuousCondition(2))
    run.save_model(vae)
    with pytest.raises(InputError, match="the explorer supports labels only"):
        Explorer(run)
    shutil.rmtree(run.path)
