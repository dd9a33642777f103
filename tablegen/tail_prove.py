"""Prove a tail table: every entry in ball arithmetic (tail_enclose.py); knows the file format and nothing of the builder.

The look-up is sound if each stored excess is an upper bound of E[(L - Lam)_+; segment] for the stored binary values of theta, r,
tau and Lam. An entry below what could be proven is raised to it, and counted.
"""

import datetime
import itertools
import math
import os
import struct
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from certlut.jobs.journal import Journal
from certlut.jobs.progress import progress_bar
from certlut.kernels.arrays import Array
from certlut.lookup.tail_format import TailData, read_tails, write_tails

from .parallel import run
from .tail_enclose import METHOD, Shift

Single = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]

SAMPLE_BATCH = 4
# Nodes of an angle that are proven once more where a journal says that they are.
RECHECKED = 2
_INDEX = struct.Struct("<I")


@dataclass(frozen=True)
class TailProof:
    """Outcome of a proof."""

    nodes: int
    entries: int
    raised: int
    """Entries that had to be raised for the bound to hold."""
    largest: float
    """The most by which one was."""
    failed: tuple[tuple[float, float], ...]
    """(theta, r) of the nodes with an entry for which no bound was found."""
    whole: bool
    """Every node of the table was tried."""


def prove_node(theta: float, r: float, tau: Array, levels: Array, excess: Single) -> Single:
    """excess, shape (K + 1, G), where it is proven, raised where it is not; NaN where no bound was found."""
    from flint import arb

    shift = Shift(r, theta)
    out = excess.copy()
    ends = [-math.inf, *tau.tolist(), math.inf]
    for k, (lo, hi) in enumerate(itertools.pairwise(ends)):
        for g, level in enumerate(levels.tolist()):
            bound = shift.upper(level, lo, hi)
            if not bound <= arb(float(excess[k, g])):
                out[k, g] = _single_up(math.nextafter(float(bound), math.inf)) if bound.is_finite() else np.nan
    return out


def _single_up(x: float) -> np.float32:
    """The least float32 that is not below x."""
    near = np.float32(x)
    return near if float(near) >= x else np.nextafter(near, np.float32(np.inf))


def _prove(index: int, theta: Array, r: Array, tau: Array, levels: Array, excess: Single) -> bytes:
    """Nodes, a row each -> a journal record: index, then their proven entries."""
    out = [prove_node(*node) for node in zip(theta.tolist(), r.tolist(), [tau] * r.size, levels, excess, strict=True)]
    return _INDEX.pack(index) + np.stack(out).astype("<f4").tobytes()


def _outcome(data: TailData, chosen: Indices, proven: Single, whole: bool) -> TailProof:
    """From the proven entries of the nodes chosen, shape (n, K + 1, G)."""
    d = data.datasets
    stored = d["excess"].reshape(-1, *d["excess"].shape[2:])[chosen].astype(np.float64)
    lost = np.isnan(proven).any(axis=(1, 2))
    rise = np.where(np.isnan(proven), 0.0, proven - stored)
    places = [(float(d["theta"][i]), float(d["r"][j])) for i, j in zip(*np.divmod(chosen[lost], len(d["r"])), strict=True)]
    return TailProof(len(chosen), proven.size, int((rise > 0.0).sum()), float(rise.max(initial=0.0)), tuple(places), whole)


