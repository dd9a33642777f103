"""A long job over many inputs, group by group, that may be stopped at any moment and goes on with the same call."""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from rich.progress import Progress

from .journal import Journal
from .progress import Lines, progress_bar

Record = dict[str, Any]


def run_groups(
    out: str | os.PathLike[str],
    settings: Mapping[str, Any],
    groups: Sequence[range],
    work: Callable[[range], Iterable[Record]],
    write: Callable[[Iterator[Record]], None],
    verb: str,
    certified: Callable[[Record], bool],
    progress: bool = True,
    finished: Callable[[], bool] = lambda: False,
) -> None:
    """Work on every group, append the record of each finished input to the journal beside `out`, and write `out` from all.

    Args:
        out: the output; `write` must make it at once, complete.
        settings: what the records depend on: another run goes on only with the same.
        groups: input numbers; a group is done again as a whole where a stop cut it, so that batches stay the same.
        work: one record for each input of a group, in order: JSON values, with its number as "idx".
        write: makes `out` from the records, in the order of the groups.
        verb: shown beside the progress bar.
        certified: whether a record counts for the certified accuracy that is shown.
        progress: show the bar.
        finished: asked where there is no journal yet: True where `out` is complete already; it may raise.

    Raises:
        ValueError: a journal of other settings, or another process at work on `out`.
        OSError: no folder, no permission or no room; what was finished is kept.
    """
    with Journal(out, settings) as journal:
        done = {int(json.loads(record)["idx"]): record for record in journal.records}
        journal.records.clear()
        if done or not finished():
            with progress_bar(verb, disable=not progress, note=True) as bar:
                _work(journal, done, groups, work, certified, bar, Lines(bar, verb))
            write(json.loads(done[index]) for group in groups for index in group)
        journal.finish()


def _work(
    journal: Journal,
    done: dict[int, bytes],
    groups: Sequence[range],
    work: Callable[[range], Iterable[Record]],
    certified: Callable[[Record], bool],
    bar: Progress,
    lines: Lines,
) -> None:
    good = sum(certified(json.loads(record)) for record in done.values())
    task = bar.add_task(_note(good, len(done)), total=sum(map(len, groups)), completed=len(done))
    for group in groups:
        if all(index in done for index in group):
            continue
        for record in work(group):
            index = int(record["idx"])
            if index not in done:
                data = json.dumps(record).encode()
                journal.append(data)
                done[index] = data
                good += certified(record)
                bar.update(task, advance=1, description=_note(good, len(done)))
                lines.say(task)


def _note(good: int, done: int) -> str:
    return f"certified accuracy {good / done:.3f}" if done else ""
