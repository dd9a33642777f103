"""certlut.lookup.kernel: never above the exact radius, not needlessly below it; and the checks notice when that is broken."""

import csv
import importlib.util
import math
import types
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from scipy.interpolate import RegularGridInterpolator
from scipy.special import ndtri

from certlut import Table
from certlut.kernels.arrays import Array
from certlut.kernels.slab import slab_radius
from certlut.lookup.format import TableData
from certlut.lookup.kernel import STEPS, _place, positions, probit, turn
from certlut.tablegen import Axis, GridSpec, build, solve
from reference import naive

# The exact radius is known to 1e-9.
SLACK = 1.0 + 2e-9


def exact_radii(q: Array, m1: Array, m2: Array) -> Array:
    """NaN where the solver declines."""

    def part(indices: Array) -> list[float]:
        return [solve(q[i], m1[i], m2[i]).radius for i in indices]

    with ThreadPoolExecutor(2) as threads:  # the solver releases the GIL
        return np.array([r for some in threads.map(part, np.array_split(np.arange(len(q)), 40)) for r in some])


@dataclass(frozen=True)
class Pool:
    q: Array
    m1: Array
    m2: Array
    exact: Array
    inside: npt.NDArray[np.bool_]
    """Within both tables' grids, and drawn without an eye on the knots."""

    def overstated(self, radius: Array) -> Array:
        """By how much, relatively, the radii that are too large are so."""
        above = radius / self.exact - 1.0
        return above[above > SLACK - 1.0]


def on_knots(rng: np.random.Generator, count: int, knots: Array) -> Array:
    """Knots, each exact or one ulp off."""
    x = rng.choice(knots, count)
    return np.where(rng.random(count) < 1 / 3, x, np.nextafter(x, rng.choice([-np.inf, np.inf], count)))


@pytest.fixture(scope="module")
def pool(small_data: TableData, shipped_data: TableData) -> Pool:
    """100,000 queries with their exact radii: everywhere, and where it is hard."""
    rng = np.random.default_rng(777)

    def near_one(count: int) -> Array:
        return 1.0 - 10.0 ** rng.uniform(-5.0, 0.0, count)

    def near_axis(count: int) -> Array:
        off = rng.choice([0.0, 1.0, -1.0], count) * 10.0 ** rng.uniform(-12.0, 0.0, count)
        return np.clip(rng.choice([0.0, 90.0, 180.0], count) + off, 0.0, 180.0)

    groups = [
        # inside both grids
        (rng.uniform(0.05, 4.4, 30_000), rng.uniform(0.0, 0.99, 30_000), rng.uniform(0.0, 180.0, 30_000)),
        # any z, also tiny and beyond the grids; any rho up to the rim
        (1e-3 * 7500.0 ** rng.random(20_000), near_one(20_000), rng.uniform(0.0, 180.0, 20_000)),
        (rng.uniform(0.02, 6.0, 15_000), near_one(15_000), near_axis(15_000)),
        (rng.uniform(4.3, 7.0, 10_000), rng.uniform(0.0, 1.0 - 1e-5, 10_000), rng.uniform(0.0, 180.0, 10_000)),
    ]
    for data in (small_data.datasets, shipped_data.datasets):
        z, rho, theta = (on_knots(rng, 12_500, data[name]) for name in ("z", "rho", "theta"))
        groups.append((z, np.maximum(rho, 0.0), np.clip(theta, 0.0, 180.0)))
    z, rho, theta = (np.concatenate(x) for x in zip(*groups, strict=True))
    q, m1, m2 = naive.points(z, rho, theta)
    exact = exact_radii(q, m1, m2)
    assert len(q) == 100_000
    known = np.isfinite(exact)
    assert known.sum() >= 99_900
    inside = np.arange(len(q)) < 30_000
    return Pool(q[known], m1[known], m2[known], exact[known], inside[known])


# Soundness


def test_the_small_table_never_exceeds_the_exact_radius(pool: Pool, small: Table) -> None:
    radius = small.radius(pool.q, pool.m1, pool.m2)
    assert len(pool.overstated(radius)) == 0
    assert (radius >= -ndtri(1.0 - pool.q) * (1.0 - 1e-12)).all()  # nor does it fall below Cohen's


def test_the_shipped_table_never_exceeds_the_exact_radius(pool: Pool, shipped: Table) -> None:
    radius = shipped.radius(pool.q, pool.m1, pool.m2)
    assert len(pool.overstated(radius)) == 0
    assert (radius >= -ndtri(1.0 - pool.q) * (1.0 - 1e-12)).all()


