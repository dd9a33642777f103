"""certlut.lookup.table: the interface of Table.radius, and how a table is found and opened."""

import importlib
import importlib.metadata
import math
import os
import shutil
import threading
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from joblib import Parallel, delayed

from certlut import Table, UnprovenTable, load
from certlut.kernels.arrays import Array
from certlut.lookup.format import TableData, TableError, write_table
from certlut.lookup.table import find
from certlut.tablegen import radius as exact_radius
from reference import naive

tables = importlib.import_module("certlut.lookup.table")

Q, M1, M2 = 0.9, -0.1, 0.05
RIM = float(naive.density(1.2815515655446004))  # phi(Phi^-1(0.9))
COHEN = 1.2815515655446004


@pytest.fixture(scope="module", params=["small", "shipped"])
def table(request: pytest.FixtureRequest, small: Table, shipped: Table) -> Table:
    return small if request.param == "small" else shipped


# Values at the edges of the domain


def test_a_plain_query_is_just_below_the_exact_radius(table: Table) -> None:
    assert exact_radius(Q, M1, M2) * 0.98 < table.radius(Q, M1, M2) < exact_radius(Q, M1, M2)


@pytest.mark.parametrize("point", [(math.nan, M1, M2), (Q, math.nan, M2), (Q, M1, math.nan), (math.nan, math.nan, math.nan)])
def test_nan_gives_nan(table: Table, point: tuple[float, float, float]) -> None:
    assert math.isnan(table.radius(*point))
    assert np.isnan(table.radius(*(np.full(3, x) for x in point))).all()


@pytest.mark.parametrize("q", [0.5, 0.499, 0.1, 5e-324, 0.0, -0.0])
@pytest.mark.parametrize("m", [(M1, M2), (0.0, 0.0), (-5.0, 5.0), (math.inf, -math.inf)])
def test_no_majority_gives_zero(table: Table, q: float, m: tuple[float, float]) -> None:
    assert table.radius(q, *m) == 0.0


@pytest.mark.parametrize("q", [1.0, 1.0 + 1e-9, 7.0, math.inf, -1e-300, -0.1, -math.inf])
def test_what_is_no_lower_confidence_bound_is_a_value_error(table: Table, q: float) -> None:
    with pytest.raises(ValueError, match=r"^q = .*0 <= q < 1"):
        table.radius(q, M1, M2)
    with pytest.raises(ValueError, match=r"^q = .*0 <= q < 1"):
        table.radius(np.array([0.9, q, math.nan]), M1, M2)


@pytest.mark.parametrize("m1", [-0.17, -0.1, 0.0, 0.1, 0.17, 3.0, -3.0])
def test_a_negative_m2_counts_as_zero(table: Table, m1: float) -> None:
    for m2 in (-1e-300, -0.05, -1e9, -math.inf, -0.0):
        assert table.radius(Q, m1, m2) == table.radius(Q, m1, 0.0)


@pytest.mark.parametrize("q", [math.nextafter(0.5, 1.0), 0.5 + 1e-9, 0.6, 0.9, 1.0 - 1e-9, math.nextafter(1.0, 0.0)])
@pytest.mark.parametrize("scale", [1.0 - 1e-16, 1.0, 1.0 + 1e-15, 1.5, 1e6, 1e300, math.inf])
def test_on_or_beyond_the_rim_the_answer_is_finite_and_at_least_cohens(table: Table, q: float, scale: float) -> None:
    cohen = float(naive.mp_upper_quantile(1 - naive.MP.mpf(q)))
    rim = float(naive.density(cohen))
    for theta in (0.0, 1e-9, 45.0, 90.0, 135.0, 180.0):
        cosine, sine = math.cos(math.radians(theta)), math.sin(math.radians(theta))
        m1 = -scale * rim * cosine if theta != 90.0 else 0.0
        m2 = scale * rim * sine if theta % 180.0 else 0.0
        radius = table.radius(q, m1, m2)
        assert math.isfinite(radius)
        assert radius >= cohen * (1.0 - 1e-13)


def test_against_the_gradient_on_the_rim_nothing_is_gained_over_cohen(table: Table) -> None:
    for m1 in (-RIM * (1.0 + 1e-12), -0.5, -1e300, -math.inf):
        for m2 in (0.0, 1e-300, 0.1, 10.0, math.inf):
            assert COHEN * (1.0 - 1e-13) <= table.radius(Q, m1, m2) <= COHEN


