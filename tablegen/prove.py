"""Prove a table: every node's cut in ball arithmetic; knows the file format and nothing of the solver.

The look-up is sound if each stored c is an upper bound of E(L_r(u1) - a0 - a1 u1 - a2 u2)_+ for the stored binary values of r and a
(enclose.py). A node is proven when that holds and, besides, its cut certifies its radius at the node's own (q, m1, m2).
"""

import contextlib
import datetime
import math
import os
import struct
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from certlut.jobs.journal import Journal
from certlut.jobs.progress import progress_bar
from certlut.kernels.arrays import Array
from certlut.lookup.format import AXES, TableData, read_table, write_table

from .enclose import METHOD, hinge_upper, working_precision
from .parallel import run

SAMPLE_BATCH = 50
_INDEX = struct.Struct("<I")
# The largest relative lowering of a radius that still counts as rounding, not as damage.
LOWERING = 1e-6
# Nodes of a slab that are proven once more where a journal says that they are.
RECHECKED = 20


@dataclass(frozen=True)
class Proof:
    """Outcome of a proof."""

    nodes: int
    lowered: int
    """Nodes whose radius had to be lowered for the bound to hold."""
    raised: int
    """Others whose c had to be raised."""
    largest: float
    """The largest relative lowering of a radius."""
    failed: tuple[tuple[float, float, float], ...]
    """(z, rho, theta) of the nodes for which nothing near the stored radius could be proven."""
    whole: bool
    """Every node of the table was tried."""

    @property
    def changed(self) -> int:
        """Nodes that do not hold as stored, but nearly so."""
        return self.lowered + self.raised


@dataclass(frozen=True)
class Node:
    """One node as stored, with its place on the axes."""

    z: float
    rho: float
    theta: float
    r: float
    a0: float
    a1: float
    a2: float
    c: float


def _own_surplus(node: Node, c: Any) -> Any:
    """s of a node's cut at the node itself, as a ball: its radius is certified there where this is >= 0."""
    from flint import arb

    z, rho, turn = arb(node.z), arb(node.rho), arb(node.theta) / 180
    rim = (-z * z / 2).exp() / (2 * arb.pi()).sqrt()
    eps = (z / arb(2).sqrt()).erfc() / 2
    m1, m2 = -rho * rim * turn.cos_pi(), rho * rim * turn.sin_pi()
    return arb(1) / 2 - c - arb(node.a0) * eps + arb(node.a1) * m1 + arb(node.a2) * m2


def prove_node(node: Node) -> tuple[float, float]:
    """(radius, c) proven for the node: as stored where that holds, else the radius lowered by the least that was found to suffice.

    ArithmeticError where no radius within LOWERING of the stored one can be proven.
    """
    with working_precision(node.a2):
        return _prove_node(node)


def _prove_node(node: Node) -> tuple[float, float]:
    from flint import arb

    stored = hinge_upper(node.r, node.a0, node.a1, node.a2)
    if stored <= arb(node.c) and _own_surplus(node, arb(node.c)) >= 0:
        return node.r, node.c
    # The surplus falls about linearly with r; its slope from a second radius, then secant steps downwards.
    c = _round_up(stored)
    missing = -float(_own_surplus(node, arb(c)).lower())
    if missing <= 0.0:
        return node.r, c
    r = node.r * (1.0 - 1e-9)
    slope = 0.0
    for _ in range(8):
        lower = _round_up(hinge_upper(r, node.a0, node.a1, node.a2))
        still = -float(_own_surplus(node, arb(lower)).lower())
        if still <= 0.0:
            return r, lower
        slope = max(slope, (missing - still) / (node.r - r))
        if not (slope > 0.0 and 1.1 * missing / slope < LOWERING * node.r):
            break
        r = min(r, node.r) - 1.1 * still / slope
    raise ArithmeticError(f"no radius near {node.r!r} could be proven at z = {node.z}, rho = {node.rho}, theta = {node.theta}")


def _round_up(ball: Any) -> float:
    return math.nextafter(float(ball), math.inf)


def _prove_slab(index: int, nodes: Array) -> bytes:
    """Rows z, rho, theta, r, a0, a1, a2, c -> a journal record: index, then the proven (r, c) of each; NaN where none could be."""
    out = np.full((len(nodes), 2), np.nan)
    for row, values in zip(out, nodes.tolist(), strict=True):
        with contextlib.suppress(ArithmeticError):
            row[:] = prove_node(Node(*values))
    return _INDEX.pack(index) + out.astype("<f8").tobytes()