def prove_tails(
    path: str | os.PathLike[str],
    nodes: int | None = None,
    jobs: int = -1,
    seed: int | None = None,
    scheduler: str | None = None,
) -> TailProof:
    """Prove the tail table at `path`: all nodes, or a random sample of `nodes` (then the file is only read).

    A whole proof goes angle by angle through a journal beside the file, so that a stopped one resumes: it takes the journal's word
    for angles of these very entries, but for a random sample of the nodes and every change. The outcome is recorded in the file
    (data_version 1 or more, attribute `proof`). Where an entry could not be bounded nothing is written.

    Raises:
        FileNotFoundError, TableError: from reading the table.
        ValueError: nodes < 1; a journal of another proof, or one whose sample does not hold.
        ImportError: python-flint is missing; install certlut[prove].
    """
    if nodes is not None and nodes < 1:
        raise ValueError(f"nodes = {nodes}: expected 1 or more")
    try:
        import flint
    except ImportError:
        raise ImportError("proving needs python-flint: pip install 'certlut[prove]'") from None
    path = Path(path)
    data = read_tails(path)
    if nodes is None:
        return _prove_whole(path, data, jobs, scheduler, flint.__version__)
    total = data.datasets["excess"].shape[0] * data.datasets["excess"].shape[1]
    chosen = np.random.default_rng(seed).choice(total, min(nodes, total), replace=False)
    batches = np.array_split(chosen, max(1, len(chosen) // SAMPLE_BATCH))
    tasks = [_task(data, index, batch) for index, batch in enumerate(batches)]
    with progress_bar("proving") as bar:
        parts = dict(_entries(data, record) for record in bar.track(run(_prove, tasks, jobs, scheduler), total=len(tasks)))
    return _outcome(data, chosen, np.concatenate([parts[index] for index in range(len(tasks))]), whole=False)


def _task(data: TailData, index: int, chosen: Indices) -> tuple[object, ...]:
    """Arguments of `_prove` for some nodes."""
    d = data.datasets
    i, j = np.divmod(chosen, len(d["r"]))
    return index, d["theta"][i], d["r"][j], d["tau"], d["level"][j], d["excess"][i, j]


def _entries(data: TailData, record: bytes) -> tuple[int, Single]:
    """(index, proven entries) of a record."""
    index: int = _INDEX.unpack_from(record)[0]
    return index, np.frombuffer(record, "<f4", offset=_INDEX.size).reshape(-1, *data.datasets["excess"].shape[2:])


def _whole_angle(data: TailData, record: bytes, path: Path) -> tuple[int, Single]:
    """`_entries` of a journal's record. ValueError where it is none of the journal at `path`."""
    shape = data.datasets["excess"].shape
    if len(record) != _INDEX.size + data.datasets["excess"][0].nbytes or _INDEX.unpack_from(record)[0] >= shape[0]:
        raise ValueError(f"{path}: holds what is no record of a proof; delete it to start again")
    return _entries(data, record)


def _recheck(data: TailData, slabs: list[Indices], proven: dict[int, Single], path: Path, jobs: int, scheduler: str | None) -> None:
    """Prove a random sample of the nodes that a journal at `path` calls proven once more, and all that it changes: see prove.py."""
    rng = np.random.default_rng()
    chosen = {}
    for i, entries in proven.items():
        changed = np.flatnonzero((entries != data.datasets["excess"][i]).any(axis=(1, 2)))
        chosen[i] = np.union1d(changed, rng.choice(len(slabs[i]), min(RECHECKED, len(slabs[i])), replace=False))
    tasks = [_task(data, i, slabs[i][some]) for i, some in chosen.items() if some.size]
    with progress_bar("checking what was proven before") as bar:
        for record in bar.track(run(_prove, tasks, jobs, scheduler) if tasks else (), total=len(tasks)):
            i, again = _entries(data, record)
            if not np.array_equal(again, proven[i][chosen[i]], equal_nan=True):
                raise ValueError(f"{path}: its angle {i} does not hold when it is proven again; delete it to start again")


def _prove_whole(path: Path, data: TailData, jobs: int, scheduler: str | None, version: str) -> TailProof:
    shape = data.datasets["excess"].shape
    slabs = np.split(np.arange(shape[0] * shape[1]), shape[0])
    settings = {"task": "prove tails", "digest": data.digest, "method": METHOD}
    with Journal(path, settings, "angles", len(slabs), quiet=False) as journal:
        proven = dict(_whole_angle(data, record, journal.path) for record in journal.records)
        journal.records.clear()
        _recheck(data, slabs, proven, journal.path, jobs, scheduler)
        with progress_bar("proving") as bar:
            bars = bar.add_task("", total=len(slabs), completed=len(proven))
            tasks = [_task(data, index, slab) for index, slab in enumerate(slabs) if index not in proven]
            for record in run(_prove, tasks, jobs, scheduler) if tasks else ():
                journal.append(record)
                index, entries = _entries(data, record)
                proven[index] = entries
                bar.advance(bars)
        whole = np.concatenate([proven[index] for index in range(len(slabs))])
        proof = _outcome(data, np.arange(len(whole)), whole, whole=True)
        if not proof.failed:
            done = {
                "method": f"{METHOD}, python-flint {version}",
                "nodes": proof.nodes,
                "entries": proof.entries,
                "raised": proof.raised,
                "largest_raise": proof.largest,
                "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            }
            datasets = data.datasets | {"excess": whole.reshape(shape)}
            write_tails(path, replace(data, datasets=datasets, data_version=max(1, data.data_version), proof=done))
        journal.finish()
    return proof