def test_beyond_the_rim_no_more_is_certified_than_some_point_on_it_allows(table: Table) -> None:
    # (q, m1, m2) beyond the rim is reduced, not extrapolated: at an angle, to m2 = 0 or to a shorter m2.
    for theta in (20.0, 60.0, 80.0):
        m1 = -RIM * math.cos(math.radians(theta))
        inside = exact_radius(Q, m1, RIM * math.sin(math.radians(theta)) * (1.0 - 1e-6))
        assert table.radius(Q, m1, 5.0) <= inside * (1.0 + 1e-2)


def test_tiny_and_subnormal_m2_are_as_good_as_none(table: Table) -> None:
    for m1 in (-0.17, -0.1, -0.01):
        for m2 in (5e-324, 1e-200, 1e-30):
            assert table.radius(Q, m1, m2) >= table.radius(Q, m1, 0.0) * (1.0 - 1e-9)


# Types and shapes


def test_scalars_of_every_kind_give_a_float(table: Table) -> None:
    expected = table.radius(Q, M1, M2)
    assert type(expected) is float
    for kind in (np.float64, np.array, lambda x: np.asarray(x)):
        result = table.radius(kind(Q), kind(M1), kind(M2))
        assert type(result) is float
        assert result == expected
    assert type(table.radius(Q, 0, 0)) is float
    assert type(table.radius(0, 0, 0)) is float
    assert type(table.radius(np.float32(0.75), np.float32(0.0), 0)) is float


def test_arrays_broadcast_and_equal_the_scalar_path(table: Table) -> None:
    rng = np.random.default_rng(61)
    q, m1, m2 = rng.uniform(0.4, 0.999, (5, 1, 7)), rng.uniform(-0.3, 0.3, (3, 1)), rng.uniform(-0.1, 0.3, 7)
    out = table.radius(q, m1, m2)
    assert isinstance(out, np.ndarray)
    assert out.dtype == np.float64
    assert out.shape == (5, 3, 7)
    assert out.flags.writeable
    for index in np.ndindex(out.shape):
        assert out[index] == table.radius(float(q[index[0], 0, index[2]]), float(m1[index[1], 0]), float(m2[index[2]]))


def test_shapes_that_disagree_are_a_value_error(table: Table) -> None:
    with pytest.raises(ValueError, match="broadcast"):
        table.radius(np.full(3, Q), np.zeros(2), 0.0)


@pytest.mark.parametrize("shape", [(0,), (0, 3), (2, 0, 5)])
def test_empty_arrays_give_empty_arrays(table: Table, shape: tuple[int, ...]) -> None:
    out = table.radius(np.empty(shape), 0.0, 0.0)
    assert isinstance(out, np.ndarray)
    assert out.shape == shape


def test_lists_integers_and_float32_arrays_are_numbers_too(table: Table) -> None:
    assert table.radius([Q, Q], [0, 0], 0)[0] == table.radius(Q, 0.0, 0.0)
    single = np.array([0.75, 0.9], dtype=np.float32)
    assert np.array_equal(table.radius(single, 0.0, 0.0), table.radius(single.astype(np.float64), 0.0, 0.0))


def test_strided_reversed_transposed_big_endian_and_read_only_arrays(table: Table) -> None:
    rng = np.random.default_rng(62)
    plain = rng.uniform(0.5, 0.999, 24), rng.uniform(-0.2, 0.2, 24), rng.uniform(0.0, 0.2, 24)
    expected = table.radius(*plain)

    def strided(x: Array) -> Array:
        wide = np.zeros(72)
        wide[::3] = x
        return wide[::3]

    def locked(x: Array) -> Array:
        x = x.copy()
        x.flags.writeable = False
        return x

    for change in (strided, locked, lambda x: x.astype(">f8"), lambda x: np.ma.asarray(x).data):
        assert np.array_equal(table.radius(*(change(x) for x in plain)), expected)
    assert np.array_equal(table.radius(*(x[::-1] for x in plain)), expected[::-1])
    assert np.array_equal(table.radius(*(x.reshape(4, 6).T for x in plain)), expected.reshape(4, 6).T)
    assert np.array_equal(table.radius(*(np.asfortranarray(x.reshape(4, 6)) for x in plain)), expected.reshape(4, 6))


