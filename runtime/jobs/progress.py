"""The progress bar of the long jobs: bar, count, elapsed and remaining time, on stderr; in a log file, a line a minute."""

import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

# Seconds between lines where stderr is no terminal.
QUIET = 60.0


def progress_bar(verb: str, disable: bool = False, note: bool = False) -> Progress:
    """A context manager; `track(iterable, total=...)` or `add_task` and `advance` move it. `note`: show the description too."""
    columns = [TextColumn(verb), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn()]
    shown = [*columns, TextColumn("{task.description}")] if note else columns
    return Progress(*shown, console=Console(stderr=True), transient=True, disable=disable)


class Lines:
    """Says in plain lines how far a bar is, where it cannot be seen."""

    def __init__(self, bar: Progress, verb: str) -> None:
        self.bar, self.verb, self.said = bar, verb, time.monotonic()

    def say(self, task: TaskID) -> None:
        """Print a line if the last one is long enough ago."""
        if self.bar.disable or self.bar.console.is_terminal or time.monotonic() - self.said < QUIET:
            return
        self.said = time.monotonic()
        state = self.bar.tasks[task]
        left = () if state.time_remaining is None else (_left(state.time_remaining),)
        said = (f"{self.verb}: {state.completed:.0f} of {state.total:.0f}", *left, state.description)
        print(", ".join(filter(None, said)), file=self.bar.console.file)


def _left(seconds: float) -> str:
    return f"{seconds / 60:.0f} min left" if seconds >= 60.0 else "less than a minute left"
