"""`vae export`."""

import json
from pathlib import Path

from cli_helpers import Vae, assert_rejected

from helpers import on_tensorflow

pytestmark = on_tensorflow("what the commands call is tested on every backend")


def test_export_prints_the_graphs_and_their_largest_difference_from_the_model(vae: Vae, run: Path) -> None:
    outcome = vae("export", run, "--format", "keras")
    assert outcome.code == 0, outcome.err
    assert "compared with the model on 3 images (photos, test split)" in outcome.err
    rows = [line.split() for line in outcome.out.splitlines()]
    assert [row[0] for row in rows] == [
        f"run/export/keras/{name}.keras" for name in ("encoder", "encoder", "decoder", "reconstruct", "sampler")
    ]
    assert all(float(row[-1]) < 1e-4 for row in rows)
    again = vae("export", run, "--format", "keras")
    assert (again.code, again.out) == (2, "")
    assert "out = run/export/keras: exists" in again.err
    answer = json.loads(vae("export", run, "--format", "keras", "--force", "--json", "--input-dtype", "float32").out)
    assert answer["graphs"]["encoder"]["inputs"]["images"]["dtype"] == "float32"


def test_export_rejects_invalid_calls_before_writing(vae: Vae, run: Path, tmp_path: Path) -> None:
    for words, message in (
        (("export", "nowhere", "--format", "keras"), "run = nowhere: does not exist"),
        (("export", run, "--format", "keras", "--out", run, "--force"), "out = run: not an earlier export"),
        (("export", run, "--format", "keras", "--prior", "fitted"), "prior = 'fitted'"),
    ):
        outcome = vae(*words)
        assert (outcome.code, outcome.out) == (2, ""), words
        assert message in outcome.err
        assert len(outcome.err.strip().splitlines()) == 1
    (run / "model.keras").unlink()
    assert "is unfinished" in vae("export", run, "--format", "keras").err
    assert not (run / "export").exists()


def test_export_of_a_space_rejects_options_of_graphs(vae: Vae, run: Path) -> None:
    outcome = vae("export", run, "--format", "space", "--json", "--prior", "original")
    assert_rejected(outcome, "--prior, --json: not available with --format space")


def test_only_export_of_a_web_page_takes_a_runtime(vae: Vae, run: Path, tmp_path: Path) -> None:
    outcome = vae("export", run, "--format", "web", "--runtime", tmp_path / "empty")
    assert_rejected(outcome, "does not contain ort.wasm.bundle.min.mjs and ort-wasm-simd-threaded.wasm")
    assert_rejected(vae("export", run, "--format", "keras", "--runtime", tmp_path), "--runtime: not available with")
    assert_rejected(vae("export", run, "--format", "web", "--json"), "--json: not available with --format web")