def test_no_table_exceeds_a_golden_radius(small: Table, shipped: Table) -> None:
    with (Path(__file__).resolve().parents[1] / "data" / "radius_golden.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            point = float(row["q"]), float(row["m1"]), float(row["m2"])
            for table in (small, shipped):
                assert table.radius(*point) <= float(row["r"]) * SLACK


def test_a_very_coarse_grid_is_sound_too(tmp_path: Path) -> None:
    grid = GridSpec(Axis(0.2, 4.0, 4, "linear"), Axis(0.0, 0.99, 3, "linear"), Axis(0.0, 180.0, 3, "linear"))
    table = Table(build(tmp_path / "coarse.h5", grid=grid, jobs=1))
    rng = np.random.default_rng(778)
    q, m1, m2 = naive.points(rng.uniform(0.1, 5.0, 3000), 1.0 - 10.0 ** rng.uniform(-3, 0, 3000), rng.uniform(0, 180, 3000))
    assert (table.radius(q, m1, m2) <= exact_radii(q, m1, m2) * SLACK).all()


def test_without_m2_the_lower_bound_holds_to_the_last_digit() -> None:
    rng = np.random.default_rng(779)
    for case in range(80):
        z = 1e-3 * 7000.0 ** rng.random()
        rho = rng.random() if case % 2 else 1.0 - 10.0 ** rng.uniform(-12.0, 0.0)
        q, m1, _ = naive.point(z, rho, rng.choice([0.0, 180.0]))
        z = float(-ndtri(1.0 - q))
        bound = slab_radius(1.0 - q, min(m1, float(naive.density(z)) * (1.0 - 1e-7)), z)
        exact = naive.mp_slab_radius(q, m1)
        assert bound <= exact, (q, m1)
        if rho < 0.999:
            assert bound >= exact * (1 - 1e-9), (q, m1)


@pytest.mark.parametrize("gap", [0.3, 1e-2, 1e-4, 1e-6, 1e-8, 1e-10, 1e-12, 1e-14, 1e-15, 2.3e-16])
def test_cohens_floor_is_a_lower_bound_next_to_one_half_too(small: Table, gap: float) -> None:
    q = 0.5 + gap
    exact = naive.mp_upper_quantile(1 - naive.MP.mpf(q))
    for point in ((q, -1.0, 0.0), (q, -1.0, 1.0), (q, -0.4, 0.0)):
        radius = small.radius(*point)
        assert radius <= exact, point  # on the rim, against the gradient: nothing beyond Cohen's radius is true
        assert radius >= exact * (1 - 1e-9), point


def test_probit_is_a_lower_bound_of_the_normal_quantile() -> None:
    rng = np.random.default_rng(780)
    for s in [*rng.uniform(-0.2, 0.49, 200), *(rng.choice([-1.0, 1.0], 200) * 10.0 ** rng.uniform(-16.0, -1.0, 200))]:
        exact = naive.mp_upper_quantile(naive.MP.mpf(1) / 2 - abs(naive.MP.mpf(s))) * (1 if s > 0 else -1)
        assert probit(s, -math.inf) <= exact, s
        if abs(s) < 0.1:
            assert probit(s, -math.inf) >= exact - 0.013 * abs(exact), s
        if abs(s) < 0.02:
            assert probit(s, -math.inf) >= exact - 5e-4 * abs(exact), s
    assert probit(0.0, -1.0) == 0.0
    assert probit(-0.3, -5.0) == -5.0  # Cohen's bound, where the series is of no use
    assert probit(-0.1, -0.01) == -0.01  # and where it says more


def test_a_place_among_the_knots_is_close_and_never_outside() -> None:
    rng = np.random.default_rng(781)
    for _ in range(50):
        knots = np.sort(rng.uniform(0.0, 5.0, rng.integers(2, 40)))
        x = np.concatenate([knots, np.nextafter(knots, -np.inf), rng.uniform(0.0, 1.2 * knots[-1], 50), [0.0, 1e308, np.inf]])
        place = x.copy()
        _place(len(place), place, STEPS / knots[-1], positions(knots), len(knots))
        assert ((place >= 0.0) & (place < len(knots) - 1)).all()
        # Exact up to one step of the map.
        step = knots[-1] / STEPS * (1 + 1e-9)
        low, high = (np.interp(x + shift, knots, np.arange(len(knots))) for shift in (-step, step))
        assert ((place >= low - 1e-8) & (place <= high + 1e-8)).all()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e300, -1e300, -1.0])
