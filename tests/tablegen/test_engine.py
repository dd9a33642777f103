"""Builds and proofs as jobs: killed and resumed, in any number of processes, on a cluster; and what a proof catches."""

import csv
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from certlut.jobs.journal import Journal
from certlut.lookup.format import TableData, TableError, read_table, write_table
from certlut.lookup.table import UnprovenTable, load
from certlut.tablegen import Axis, GridSpec, build, prove, stamp
from certlut.tablegen.node import solve_node
from certlut.tablegen.prove import Node, prove_node
from certlut.tablegen.seal import seal

ROOT = Path(__file__).resolve().parents[2]
TINY = GridSpec(Axis(0.1, 3.0, 6, "sqrt"), Axis(0.0, 0.99, 5, "rim"), Axis(0.0, 180.0, 5, "fan"))
SCRIPT = "import sys; from certlut.tablegen import build, prove; {}"


def spawn(call: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT.format(call)],
        env=dict(os.environ),
        start_new_session=True,
        stderr=subprocess.DEVNULL,
    )


def kill_at(job: subprocess.Popen[bytes], journal: Path, size: int) -> bool:
    """kill -9 the whole job once its journal has grown to `size`; False where it was done before."""
    while job.poll() is None:
        if journal.exists() and journal.stat().st_size >= size:
            os.killpg(job.pid, signal.SIGKILL)
            job.wait()
            return True
        time.sleep(0.002)
    return False


def test_a_build_killed_three_times_ends_in_the_same_bytes(tmp_path: Path, small_path: Path) -> None:
    out = tmp_path / "small.h5"
    journal = Path(f"{out}.journal")
    rng = np.random.default_rng(int.from_bytes(os.urandom(4), "little"))
    kills = 0
    for share in np.sort(rng.uniform(0.05, 0.9, 3)):
        # 24 slabs of 7.5 kB.
        kills += kill_at(spawn(f"build({str(out)!r}, grid='small', jobs=2)"), journal, int(share * 24 * 7500))
    assert kills >= 1
    assert not out.exists()
    assert spawn(f"build({str(out)!r}, grid='small', jobs=2)").wait() == 0
    assert out.read_bytes() == small_path.read_bytes()
    assert not journal.exists()


def test_a_disk_that_fills_up_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_path: Path) -> None:
    # The package exports the function under the module's name.
    module = sys.modules["certlut.tablegen.build"]

    class Full(Journal):
        written = 0

        def append(self, record: bytes) -> None:
            Full.written += 1
            if Full.written > 7:
                self._file.write(record[:100])
                self._file.flush()
                raise OSError(28, "No space left on device")
            super().append(record)

    out = tmp_path / "small.h5"
    monkeypatch.setattr(module, "Journal", Full)
    with pytest.raises(OSError, match="No space left"):
        build(out, grid="small", jobs=1)
    assert not out.exists()
    monkeypatch.undo()
    build(out, grid="small", jobs=1)
    assert out.read_bytes() == small_path.read_bytes()


def test_a_dask_cluster_that_loses_a_worker_gives_the_same_bytes(tmp_path: Path, small_path: Path) -> None:
    from distributed import LocalCluster

    out = tmp_path / "small.h5"
    with LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster:
        victim = next(iter(cluster.workers.values())).pid

        def kill() -> None:
            journal = Path(f"{out}.journal")
            while not (journal.exists() and journal.stat().st_size > 20_000):
                time.sleep(0.002)
            os.kill(victim, signal.SIGKILL)

        killer = threading.Thread(target=kill)
        killer.start()
        build(out, grid="small", jobs=2, scheduler=cluster.scheduler_address)
        killer.join()
    assert out.read_bytes() == small_path.read_bytes()


def test_a_whole_proof_survives_kills_and_is_recorded(tmp_path: Path) -> None:
    out = tmp_path / "tiny.h5"
    build(out, grid=TINY, jobs=1)
    with pytest.warns(UnprovenTable, match="not proven"):
        load(out)
    journal = Path(f"{out}.journal")
    kill_at(spawn(f"prove({str(out)!r}, jobs=1)"), journal, 1000)
    proof = prove(out, jobs=1)
    assert (proof.nodes, proof.failed, proof.whole) == (TINY.size, (), True)
    assert not journal.exists()
    data = read_table(out)
    assert data.data_version == 1
    assert data.proof["nodes"] == TINY.size
    assert load(out).data_version == 1
    again = prove(out, jobs=1)
    assert again.changed == 0


def changed(path: Path, out: Path, name: str, factor: float) -> None:
    data = read_table(path)
    values = data.datasets[name].copy()
    values *= np.asarray(factor, dtype=values.dtype)
    write_table(out, replace(data, datasets=data.datasets | {name: values}))


