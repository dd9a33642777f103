"""certlut.tablegen.build: the same table however it was built, nothing at all where a node fails; and stamping."""

import importlib
import math
import shutil
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from certlut.lookup.format import DATASETS, TableData, TableError, read_table, write_table
from certlut.tablegen import Axis, GridSpec, Status, build, solve, stamp
from certlut.tablegen.grid import PRESETS
from reference import naive

builder = importlib.import_module("certlut.tablegen.build")

GRID = GridSpec(Axis(0.3, 3.0, 4, "sqrt"), Axis(0.0, 0.99, 7, "rim"), Axis(0.0, 180.0, 5, "linear"))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("build") / "tiny.h5"
    build(path, grid=GRID, jobs=1)
    return path


# What is built


def test_every_node_of_a_table_is_the_solved_one(tiny: Path) -> None:
    d = read_table(tiny).datasets
    assert np.array_equal(d["z"], GRID.z.knots())
    assert np.array_equal(d["rho"], GRID.rho.knots())
    assert np.array_equal(d["theta"], GRID.theta.knots())
    for index in np.ndindex(GRID.shape):
        q, m1, m2 = naive.point(d["z"][index[0]], d["rho"][index[1]], d["theta"][index[2]])
        solution = solve(q, m1, m2)
        assert d["radius"][index] == pytest.approx(solution.radius, rel=1e-10)
        assert d["radius"][index] <= solution.radius * (1.0 + 1e-12)
        if m2 > 0.0:
            assert d["status"][index] == solution.status
            stored = [float(d[name][index]) for name in ("a0", "a1", "a2")]
            assert stored == pytest.approx(solution.multipliers, rel=2e-5, abs=1e-12)
        else:
            assert d["status"][index] == Status.SLAB
            assert d["a2"][index] == 0.0


def test_the_small_preset_is_built_by_name(small_path: Path) -> None:
    data = read_table(small_path)
    assert data.grid == PRESETS["small"].card()
    assert data.datasets["radius"].shape == PRESETS["small"].shape
    assert data.sigma is None
    assert (data.data_version, data.proof) == (0, {})
    assert data.generator.startswith("certlut ")
    assert data.tolerance == 1e-9
    assert set(np.unique(data.datasets["status"])) <= {Status.SLAB, Status.BOTH_ACTIVE, Status.M1_SLACK, Status.HALF_SPACE}


def test_the_returned_data_are_those_in_the_file(tmp_path: Path) -> None:
    returned = build(tmp_path / "t.h5", grid=GRID, jobs=1, sigma=0.5)
    read = read_table(tmp_path / "t.h5")
    assert returned.digest == read.digest
    assert returned.attributes() == read.attributes()
    assert read.sigma == 0.5
    assert list(tmp_path.iterdir()) == [tmp_path / "t.h5"]


def test_two_jobs_and_a_second_run_give_the_same_bytes(tiny: Path, tmp_path: Path) -> None:
    build(tmp_path / "serial.h5", grid=GRID, jobs=1)
    build(tmp_path / "parallel.h5", grid=GRID, jobs=2)
    assert (tmp_path / "serial.h5").read_bytes() == tiny.read_bytes()
    assert (tmp_path / "parallel.h5").read_bytes() == tiny.read_bytes()


# Stopped and resumed


class Stopped(Exception):
    pass


def count_slabs(monkeypatch: pytest.MonkeyPatch, stop_after: int | None = None) -> list[int]:
    """The indices of the slabs that are solved from now on; `Stopped` after some."""
    solved: list[int] = []
    real = builder.run

    def run(function: Any, tasks: Any, *rest: Any) -> Iterator[Any]:
        for task in tasks:
            if len(solved) == stop_after:
                raise Stopped
            yield from real(function, [task], 1)
            solved.append(task[0])

    monkeypatch.setattr(builder, "run", run)
    return solved


