"""Progress reports of long-running work."""

import operator
from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

from rich import progress as rich_progress
from rich.console import Console

Item = TypeVar("Item")


class Progress(Protocol):
    """A function that yields items and may report progress; `operator.length_hint` returns their number."""

    def __call__(self, items: Iterable[Item], label: str, /) -> Iterable[Item]:
        """Yield the items, and report the progress under the label."""


def silent(items: Iterable[Item], label: str, /) -> Iterable[Item]:
    """Return the items without reporting progress.

    Args:
        items: Any items.
        label: Unused.
    """
    return items


def track(console: Console, items: Iterable[Item], title: str, /) -> Iterator[Item]:
    """Yield the items and show a progress bar, which disappears at the end."""
    with bar(console) as progress:
        yield from progress.track(items, total=operator.length_hint(items) or None, description=title)


def bar(console: Console) -> rich_progress.Progress:
    """Return a progress bar with counts and the time left, which stays hidden unless the console is a terminal."""
    return rich_progress.Progress(
        rich_progress.TextColumn("{task.description}"),
        rich_progress.BarColumn(),
        rich_progress.MofNCompleteColumn(),
        rich_progress.TimeRemainingColumn(compact=True, elapsed_when_finished=True),
        rich_progress.TextColumn("left"),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
