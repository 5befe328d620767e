"""Types of the values in `evaluation.json`: damaged and hostile files are rejected in one line."""

from pathlib import Path
from typing import Any

import pytest

from keras_vae.core.errors import InputError
from keras_vae.runs.evaluation_file import check_evaluation
from keras_vae.runs.run import Run


@pytest.mark.parametrize(
    ("evaluation", "message"),
    [
        ({"likelihood": {"images": "<b>many</b>"}}, "likelihood.images = '<b>many</b>': not an integer"),
        ({"likelihood": {"kl_loss": {"mean": "low"}}}, "likelihood.kl_loss.mean = 'low': not a number"),
        ({"likelihood": {"kl_loss": [1]}}, "likelihood.kl_loss = .*: not a table"),
        ({"likelihood": None}, "likelihood = None: not a table"),
        ({"likelihood": ["text"]}, "likelihood = .*: not a table"),
        ({"likelihood": {"held_out": "no"}}, "likelihood.held_out = 'no': not a Boolean"),
        ({"samples": {"precision": "high"}}, "samples.precision = 'high': not a number"),
        ({"samples": {"kid": {"mean": "low"}}}, "samples.kid = .*mean = 'low': not a number"),
        ({"samples": {"split": 3}}, "samples.split = 3: not a string"),
        ({"latents": {"latent_dim": "2"}}, "latents.latent_dim = '2': not an integer"),
        ({"disentanglement": {"mig": True}}, "disentanglement.mig = True: not a number"),
    ],
)
def test_text_in_place_of_a_number_is_rejected_in_one_line(evaluation: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"^evaluation: {message}") as error:
        check_evaluation(evaluation, "evaluation")
    assert len(str(error.value).splitlines()) == 1


def test_text_in_an_evaluation_file_is_rejected_when_it_is_read(tmp_path: Path) -> None:
    run = Run(tmp_path)
    for text in ('{"likelihood": {"nll": {"mean": "x"}}}', "[1]", '"text"', "{"):
        (tmp_path / "evaluation.json").write_text(text)
        with pytest.raises(InputError, match=r"evaluation\.json: ") as error:
            _ = run.evaluation
        assert len(str(error.value).splitlines()) == 1