@pytest.mark.parametrize("after", [0, 1, 3])
def test_a_stopped_build_goes_on_where_it_was(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    path = tmp_path / "t.h5"
    with monkeypatch.context() as patch:
        count_slabs(patch, stop_after=after)
        with pytest.raises(Stopped):
            build(path, grid=GRID, jobs=1)
    assert not path.exists()
    solved = count_slabs(monkeypatch)
    build(path, grid=GRID, jobs=1)
    assert len(solved) == GRID.z.count - after
    assert path.read_bytes() == tiny.read_bytes()
    assert list(tmp_path.iterdir()) == [path]


def test_a_torn_journal_costs_one_slab_at_most(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "t.h5"
    with monkeypatch.context() as patch:
        count_slabs(patch, stop_after=3)
        with pytest.raises(Stopped):
            build(path, grid=GRID, jobs=1)
    (journal,) = tmp_path.iterdir()
    journal.write_bytes(journal.read_bytes()[:-9])
    solved = count_slabs(monkeypatch)
    build(path, grid=GRID, jobs=1)
    assert len(solved) == GRID.z.count - 2
    assert path.read_bytes() == tiny.read_bytes()


def test_the_journal_of_another_grid_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "t.h5"
    with monkeypatch.context() as patch:
        count_slabs(patch, stop_after=1)
        with pytest.raises(Stopped):
            build(path, grid=GRID, jobs=1)
    other = replace(GRID, z=replace(GRID.z, high=2.5))
    with pytest.raises(ValueError, match=r"t\.h5\.journal.*grid"):
        build(path, grid=other, jobs=1)
    assert not path.exists()


@pytest.mark.parametrize("record", [b"x", b"\xff" * 8 + b"\0" * 48 * 35, b"\0" * 8 + b"\0" * 48 * 36])
def test_a_journal_of_something_else_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record: bytes) -> None:
    path = tmp_path / "t.h5"
    with monkeypatch.context() as patch:
        count_slabs(patch, stop_after=1)
        with pytest.raises(Stopped):
            build(path, grid=GRID, jobs=1)
    with Path(f"{path}.journal").open("ab") as file:
        file.write(len(record).to_bytes(4, "little") + zlib.crc32(record).to_bytes(4, "little") + record)
    with pytest.raises(ValueError, match=r"t\.h5\.journal: holds what is no record of a build; delete it"):
        build(path, grid=GRID, jobs=1)


def test_a_finished_file_is_kept(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "t.h5"
    shutil.copy(tiny, path)
    proven = write_table(path, replace(read_table(path), data_version=1, proof={"method": "assumed"}))
    before, inode = path.read_bytes(), path.stat().st_ino
    solved = count_slabs(monkeypatch)
    assert build(path, grid=GRID, jobs=1).digest == proven.digest
    assert solved == []
    assert (path.read_bytes(), path.stat().st_ino) == (before, inode)


def test_a_file_for_another_sigma_or_grid_is_neither_taken_nor_replaced(tiny: Path, tmp_path: Path) -> None:
    path = tmp_path / "t.h5"
    shutil.copy(tiny, path)
    other = replace(GRID, z=replace(GRID.z, count=3))
    for grid, sigma in ((GRID, 0.25), (other, None)):
        with pytest.raises(ValueError, match=r"t\.h5: holds a table of another grid or sigma; delete it"):
            build(path, grid=grid, jobs=1, sigma=sigma)
    assert path.read_bytes() == tiny.read_bytes()
    assert list(tmp_path.iterdir()) == [path]


def test_a_build_that_fails_before_its_first_slab_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="jobs = 0"):
        build(tmp_path / "t.h5", grid=GRID, jobs=0)
    assert list(tmp_path.iterdir()) == []


# What is refused


def test_an_unknown_grid_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'enormous'.*small, default, dense"):
        build(tmp_path / "t.h5", grid="enormous")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("sigma", [0.0, -0.5, math.nan, math.inf])
def test_a_sigma_that_is_not_positive_is_refused(tmp_path: Path, tiny: Path, sigma: float) -> None:
    with pytest.raises(ValueError, match=r"sigma = .*expected a positive number"):
        build(tmp_path / "t.h5", sigma=sigma, grid=GRID, jobs=1)
    with pytest.raises(ValueError, match=r"sigma = .*expected a positive number"):
        stamp(tiny, sigma, tmp_path / "t.h5")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_refused_before_anything_is_solved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    solved = count_slabs(monkeypatch)
    with pytest.raises(FileNotFoundError, match="missing: no such folder"):
        build(tmp_path / "missing" / "t.h5", grid=GRID, jobs=1)
    assert solved == []


@pytest.mark.parametrize("jobs", [0, -2])
def test_a_bad_number_of_jobs_is_refused(tmp_path: Path, jobs: int) -> None:
    with pytest.raises(ValueError, match=f"jobs = {jobs}"):
        build(tmp_path / "t.h5", grid=GRID, jobs=jobs)
    assert not (tmp_path / "t.h5").exists()


def test_a_foreign_file_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "precious.h5"
    path.write_bytes(b"years of work")
    with pytest.raises(TableError, match=r"precious\.h5"):
        build(path, grid=GRID, jobs=1)
    assert path.read_bytes() == b"years of work"


def test_a_node_without_convergence_writes_no_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "t.h5"
    real = builder.solve_slab

    def solve_slab(z: float, rho: Any, theta: Any, out: Any) -> int:
        robust: int = real(z, rho, theta, out)
        if z > 2.9:
            out[1, 2] = 0.0
        return robust

    monkeypatch.setattr(builder, "solve_slab", solve_slab)
    with pytest.raises(
        ArithmeticError, match=rf"1 of {GRID.size} nodes did not converge, the first at z = 3, rho = .*, theta = 90"
    ):
        build(path, grid=GRID, jobs=1)
    assert not path.exists()


# Stamping


def contents(data: TableData) -> list[bytes]:
    return [data.datasets[name].tobytes() for name in DATASETS]


def test_stamping_binds_a_table_and_keeps_everything_else(tiny: Path, tmp_path: Path) -> None:
    proven = replace(read_table(tiny), data_version=2, proof={"method": "assumed", "date": "2024-01-01"})
    write_table(tmp_path / "proven.h5", proven)
    stamped = stamp(tmp_path / "proven.h5", 0.25, tmp_path / "bound.h5")
    read = read_table(tmp_path / "bound.h5")
    assert read.digest == stamped.digest != proven.digest
    assert read.sigma == 0.25
    assert (read.data_version, read.proof, read.grid, read.generator) == (2, proven.proof, proven.grid, proven.generator)
    assert contents(read) == contents(proven)


def test_stamping_back_gives_the_original_bytes(tiny: Path, tmp_path: Path) -> None:
    stamp(tiny, 0.25, tmp_path / "bound.h5")
    stamp(tmp_path / "bound.h5", None, tmp_path / "free.h5")
    assert (tmp_path / "free.h5").read_bytes() == tiny.read_bytes()


def test_stamping_equals_building_for_that_sigma(tiny: Path, tmp_path: Path) -> None:
    stamp(tiny, 0.25, tmp_path / "stamped.h5")
    build(tmp_path / "built.h5", sigma=0.25, grid=GRID, jobs=1)
    assert (tmp_path / "stamped.h5").read_bytes() == (tmp_path / "built.h5").read_bytes()


def test_stamping_a_missing_or_broken_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.h5"):
        stamp(tmp_path / "none.h5", 0.5, tmp_path / "out.h5")
    (tmp_path / "broken.h5").write_bytes(b"x")
    with pytest.raises(TableError, match=r"broken\.h5"):
        stamp(tmp_path / "broken.h5", 0.5, tmp_path / "out.h5")
    assert not (tmp_path / "out.h5").exists()
