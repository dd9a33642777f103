"""Joining the statistics files of a sharded run into the one that a single process would have written."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..jobs.atomic import check_out
from ..jobs.journal import differing
from ..jobs.shards import Shard
from ..statistics.file import Sampled, read_statistics, write_statistics
from ..statistics.records import join, take


def merge(paths: Sequence[str | os.PathLike[str]], out: str | os.PathLike[str]) -> Sampled:
    """Check that the files are all shards of one run, and write them joined, in the order of the inputs.

    Raises:
        FileNotFoundError: a shard's file that is not there, and whether it is unfinished.
        ValueError: a file that is no shard; shards of other settings, given twice or missing; inputs that are not all there once.
    """
    out = check_out(out)
    if out.exists():
        raise ValueError(f"{out}: exists; delete it or write another file")
    shards: dict[Shard, tuple[Path, Sampled]] = {}
    for path in map(Path, paths):
        sampled = _read(path)
        if "shard" not in sampled.settings:
            raise ValueError(f"{path}: not a shard: it was sampled as a whole")
        shard = Shard.parse(sampled.settings["shard"])
        if shard in shards:
            raise ValueError(f"{path}: shard {shard} is in {shards[shard][0]} already")
        shards[shard] = (path, sampled)
    if not shards:
        raise ValueError("no shards to merge")
    first_path, first = next(iter(shards.values()))
    for path, sampled in shards.values():
        _check_alike(first_path, first, path, sampled)
    count = next(iter(shards)).count
    # One that had no inputs to sample has no file.
    missing = [str(shard) for shard in (Shard(k, count) for k in range(count)) if shard not in shards]
    parts = [sampled for _, (_, sampled) in sorted(shards.items(), key=lambda item: item[0].index)]
    idx = np.concatenate([part.idx for part in parts])
    order = np.argsort(idx, kind="stable")
    if not np.array_equal(idx[order], np.arange(first.settings["inputs"]) * first.settings["skip"]):
        lacking = f"; missing of {count} shards: {', '.join(missing)}" if missing else ""
        raise ValueError(f"the shards hold {len(idx)} inputs, expected each of {first.settings['inputs']} once{lacking}")
    merged = Sampled(
        take(join([part.statistics for part in parts]), order.tolist()),
        idx=idx[order],
        label=np.concatenate([part.label for part in parts])[order],
        predict=np.concatenate([part.predict for part in parts])[order],
        seconds=np.concatenate([part.seconds for part in parts])[order],
        settings={name: value for name, value in parts[0].settings.items() if name != "shard"},
        threats=first.threats,
    )
    write_statistics(out, merged)
    return merged


def _read(path: Path) -> Sampled:
    journal = path.with_name(path.name + ".journal")
    if not path.exists() and journal.exists():
        raise FileNotFoundError(f"{path}: not finished ({journal.name} is there): run its command again")
    return read_statistics(path)


def _check_alike(first_path: Path, first: Sampled, path: Path, sampled: Sampled) -> None:
    """ValueError unless two shards differ in nothing but their inputs."""
    ours, theirs = first.settings, sampled.settings
    counts = Shard.parse(ours["shard"]).count, Shard.parse(theirs["shard"]).count
    changed = [f"shards are {counts[0]} and {counts[1]}"] if counts[0] != counts[1] else []
    changed += [f"{name} is {a!r} and {b!r}" for name, a, b in differing(ours, theirs) if name not in ("shard", "information")]
    if changed:
        raise ValueError(f"{first_path} and {path} are not of one run: {'; '.join(changed)}")
