"""certlut.tablegen.tail_prove: bounds against 30 digits; an entry that is too small is raised and counted; proofs are recorded."""

import importlib
import math
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from certlut.jobs.journal import Journal
from certlut.lookup.tail_format import TailData, read_tails, write_tails
from certlut.tablegen.tail_enclose import Shift
from certlut.tablegen.tail_prove import prove_tails
from certlut.tablegen.tail_table import TailGrid, build_tails
from reference import naive_tails as naive

prover = importlib.import_module("certlut.tablegen.tail_prove")

GRID = TailGrid(tau=(1.0, 2.5), theta=(0.0, 15.0, 70.0), first=0.3, last=3.0, step=(0.6, 0.6), places=(-3.0, 2.5, 6), dense=0.5)
NODES, ENTRIES = 3 * 4, 3 * 4 * 3 * 7


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("prove") / "tiny.h5"
    build_tails(path, GRID, jobs=1)
    return path


@pytest.fixture
def copy(tiny: Path, tmp_path: Path) -> Path:
    path = tmp_path / "copy.h5"
    shutil.copy(tiny, path)
    return path


# The bound of one entry


@pytest.mark.parametrize("seed", range(60))
def test_the_bound_holds_and_is_tight(seed: int) -> None:
    rng = np.random.default_rng([111, seed])
    theta = 0.0 if seed % 6 == 0 else float(rng.choice([0.5, 5.0, 30.0, 60.0, 89.0])) * rng.uniform(0.9, 1.0)
    r = float(rng.uniform(0.05, 8.0))
    mp = naive.MP
    turn = mp.mpf(theta) * mp.pi / 180
    a, b = mp.mpf(r) * mp.cos(turn), mp.mpf(r) * mp.sin(turn)
    lo, hi = np.sort(rng.uniform(-2.0, 5.0, 2)).tolist()
    lo, hi = (-math.inf, hi) if seed % 4 == 0 else (lo, math.inf) if seed % 4 == 1 else (lo, hi)
    level = 0.0 if seed % 10 == 3 else math.exp(r * rng.uniform(-4.0, 3.0) + 0.5 * r * r)
    bound = Shift(r, theta).upper(level, lo, hi)
    exact = naive.mp_excess(a, b, mp.mpf(level), lo, hi)
    upper = mp.mpf(bound.mid().str(30, radius=False))
    assert bound.is_exact()
    assert exact <= upper + mp.mpf(10) ** -17
    assert upper - exact <= 1e-12 + 1e-9 * exact


def test_the_bound_falls_as_the_level_rises_and_adds_up_over_segments() -> None:
    shift = Shift(2.0, 30.0)
    values = [float(shift.upper(level, 0.5, 2.0)) for level in (0.0, 0.1, 1.0, 10.0, 100.0)]
    assert (np.diff(values) < 0.0).all()
    parts = sum(float(shift.upper(1.0, lo, hi)) for lo, hi in naive.segments(np.array([0.5, 2.0])))
    assert parts == pytest.approx(float(shift.upper(1.0, -math.inf, math.inf)), abs=1e-12)


# Samples and the whole


def test_a_sample_of_the_shipped_table_proves_as_stored() -> None:
    path = Path(__file__).resolve().parent.parent.parent / "tables" / "tails.h5"
    before = path.read_bytes()
    proof = prove_tails(path, nodes=6, jobs=1)
    assert (proof.nodes, proof.raised, proof.largest, proof.failed, proof.whole) == (6, 0, 0.0, (), False)
    assert path.read_bytes() == before


@pytest.mark.parametrize("nodes", [1, 5, 1000])
def test_a_sample_never_writes_however_large(copy: Path, nodes: int) -> None:
    before = copy.read_bytes()
    proof = prove_tails(copy, nodes=nodes, jobs=1)
    assert proof.nodes == min(nodes, NODES)
    assert proof.raised == 0
    assert copy.read_bytes() == before
    assert list(copy.parent.iterdir()) == [copy]


def test_a_whole_proof_is_recorded(copy: Path) -> None:
    before = read_tails(copy)
    proof = prove_tails(copy, jobs=1)
    assert (proof.nodes, proof.entries, proof.raised, proof.failed, proof.whole) == (NODES, ENTRIES, 0, (), True)
    after = read_tails(copy)
    assert after.data_version == 1
    assert set(after.proof) == {"method", "nodes", "entries", "raised", "largest_raise", "date"}
    assert (after.proof["nodes"], after.proof["entries"], after.proof["raised"]) == (NODES, ENTRIES, 0)
    assert "python-flint" in after.proof["method"]
    assert all(after.datasets[name].tobytes() == values.tobytes() for name, values in before.datasets.items())
    assert list(copy.parent.iterdir()) == [copy]
    write_tails(copy, replace(after, data_version=4))
    prove_tails(copy, jobs=2)
    assert read_tails(copy).data_version == 4