@pytest.mark.parametrize(("name", "factor"), [("radius", 1 + 1e-6), ("c", 1 - 1e-9), ("a0", 0.999), ("a1", 1.001), ("a2", 1.001)])
def test_a_raised_radius_or_an_edited_multiplier_is_caught(tmp_path: Path, small_path: Path, name: str, factor: float) -> None:
    bad = tmp_path / "bad.h5"
    changed(small_path, bad, name, factor)
    before = bad.read_bytes()
    proof = prove(bad, nodes=60, jobs=1, seed=1)
    touched = 60 if name in ("radius", "c", "a0") else 20
    assert proof.changed + len(proof.failed) >= 0.9 * touched
    assert bad.read_bytes() == before


def test_a_radius_slightly_too_large_is_lowered_by_the_least_that_suffices(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.h5", tmp_path / "bad.h5"
    build(good, grid=TINY, jobs=1)
    changed(good, bad, "radius", 1 + 2e-7)
    proof = prove(bad, jobs=1)
    assert proof.lowered == TINY.size
    assert 1e-7 < proof.largest < 4e-7
    honest, lowered = read_table(good).datasets["radius"], read_table(bad).datasets["radius"]
    assert np.all(lowered <= honest * (1 + 1e-9))
    assert np.all(lowered >= honest * (1 - 2e-7))


def test_a_node_that_cannot_be_proven_is_named_and_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "tiny.h5"
    build(out, grid=TINY, jobs=1)
    changed(out, out, "radius", 1.01)
    before = out.read_bytes()
    proof = prove(out, jobs=1)
    assert len(proof.failed) > 0
    assert out.read_bytes() == before
    with pytest.raises(ValueError, match="nodes = 0"):
        prove(out, nodes=0)
    monkeypatch.setitem(sys.modules, "flint", None)
    with pytest.raises(ImportError, match=r"certlut\[prove\]"):
        prove(out)


def test_golden_nodes_solved_rounded_and_proven_stay_just_below() -> None:
    a = np.empty(3)
    with (Path(__file__).resolve().parents[1] / "data" / "radius_golden.csv").open() as file:
        rows = [{name: float(x) for name, x in row.items()} for row in csv.DictReader(file)]
    assert len(rows) == 107
    for g in rows:
        eps, m1, m2, z = g["one_minus_q"], g["m1"], g["m2"], g["z"]
        r, slope, _, status, _ = solve_node(eps, m1, m2, z, a)
        assert status > 0
        r, c = seal(eps, m1, m2, z, r, slope, a)
        assert g["r"] * (1 - 1e-6) < r <= g["r"] * (1 + 1e-15)
        assert prove_node(Node(z, g["rho"], g["theta_deg"], r, *a.tolist(), c)) == (r, c)


def test_the_build_does_not_depend_on_the_number_of_jobs(tmp_path: Path) -> None:
    for jobs in (1, 2):
        build(tmp_path / f"{jobs}.h5", grid=TINY, jobs=jobs)
    assert (tmp_path / "1.h5").read_bytes() == (tmp_path / "2.h5").read_bytes()


def test_a_file_of_format_1_0_stays_readable(tmp_path: Path) -> None:
    old = Path(__file__).resolve().parents[1] / "data" / "table_1.0.h5"
    data = read_table(old)
    assert data.data_version == 1
    assert load(old).radius(0.9, -0.1, 0.05) == pytest.approx(1.4, abs=0.05)


def test_stamp_binds_to_a_sigma_and_keeps_the_proof(tmp_path: Path) -> None:
    plain, bound = tmp_path / "plain.h5", tmp_path / "bound.h5"
    build(plain, grid=TINY, jobs=1)
    prove(plain, jobs=1)
    stamped = stamp(plain, 0.25, bound)
    data: TableData = read_table(bound)
    assert stamped.digest == data.digest != read_table(plain).digest
    assert data.proof == read_table(plain).proof
    q, m1, m2 = 0.9, -0.1, 0.05
    assert load(bound).radius(q, m1, m2) == pytest.approx(0.25 * load(plain).radius(q, m1, m2), rel=1e-15)
    assert load(bound).radius(q, m1, m2) <= 0.25 * load(plain).radius(q, m1, m2)
    with pytest.raises(ValueError, match="sigma = 0"):
        stamp(plain, 0.0, bound)


def test_an_edited_sigma_is_caught(tmp_path: Path, small_path: Path) -> None:
    import h5py

    from certlut.lookup.format import compute_digest

    bad = tmp_path / "bad.h5"
    bad.write_bytes(small_path.read_bytes())
    with h5py.File(bad, "r+") as file:
        file.attrs["sigma"] = 2.0
    with pytest.raises(TableError, match=r"bad\.h5.*digest|contradict"):
        read_table(bad)
    with h5py.File(bad, "r+") as file:
        attributes = {name: v.item() if isinstance(v, np.generic) else v for name, v in file.attrs.items()}
        file.attrs["digest"] = compute_digest(attributes, {name: np.asarray(file[name]) for name in file})
    with pytest.raises(TableError, match="contradict"):
        read_table(bad)
