"""A long job over many inputs, group by group, that may be stopped at any moment and goes on with the same call."""

import contextlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.progress import Progress

from .journal import Journal
from .progress import Lines, progress_bar

# JSON values; "idx" is the input's number, "certified" whether it counts for the accuracy that is shown, "saved" the part of its
# samples that were not drawn, where it has a say in that.
Record = dict[str, Any]


class Job:
    """What is done of a job and what remains of it; made by `resuming`."""

    def __init__(self, journal: Journal, groups: Sequence[range], bar: Progress, verb: str) -> None:
        self._journal, self._groups, self._bar, self._lines = journal, groups, bar, Lines(bar, verb)
        self._done = {int(json.loads(record)["idx"]): record for record in journal.records}
        journal.records.clear()
        done = [json.loads(record) for record in self._done.values()]
        self._good, self._saved = sum(record["certified"] for record in done), sum(record.get("saved", 0.0) for record in done)
        self.started = bool(self._done)
        """Whether an earlier run left records: then its output is not complete, whatever lies there."""

    def remaining(self) -> Iterator[range]:
        """The groups that are not done; one that a stop cut comes again as a whole, so that batches stay the same."""
        self._task = self._bar.add_task(self._note(), total=sum(map(len, self._groups)), completed=len(self._done))
        for group in self._groups:
            if not all(index in self._done for index in group):
                yield group

    def add(self, record: Record) -> None:
        """Keep the record of a finished input, and show it; one that is there already stays."""
        index = int(record["idx"])
        if index not in self._done:
            data = json.dumps(record).encode()
            self._journal.append(data)
            self._done[index] = data
            self._good += record["certified"]
            self._saved += record.get("saved", 0.0)
            self._bar.update(self._task, advance=1, description=self._note())
            self._lines.say(self._task)

    def records(self) -> Iterator[Record]:
        """All of them, in the order of the groups."""
        for group in self._groups:
            for index in group:
                yield json.loads(self._done[index])

    def _note(self) -> str:
        if not self._done:
            return ""
        saved = f", {100.0 * self._saved / len(self._done):.1f} % of samples saved" if self._saved else ""
        return f"certified accuracy {self._good / len(self._done):.3f}{saved}"


@contextlib.contextmanager
def resuming(
    out: str | os.PathLike[str], settings: Mapping[str, Any], groups: Sequence[range], verb: str, progress: bool = True
) -> Iterator[Job]:
    """The job that leads to the file `out`: its journal is open beside it, and deleted when the block ends without an error.

        with resuming(out, settings, groups, "sampling") as job:
            for group in job.remaining():
                for record in work(group):
                    job.add(record)
            write(out, job.records())

    Args:
        out: the output; the block must write it at once, complete.
        settings: what the records depend on: another run goes on only with the same.
        groups: input numbers.
        verb: shown beside the progress bar.
        progress: show the bar, and say where the job goes on and what a stop keeps.

    Raises:
        ValueError: a journal of other settings, or another process at work on `out`.
        OSError: no folder, no permission or no room; what was finished is kept.
    """
    total = sum(map(len, groups))
    with (
        Journal(out, settings, "inputs", total, quiet=not progress) as journal,
        progress_bar(verb, disable=not progress, note=True) as bar,
    ):
        yield Job(journal, groups, bar, verb)
        journal.finish()
