"""certlut.tablegen.prove: bounds against 32-digit quadrature; what is wrong is caught, what is right is recorded."""

import importlib
import json
import math
import shutil
import sys
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import flint
import numpy as np
import pytest

from certlut import load
from certlut.jobs.journal import Journal
from certlut.lookup.format import TableData, read_table, write_table
from certlut.tablegen import Axis, GridSpec, build, prove, solve
from certlut.tablegen.enclose import METHOD, hinge_upper
from reference import naive

prover = importlib.import_module("certlut.tablegen.prove")

GRID = GridSpec(Axis(0.3, 4.0, 3, "sqrt"), Axis(0.0, 0.99, 4, "rim"), Axis(0.0, 180.0, 4, "linear"))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("prove") / "tiny.h5"
    build(path, grid=GRID, jobs=1)
    return path


@pytest.fixture
def copy(tiny: Path, tmp_path: Path) -> Path:
    path = tmp_path / "copy.h5"
    shutil.copy(tiny, path)
    return path


# The bound of one hinge


def assert_encloses(a: tuple[float, float, float], r: float) -> None:
    bound = hinge_upper(r, *a)
    exact = naive.mp_hinge(a, r)
    assert bound.is_exact()
    upper = naive.MP.mpf(bound.mid().str(40, radius=False))
    assert exact <= upper + naive.MP.mpf(10) ** -24, (a, r)  # the reference's own accuracy
    # The integrand is made of terms of the sizes a0, a1 and 1 under the normal density.
    assert upper - exact <= 2e-14 * (1.0 + exact), (a, r)


@pytest.mark.parametrize("region", ["anywhere", "near the rim", "small radius", "large q"])
def test_the_bound_holds_and_is_tight_at_optimal_cuts(region: str) -> None:
    rng = np.random.default_rng([81, len(region)])
    for _ in range(3):
        z = {"small radius": rng.uniform(0.01, 0.1), "large q": rng.uniform(4.5, 5.3)}.get(region, rng.uniform(0.2, 4.5))
        rho = 1.0 - 10.0 ** rng.uniform(-4.0, -2.0) if region == "near the rim" else rng.uniform(0.01, 0.95)
        solution = solve(*naive.point(z, rho, rng.uniform(1.0, 179.0)))
        assert_encloses(solution.multipliers, solution.radius)


def test_the_bound_holds_and_is_tight_at_cuts_that_are_optimal_for_nothing() -> None:
    rng = np.random.default_rng(82)
    for case in range(5):
        r = rng.uniform(0.3, 4.0)
        a = (
            10.0 ** rng.uniform(-1.0, 2.0),
            0.0 if case % 4 == 0 else 10.0 ** rng.uniform(-2.0, 1.5),
            10.0 ** rng.uniform(-4.0, 2.0),
        )
        bound, exact = float(hinge_upper(r, *a)), naive.mp_hinge(a, r)
        assert exact <= bound * (1.0 + 1e-15), (a, r)
        assert bound - exact <= 1e-13 * (1.0 + exact + sum(a)), (a, r)


@pytest.mark.parametrize("slope", [True, False], ids=["a1 > 0", "a1 = 0"])
def test_the_bound_of_a_slab_and_of_a_half_space(slope: bool) -> None:
    rng = np.random.default_rng(83)
    for case in range(5):
        if slope:
            z, theta = (rng.uniform(0.02, 0.2) if case % 4 == 0 else rng.uniform(0.2, 5.0)), rng.choice([0.0, 180.0])
            solution = solve(*naive.point(z, rng.uniform(0.0, 0.99), theta))
            a, r = solution.multipliers, solution.radius
            assert a[1] > 0.0
        else:
            z = r = rng.uniform(0.05, 5.0)
            a = (math.exp(0.5 * z * z), 0.0, 0.0)  # L_r < a0 for u1 < z: the half-space, and its hinge is 1/2 - a0 P(u > z)
            exact = naive.MP.mpf(1) / 2 - naive.MP.mpf(a[0]) * naive.mp_upper(z)
            assert abs(naive.mp_hinge(a, r) - exact) <= 1e-15
        assert a[2] == 0.0
        assert_encloses(a, r)