@pytest.mark.parametrize("size", [1, 17, 256])
def test_a_place_is_in_the_grid_whatever_the_maps_hold(bad: float, size: int) -> None:
    knots = np.linspace(0.0, 5.0, 12)
    for scale, position in ((STEPS / 5.0, np.full(STEPS + 2, bad)), (bad, positions(knots)), (STEPS / 5.0, positions(knots))):
        place = np.linspace(0.0, 6.0, size)
        place[size // 2] = bad
        _place(size, place, scale, position, 12)
        assert ((place >= 0.0) & (place < 11.0)).all()


def test_turn_goes_up_with_the_angle() -> None:
    angle = np.radians(np.linspace(0.0, 180.0, 1001))
    turns = np.array([turn(-math.cos(x), max(math.sin(x), 0.0)) for x in angle])
    assert (np.diff(turns) > 0.0).all()
    assert turns[[0, -1]] == pytest.approx([0.0, 2.0], abs=1e-15)
    assert turns[500] == pytest.approx(1.0, abs=1e-12)
    assert turn(0.0, 0.0) == 1.0


# Tightness


def loss_quantiles(table: Table, pool: Pool) -> list[float]:
    inside = pool.inside
    loss = 1.0 - table.radius(pool.q, pool.m1, pool.m2)[inside] / pool.exact[inside]
    return np.quantile(loss, [0.5, 0.9, 0.99, 0.999]).tolist()


def test_the_small_table_is_not_needlessly_loose(pool: Pool, small: Table) -> None:
    assert np.less(loss_quantiles(small, pool), [4e-3, 1.5e-2, 9e-2, 0.38]).all()


def test_the_shipped_table_is_not_needlessly_loose(pool: Pool, shipped: Table) -> None:
    assert np.less(loss_quantiles(shipped, pool), [1.65e-4, 1.06e-3, 9e-3, 3.4e-2]).all()


def test_without_m2_any_table_is_exact(pool: Pool, small: Table, shipped: Table) -> None:
    rng = np.random.default_rng(782)
    q, m1, _ = naive.points(rng.uniform(0.01, 6.5, 2000), rng.uniform(0.0, 0.999, 2000), rng.choice([0.0, 180.0], 2000))
    exact = exact_radii(q, m1, np.zeros_like(q))
    for table in (small, shipped):
        assert np.allclose(table.radius(q, m1, 0.0), exact, rtol=1e-9, atol=0.0)


def test_a_node_gives_back_its_own_radius(small: Table, small_data: TableData) -> None:
    d = small_data.datasets
    places = np.meshgrid(d["z"], d["rho"], d["theta"], indexing="ij")
    q, m1, m2 = (x.ravel() for x in naive.points(*places))
    assert (small.radius(q, m1, m2) >= d["radius"].ravel() * (1.0 - 1e-6)).mean() > 0.95


# The checks above notice when soundness is broken


def with_data(data: TableData, **datasets: npt.NDArray[np.generic]) -> Table:
    return Table(replace(data, datasets=data.datasets | datasets))


@pytest.mark.parametrize(
    ("name", "factor"),
    [("radius", 1.001), ("c", 0.999), ("a0", 0.999), ("a1", 1.001), ("a1", 0.999), ("a2", 1.001)],
)
def test_stored_values_off_by_1e_3_the_unsound_way_are_noticed(pool: Pool, small_data: TableData, name: str, factor: float) -> None:
    radius = with_data(small_data, **{name: small_data.datasets[name] * factor}).radius(pool.q, pool.m1, pool.m2)
    assert len(pool.overstated(radius)) >= 20


@pytest.mark.parametrize(("name", "factor"), [("radius", 0.999), ("c", 1.001), ("a0", 1.001), ("a2", 0.999)])
def test_stored_values_off_by_1e_3_the_other_way_only_cost_radius(
    pool: Pool, small_data: TableData, name: str, factor: float
) -> None:
    # a0 and a2 multiply masses E h >= 0 and E h u2 <= 0 in the hinge: it falls with a0 and rises with a2.
    radius = with_data(small_data, **{name: small_data.datasets[name] * factor}).radius(pool.q, pool.m1, pool.m2)
    assert len(pool.overstated(radius)) == 0


@pytest.mark.parametrize("seed", range(5))
def test_a_single_raised_radius_is_noticed_next_to_its_node(small_data: TableData, seed: int) -> None:
    rng = np.random.default_rng([783, seed])
    d = small_data.datasets
    i, j, k = rng.integers(2, 22), rng.integers(2, 10), rng.integers(2, 11)
    raised = d["radius"].copy()
    raised[i, j, k] *= 1.001
    spread = 1.0 + 1e-5 * rng.standard_normal((3, 200))
    q, m1, m2 = naive.points(d["z"][i] * spread[0], d["rho"][j] * spread[1], d["theta"][k] * spread[2])
    exact = exact_radii(q, m1, m2)
    assert (Table(small_data).radius(q, m1, m2) <= exact * SLACK).all()
    assert (with_data(small_data, radius=raised).radius(q, m1, m2) > exact * SLACK).any()


def test_interpolating_the_radius_itself_is_noticed(pool: Pool, small_data: TableData) -> None:
    d = small_data.datasets
    z = -ndtri(1.0 - pool.q)
    rho = np.hypot(pool.m1, pool.m2) / naive.density(z)
    theta = np.degrees(np.arctan2(pool.m2, -pool.m1))
    naive_radius = RegularGridInterpolator((d["z"], d["rho"], d["theta"]), d["radius"], bounds_error=False)(
        np.stack([z, rho, theta], 1)
    )
    inside = replace_pool(pool, pool.inside)
    assert len(inside.overstated(naive_radius[pool.inside])) > 0.3 * inside.q.size


def replace_pool(pool: Pool, chosen: npt.NDArray[np.bool_]) -> Pool:
    return Pool(pool.q[chosen], pool.m1[chosen], pool.m2[chosen], pool.exact[chosen], pool.inside[chosen])


def plain_kernels(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """certlut.lookup.kernel as plain Python, so that its parts can be exchanged."""
    with monkeypatch.context() as patch:
        patch.setattr("certlut.kernels.jit.jit", lambda function: function)
        spec = importlib.util.find_spec("certlut.lookup.kernel")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return module


def interpreted(kernels: types.ModuleType, table: Table, pool: Pool) -> Array:
    out = np.empty(len(pool.q))
    kernels.lookup_many(pool.q, pool.m1, pool.m2, *table.arrays, out)
    return out


def test_the_interpreted_look_up_is_the_compiled_one(pool: Pool, small: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    some = replace_pool(pool, np.arange(len(pool.q)) % 97 == 0)
    assert np.allclose(
        interpreted(plain_kernels(monkeypatch), small, some), small.radius(some.q, some.m1, some.m2), rtol=1e-13, atol=0.0
    )


@pytest.mark.parametrize(
    ("part", "broken"),
    [
        # A chord on s itself instead of on its normal quantile; one that falls too slowly; a reach beyond the Lipschitz bound.
        ("probit", lambda probit, s, least: s),
        ("probit", lambda probit, s, least: probit(s, least) if s >= 0.0 else 0.9 * probit(s, least)),
        ("probit", lambda probit, s, least: 1.05 * probit(s, least) if s >= 0.0 else probit(s, least)),
        # Cuts evaluated at another query: wrong sign of m1, a larger m2, a larger q.
        ("cut_surplus", lambda cut_surplus, nodes, i, eps, m1, m2: cut_surplus(nodes, i, eps, -m1, m2)),
        ("cut_surplus", lambda cut_surplus, nodes, i, eps, m1, m2: cut_surplus(nodes, i, eps, m1, 1.01 * m2)),
        ("cut_surplus", lambda cut_surplus, nodes, i, eps, m1, m2: cut_surplus(nodes, i, 0.999 * eps, m1, m2)),
        # Pairs: one that certifies the mean of two radii that are not certified; one that takes the farther end of every chord.
        ("between", lambda between, r, x, s, y: max(between(r, x, s, y), (r * abs(y) + s * abs(x)) / (abs(x) + abs(y)))),
        ("between", lambda between, r, x, s, y: max(r, s) if max(x, y) > 0.0 else 0.0),
        ("alone", lambda alone, r, x, z: max(alone(r, x, z), r)),
    ],
    ids=["no quantile", "slow chord", "long reach", "sign of m1", "larger m2", "larger q", "no sign", "far end", "own radius"],
)
def test_a_broken_kernel_is_noticed(
    pool: Pool, small: Table, monkeypatch: pytest.MonkeyPatch, part: str, broken: Callable[..., float]
) -> None:
    some = replace_pool(pool, pool.inside & (np.arange(len(pool.q)) % 15 == 0))
    kernels = plain_kernels(monkeypatch)
    right = getattr(kernels, part)
    assert len(some.overstated(interpreted(kernels, small, some))) == 0
    monkeypatch.setattr(kernels, part, lambda *arguments: broken(right, *arguments))
    assert len(some.overstated(interpreted(kernels, small, some))) >= 20


def test_a_query_moved_to_the_edge_of_the_grid_would_be_noticed(tmp_path: Path) -> None:
    # Only the choice of nodes may be clamped. Here every query lies beyond the largest rho.
    grid = GridSpec(Axis(0.5, 2.0, 8, "linear"), Axis(0.0, 0.5, 4, "linear"), Axis(0.0, 180.0, 13, "linear"))
    table = Table(build(tmp_path / "low.h5", grid=grid, jobs=1))
    rng = np.random.default_rng(784)
    z, theta = rng.uniform(0.6, 1.9, 500), rng.uniform(5.0, 60.0, 500)
    q, m1, m2 = naive.points(z, 0.9, theta)
    exact = exact_radii(q, m1, m2)
    assert (table.radius(q, m1, m2) <= exact * SLACK).all()
    _, edge1, edge2 = naive.points(z, 0.5, theta)
    assert (table.radius(q, edge1, edge2) > exact * SLACK).mean() > 0.5
