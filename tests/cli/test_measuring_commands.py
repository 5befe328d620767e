"""`vae evaluate`, `compare` and `doctor`."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from cli_helpers import Vae, assert_rejected

from helpers import on_tensorflow
from keras_vae.evaluation import diagnostics

pytestmark = on_tensorflow("what the commands call is tested on every backend")


def test_evaluate_prints_results_and_rewrites_the_report(vae: Vae, run: Path) -> None:
    before = (run / "report.html").read_text()
    outcome = vae("evaluate", run, "--stages", "likelihood,latents", "--samples", "30")
    assert outcome.code == 0, outcome.err
    evaluation = json.loads((run / "evaluation.json").read_text())
    # All commands show a number to the second digit of its standard error.
    nll = evaluation["likelihood"]["nll"]
    digits = 1 - math.floor(math.log10(nll["standard_error"]))
    text = f"{nll['mean']:.{digits}f} ± {nll['standard_error']:.{digits}f}"
    shutil.copytree(run, "second")
    for shown in (outcome, vae("info", run), vae("compare", run, "second")):
        assert text in shown.out
    assert "nll estimated from 30 draws per image" in outcome.out
    assert "not a normalized likelihood" in outcome.out
    assert (run / "report.html").read_text() != before
    answer = json.loads(vae("evaluate", run, "--stages", "likelihood", "--samples", "30", "--json").out)
    assert answer["likelihood"] == evaluation["likelihood"]


def test_evaluate_on_other_images_keeps_the_results_of_the_run(vae: Vae, run: Path) -> None:
    before = (run / "evaluation.json").read_text()
    np.savez("other.npz", images=np.random.default_rng(1).integers(0, 256, (3, 9, 7), dtype="uint8"))
    outcome = vae("evaluate", run, "--data", "other.npz", "--samples", "5")
    assert outcome.code == 0, outcome.err
    assert "measured on 3 all images" in outcome.out
    assert (run / "evaluation.json").read_text() == before
    assert json.loads((run / "evaluation-other.json").read_text())["likelihood"]["data"] == "other"


def test_evaluate_discards_results_of_other_images_with_the_same_name(vae: Vae, run: Path) -> None:
    rng = np.random.default_rng(1)
    for place in ("a", "b"):
        Path(place).mkdir()
        np.save(f"{place}/x.npy", rng.integers(0, 256, (12, 9, 7), dtype="uint8"))
    assert vae("evaluate", run, "--data", "a/x.npy", "--stages", "likelihood", "--samples", 2).code == 0
    assert vae("evaluate", run, "--data", "b/x.npy", "--stages", "latents").code == 0
    assert "likelihood" not in json.loads((run / "evaluation-x.json").read_text())


def test_evaluate_on_training_images_warns_about_it(vae: Vae, run: Path, folder: Path) -> None:
    outcome = vae("evaluate", run, "--data", folder, "--samples", 2)
    assert outcome.code == 0, outcome.err
    assert "no held-out data" in outcome.out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--samples", "-1"], "samples = -1"),
        (["--num-generated", "1"], "generated = 1"),
        (["--images", "mean"], "did you mean 'means'"),
        (["--features", "inceptoin"], "did you mean 'inception'"),
        (["--stages", "likelyhood"], "stage = 'likelyhood'"),
        (["--stages", "disentanglement"], "has no factors"),
        (["--data", "nowhere"], "data = 'nowhere': no such source"),
        (["--prior", "fitted"], "has no fitted prior"),
    ],
)
def test_evaluate_rejects_invalid_options(options: list[str], message: str, vae: Vae, run: Path) -> None:
    assert_rejected(vae("evaluate", run, *options), message)


def test_evaluate_rejects_images_of_another_size(vae: Vae, run: Path) -> None:
    np.savez("other.npz", images=np.full((3, 5, 5), 9, "uint8"))
    assert_rejected(vae("evaluate", run, "--data", "other.npz"), "the model expects (n, 9, 7, 1)")


def test_compare_prints_and_writes_one_table(vae: Vae, run: Path) -> None:
    shutil.copytree(run, "second")
    outcome = vae("compare", run, "second", "--out", "comparison")
    assert outcome.code == 0, outcome.err
    assert "negative_elbo" in outcome.out
    assert {path.name for path in Path("comparison").iterdir()} == {"comparison.md", "comparison.json", "curves.png"}
    assert_rejected(vae("compare", run, "second", "--out", "comparison"), "exists")
    assert json.loads(vae("compare", run, "second", "--json").out)
    assert_rejected(vae("compare", run), "runs = 1: too few to compare; pass at least 2")


def test_doctor_prints_its_findings(vae: Vae, run: Path) -> None:
    outcome = vae("doctor", run)
    assert outcome.code == 0, outcome.err
    findings = json.loads(vae("doctor", run, "--json").out)
    assert all(finding["name"] in outcome.out for finding in findings)
    # Random pixels are gray, and a Bernoulli is a distribution over black and white.
    assert any("model.likelihood" in finding["suggestion"] for finding in findings)


def test_doctor_without_findings_counts_the_checks(vae: Vae, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnostics, "diagnose", lambda *_, **__: ())
    assert vae("doctor", run).out == f"No problems found ({len(diagnostics.CHECKS)} checks passed)\n"
    assert json.loads(vae("doctor", run, "--json").out) == []