def test_inputs_are_left_alone(table: Table) -> None:
    arrays = np.full(4, Q), np.full(4, -5.0), np.full(4, -1.0)
    table.radius(*arrays)
    assert all((x == value).all() for x, value in zip(arrays, (Q, -5.0, -1.0), strict=True))


def test_a_table_cannot_be_changed(small: Table) -> None:
    for array in small.arrays:
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1.0


def test_threads_get_the_same_answers(table: Table) -> None:
    rng = np.random.default_rng(63)
    points = rng.uniform(0.5, 0.9999, 40_000), rng.uniform(-0.4, 0.4, 40_000), rng.uniform(-0.05, 0.4, 40_000)
    expected = table.radius(*points)
    results: list[Array] = []

    def work() -> None:
        results.extend(np.asarray(table.radius(*points)) for _ in range(3))

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 18
    assert all(np.array_equal(result, expected) for result in results)


@pytest.mark.parametrize("threads", [2, 3, 64])
def test_a_pool_of_threads_gets_the_same_answers(table: Table, threads: int) -> None:
    rng = np.random.default_rng(64)
    for size in (0, 1, 50, 10_001):
        points = rng.uniform(0.5, 0.9999, size), rng.uniform(-0.4, 0.4, size), rng.uniform(-0.05, 0.4, size)
        assert np.array_equal(table.radius(*points, threads=threads), table.radius(*points))
    with pytest.raises(ValueError, match="threads = 0: expected 1 or more"):
        table.radius(*points, threads=0)


def test_processes_share_one_loaded_table(table: Table) -> None:
    """Forked children use the parent's table, and pickled copies answer alike."""
    rng = np.random.default_rng(65)
    points = rng.uniform(0.5, 0.9999, 5000), rng.uniform(-0.4, 0.4, 5000), rng.uniform(-0.05, 0.4, 5000)
    expected = np.asarray(table.radius(*points))
    results = Parallel(n_jobs=2)(delayed(table.radius)(*points, threads=2) for _ in range(4))
    assert all(np.array_equal(result, expected) for result in results)
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        same = np.array_equal(table.radius(*points, threads=2), expected)
        os.write(writer, b"same" if same else b"other")
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reader, 5) == b"same"


# sigma


@pytest.mark.parametrize("sigma", [0.25, 0.12, 1.0, 3.0, 1e-6])
def test_a_bound_table_scales_the_radius_and_nothing_else(small_data: TableData, small: Table, sigma: float) -> None:
    bound = Table(replace(small_data, sigma=sigma))
    assert bound.sigma == sigma
    assert not bound.normalised
    rng = np.random.default_rng(64)
    points = rng.uniform(0.3, 0.9999, 3000), rng.uniform(-0.4, 0.4, 3000), rng.uniform(-0.05, 0.4, 3000)
    scaled, plain = np.asarray(bound.radius(*points)), np.asarray(small.radius(*points))
    assert np.allclose(scaled, sigma * plain, rtol=1e-15, atol=0.0)
    exact_product = [naive.MP.mpf(float(r)) * naive.MP.mpf(sigma) for r in plain]
    assert all(float(r) <= p for r, p in zip(scaled, exact_product, strict=True))
    assert all(bound.radius(*(float(x[i]) for x in points)) == scaled[i] for i in range(100))


def test_a_normalised_table_serves_every_sampler_and_a_bound_one_only_its_own(small_data: TableData, small: Table) -> None:
    assert small.normalised
    assert small.sigma == 1.0
    for sigma in (0.12, 1.0, 5.0):
        small.check_sigma(sigma)
    bound = Table(replace(small_data, sigma=0.25), Path("bound.h5"))
    bound.check_sigma(0.25)
    bound.check_sigma(0.5 * 0.5 * (1.0 + 1e-15))
    for sigma in (0.5, 0.2500001, 1.0):
        with pytest.raises(ValueError, match=rf"bound\.h5.*sigma = 0\.25.*{sigma}"):
            bound.check_sigma(sigma)


# Finding and opening