def prove(
    path: str | os.PathLike[str],
    nodes: int | None = None,
    jobs: int = -1,
    seed: int | None = None,
    scheduler: str | None = None,
) -> Proof:
    """Prove the table at `path`: all nodes, or a random sample of `nodes` (then the file is only read).

    A whole proof goes slab by slab through a journal beside the file, so that a stopped one resumes: it takes the journal's word
    for slabs of these very nodes, but for a random sample of them and every change. Where a node's bound falls short its c is
    raised or its radius lowered; the outcome is recorded in the file (data_version 1 or more, attribute `proof`). Nodes that
    cannot be proven are reported and nothing is written.

    Raises:
        FileNotFoundError, TableError: from reading the table.
        ValueError: nodes < 1; a journal of another proof, or one whose sample does not hold.
        ImportError: python-flint is missing; install certlut[prove].

    Examples:
        >>> from certlut.tablegen import build, prove
        >>> _ = build("small.h5", grid="small", jobs=1)
        >>> proof = prove("small.h5", nodes=5, jobs=1, seed=0)
        >>> proof.nodes, proof.failed
        (5, ())
    """
    if nodes is not None and nodes < 1:
        raise ValueError(f"nodes = {nodes}: expected 1 or more")
    method = f"{METHOD}, python-flint {_flint()}"
    path = Path(path)
    data = read_table(path)
    rows = _rows(data)
    if nodes is not None:
        chosen = np.random.default_rng(seed).choice(len(rows), min(nodes, len(rows)), replace=False)
        tasks = [(i, rows[part]) for i, part in enumerate(np.array_split(chosen, max(1, len(chosen) // SAMPLE_BATCH)))]
        with progress_bar("proving") as bar:
            parts = {
                _INDEX.unpack_from(r)[0]: _pairs(r) for r in bar.track(run(_prove_slab, tasks, jobs, scheduler), total=len(tasks))
            }
        return _outcome(rows[chosen], np.concatenate([parts[i] for i, _ in tasks]), whole=False)
    slabs = np.split(rows, len(data.datasets["z"]))
    settings = {"task": "prove", "digest": data.digest, "method": method}
    with Journal(path, settings, "slabs", len(slabs), quiet=False) as journal:
        proven = np.full((len(slabs), len(slabs[0]), 2), np.nan)
        done = {_fill(proven, record, journal.path) for record in journal.records}
        journal.records.clear()
        _recheck(slabs, proven, done, journal.path, jobs, scheduler)
        with progress_bar("proving") as bar:
            task = bar.add_task("", total=len(slabs), completed=len(done))
            todo = [(i, slab) for i, slab in enumerate(slabs) if i not in done]
            for record in run(_prove_slab, todo, jobs, scheduler) if todo else ():
                journal.append(record)
                _fill(proven, record, journal.path)
                bar.advance(task)
        proof = _outcome(rows, proven.reshape(-1, 2), whole=True)
        if not proof.failed:
            write_table(path, _proven(data, proven, proof, method))
        journal.finish()
    return proof


def _flint() -> str:
    """Its version."""
    try:
        import flint
    except ImportError:
        raise ImportError("proving needs python-flint: pip install 'certlut[prove]'") from None
    return str(flint.__version__)


def _recheck(slabs: list[Array], proven: Array, done: set[int], path: Path, jobs: int, scheduler: str | None) -> None:
    """Prove a random sample of the nodes that a journal at `path` calls proven once more, and all that it changes. ValueError
    where one comes out otherwise: whoever can write beside a table could else have any cut pass for proven."""
    rng = np.random.default_rng()
    chosen = {}
    for i in done:
        changed = np.flatnonzero((proven[i] != slabs[i][:, [3, 7]]).any(axis=1))
        chosen[i] = np.union1d(changed, rng.choice(len(slabs[i]), min(RECHECKED, len(slabs[i])), replace=False))
    tasks = [(i, slabs[i][some]) for i, some in chosen.items()]
    with progress_bar("checking what was proven before") as bar:
        for record in bar.track(run(_prove_slab, tasks, jobs, scheduler) if tasks else (), total=len(tasks)):
            i = _INDEX.unpack_from(record)[0]
            if not np.array_equal(_pairs(record), proven[i][chosen[i]], equal_nan=True):
                raise ValueError(f"{path}: its slab {i} does not hold when it is proven again; delete it to start again")


def _proven(data: TableData, proven: Array, proof: Proof, method: str) -> TableData:
    """The table with what was proven in place of what was stored, and the record of it."""
    shape = data.datasets["radius"].shape
    record = {
        "method": method,
        "nodes": proof.nodes,
        "lowered": proof.lowered,
        "largest_lowering": proof.largest,
        "raised": proof.raised,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }
    datasets = data.datasets | {"radius": proven[..., 0].reshape(shape), "c": proven[..., 1].reshape(shape)}
    return replace(data, datasets=datasets, data_version=max(1, data.data_version), proof=record)


def _rows(data: TableData) -> Array:
    """Every node as z, rho, theta, r, a0, a1, a2, c; shape (nodes, 8)."""
    d = data.datasets
    places = np.meshgrid(*(d[name] for name in AXES), indexing="ij")
    columns = [*places, *(d[name] for name in ("radius", "a0", "a1", "a2", "c"))]
    return np.stack([np.asarray(column, dtype=np.float64).ravel() for column in columns], axis=1)


def _pairs(record: bytes) -> Array:
    """The (r, c) rows of a record."""
    return np.frombuffer(record, "<f8", offset=_INDEX.size).reshape(-1, 2)


def _fill(proven: Array, record: bytes, path: Path) -> int:
    """Put a record's slab in its place; returns its index. ValueError where it is none of the journal at `path`."""
    index: int = int.from_bytes(record[: _INDEX.size], "little")
    if len(record) != _INDEX.size + proven[0].nbytes or index >= len(proven):
        raise ValueError(f"{path}: holds what is no record of a proof; delete it to start again")
    proven[index] = _pairs(record)
    return index


def _outcome(rows: Array, proven: Array, whole: bool) -> Proof:
    r, c = proven.T
    failed, lowered = np.isnan(r), r < rows[:, 3]
    raised = ~failed & ~lowered & (c != rows[:, 7])
    largest = float(np.where(lowered, (rows[:, 3] - r) / rows[:, 3], 0.0).max())
    places = tuple(tuple(row[:3]) for row in rows[failed].tolist())
    return Proof(len(rows), int(lowered.sum()), int(raised.sum()), largest, places, whole)
