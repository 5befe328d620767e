"""Progress reports of long-running work."""

import operator
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol, TypeVar

from rich import progress as rich_progress
from rich.console import Console

Item = TypeVar("Item")

LINE_SECONDS = 30.0
"""Seconds between the lines that report progress if there is no terminal."""


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


_reporter: ContextVar[Progress] = ContextVar("reporter", default=silent)


@contextmanager
def reporting(progress: Progress) -> Iterator[None]:
    """Report loops that call `reported`, such as those of distributions, until the context ends.

    Args:
        progress: Reports the progress.
    """
    token = _reporter.set(progress)
    try:
        yield
    finally:
        _reporter.reset(token)


def reported(items: Iterable[Item], label: str, /) -> Iterable[Item]:
    """Yield the items and report the progress under the label, within `reporting` only.

    Args:
        items: Any items.
        label: The text in front of the bar.
    """
    return _reporter.get()(items, label)


def track(console: Console, items: Iterable[Item], title: str, /) -> Iterator[Item]:
    """Yield the items and show a progress bar, which disappears at the end.

    If the console is not a terminal, print a line every `LINE_SECONDS`, so that logs show the progress of long work.
    """
    total = operator.length_hint(items) or None
    if console.is_terminal:
        with bar(console) as progress:
            yield from progress.track(items, total=total, description=title)
        return
    written = time.monotonic()
    for done, item in enumerate(items):
        if time.monotonic() - written >= LINE_SECONDS:
            written = time.monotonic()
            console.print(f"{title}: {done:,}{'' if total is None else f' of {total:,}'}", highlight=False)
        yield item


@contextmanager
def spinner(console: Console, title: str) -> Iterator[None]:
    """Show a title with an animation until the context ends; nothing unless the console is a terminal."""
    if not console.is_terminal:
        yield
        return
    with console.status(f"{title} …"):
        yield


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
