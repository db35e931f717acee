"""A progress bar on standard error."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from eisnn.data.files import require

__all__ = ["progress"]


@contextmanager
def progress(
    what: str, total: int | None, *, done: int = 0, in_bytes: bool = False
) -> Iterator[Callable[[int], None]]:
    """Show how far something has come, and the time left.

    Args:
        what: what is going on.
        total: steps of all the work, if known.
        done: how many are done already.
        in_bytes: whether a step is a byte.

    Yields:
        a function that is told how many more steps were done.
    """
    rich = require("rich.progress", "rich")
    console = require("rich.console", "rich").Console(stderr=True)
    amount = (
        (rich.DownloadColumn(), rich.TransferSpeedColumn())
        if in_bytes
        else (rich.MofNCompleteColumn(),)
    )
    columns = (rich.TextColumn("{task.description}"), rich.BarColumn(), *amount)
    with rich.Progress(*columns, rich.TimeRemainingColumn(), console=console) as bar:
        task = bar.add_task(what, completed=done, total=total)
        yield lambda steps: bar.advance(task, steps)
