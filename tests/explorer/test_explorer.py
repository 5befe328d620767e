"""The questions that the page puts to a run."""

import json
import shutil
import time
from pathlib import Path

import keras
import numpy as np
import pytest
from explorer_runs import CLASSIC, LADDER, VQ, MakeRun

from helpers import on_tensorflow
from keras_vae import Run
from keras_vae.core.errors import InputError
from keras_vae.core.typing import Array
from keras_vae.explorer.engine import Engine
from keras_vae.explorer.explorer import STEPS, Explorer

pytestmark = on_tensorflow("asks models in ways that their own tests cover on every backend")


@pytest.fixture(scope="module")
def classic(make_run: MakeRun) -> Explorer:
    return Explorer(make_run(*CLASSIC, "model.latent_dim=3"))


def test_padded_batches_give_the_images_that_the_model_gives(classic: Explorer) -> None:
    engine = classic.engine
    small = Engine(engine.model, (1, 4))
    for count in (1, 2, 4, 7):
        codes = np.random.default_rng(count).normal(size=(count, 3)).astype("float32")
        np.testing.assert_allclose(small.decode(codes), engine.model.decode(codes), atol=1e-6)


def test_a_point_of_the_map_decodes_to_its_cell_of_the_grid(classic: Explorer) -> None:
    plane = classic.plane("dimensions", (0, 2))
    view = classic.home(plane)
    grid = classic.grid(plane, view)
    assert grid.shape == (classic.side**2, 9, 11, 1)
    middle_of_top_left = view.at(0.5 / classic.side, 1 - 0.5 / classic.side)
    image = classic.decode(plane.codes([middle_of_top_left])[0])
    np.testing.assert_allclose(image, grid[0], atol=1e-5)


def test_zooming_decodes_the_grid_anew(classic: Explorer) -> None:
    plane = classic.plane()
    first, closer = (classic.grid(plane, view) for view in (classic.home(plane), classic.home(plane).zoomed(0.1)))
    assert closer.std(axis=0).mean() < 0.5 * first.std(axis=0).mean()


def test_placed_images_are_what_the_model_makes_of_them(classic: Explorer, frames: tuple[Array, Array]) -> None:
    model, image = classic.engine.model, frames[0][5]
    placed = classic.place(image)
    np.testing.assert_allclose(placed.code, model.encode(image[None]).z_mean[0], atol=1e-5)
    np.testing.assert_allclose(placed.reconstruction, model.reconstruct(image[None])[0], atol=1e-5)
    assert placed.score == "nll"
    assert -placed.nats == pytest.approx(model.log_likelihood(image[None], 64)[0], abs=3)


