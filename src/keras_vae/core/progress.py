"""Progress of long work, on the terminal."""

import operator
from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

from rich import progress as rich_progress
from rich.console import Console

Item = TypeVar("Item")


class Progress(Protocol):
    """Something that passes items on and may show how far it is; `operator.length_hint` knows their number."""

    def __call__(self, items: Iterable[Item], label: str, /) -> Iterable[Item]:
        """Yield the items, shown under the label."""


def silent(items: Iterable[Item], label: str, /) -> Iterable[Item]:
    """Return the items as they are.

    Args:
        items: What is being worked on.
        label: What the work is called; nobody is told.

    Returns:
        The items.
    """
    return items


def track(console: Console, items: Iterable[Item], title: str, /) -> Iterator[Item]:
    """Yield the items behind a progress bar that is gone when they are."""
    with bar(console) as progress:
        yield from progress.track(items, total=operator.length_hint(items) or None, description=title)


def bar(console: Console) -> rich_progress.Progress:
    """Return a bar with what is done and the time left; nothing is shown where the console is no terminal."""
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
