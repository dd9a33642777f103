"""The two halves of a long job: draw a data set's statistics to a file; turn a statistics file into results."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..bounds.binomial import lower_probability
from ..certify import Certifier
from ..jobs.atomic import check_out
from ..jobs.groups import Record, run_groups
from ..jobs.journal import differing
from ..jobs.shards import Shard, group_size, groups
from ..statistics.file import Sampled, read_statistics, write_statistics
from ..statistics.records import join, pack, unpack
from ..statistics.summary import Statistics
from ..threats.sets import Threat

# Records joined at a time: a million single ones as objects would fill the memory.
CHUNK = 1000


def sample_dataset(
    certifier: Certifier,
    data: Sequence[tuple[Any, int]],
    out: str | os.PathLike[str],
    n0: int,
    n: int,
    alpha: float,
    batch_size: int,
    information: Mapping[str, Any],
    shard: Shard | None = None,
    progress: bool = True,
    skip: int = 1,
    model_file: str = "",
) -> Sampled:
    """Sample every (input, label), or a shard of them, and write the statistics file `out`; returns what it holds.

    Each finished input goes to a journal beside the file: stopped at any moment, the same call goes on. A file that is complete and
    has the same settings is left as it is.

    Args:
        information: written with the settings, but not compared with those of a stopped run or of another shard.
        shard: written to a file of its own, `shard.path(out)`.
        progress: show a bar.
        skip: `data` holds every skip-th input of a data set: its input i is the set's input i * skip, in `idx` and in its noise.
        model_file: digest of what the model was loaded from (`identity.file_digest`), a setting like the others.

    Raises:
        ValueError: as `Certifier.certify`; a journal or a complete file of other settings, with the difference named; another
            process at work on the file; an empty data set or shard.
    """
    shard = shard or Shard()
    out = shard.path(check_out(out))
    settings = certifier.settings(data, n0, n, alpha, batch_size) | {"skip": skip, "model file": model_file}
    if not len(data):
        raise ValueError("the data set is empty: nothing to sample")
    pieces = shard.pick(groups(len(data), group_size(n, batch_size)))
    if not pieces:
        raise ValueError(f"shard {shard}: nothing is left for it, {len(data)} inputs make fewer batches; use fewer shards")
    if shard.count > 1:
        settings["shard"] = str(shard)

    def work(group: range) -> Iterator[Record]:
        for index, label, drawn, seconds in certifier.draw(data, group, n0, n, alpha, batch_size, skip):
            yield {
                "idx": index,
                "label": label,
                "predict": drawn.label,
                "seconds": seconds,
                "statistics": pack(drawn.statistics),
            }

    def write(records: Iterator[Record]) -> None:
        described = dict(settings) | {"information": dict(information) | {"alpha": alpha, "batch_size": batch_size}}
        write_statistics(out, gather(records, described, certifier.threats))

    def certified(record: Record) -> bool:
        count, drawn = (int(np.sum(record["statistics"][name])) for name in ("count", "n"))
        return record["predict"] == record["label"] and bool(lower_probability(count, drawn, alpha) > 0.5)

    def finished() -> bool:
        if out.exists():
            check_same(out, read_statistics(out).settings, settings)
        return out.exists()

    run_groups(out, settings, pieces, work, write, "sampling", certified, progress, finished)
    return read_statistics(out)


def check_same(path: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """ValueError naming what differs between a finished file's settings and those wanted; information is not compared."""
    changed = [f"{name} was {a!r}, is {b!r}" for name, a, b in differing(found, wanted) if name != "information"]
    if changed:
        text = "; ".join(changed)
        raise ValueError(f"{path}: holds the statistics of other settings: {text}; delete it or write another file")


def gather(records: Iterator[Record], settings: Mapping[str, Any], threats: tuple[Threat, ...]) -> Sampled:
    """The records of inputs of one shape, joined."""
    columns: list[tuple[int, int, int]] = []
    seconds: list[float] = []
    joined: list[Statistics] = []
    waiting: list[Statistics] = []
    for record in records:
        columns.append((record["idx"] * settings["skip"], record["label"], record["predict"]))
        seconds.append(record["seconds"])
        waiting.append(unpack(record["statistics"]))
        if len(waiting) == CHUNK:
            joined.append(join(waiting))
            waiting.clear()
    idx, label, predict = np.array(columns, dtype=np.int64).T
    return Sampled(join(joined + waiting), idx, label, predict, np.array(seconds), dict(settings), threats)
