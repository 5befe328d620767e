"""Comparison of runs: ranks, ties, and numbers that are not comparable."""

import json
from pathlib import Path
from typing import Any

import pytest

from keras_vae.core.errors import InputError
from keras_vae.evaluation.comparison import compare
from keras_vae.evaluation.ranking import COLUMNS, DIFFERENT
from keras_vae.runs.run import SCHEMA, Run

LIKELIHOOD = {
    "split": "test",
    "held_out": True,
    "images": 100,
    "checksum": "abc",
    "likelihood": "bernoulli",
    "binarization": "dynamic",
    "normalized": True,
    "density": False,
    "bound": True,
    "samples": 5000,
}


def run_of(folder: Path, **sections: dict[str, Any]) -> Run:
    folder.mkdir(parents=True)
    (folder / "evaluation.json").write_text(json.dumps({"schema": SCHEMA, **sections}))
    (folder / "metrics.csv").write_text("epoch,negative_elbo,val_negative_elbo,seconds\n1,9,8,2.5\n2,7,6,2.5\n")
    return Run(folder)


def likelihood(mean: float, error: float = 0.1, **changes: object) -> dict[str, Any]:
    return {**LIKELIHOOD, "nll": {"mean": mean, "standard_error": error}, **changes}


def test_the_best_number_and_its_ties_are_marked(tmp_path: Path) -> None:
    means = {"a": 86.0, "b": 86.25, "c": 86.35}
    runs = [run_of(tmp_path / name, likelihood=likelihood(mean)) for name, mean in means.items()]
    comparison = compare(runs)
    # Two standard errors of the difference are 2·√(0.1² + 0.1²) = 0.283.
    assert [cell.best for cell in comparison.columns["nll"]] == [True, True, False]
    (note,) = comparison.notes
    assert note.startswith("a, b, c: no per-image values of nll; unpaired errors are used")
    assert comparison.facts == {"epochs": (2, 2, 2), "seconds": (5, 5, 5)}
    row = next(line for line in str(comparison).splitlines() if line.startswith("nll"))
    assert row.count("*") == 2
    assert "| nll | **86.00 ± 0.10** | **86.25 ± 0.10** | 86.35 ± 0.10 |" in comparison.to_markdown()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"split": "validation"}, "on different splits (a: test, b: validation)"),
        ({"checksum": "xyz"}, "on different images; their differences have unpaired errors"),
        (
            {"checksum": "xyz", "images": 1000},
            "on different images (a: 100, b: 1,000); their differences have unpaired errors",
        ),
        ({"binarization": "none"}, "on images that were binarized differently (a: dynamic, b: none)"),
        ({"likelihood": "normal"}, "under different likelihoods (a: bernoulli, b: normal)"),
        ({"samples": 1000}, "with different numbers of samples (a: 5,000, b: 1,000)"),
        ({"condition": "label"}, "under different conditions (a: none, b: label)"),
    ],
)
def test_numbers_measured_differently_are_shown_but_not_ranked(
    changes: dict[str, object], reason: str, tmp_path: Path
) -> None:
    runs = [
        run_of(tmp_path / "a", likelihood=likelihood(86)),
        run_of(tmp_path / "b", likelihood=likelihood(80, **changes)),
    ]
    comparison = compare(runs)
    assert [cell.mean for cell in comparison.columns["nll"]] == [86, 80]
    assert not any(cell.best for cell in comparison.columns["nll"])
    assert comparison.notes == (f"nll is not ranked: measured {reason}",)
    assert comparison.notes[0] in str(comparison)
    # Nothing is marked, so there is no mark to explain.
    assert "*" not in str(comparison)
    assert "Bold" not in comparison.to_markdown()


def test_one_note_names_all_numbers_that_are_not_ranked_for_the_same_reason(tmp_path: Path) -> None:
    elbo = {"negative_elbo": {"mean": 9, "standard_error": 0.1}}
    changes = ({}, {"checksum": "xyz"})
    runs = [
        run_of(tmp_path / name, likelihood=likelihood(86, **elbo, **change))
        for name, change in zip("ab", changes, strict=True)
    ]
    (note,) = compare(runs).notes
    assert note.startswith("nll, negative_elbo are not ranked: measured on different images")


