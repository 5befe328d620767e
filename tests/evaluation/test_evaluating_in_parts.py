"""Evaluation in independent parts: the files of merged parts are those of one process, bit for bit."""

import functools
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers import small
from keras_vae.core.errors import InputError, RunError
from keras_vae.data.dataset import Dataset, Splits, split
from keras_vae.evaluation.evaluate import EvaluationConfig, evaluate
from keras_vae.models import proposals
from keras_vae.models.annealed_importance_sampling import AnnealedImportanceSampling
from keras_vae.models.importance_sampling import ImportanceSampling
from keras_vae.runs.run import Run
from keras_vae.training import trainer
from lock_helpers import held_elsewhere

PIXELS = 6 * 7
CONFIG = EvaluationConfig(samples=12, proposal="posterior")


@pytest.fixture(scope="module")
def splits() -> Splits:
    images = np.random.default_rng(3).integers(0, 256, (40, 6, 7, 1), dtype="uint8")
    return split(Dataset.from_arrays(images, name="frames"), None, validation=0, test_size=20, holdout=True, seed=0)


@pytest.fixture(scope="module")
def trained(splits: Splits, tmp_path_factory: pytest.TempPathFactory) -> Path:
    settings = ("model.network={name='mlp',widths=[8]}", "training.epochs=1")
    return trainer.train(small(*settings), splits, tmp_path_factory.mktemp("runs") / "run").path


@pytest.fixture
def run(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick_search: None) -> Run:
    """A run whose evaluation consists of seven blocks of three images each; the last has two."""
    monkeypatch.setattr("keras_vae.models.importance_sampling._PIXELS_AT_ONCE", 36 * PIXELS)
    monkeypatch.setattr("keras_vae.evaluation.likelihood._IMAGES_BETWEEN_SAVES", 1)
    quick: Any = functools.partial(AnnealedImportanceSampling, temperatures=3, leapfrog_steps=1)
    monkeypatch.setitem(proposals.PROPOSALS, "ais", quick)
    return Run(Path(shutil.copytree(trained, tmp_path / "run")))


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[slice]:
    """The blocks that importance sampling computes, except for those of the 16 images that check the posterior."""
    blocks, original = list[slice](), ImportanceSampling.__call__

    def call(self: ImportanceSampling, block: slice) -> Any:
        if len(self.inputs["images"]) == 20:
            blocks.append(block)
        return original(self, block)

    monkeypatch.setattr(ImportanceSampling, "__call__", call)
    return blocks


def contents(run: Run) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in run.path.iterdir() if path.name.startswith(("evaluation", "."))}


@pytest.mark.parametrize("proposal", ["mixture", "posterior", "ais"])
def test_merged_parts_are_the_bytes_of_the_whole(
    proposal: Any, run: Run, splits: Splits, tmp_path: Path, computed: list[slice]
) -> None:
    config = EvaluationConfig(samples=12, proposal=proposal)
    whole = Run(Path(shutil.copytree(run.path, tmp_path / "whole")))
    model = run.load_model()
    assert evaluate(whole, splits, config, stages=["likelihood"], model=model)["likelihood"]["samples"] == 12
    assert len(computed) == 7
    computed.clear()
    for number in (3, 1, 2):
        assert evaluate(run, splits, config, part=(number, 3), model=model) == {}
    assert sorted((block.start, block.stop) for block in computed) == [(i, min(i + 3, 20)) for i in range(0, 20, 3)]
    computed.clear()
    evaluate(run, splits, config, stages=["likelihood"], model=model)
    assert computed == []
    assert contents(run) == contents(whole)


def test_other_stages_are_measured_when_parts_are_merged(run: Run, splits: Splits, computed: list[slice]) -> None:
    model = run.load_model()
    with pytest.raises(InputError, match="part = 1/2: the stage latents needs all images at once"):
        evaluate(run, splits, CONFIG, stages=["likelihood", "latents"], part="1/2")
    for part in ("1/2", "2/2"):
        evaluate(run, splits, CONFIG, part=part, model=model)
    assert run.evaluation is None
    computed.clear()
    assert {"likelihood", "latents"} <= set(
        evaluate(run, splits, CONFIG, stages=["latents", "likelihood"], model=model)
    )
    assert computed == []


def test_missing_parts_and_parts_of_other_settings_are_refused(run: Run, splits: Splits, computed: list[slice]) -> None:
    model = run.load_model()
    measure = functools.partial(evaluate, run, splits, stages=["likelihood"], model=model)
    measure(CONFIG, part=(2, 3))
    with pytest.raises(RunError, match=r"parts 1 and 3 of 3 are missing; run .* --part 1/3 and --part 3/3"):
        measure(CONFIG)
    for config, difference in (
        (EvaluationConfig(samples=13, proposal="posterior"), "samples = 12 instead of 13"),
        (EvaluationConfig(samples=12), "proposal = posterior instead of mixture"),
        (EvaluationConfig(samples=12, proposal="posterior", seed=5), "seed = 0 instead of 5"),
    ):
        for part in (None, (1, 3)):
            with pytest.raises(InputError, match=f"its parts were computed with {difference}"):
                measure(config, part=part)
    other = splits._replace(test=splits.train)
    with pytest.raises(InputError, match="another images"):
        evaluate(run, other, CONFIG, stages=["likelihood"], model=model)
    # Measurements without importance samples neither need the parts nor remove them.
    measure(EvaluationConfig(samples=0))
    with pytest.raises(RunError, match="missing"):
        measure(CONFIG)
    assert len(computed) == 2
    assert measure(EvaluationConfig(samples=13, proposal="posterior"), force=True)["likelihood"]["samples"] == 13
    assert not [path for path in run.path.iterdir() if path.name.startswith(".")]


def test_a_killed_part_resumes(run: Run, splits: Splits, computed: list[slice]) -> None:
    model = run.load_model()

    def cut(blocks: list[Any], label: str, /) -> Any:
        yield from blocks[:2]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(run, splits, CONFIG, part=(1, 1), model=model, progress=cut)
    before = len(computed)
    evaluate(run, splits, CONFIG, part=(1, 1), model=model)
    # The block after the last one saved may have been computed already, but not saved.
    assert 5 <= len(computed) - before <= 6


def test_parts_run_while_other_parts_run_but_not_twice(run: Run, splits: Splits) -> None:
    from keras_vae.core.parts import Part
    from keras_vae.evaluation.evaluate import likelihood_folder

    model = run.load_model()
    folder = likelihood_folder(run, splits, CONFIG, prior=None, model=model, on=None)
    with held_elsewhere(folder.open(7, Part(1, 2))):
        with pytest.raises(RunError, match=r"part = .*evaluation\.json-1-of-2: in use by process "):
            evaluate(run, splits, CONFIG, part=(1, 2), model=model)
        evaluate(run, splits, CONFIG, part=(2, 2), model=model)


@pytest.mark.parametrize(
    ("config", "part", "problem"),
    [
        (EvaluationConfig(samples=0), (1, 2), "part = 1/2: there is no nll to divide, without importance samples"),
        (CONFIG, (1, 8), "part = 1/8: more parts than blocks of images; choose at most 7"),
        (CONFIG, "3-8", "part = '3-8': not a part"),
        (CONFIG, (0, 8), "no such part"),
    ],
)
def test_impossible_parts_are_refused(
    config: EvaluationConfig, part: Any, problem: str, run: Run, splits: Splits
) -> None:
    with pytest.raises(InputError, match=problem):
        evaluate(run, splits, config, part=part)
    assert run.evaluation is None
