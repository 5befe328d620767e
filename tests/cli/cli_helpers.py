"""Helpers of the tests of the commands: the result of a call, and the form of an error."""

from collections.abc import Callable
from typing import NamedTuple

SMALL = ["--set", "model.network.widths=[2, 3]", "--set", "training.batch_size=9", "--set", "training.epochs=2"]


class Outcome(NamedTuple):
    code: int
    out: str
    err: str


Vae = Callable[..., Outcome]


def assert_rejected(outcome: Outcome, message: str, code: int = 2) -> None:
    assert outcome.code == code, outcome
    assert message in outcome.err
    last = outcome.err.strip().splitlines()[-1]
    assert last.startswith("vae: ")
    assert message in last, "the last line must state the error"
    assert "Traceback" not in outcome.err
    assert outcome.out == ""
