"""Charts of losses: curves, KL per dimension, rate-distortion, several runs."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from figure_helpers import axes_of, metrics
from matplotlib.figure import Figure

from keras_vae.core.errors import InputError
from keras_vae.report import figures


def titles(figure: Figure) -> list[str]:
    return [axes.get_title(loc="left") for axes in figure.axes]


def note(axes: Any) -> str:
    return " ".join(text.get_text() for text in axes.texts)


def test_each_panel_shows_training_and_validation() -> None:
    columns = metrics(8)
    figure = figures.curves(columns, "a title")
    assert titles(figure) == ["total loss = negative ELBO", "reconstruction loss", "KL loss"]
    for axes, name in zip(axes_of(figure), ["negative_elbo", "reconstruction_loss", "kl_loss"], strict=True):
        train, validation = axes.lines
        np.testing.assert_array_equal(train.get_xdata(), columns["epoch"])
        np.testing.assert_allclose(train.get_ydata(), columns[name])
        np.testing.assert_allclose(validation.get_ydata(), columns[f"val_{name}"])
        assert note(axes) == ""
    legend = axes_of(figure)[0].get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["training 148.1", "validation 149.1"]


def test_total_loss_has_its_own_panel_if_it_differs_from_the_negative_elbo() -> None:
    figure = figures.curves(metrics(3, total_loss=[100.0, 90.0, 80.0]))
    assert titles(figure) == ["total loss", "negative ELBO", "reconstruction loss", "KL loss"]


def test_panel_without_validation_has_one_line() -> None:
    figure = figures.curves({"kl_loss": [3.0, 4.0]})
    assert titles(figure) == ["KL loss"]
    assert [line.get_xdata().tolist() for line in axes_of(figure)[0].lines] == [[1, 2]]


def test_single_epoch_is_a_visible_point_above_its_number(tmp_path: Path) -> None:
    figure = figures.curves(metrics(1))
    figures.save(figure, tmp_path / "curves.png")
    for axes in axes_of(figure):
        for line in axes.lines:
            assert line.get_marker() == "o"
            assert line.get_markevery() == [0]
            low, high = axes.get_ylim()
            assert low < line.get_ydata()[0] < high
    low, high = axes_of(figure)[-1].get_xlim()
    assert [tick for tick in axes_of(figure)[-1].get_xticks() if low <= tick <= high] == [1]


def test_huge_first_epoch_is_cut_off_and_named() -> None:
    values = [54321.0, *(160 - 0.5 * i for i in range(19))]
    axes = axes_of(figures.curves({"negative_elbo": values}))[0]
    low, high = axes.get_ylim()
    assert low < min(values)
    assert max(values[1:]) < high < 200
    assert "epoch 1, up to 54,321" in note(axes)


def test_moderate_first_epoch_is_not_cut_off() -> None:
    values = [180.0, *(160 - 0.5 * i for i in range(19))]
    axes = axes_of(figures.curves({"negative_elbo": values}))[0]
    assert axes.get_ylim()[1] > 180
    assert note(axes) == ""


def test_divergence_at_the_end_is_shown() -> None:
    axes = axes_of(figures.curves({"negative_elbo": [*(160 - 0.5 * i for i in range(19)), 9999.0]}))[0]
    assert axes.get_ylim()[1] > 9999


def test_non_finite_epochs_are_gaps_and_named(tmp_path: Path) -> None:
    values = [5.0, np.nan, 4.0, np.inf, np.nan, 3.0]
    figure = figures.curves({"kl_loss": values, "negative_elbo": [np.nan] * 6})
    figures.save(figure, tmp_path / "curves.png")
    gone, kl = axes_of(figure)
    np.testing.assert_array_equal(kl.lines[0].get_ydata(), [5, np.nan, 4, np.nan, np.nan, 3])
    assert "not finite: epochs 2, 4–5" in note(kl)
    assert kl.get_ylim()[1] > 5
    assert "not finite: epochs 1–6" in note(gone)
    assert list(gone.get_yticks()) == []


def test_point_between_gaps_has_a_marker() -> None:
    values = np.full(50, 2.0)
    values[[20, 22]] = np.nan
    assert figures.curves({"kl_loss": values.tolist()}).axes[0].lines[0].get_markevery() == [21]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"epoch": [1], "seconds": [2.0]}, "pass at least one of total_loss"),
        ({"kl_loss": [], "epoch": []}, "metrics = 0 epochs"),
        (
            {"kl_loss": [1.0, 2.0], "val_kl_loss": [1.0]},
            r"metrics\['val_kl_loss'\] = 1 epochs: the other columns have 2",
        ),
    ],
)
def test_invalid_metrics_are_rejected(wrong: dict[str, list[float]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        figures.curves(wrong)


def test_kl_per_dimension_sorts_the_bars_and_counts_the_active_dimensions() -> None:
    # The KL of dimension 2 is the cost of an offset: its mean is constant.
    axes = axes_of(figures.kl_per_dimension(np.array([0.5, 0.1, 2.0]), active=[0, 1]))[0]
    bars = sorted(axes.patches, key=lambda bar: bar.get_x())
    assert [bar.get_height() for bar in bars] == [2.0, 0.5, 0.1]
    assert bars[0].get_alpha() < bars[1].get_alpha() == bars[2].get_alpha() == 1
    assert [text.get_text() for text in axes.get_xticklabels()] == ["z[2]", "z[0]", "z[1]"]
    assert "2 of 3 active" in axes.get_xlabel()


def test_rate_distortion_draws_the_trajectory_and_lines_of_equal_elbo() -> None:
    metrics = {"kl_loss": [1.0, 4.0], "reconstruction_loss": [9.0, 5.0]}
    axes = axes_of(figures.rate_distortion(metrics))[0]
    path, _, *lines = axes.get_lines()
    assert path.get_xydata().tolist() == [[1, 9], [4, 5]]
    assert lines
    for line in lines:
        assert np.ptp(line.get_xydata().sum(axis=1)) < 1e-9


def test_overlay_prefers_validation_losses() -> None:
    runs = {"a": {"negative_elbo": [9, 7], "val_negative_elbo": [8, 6]}, "b": {"negative_elbo": [5.0]}, "c": {}}
    axes = axes_of(figures.overlay(runs))[0]
    assert [line.get_ydata().tolist() for line in axes.get_lines()] == [[8, 6], [5]]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["a", "b (training)"]


def test_overlay_marks_a_run_that_lies_above_the_axis() -> None:
    # A failed run of two epochs is too short to determine the axis.
    runs = {
        "good": {"negative_elbo": np.linspace(120.0, 100.0, 20).tolist()},
        "failed": {"negative_elbo": [54_321.0, 50_000.0]},
    }
    axes = axes_of(figures.overlay(runs))[0]
    _, top = axes.get_ylim()
    assert 120 < top < 1000
    good, failed, *marks = axes.get_lines()
    (mark,) = marks
    assert mark.get_marker() == "^"
    assert mark.get_color() == failed.get_color() != good.get_color()
    assert mark.get_xydata().tolist() == [[1, top], [2, top]]
    assert not mark.get_clip_on()
    assert "54,321" in "".join(text.get_text() for text in axes.texts)


def test_overlay_keeps_a_short_run_on_the_axis() -> None:
    runs = {"long": {"negative_elbo": np.linspace(120.0, 100.0, 60).tolist()}, "short": {"negative_elbo": [400.0] * 8}}
    axes = axes_of(figures.overlay(runs))[0]
    assert axes.get_ylim()[1] > 400
    assert len(axes.get_lines()) == 2


def test_overlay_names_a_run_without_finite_losses() -> None:
    runs = {"good": {"negative_elbo": [3.0, 2.0]}, "bad": {"negative_elbo": [np.nan, np.nan]}}
    legend = axes_of(figures.overlay(runs))[0].get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["good (training)", "bad (training), not finite"]
