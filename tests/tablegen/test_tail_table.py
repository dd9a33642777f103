"""certlut.tablegen.tail_table, tail_quadrature: entries against 30 digits, a little above; the same file however it was built."""

import importlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from certlut.lookup.format import TableError
from certlut.lookup.tail_format import read_tails
from certlut.tablegen.tail_quadrature import stretch
from certlut.tablegen.tail_table import TailGrid, build_tails
from reference import naive_tails as naive

builder = importlib.import_module("certlut.tablegen.tail_table")

GRID = TailGrid(
    tau=(1.0, 2.5), theta=(0.0, 15.0, 40.0, 70.0), first=0.3, last=4.0, step=(0.3, 0.4), places=(-3.0, 2.5, 8), dense=0.5
)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tails") / "tiny.h5"
    build_tails(path, GRID, jobs=1)
    return path


@pytest.mark.parametrize("seed", range(25))
def test_the_integrals_of_a_stretch(seed: int) -> None:
    rng = np.random.default_rng([101, seed])
    a, b = rng.uniform(0.0, 6.0), 10.0 ** rng.uniform(-3.0, 0.8)
    lo, hi = np.sort(rng.uniform(-3.0, 5.0, 2)).tolist()
    lo, hi = (-math.inf, hi) if seed % 4 == 0 else (lo, math.inf) if seed % 4 == 1 else (lo, hi)
    x = a * rng.uniform(-1.0, a + 2.0) - 0.5 * a * a + rng.normal() * b
    shifted, mass, density = stretch(a, b, x, lo, hi)
    exact = naive.mp_excess(naive.MP.mpf(a), naive.MP.mpf(b), naive.MP.exp(x), lo, hi)
    assert shifted - math.exp(x) * mass == pytest.approx(float(exact), abs=2e-13)
    assert shifted <= 1.0 + 1e-12
    step = 1e-4
    slope = (stretch(a, b, x - step, lo, hi)[1] - stretch(a, b, x + step, lo, hi)[1]) / (2.0 * step)
    assert density == pytest.approx(slope, rel=1e-4, abs=1e-8 + 3e-9 / b**2)


def test_every_entry_is_a_little_above_its_value(tiny: Path) -> None:
    d = read_tails(tiny).datasets
    rng = np.random.default_rng(102)
    mp = naive.MP
    for _ in range(40):
        i, j, k, g = (int(rng.integers(0, n)) for n in d["excess"].shape)
        lo, hi = naive.segments(d["tau"])[k]
        turn = mp.mpf(float(d["theta"][i])) * mp.pi / 180
        r = mp.mpf(float(d["r"][j]))
        exact = naive.mp_excess(r * mp.cos(turn), r * mp.sin(turn), mp.mpf(float(d["level"][j, g])), lo, hi)
        entry = float(d["excess"][i, j, k, g])
        assert exact <= entry
        assert entry - exact <= 5e-7 * exact + 2e-12


def test_the_grid_is_what_it_says() -> None:
    r, levels = GRID.lengths(), GRID.levels()
    assert r[0] == 0.3
    assert r[-1] >= 4.0 > r[-2]
    assert levels.shape == (r.size, 9)
    assert (levels[:, 0] == 0.0).all()
    places = (np.log(levels[:, 1:]) - 0.5 * r[:, None] ** 2) / r[:, None]
    assert places == pytest.approx(np.tile(places[0], (r.size, 1)))
    assert (places[0, 0], places[0, -1]) == pytest.approx((-3.0, 2.5))
    assert np.diff(places[0]).min() == pytest.approx(0.5, rel=0.1)
    shipped = TailGrid()
    assert min(np.diff((np.log(shipped.levels()[0, 1:]) - 0.00125) / 0.05)) == pytest.approx(0.11, rel=0.01)


def test_two_jobs_and_a_second_run_give_the_same_bytes(tiny: Path, tmp_path: Path) -> None:
    build_tails(tmp_path / "two.h5", GRID, jobs=2)
    assert (tmp_path / "two.h5").read_bytes() == tiny.read_bytes()
    assert list(tmp_path.iterdir()) == [tmp_path / "two.h5"]


def test_a_stopped_build_goes_on_where_it_was(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stopped(Exception):
        pass

    done: list[int] = []
    real = builder.run

    def run(function: Any, tasks: Any, *rest: Any) -> Iterator[Any]:
        for task in tasks:
            yield from real(function, [task], 1)
            done.append(task[0])
            if len(done) == 2:
                raise Stopped

    monkeypatch.setattr(builder, "run", run)
    with pytest.raises(Stopped):
        build_tails(tmp_path / "t.h5", GRID, jobs=1)
    assert not (tmp_path / "t.h5").exists()
    build_tails(tmp_path / "t.h5", GRID, jobs=1)
    assert done == [0, 1, 2, 3]
    assert (tmp_path / "t.h5").read_bytes() == tiny.read_bytes()
    assert list(tmp_path.iterdir()) == [tmp_path / "t.h5"]


def test_a_finished_table_is_kept_and_another_refused(tiny: Path, tmp_path: Path) -> None:
    path = tmp_path / "t.h5"
    path.write_bytes(tiny.read_bytes())
    before = path.stat().st_mtime_ns
    assert build_tails(path, GRID, jobs=1).digest == read_tails(tiny).digest
    assert path.stat().st_mtime_ns == before
    with pytest.raises(ValueError, match="another grid"):
        build_tails(path, TailGrid(tau=(1.0, 2.0)), jobs=1)
    path.write_bytes(b"something else")
    with pytest.raises(TableError, match=r"t\.h5"):
        build_tails(path, GRID, jobs=1)
    with pytest.raises(FileNotFoundError, match="no such folder"):
        build_tails(tmp_path / "none" / "t.h5", GRID, jobs=1)


def test_the_shipped_table_is_the_default_grid_s() -> None:
    d = read_tails(Path(__file__).resolve().parent.parent.parent / "tables" / "tails.h5").datasets
    grid = TailGrid()
    assert tuple(d["tau"].tolist()) == grid.tau
    assert tuple(d["theta"].tolist()) == grid.theta
    assert np.array_equal(d["r"], grid.lengths())
    assert np.array_equal(d["level"], grid.levels())
