"""The problem of a run that a check reports."""

from collections.abc import Callable
from typing import NamedTuple

from keras_vae.evaluation.diagnostics.run_diagnostics import RunDiagnostics


class Finding(NamedTuple):
    """A problem of a run.

    Args:
        name: A short name of the problem.
        observation: The numbers that show it.
        explanation: Why it matters.
        suggestion: The setting to change.
    """

    name: str
    observation: str
    explanation: str
    suggestion: str

    def __repr__(self) -> str:
        """Return the name and the observation in one line."""
        return f"Finding({self.name!r}: {' '.join(self.observation.split())})"

    def __str__(self) -> str:
        """Return the finding as four lines."""
        fields = ("observation", "explanation", "suggestion")
        return "\n".join([self.name, *(f"  {field + ':':<13}{getattr(self, field)}" for field in fields)])


Check = Callable[[RunDiagnostics], Finding | None]
"""A function that looks for one problem; it returns None if the facts that it needs are missing."""