def test_a_stopped_proof_goes_on_where_it_was(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stopped(Exception):
        pass

    tried: list[int] = []
    real = prover.run

    def run(function: Any, tasks: Any, *rest: Any) -> Iterator[Any]:
        for task in tasks:
            yield from real(function, [task], 1)
            tried.append(task[0])
            if len(tried) == 2:
                raise Stopped

    monkeypatch.setattr(prover, "run", run)
    with pytest.raises(Stopped):
        prove_tails(copy, jobs=1)
    assert read_tails(copy).data_version == 0
    assert prove_tails(copy, jobs=1).whole
    # What the journal calls proven is tried again by sample.
    assert tried == [0, 1, 0, 1, 2]
    assert read_tails(copy).data_version == 1


# A journal that somebody left


def leave(path: Path, records: list[bytes]) -> None:
    """A journal of a proof of `path`."""
    with Journal(path, {"task": "prove tails", "digest": read_tails(path).digest, "method": prover.METHOD}) as journal:
        for record in records:
            journal.append(record)


def as_stored(data: TailData, angle: int) -> bytes:
    """The record of an angle whose nodes are proven as stored."""
    return angle.to_bytes(4, "little") + data.datasets["excess"][angle].astype("<f4").tobytes()


def test_a_journal_in_which_a_false_table_is_proven_is_not_believed(copy: Path) -> None:
    data = read_tails(copy)
    low = write_tails(copy, replace(data, datasets=data.datasets | {"excess": np.float32(0.99) * data.datasets["excess"]}))
    before = copy.read_bytes()
    leave(copy, [as_stored(low, angle) for angle in range(3)])
    with pytest.raises(ValueError, match=r"copy\.h5\.journal: its angle [012] does not hold when it is proven again; delete it"):
        prove_tails(copy, jobs=1)
    assert copy.read_bytes() == before
    Path(f"{copy}.journal").unlink()
    assert prove_tails(copy, jobs=1).raised > 0.5 * ENTRIES


def test_every_change_that_a_journal_makes_is_proven_again(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = read_tails(copy)
    values = data.datasets["excess"].copy()
    values[1, 2, 1, 2] *= np.float32(1.0 - 1e-6)
    leave(copy, [as_stored(replace(data, datasets=data.datasets | {"excess": values}), angle) for angle in range(3)])
    monkeypatch.setattr(prover, "RECHECKED", 0)
    with pytest.raises(ValueError, match="its angle 1 does not hold"):
        prove_tails(copy, jobs=1)


@pytest.mark.parametrize("record", [b"x", b"\0" * 11, b"\xff" * 4 + b"\0" * 336, b"\0" * 4 + b"\0" * 340])
def test_a_journal_of_something_else_is_one_line(copy: Path, record: bytes) -> None:
    leave(copy, [record])
    with pytest.raises(ValueError, match=r"copy\.h5\.journal: holds what is no record of a proof; delete it"):
        prove_tails(copy, jobs=1)


def test_an_honest_journal_is_believed_but_for_a_sample(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = read_tails(copy)
    leave(copy, [as_stored(data, angle) for angle in range(3)])
    tried: list[int] = []
    monkeypatch.setattr(prover, "run", lambda function, tasks, *_: (tried.append(len(t[1])) or function(*t) for t in tasks))
    assert prove_tails(copy, jobs=1).raised == 0
    assert tried == [prover.RECHECKED] * 3
    assert read_tails(copy).data_version == 1


# What is wrong is caught


@pytest.mark.parametrize("node", [(0, 1, 1, 3), (1, 2, 1, 2), (2, 3, 2, 1), (2, 0, 1, 0), (0, 0, 2, 0)])
@pytest.mark.parametrize("factor", [1.0 - 1e-6, 0.99, 0.0])
def test_an_entry_that_is_too_small_is_raised_and_counted(copy: Path, node: tuple[int, ...], factor: float) -> None:
    data = read_tails(copy)
    values = data.datasets["excess"].copy()
    values[node] *= np.float32(factor)
    assert values[node] < data.datasets["excess"][node]
    write_tails(copy, replace(data, datasets=data.datasets | {"excess": values}))
    assert prove_tails(copy, nodes=NODES, jobs=1).raised == 1
    proof = prove_tails(copy, jobs=1)
    after = read_tails(copy)
    assert (proof.raised, after.proof["raised"], after.data_version) == (1, 1, 1)
    entry = float(after.datasets["excess"][node])
    assert proof.largest == pytest.approx(entry - float(values[node]), rel=1e-6)
    # At least the value, and no more than the builder's own margin.
    assert entry <= float(data.datasets["excess"][node])
    assert prove_tails(copy, nodes=NODES, jobs=1).raised == 0
    assert (np.delete(after.datasets["excess"].ravel(), 0).size, values.size) == (ENTRIES - 1, ENTRIES)


def test_wrong_axes_are_caught(copy: Path) -> None:
    data = read_tails(copy)
    for name, factor in (("r", 1.01), ("theta", 1.01), ("tau", 1.01), ("level", 0.99)):
        write_tails(copy, replace(data, datasets=data.datasets | {name: data.datasets[name] * factor}))
        assert prove_tails(copy, nodes=NODES, jobs=1).raised > 10, name


def test_an_entry_without_a_bound_is_reported_and_nothing_written(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from flint import arb

    monkeypatch.setattr(Shift, "upper", lambda *_: arb("nan"))
    before = copy.read_bytes()
    proof = prove_tails(copy, jobs=1)
    monkeypatch.undo()
    if proof.failed:  # workers that were forked see the change
        assert len(proof.failed) == NODES
        assert copy.read_bytes() == before


@pytest.mark.parametrize("nodes", [0, -5])
def test_a_sample_of_no_nodes_is_refused(copy: Path, nodes: int) -> None:
    with pytest.raises(ValueError, match=f"nodes = {nodes}"):
        prove_tails(copy, nodes=nodes, jobs=1)


def test_without_python_flint_the_error_says_what_to_install(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "flint", None)
    with pytest.raises(ImportError, match=r"certlut\[prove\]"):
        prove_tails(copy, jobs=1)