def test_every_difference_that_prevents_a_rank_has_a_description() -> None:
    assert {key for column in COLUMNS if column.better for key in column.same} <= DIFFERENT.keys()


def test_runs_without_held_out_images_are_noted(tmp_path: Path) -> None:
    runs = [run_of(tmp_path / name, likelihood=likelihood(86, held_out=False)) for name in "ab"]
    assert compare(runs).notes[1:] == ("a: no held-out data", "b: no held-out data")
    runs[0] = run_of(tmp_path / "c", likelihood=likelihood(86))
    ranked, marked = compare(runs).notes
    assert ranked == "nll is not ranked: measured partly on training images (c: held out, b: not held out)"
    assert marked == "b: no held-out data"


def test_missing_numbers_stay_empty_and_higher_accuracies_are_better(tmp_path: Path) -> None:
    measured = {"split": "test", "held_out": True, "images": 10, "checksum": "abc"}
    accuracy = {"knn_accuracy": {"mean": 0.9, "standard_error": 0.01}, "active_units": {"count": 2}}
    better = {**accuracy, "knn_accuracy": {"mean": 0.95, "standard_error": 0.01}}
    runs = [
        run_of(tmp_path / "a", likelihood=likelihood(86), latents={**measured, **accuracy}),
        run_of(tmp_path / "b", latents={**measured, **better}),
        run_of(tmp_path / "c", latents={**measured, **accuracy, "active_units": None}),
    ]
    comparison = compare(runs)
    assert [cell and cell.best for cell in comparison.columns["knn_accuracy"]] == [False, True, False]
    assert [cell and cell.mean for cell in comparison.columns["active_units"]] == [2, 2, None]
    assert [cell and cell.mean for cell in comparison.columns["nll"]] == [86, None, None]
    assert "bits_per_dim" not in comparison.columns


def test_files_contain_the_table(tmp_path: Path) -> None:
    runs = [run_of(tmp_path / letter / "run", likelihood=likelihood(86)) for letter in "ab"]
    comparison = compare(runs)
    assert comparison.names == ("a/run", "b/run")
    comparison.write(tmp_path / "out")
    content = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert content == comparison.to_json()
    assert content["runs"][0]["numbers"]["nll"] == {"mean": 86, "standard_error": 0.1, "best": True, "difference": None}
    difference = {"mean": 0, "standard_error": pytest.approx(0.1 * 2**0.5), "paired": False}
    assert content["runs"][1]["numbers"]["nll"]["difference"] == difference
    assert content["notes"] == list(comparison.notes)
    assert (tmp_path / "out" / "comparison.md").read_text() == comparison.to_markdown()


def test_runs_that_cannot_be_compared_are_errors(tmp_path: Path) -> None:
    run = run_of(tmp_path / "a", likelihood=likelihood(86))
    with pytest.raises(InputError, match="runs = 1: too few to compare; pass at least 2"):
        compare([run])
    with pytest.raises(InputError, match=r"runs = 'runs/classic': a string; pass a list, such as \['runs/classic'\]"):
        compare("runs/classic")
    with pytest.raises(InputError, match=r"runs = .*: not a list; pass a list"):
        compare(run)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="runs = a twice"):
        compare([run, Run(tmp_path / "a" / ".." / "a")])
    (tmp_path / "new").mkdir()
    with pytest.raises(InputError, match="has no evaluation; run `vae evaluate"):
        compare([run, Run(tmp_path / "new")])
    (tmp_path / "new" / "evaluation.json").write_text('{"schema": 1}')
    with pytest.raises(InputError, match=f"has schema 1 instead of {SCHEMA}"):
        compare([run, Run(tmp_path / "new")])


def test_runs_may_be_given_by_name_or_path(tmp_path: Path) -> None:
    comparison = compare(["mnist-2d", Run.open("mnist-16d")])
    assert comparison.names == ("mnist-2d", "mnist-16d")
    assert comparison.columns["kl_loss"][0].mean == pytest.approx(6.34, abs=0.01)
    with pytest.raises(InputError, match="does not exist; train a run"):
        compare(["mnist-2d", tmp_path / "nowhere"])