def test_percentiles_tell_strange_images_once_known_ones_are_measured(
    make_run: MakeRun, frames: tuple[Array, Array]
) -> None:
    run = make_run(*CLASSIC)
    model = run.load_model()
    # It expects dark pixels, whatever the code: what is brighter is stranger.
    last = next(layer for layer in reversed(model.decoder.layers) if layer.weights)
    kernel, bias = last.get_weights()
    last.set_weights([kernel, bias - 3])
    run.save_model(model)
    explorer = Explorer(run)
    known = explorer.material.known.images
    assert explorer.place(known[0]).percentile is None
    explorer.learn_what_is_known()
    assert explorer.place(np.full((9, 11, 1), 255, "uint8")).percentile == 100
    assert explorer.place(np.zeros((9, 11, 1), "uint8")).percentile == 0
    by_brightness = known[np.argsort(known.mean(axis=(1, 2, 3)))[:: len(known) // 5]]
    found = [explorer.place(image).percentile for image in by_brightness]
    assert found == sorted(found)
    assert found[0] < 10
    assert found[-1] > 70


def test_strips_start_and_end_at_the_reconstructions(classic: Explorer, frames: tuple[Array, Array]) -> None:
    first, second = frames[0][:2]
    for spherical in (False, True):
        strip = classic.between(first, second, spherical=spherical)
        assert strip.shape == (STEPS, 9, 11, 1)
        ends = classic.engine.model.reconstruct(np.stack([first, second]))
        np.testing.assert_allclose(strip[[0, -1]], ends, atol=1e-4)


def test_neighbors_are_the_nearest_training_images(classic: Explorer) -> None:
    train = classic.material.splits.train.images
    images = train[[4, 9]].astype("float32") / 255
    nearest, found = classic.neighbors(images)
    assert found.indices.tolist() == [4, 9]
    np.testing.assert_array_equal(nearest, train[[4, 9]])
    assert classic.training_images == (len(train), len(train))
    samples = classic.sample(20, 1)
    distances = np.linalg.norm(samples.reshape(20, 1, -1) - train.reshape(1, len(train), -1) / 255, axis=2)
    np.testing.assert_array_equal(classic.neighbors(samples)[1].indices, distances.argmin(axis=1))
    np.testing.assert_allclose(classic.neighbors(samples)[1].distances, distances.min(axis=1), rtol=1e-4)


def test_dimensions_come_by_their_rates(make_run: MakeRun) -> None:
    run = make_run(*CLASSIC, "model.latent_dim=3")
    rates = [{"dimension": 2, "mean": 1.5}, {"dimension": 0, "mean": 0.4}, {"dimension": 1, "mean": 0.001}]
    (run.path / "evaluation.json").write_text(json.dumps({"latents": {"kl_per_dimension": rates}}))
    explorer = Explorer(run)
    assert explorer.order == [2, 0, 1]
    assert [explorer.is_active(dimension) for dimension in range(3)] == [True, False, True]


def test_a_plane_goes_through_a_code(make_run: MakeRun) -> None:
    explorer = Explorer(make_run(*CLASSIC, "model.latent_dim=4"))
    code = np.array([0.3, -0.2, 1.0, 0.5], "float32")
    plane, images = explorer.through(code)
    first, second = sorted(explorer.order[:2])
    assert plane.names == (f"z[{first}]", f"z[{second}]")
    held = [dimension for dimension in range(4) if dimension not in (first, second)]
    corner = plane.codes(explorer.home(plane).lattice(7))[0]
    np.testing.assert_allclose(corner[held], code[held])
    assert images.shape == (49, *explorer.image_shape)
    np.testing.assert_allclose(images[0], explorer.decode(corner), atol=1e-5)


def test_the_page_is_answered_while_what_takes_seconds_is_prepared(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    explorer, held = Explorer(make_run(*CLASSIC)), []
    monkeypatch.setattr(time, "sleep", lambda _: held.append(Engine.lock.locked()))
    explorer.prepare()
    assert len(held) > 1
    assert not any(held)
    assert {"report", "findings"} <= vars(explorer).keys()


def test_temperature_scales_draws(classic: Explorer) -> None:
    assert classic.engine.has_temperature
    warm, hot = (classic.engine.draw(3, temperature) for temperature in (1.0, 2.0))
    np.testing.assert_allclose(hot, 2 * warm, rtol=1e-5)
    assert not classic.engine.draw(3, 0.0).any()


def test_sliders_and_map_reach_where_a_prior_that_is_not_standard_has_its_codes(make_run: MakeRun) -> None:
    run = make_run(*CLASSIC, "model.latent_dim=3", 'model.prior={ name = "realnvp", num_couplings = 2, hidden = [4] }')
    model = run.load_model()
    # A last shift far away: the prior's draws lie around it.
    far = np.array([9.0, 0.0, -20.0], "float32")
    model.encoder.get_layer("z_mean").bias.assign(far)
    run.save_model(model)
    explorer = Explorer(run)
    drawn = explorer.engine.draws_of_prior(500)
    assert (np.abs(np.concatenate([drawn, explorer.codes])) <= explorer.reach).all()
    assert explorer.reach[2] >= 20
    np.testing.assert_allclose(explorer.middle, explorer.engine.draw(5, 0.0), atol=1e-5)
    plane = explorer.plane("dimensions", (0, 2))
    view, points = explorer.home(plane), plane.points(explorer.codes)
    assert (np.abs(points - [view.u, view.v]) <= view.half).mean() > 0.95
    np.testing.assert_allclose(plane.codes([[1.0, 2.0]])[0], [1.0, explorer.middle[1], 2.0], atol=1e-5)


def test_a_mixture_is_drawn_from_without_temperature(make_run: MakeRun) -> None:
    explorer = Explorer(make_run(*CLASSIC, 'model.prior={ name = "mixture", num_components = 3 }'))
    assert not explorer.engine.has_temperature
    assert explorer.engine.draw(0, 1.0).shape == (2,)


def test_conditional_models_are_told_labels(make_run: MakeRun, frames: tuple[Array, Array]) -> None:
    explorer = Explorer(make_run(*CLASSIC, 'model.condition="label"'))
    assert explorer.classes == ("0", "1", "2")
    assert explorer.label("2") == explorer.label(2) == 2
    assert explorer.label(None) == 0
    with pytest.raises(InputError, match="label = 7: accepted are 0, 1, 2"):
        explorer.label("7")
    code = np.zeros(2)
    assert np.abs(explorer.decode(code, 0) - explorer.decode(code, 1)).max() > 1e-4
    explorer.warm_up()
    assert explorer.codes.shape == (len(explorer.shown), 2)
    assert explorer.place(frames[0][0], 1).code is not None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "tabs"),
    [
        ((*CLASSIC, 'model.condition="label"'), "Latent map, Sliders, Draw, Between, Samples, Run"),
        ((*CLASSIC, "model.latent_dim=70"), "Latent map, Sliders, Draw, Between, Samples, Run"),
        ((*CLASSIC, "model.latent_dim=1"), "Sliders, Draw, Between, Samples, Run"),
        (LADDER, "Draw, Between, Samples, Run"),
        (VQ, "Draw, Samples, Run"),
    ],
)
def test_the_page_has_the_tabs_that_apply(settings: tuple[str, ...], tabs: str, make_run: MakeRun) -> None:
    pytest.importorskip("gradio", reason="keras-vae[explore] is not installed")
    from keras_vae.explorer import page

    built = page.build(Explorer(make_run(*settings))).config["components"]
    assert ", ".join(part["props"]["label"] for part in built if part["type"] == "tabitem") == tabs


@pytest.mark.slow
@pytest.mark.parametrize(("settings", "has_lines"), [(VQ, False), (LADDER, True)])
def test_other_architectures_answer_what_applies(
    settings: tuple[str, ...], has_lines: bool, make_run: MakeRun, frames: tuple[Array, Array]
) -> None:
    explorer = Explorer(make_run(*settings))
    assert (explorer.has_vector, explorer.has_plane, explorer.has_lines) == (False, False, has_lines)
    explorer.warm_up()
    placed = explorer.place(frames[0][0])
    assert placed.score == ("nll" if has_lines else "negative_elbo")
    assert placed.reconstruction.shape == (9, 11, 1)
    assert explorer.sample(3, 0).shape == (3, 9, 11, 1)
    with pytest.raises(InputError, match="no plane of codes"):
        explorer.plane()
    if not has_lines:
        with pytest.raises(InputError, match="no codes between"):
            explorer.between(*frames[0][:2])


def test_a_run_whose_data_is_gone_still_explores(make_run: MakeRun) -> None:
    run = make_run(*CLASSIC)
    Path(run.experiment.data.source).unlink()
    explorer = Explorer(run)
    assert explorer.material.shown is None
    assert "no source" in explorer.material.note
    explorer.warm_up()
    plane = explorer.plane()
    assert explorer.grid(plane, explorer.home(plane)).shape[0] == explorer.side**2
    images, what = explorer.picks()
    assert what == "samples from the prior"
    assert explorer.between(*images[:2]).shape[0] == STEPS
    assert explorer.place(images[0]).percentile is None
    assert explorer.neighbors(explorer.sample(2, 0)) is None
    assert isinstance(explorer.findings, tuple)
    assert "negative ELBO" in explorer.report


def test_images_in_the_run_stand_in_for_data_that_is_gone(make_run: MakeRun, frames: tuple[Array, Array]) -> None:
    run = make_run(*CLASSIC)
    Path(run.experiment.data.source).unlink()
    np.savez(run.path / "images.npz", images=frames[0][:20], labels=frames[1][:20])
    explorer = Explorer(run)
    assert len(explorer.shown) == 20
    assert explorer.material.splits is None
    explorer.learn_what_is_known()
    assert explorer.place(frames[0][0]).percentile is not None
    whole = (run.path / "images.npz").read_bytes()
    for content in (b"damaged", b"", whole[:200]):
        (run.path / "images.npz").write_bytes(content)
        with pytest.raises(InputError, match=r"images\.npz: cannot be read"):
            Explorer(run)


def test_data_is_not_downloaded_where_the_run_has_images(
    make_run: MakeRun, frames: tuple[Array, Array], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("KERAS_VAE_DATA", raising=False)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr("keras_vae.data.published.urlopen", lambda *_, **__: pytest.fail("asked the network"))
    run = make_run(*CLASSIC)
    experiment = run.experiment.with_overrides(['data.source="mnist"'])
    (run.path / "experiment.toml").write_text(experiment.to_toml())
    np.savez(run.path / "images.npz", images=frames[0], labels=frames[1])
    assert "downloaded" in Explorer(run).material.note


def test_large_color_images_have_a_smaller_grid(make_run: MakeRun) -> None:
    images = np.random.default_rng(0).integers(0, 256, (60, 64, 48, 3), dtype="uint8")
    explorer = Explorer(make_run(*CLASSIC, 'model.likelihood="normal"', images=images))
    assert explorer.side == 10
    explorer.warm_up()
    assert explorer.grid(explorer.plane(), explorer.home(explorer.plane())).shape == (100, 64, 48, 3)


def test_both_priors_can_be_drawn_from(make_run: MakeRun) -> None:
    run = make_run(*CLASSIC)
    model = run.load_model()
    from keras_vae.components.priors import MixtureOfNormals

    prior = MixtureOfNormals(num_components=2)
    prior.build((None, 2), (None, 9, 11, 1), (None, 0))
    for weight in prior.weights:
        weight.assign(keras.ops.ones_like(weight) * 5)
    run.save_model(model.with_prior(prior), fitted=True)
    explorer = Explorer(Run.open(run.path))
    assert explorer.priors == ("fitted", "original")
    original = explorer.sample(4, 0, prior="original")
    np.testing.assert_allclose(original, model.sample(4, 0), atol=1e-5)
    assert np.abs(explorer.sample(4, 0, prior="fitted") - original).max() > 1e-3
    with pytest.raises(InputError, match="prior = other"):
        explorer.sample(1, 0, prior="other")


def test_models_told_vectors_are_refused(make_run: MakeRun) -> None:
    run = make_run(*CLASSIC)
    from keras_vae import VAE
    from keras_vae.components.conditions import ContinuousCondition
    from keras_vae.networks import Conv

    network = Conv(widths=(2,), dense_units=4)
    vae = VAE(network.encoder((9, 11, 3), 2), network.decoder(4, (9, 11, 1)), condition=ContinuousCondition(2))
    run.save_model(vae)
    with pytest.raises(InputError, match="the explorer knows labels alone"):
        Explorer(run)
    shutil.rmtree(run.path)
