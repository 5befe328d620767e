"""The event handlers of the tabs, without a browser."""

import re

import numpy as np
import pytest
from explorer_runs import CLASSIC, MakeRun

from helpers import on_tensorflow
from keras_vae.core.errors import InputError
from keras_vae.explorer.explorer import Explorer
from keras_vae.report.pages import png_uri

gradio = pytest.importorskip("gradio", reason="keras-vae[explore] is not installed")
pytestmark = on_tensorflow("the page is the same on every backend")

from keras_vae.explorer.tabs.choosing import ImageChooser  # noqa: E402
from keras_vae.explorer.tabs.draw import DrawTab  # noqa: E402
from keras_vae.explorer.tabs.interpolate import InterpolateTab  # noqa: E402
from keras_vae.explorer.tabs.latent_map import LatentMapTab, MapState  # noqa: E402
from keras_vae.explorer.tabs.sliders import SlidersTab  # noqa: E402


@pytest.fixture(scope="module")
def explorer(make_run: MakeRun) -> Explorer:
    return Explorer(make_run(*CLASSIC, "model.latent_dim=3"))


def cursor(tab: LatentMapTab, **values: object) -> dict[str, object]:
    """Return the value of the cursor on the first plane, as the browser sends it."""
    plane = tab._space.plane()
    return {"plane": " ".join(plane.names), "point": [0.0, 0.0], "mark": [0.0, 0.0], "region": None, **values}


def test_the_map_zooms_around_the_ring_and_resets(explorer: Explorer) -> None:
    tab, plane = LatentMapTab(explorer), explorer.latent_space.plane()
    start = MapState(plane, explorer.latent_space.default_view(plane))
    (u, v, half), dims = start.view, explorer.latent_space.top_dims
    mark = (u + half / 2, v - half / 2)

    def act(action: str, state: MapState, **values: object) -> MapState:
        return tab.update(action, state, cursor(tab, mark=mark, **values), "dimensions", *dims, True, None)[1]

    closer = act("zoom in", start)
    assert closer.view == pytest.approx((*mark, half / 2))
    farther = act("zoom out", closer)
    assert farther.view == pytest.approx((*mark, half))
    region = act("region", start, region=[u - half, v - half, u, v])
    assert region.view == pytest.approx((u - half / 2, v - half / 2, half / 2))
    for zoomed in (closer, farther, region):
        assert act("reset", zoomed).view == start.view


def test_the_map_shows_the_chosen_plane(explorer: Explorer) -> None:
    tab, plane = LatentMapTab(explorer), explorer.latent_space.plane()
    state = MapState(plane, explorer.latent_space.default_view(plane))
    svg, state = tab.update(None, state, cursor(tab), "dimensions", 2, 0, True, None)
    assert state.plane.names == ("z[2]", "z[0]")
    assert svg.count('r="7"') > 0
    assert "z[2]" in tab.decode(cursor(tab), "dimensions", 2, 0, None)[1]
    with pytest.raises(InputError, match=r"dims = \(1, 1\)"):
        tab.decode(cursor(tab), "dimensions", 1, 1, None)
    # The map stays; the message is shown below it.
    assert tab.update(None, state, cursor(tab), "dimensions", 1, 1, True, None)[1] is state


def test_a_point_of_another_plane_is_not_decoded(explorer: Explorer) -> None:
    tab = LatentMapTab(explorer)
    u, v = explorer.latent_space.default_view(explorer.latent_space.plane("dimensions", (2, 0))).center
    facts = tab.decode(cursor(tab, point=[50.0, 50.0]), "dimensions", 2, 0, None)[1]
    assert f"<dd>{u:.2f}</dd>".replace("-", "\N{MINUS SIGN}") in facts
    assert f"<dd>{v:.2f}</dd>".replace("-", "\N{MINUS SIGN}") in facts


def test_points_of_the_map_can_be_hidden(explorer: Explorer) -> None:
    tab, plane = LatentMapTab(explorer), explorer.latent_space.plane()
    state = MapState(plane, explorer.latent_space.default_view(plane))
    dims = explorer.latent_space.top_dims
    assert 'r="7"' not in tab.update(None, state, None, "dimensions", *dims, False, None)[0]


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


def test_buttons_set_the_sliders_and_moves_do_not(explorer: Explorer) -> None:
    tab, center = SlidersTab(explorer), explorer.latent_space.center
    values = (0.0, 0.0, 0.0)
    _, code, *sliders = tab.update("reset", 1.0, center + 1, None, *values)
    np.testing.assert_array_equal(code, center)
    assert len(sliders) == 3
    _, *others = tab.update(None, 1.0, center, None, *values)
    assert others == [gradio.skip()] * 4


def test_slots_hold_the_images_of_their_data_uris(explorer: Explorer) -> None:
    chooser, images = ImageChooser(explorer, ("a", "b", "c"), elem_id="slots"), explorer.choices()[0]
    np.testing.assert_array_equal(chooser.images(None), images[:3])
    np.testing.assert_array_equal(chooser.images([png_uri(images[i]) for i in (5, 3, 4)]), images[[5, 3, 4]])
    with pytest.raises(InputError, match="images = 1: wrong number; choose 3 images"):
        chooser.images([png_uri(images[0])])


def test_a_gif_is_removed_when_the_images_change(explorer: Explorer) -> None:
    tab, images = InterpolateTab(explorer), explorer.choices()[0]
    slots = [png_uri(image) for image in images[:2]]
    assert "data:image/gif" in tab.gif("linear interpolation", slots, None)
    assert tab.gif(None, slots, None) == ""


def test_an_analysis_marks_the_code_on_the_map(explorer: Explorer) -> None:
    html, image, _ = DrawTab(explorer).analyze_example(None)
    space = explorer.latent_space
    plane = space.plane()
    view, point = space.default_view(plane), plane.points(explorer.analyzer.analyze(image).code[None])[0]
    x = re.search(r'class="mark" transform="translate\((-?[\d.]+) ', html)
    assert x is not None
    assert float(x[1]) == pytest.approx(1000 * (0.5 + (point[0] - view.u) / (2 * view.half)), abs=0.1)
    assert "still being scored" in html