def test_the_bound_rises_with_a2_and_falls_with_a0() -> None:
    rng = np.random.default_rng(84)
    for _ in range(20):
        solution = solve(*naive.point(rng.uniform(0.2, 4.5), rng.uniform(0.1, 0.95), rng.uniform(5.0, 175.0)))
        r, (a0, a1, a2) = solution.radius, solution.multipliers
        middle = hinge_upper(r, a0, a1, a2)
        assert hinge_upper(r, a0, a1, a2 * (1.0 + 1e-6)) > middle
        assert hinge_upper(r, a0 * (1.0 + 1e-6), a1, a2) < middle
        assert hinge_upper(r * (1.0 + 1e-6), a0, a1, a2) > middle


# Samples


def test_a_sample_of_the_small_table_proves_as_stored(small_path: Path) -> None:
    before = small_path.read_bytes()
    proof = prove(small_path, nodes=400, jobs=1, seed=85)
    assert (proof.nodes, proof.changed, proof.largest, proof.failed, proof.whole) == (400, 0, 0.0, (), False)
    assert small_path.read_bytes() == before


@pytest.mark.parametrize("nodes", [1, 47, 48, 1000])
def test_a_sample_never_writes_however_large(copy: Path, nodes: int) -> None:
    before, inode = copy.read_bytes(), copy.stat().st_ino
    proof = prove(copy, nodes=nodes, jobs=1)
    assert proof.nodes == min(nodes, GRID.size)
    assert not proof.failed
    assert (copy.read_bytes(), copy.stat().st_ino) == (before, inode)
    assert list(copy.parent.iterdir()) == [copy]


# A whole proof


def test_a_whole_proof_is_recorded_and_silences_the_warning(copy: Path) -> None:
    before = read_table(copy)
    proof = prove(copy, jobs=1)
    assert (proof.nodes, proof.changed, proof.failed, proof.whole) == (GRID.size, 0, (), True)
    after = read_table(copy)
    assert after.data_version == 1
    assert after.proof["nodes"] == GRID.size
    assert (after.proof["lowered"], after.proof["largest_lowering"], after.proof["raised"]) == (0, 0.0, 0)
    assert "python-flint" in after.proof["method"]
    assert len(after.proof["date"]) == len("2024-01-01")
    assert all(after.datasets[name].tobytes() == values.tobytes() for name, values in before.datasets.items())
    assert after.digest != before.digest
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load(copy).data_version == 1
    assert list(copy.parent.iterdir()) == [copy]


def test_two_jobs_give_the_same_proof(copy: Path, tmp_path: Path) -> None:
    other = tmp_path / "other" / "copy.h5"
    other.parent.mkdir()
    shutil.copy(copy, other)
    assert prove(copy, jobs=1) == prove(other, jobs=2)
    one, two = read_table(copy), read_table(other)
    assert one.digest == two.digest  # the date does not enter it


def test_proving_again_changes_nothing_and_keeps_a_higher_data_version(copy: Path) -> None:
    prove(copy, jobs=1)
    digest = read_table(copy).digest
    prove(copy, jobs=1)
    assert read_table(copy).digest == digest
    write_table(copy, replace(read_table(copy), data_version=4))
    prove(copy, jobs=1)
    assert read_table(copy).data_version == 4