def test_load_opens_a_path_and_warns_once_while_unproven(small_path: Path, small: Table) -> None:
    with pytest.warns(UnprovenTable, match=r"small\.h5.*data_version 0.*certlut prove") as caught:
        table = load(small_path)
    assert len(caught) == 1
    assert table.path == small_path
    assert table.data_version == 0
    assert table.radius(Q, M1, M2) == small.radius(Q, M1, M2)
    assert "24x12x13" in repr(table)


def test_load_takes_a_string_a_path_or_an_open_table(small_data: TableData, tmp_path: Path) -> None:
    path = tmp_path / "proven.h5"
    write_table(path, replace(small_data, data_version=1, proof={"method": "assumed"}))
    table = load(str(path))
    assert table.path == load(path).path == path
    assert table.digest == load(path).digest
    assert load(table) is table


def test_load_of_a_proven_table_is_silent(small_data: TableData, tmp_path: Path) -> None:
    path = tmp_path / "proven.h5"
    written = write_table(path, replace(small_data, data_version=1, proof={"method": "assumed"}))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table = load(path)
    assert table.data_version == 1
    assert table.digest == written.digest


def test_the_path_comes_first_then_the_environment_then_the_neighbour(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, small_path: Path
) -> None:
    beside = tmp_path / "tables" / "default.h5"
    beside.parent.mkdir()
    shutil.copy(small_path, beside)
    monkeypatch.setattr(tables, "__file__", str(tmp_path / "certlut" / "lookup" / "table.py"))
    monkeypatch.setenv("CERTLUT_TABLE", str(tmp_path / "chosen.h5"))
    assert find(tmp_path / "given.h5") == tmp_path / "given.h5"
    assert find(str(tmp_path / "given.h5")) == tmp_path / "given.h5"
    assert find() == tmp_path / "chosen.h5"
    monkeypatch.setenv("CERTLUT_TABLE", "")
    assert find() == beside
    monkeypatch.delenv("CERTLUT_TABLE")
    assert find() == beside
    assert beside.is_file()


def test_the_installed_copy_is_found_where_none_lies_beside(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, small_path: Path
) -> None:
    monkeypatch.delenv("CERTLUT_TABLE", raising=False)
    packages = tmp_path / "site-packages"
    installed = tmp_path / "share" / "certlut" / "tables" / "default.h5"
    (packages / "certlut" / "lookup").mkdir(parents=True)
    # A folder of PyTables beside the packages, without our file.
    (packages / "tables").mkdir()
    installed.parent.mkdir(parents=True)
    shutil.copy(small_path, installed)
    monkeypatch.setattr(tables, "__file__", str(packages / "certlut" / "lookup" / "table.py"))

    class Installed:
        def __init__(self, *paths: str) -> None:
            self.files = [importlib.metadata.PackagePath(path) for path in paths] or None
            for path in self.files or ():
                path.dist = self

        def locate_file(self, path: object) -> Path:
            return packages / str(path)

    # A build leaves metadata in its source folder, which names no installed file.
    found = [Installed("tables/default.h5"), Installed("certlut/lookup/table.py", "../share/certlut/tables/default.h5")]
    monkeypatch.setattr(importlib.metadata, "distributions", lambda **_: found)
    assert find() == installed.resolve()

    monkeypatch.setattr(importlib.metadata, "distributions", lambda **_: [Installed()])
    with pytest.raises(FileNotFoundError, match=r"no table found.*CERTLUT_TABLE.*certlut build"):
        find()


def test_no_installation_at_all_is_a_clear_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CERTLUT_TABLE", raising=False)
    monkeypatch.setattr(tables, "__file__", str(tmp_path / "certlut" / "lookup" / "table.py"))

    monkeypatch.setattr(importlib.metadata, "distributions", lambda **_: [])
    with pytest.raises(FileNotFoundError, match="no table found"):
        load()


def test_a_chosen_table_that_is_missing_or_broken_is_refused_not_replaced(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CERTLUT_TABLE", str(tmp_path / "missing.h5"))
    with pytest.raises(FileNotFoundError, match=r"missing\.h5"):
        load()
    (tmp_path / "missing.h5").write_text("not a table", encoding="utf-8")
    with pytest.raises(TableError, match=r"missing\.h5"):
        load()
