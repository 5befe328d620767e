"""Progress of long work, on the terminal."""

import operator
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

Item = TypeVar("Item")


def track(console: Console, items: Iterable[Item], title: str, /) -> Iterator[Item]:
    """Yield the items behind a progress bar that is gone when they are."""
    with bar(console) as progress:
        yield from progress.track(items, total=operator.length_hint(items) or None, description=title)


def bar(console: Console) -> Progress:
    """Return a bar with what is done and the time left; nothing is shown where the console is no terminal."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(compact=True, elapsed_when_finished=True),
        TextColumn("left"),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
