"""The progress bar of the long jobs: bar, count, elapsed and remaining time, on stderr."""

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


def progress_bar(verb: str, disable: bool = False, note: bool = False) -> Progress:
    """A context manager; `track(iterable, total=...)` or `add_task` and `advance` move it. `note`: show the description too."""
    columns = [TextColumn(verb), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn()]
    shown = [*columns, TextColumn("{task.description}")] if note else columns
    return Progress(*shown, console=Console(stderr=True), transient=True, disable=disable)