def test_a_stopped_proof_goes_on_where_it_was(copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
        prove(copy, jobs=1)
    assert read_table(copy).data_version == 0
    proof = prove(copy, jobs=1)
    assert tried[:2] == [0, 1]
    assert sorted(tried[2:]) == [0, 1, 2]  # of 0 and 1 a sample, before
    assert (proof.nodes, proof.whole, proof.failed) == (GRID.size, True, ())
    assert read_table(copy).data_version == 1


# A journal that somebody left


def as_stored(data: TableData, slab: int) -> bytes:
    """The record of a slab that is proven as stored."""
    pairs = np.stack([data.datasets["radius"][slab], data.datasets["c"][slab]], axis=-1)
    return slab.to_bytes(4, "little") + pairs.astype("<f8").tobytes()


def leave(path: Path, records: list[bytes]) -> None:
    """A journal of a proof of `path`."""
    settings = {"task": "prove", "digest": read_table(path).digest, "method": f"{METHOD}, python-flint {flint.__version__}"}
    with Journal(path, settings) as journal:
        for record in records:
            journal.append(record)


def test_a_journal_in_which_a_false_table_is_proven_is_not_believed(copy: Path) -> None:
    data = read_table(copy)
    data = write_table(copy, replace(data, datasets=data.datasets | {"c": 0.99 * data.datasets["c"]}))
    before = copy.read_bytes()
    leave(copy, [as_stored(data, slab) for slab in range(3)])
    with pytest.raises(ValueError, match=r"copy\.h5\.journal: its slab [012] does not hold when it is proven again; delete it"):
        prove(copy, jobs=1)
    assert copy.read_bytes() == before
    Path(f"{copy}.journal").unlink()
    proof = prove(copy, jobs=1)
    assert proof.changed + len(proof.failed) > 0.9 * GRID.size


@pytest.mark.parametrize("name", ["radius", "c"])
def test_every_change_that_a_journal_makes_is_proven_again(copy: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    data = read_table(copy)
    values = data.datasets[name].copy()
    values[NODE] *= 1.0 - 1e-9
    changed = replace(data, datasets=data.datasets | {name: values})
    leave(copy, [as_stored(changed, slab) for slab in range(3)])
    monkeypatch.setattr(prover, "RECHECKED", 0)
    with pytest.raises(ValueError, match=rf"its slab {NODE[0]} does not hold"):
        prove(copy, jobs=1)


@pytest.mark.parametrize("record", [b"x", b"\0" * 11, b"\xff" * 4 + b"\0" * 256, b"\0" * 4 + b"\0" * 264])
def test_a_journal_of_something_else_is_one_line(copy: Path, record: bytes) -> None:
    leave(copy, [record])
    with pytest.raises(ValueError, match=r"copy\.h5\.journal: holds what is no record of a proof; delete it"):
        prove(copy, jobs=1)


def test_of_an_honest_journal_a_sample_is_proven_again(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leave(copy, [as_stored(read_table(copy), slab) for slab in range(3)])
    tried: list[float] = []
    real = prover.prove_node

    def prove_node(node: Any) -> Any:
        tried.append(node.r)
        return real(node)

    monkeypatch.setattr(prover, "prove_node", prove_node)
    monkeypatch.setattr(prover, "RECHECKED", 5)
    monkeypatch.setattr(prover, "run", lambda function, tasks, *_: (function(*task) for task in tasks))
    assert prove(copy, jobs=1).changed == 0
    assert len(tried) == 3 * 5
    assert read_table(copy).data_version == 1


# What is wrong is caught


NODE = (1, 2, 1)


def damaged(path: Path, name: str, factor: float, node: tuple[int, int, int] = NODE) -> TableData:
    """Change one stored value and write the table anew, with a digest that fits."""
    data = read_table(path)
    values = data.datasets[name].copy()
    values[node] *= factor
    assert values[node] != data.datasets[name][node]
    return write_table(path, replace(data, datasets=data.datasets | {name: values}))


def place(data: TableData, node: tuple[int, int, int] = NODE) -> tuple[float, ...]:
    return tuple(float(data.datasets[name][i]) for name, i in zip(("z", "rho", "theta"), node, strict=True))


DAMAGE = [
    ("c", 1.0 - 1e-9),
    ("c", 1.0 - 1e-3),
    ("radius", 1.0 + 1e-9),
    ("radius", 1.0 + 1e-3),
    ("a0", 1.0 + 1e-6),
    ("a0", 1.0 - 1e-6),
    ("a1", 1.0 + 1e-4),
    ("a1", 1.0 - 1e-4),
    ("a2", 1.0 + 1e-4),
    ("a2", 1.0 - 1e-4),
    ("a0", 1.01),
    ("a1", 1.01),
    ("a2", 1.01),
]


@pytest.mark.parametrize(("name", "factor"), DAMAGE)
def test_a_single_wrong_value_is_caught(copy: Path, name: str, factor: float) -> None:
    data = damaged(copy, name, factor)
    before = copy.read_bytes()
    proof = prove(copy, nodes=GRID.size, jobs=1)
    assert proof.changed + len(proof.failed) == 1
    assert set(proof.failed) <= {place(data)}
    assert copy.read_bytes() == before


@pytest.mark.parametrize("node", [(0, 0, 0), (2, 3, 0), (1, 1, 3)])
def test_a_wrong_c_of_a_slab_is_caught(copy: Path, node: tuple[int, int, int]) -> None:
    data = damaged(copy, "c", 1.0 - 1e-9, node)
    assert data.datasets["a2"][node] == 0.0
    assert prove(copy, nodes=GRID.size, jobs=1).changed == 1


@pytest.mark.parametrize(("name", "factor"), DAMAGE)
def test_a_whole_proof_repairs_a_wrong_value_or_refuses_it(copy: Path, name: str, factor: float) -> None:
    damaged(copy, name, factor)
    before = copy.read_bytes()
    proof = prove(copy, jobs=1)
    after = read_table(copy)
    if proof.failed:
        assert copy.read_bytes() == before
        assert after.data_version == 0
    else:
        assert after.data_version == 1
        assert (after.proof["lowered"], after.proof["raised"]) == (proof.lowered, proof.raised)
        assert proof.changed == 1
        d = after.datasets
        r, a0, a1, a2, c = (float(d[key][NODE]) for key in ("radius", "a0", "a1", "a2", "c"))
        exact = solve(*naive.point(*place(after))).radius
        assert naive.mp_hinge((a0, a1, a2), r) <= c
        assert exact * (1.0 - 2e-5) <= r <= exact * (1.0 + 1e-11)
        assert 0.0 <= proof.largest <= 1e-5
        # Now it holds as it is.
        assert prove(copy, nodes=GRID.size, jobs=1).changed == 0
    assert list(copy.parent.iterdir()) == [copy]


def test_a_radius_raised_by_1e_3_is_damage_not_rounding(copy: Path) -> None:
    data = damaged(copy, "radius", 1.001)
    before = copy.read_bytes()
    proof = prove(copy, jobs=1)
    assert proof.failed == (place(data),)
    assert copy.read_bytes() == before


def test_damage_to_the_file_itself_is_refused_before_any_proof(copy: Path) -> None:
    copy.write_bytes(copy.read_bytes()[:-50])
    with pytest.raises(ValueError, match=r"copy\.h5"):
        prove(copy, jobs=1)


# Arguments


@pytest.mark.parametrize("nodes", [0, -5])
def test_a_sample_of_no_nodes_is_refused(copy: Path, nodes: int) -> None:
    with pytest.raises(ValueError, match=f"nodes = {nodes}"):
        prove(copy, nodes=nodes, jobs=1)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.h5"):
        prove(tmp_path / "none.h5", jobs=1)


def test_without_python_flint_the_error_says_what_to_install(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "flint", None)
    with pytest.raises(ImportError, match=r"certlut\[prove\]"):
        prove(copy, jobs=1)


def test_the_record_of_a_proof_is_plain_json(copy: Path) -> None:
    prove(copy, jobs=1)
    record = read_table(copy).proof
    assert json.loads(json.dumps(record)) == record
    assert set(record) == {"method", "nodes", "lowered", "largest_lowering", "raised", "date"}
