"""The event handlers of the tabs, without a browser."""

import re

import numpy as np
import pytest
from explorer_runs import CLASSIC, MakeRun

from helpers import on_tensorflow
from keras_vae.core.errors import InputError
from keras_vae.explorer.explorer import Explorer

gradio = pytest.importorskip("gradio", reason="keras-vae[explore] is not installed")
pytestmark = on_tensorflow("the page is the same on every backend")

from keras_vae.explorer.tabs.draw import DrawTab  # noqa: E402
from keras_vae.explorer.tabs.interpolate import InterpolateTab  # noqa: E402
from keras_vae.explorer.tabs.latent_map import LatentMapTab, MapState  # noqa: E402
from keras_vae.explorer.tabs.sliders import SlidersTab  # noqa: E402


@pytest.fixture(scope="module")
def explorer(make_run: MakeRun) -> Explorer:
    return Explorer(make_run(*CLASSIC, "model.latent_dim=3"))


def event(**data: object) -> gradio.EventData:
    return gradio.EventData(None, data)


def test_the_map_zooms_around_the_clicked_point_and_resets(explorer: Explorer) -> None:
    tab, plane = LatentMapTab(explorer), explorer.latent_space.plane()
    start = MapState(plane, explorer.latent_space.default_view(plane), (0.0, 0.0))
    *_, state = tab.pick(event(x=0.75, y=0.25), start, None)
    half = start.view.half
    assert state.mark == pytest.approx((start.view.u + half / 2, start.view.v - half / 2))
    _, closer = tab.zoom_in(state, True, None)
    assert closer.view == pytest.approx((*state.mark, half / 2))
    _, farther = tab.zoom_out(closer, True, None)
    assert farther.view == pytest.approx((*state.mark, half))
    _, region = tab.zoom_to_region(event(x0=0.0, y0=0.0, x1=0.5, y1=0.5), start, True, None)
    assert region.view == pytest.approx((start.view.u - half / 2, start.view.v - half / 2, half / 2))
    for zoomed in (closer, farther, region):
        assert tab.reset_view(zoomed, True, None)[1].view == start.view


def test_the_map_shows_the_chosen_plane(explorer: Explorer) -> None:
    svg, _, facts, state = LatentMapTab(explorer).change_plane("dimensions", 2, 0, True, None)
    assert state.plane.names == ("z[2]", "z[0]")
    assert "z[2]" in facts
    assert svg.count('r="7"') > 0
    with pytest.raises(InputError, match=r"dims = \(1, 1\)"):
        LatentMapTab(explorer).change_plane("dimensions", 1, 1, True, None)


def test_points_of_the_map_can_be_hidden(explorer: Explorer) -> None:
    tab, plane = LatentMapTab(explorer), explorer.latent_space.plane()
    state = MapState(plane, explorer.latent_space.default_view(plane), (0.0, 0.0))
    assert 'r="7"' not in tab.redraw(state, False, None)[0]


def test_sliders_keep_values_beyond_their_range(explorer: Explorer, monkeypatch: pytest.MonkeyPatch) -> None:
    tab, high = SlidersTab(explorer), explorer.latent_space.limits[1]
    order = explorer.latent_space.order
    far = np.array([0.5, 0.5, 0.5], "float32")
    far[order[0]] = high[order[0]] + 3
    decoded: list[np.ndarray] = []
    decode = explorer.decode
    monkeypatch.setattr(explorer, "decode", lambda code, label=None: decoded.append(code) or decode(code, label))
    tab.move(far, None, high[order[0]], -1.0, 0.5)
    assert decoded[0][order].tolist() == [far[order[0]], -1.0, 0.5]


def test_choices_replace_the_start_and_the_end_in_turn(explorer: Explorer) -> None:
    tab, images = InterpolateTab(explorer), explorer.choices()[0]
    ends, side = [images[0], images[1]], 0
    _, ends, side = tab.choose(event(index=3), 0, ends, side, None)
    _, ends, side = tab.choose(event(index=5), 0, ends, side, None)
    np.testing.assert_array_equal(ends, images[[3, 5]])
    assert side == 0
    with pytest.raises(InputError, match="there is no drawing yet"):
        tab.use_drawing(None, ends, side, None)


def test_an_analysis_marks_the_code_on_the_map(explorer: Explorer) -> None:
    html, image = DrawTab(explorer).analyze_example(None)
    space = explorer.latent_space
    plane = space.plane()
    view, point = space.default_view(plane), plane.points(explorer.analyzer.analyze(image).code[None])[0]
    x = re.search(r'class="mark" transform="translate\((-?[\d.]+) ', html)
    assert x is not None
    assert float(x[1]) == pytest.approx(1000 * (0.5 + (point[0] - view.u) / (2 * view.half)), abs=0.1)
    assert "still being scored" in html
