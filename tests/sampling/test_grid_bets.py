"""The tally of grid noise: against a plain loop, as a supermartingale for every vote, and in coverage of known classifiers."""

import itertools
import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy.special import ndtr

from certlut.bounds.adaptive import ADAPTIVE
from certlut.sampling.bets import EXACT, Tally
from certlut.sampling.cells import TOTAL, Law, law
from certlut.sampling.grid import draw
from certlut.sampling.grid_bets import GridTally
from certlut.sampling.prediction import mean_along, mean_error, most_rho
from certlut.sampling.stakes import BETA_MAX, MU_MAX, REACH, TAIL
from certlut.sampling.streams import Stream
from certlut.statistics.summary import Moments, Statistics, summarise
from certlut.threats.declare import Direction, Line, Subspace
from certlut.threats.sets import ALL, L1, L2, LINF, Quantity, Threat, projections
from reference.naive_bets import Cells, naive_tally, parabola
from reference.naive_statistics import Array, Known, phi
from reference.simulate import CPU, allowed, missed, missed_together, quantities, unit

Votes = npt.NDArray[np.bool_]
Codes = npt.NDArray[np.int16]


def _codes(grid: Law, n: int, d: int, seed: int = 0) -> Codes:
    codes = np.empty((n, d), dtype=np.int16)
    draw(grid, Stream(seed, d, 1), 0, codes)
    return codes


def _means(grid: Law, codes: Codes) -> Array:
    return np.asarray(grid.mean[codes.astype(np.int64) - grid.low])


def _fed(
    grid: Law, codes: Codes, f: Votes, threats: Sequence[Threat], n: int, pieces: Sequence[int] = (), w: Array | None = None
) -> GridTally:
    proposal = None if w is None else torch.from_numpy(w)
    one = GridTally(projections(threats), codes.shape[1], n, (9, 100), CPU, proposal, law=grid)
    for start, stop in zip((0, *pieces), (*pieces, len(codes)), strict=True):
        one.add(torch.from_numpy(codes[start:stop]), torch.from_numpy(f[start:stop]))
    return one


def _threats(d: int) -> list[Threat]:
    out: list[Threat] = [L1, LINF, Direction(np.arange(1.0, d + 1.0) * (-1.0) ** np.arange(d), "along"), Line(np.ones(d), "line")]
    if d > 1:
        basis = np.linalg.qr(np.random.default_rng(d).standard_normal((d, 2)))[0].T
        out += [Subspace(np.arange(d) % 2 == 0, 2, "half"), Subspace(basis=basis, p=2.0, name="span")]
    return out


@pytest.mark.parametrize(("d", "n", "stop"), [(4, 400, 400), (1, 203, 203), (3, 9, 9), (2, 2, 2), (5, 301, 200), (30, 60, 60)])
@pytest.mark.parametrize("ratio", [Fraction(1), Fraction(3, 2), Fraction(4), Fraction(255, 4)])
@pytest.mark.parametrize("proposed", [False, True])
def test_bets_are_those_of_a_plain_loop(d: int, n: int, stop: int, ratio: Fraction, proposed: bool) -> None:
    grid, threats, w = law(ratio, (0.5, 1.0)), _threats(d), -unit(d, 0) if proposed else None
    codes = _codes(grid, n, d)[:stop]
    k = (codes >> grid.bits).astype(np.float64)
    f = k @ unit(d, 0) <= 1.2 * float(ratio)
    made = _fed(grid, codes, f, threats, n, w=w).moments()
    m, cells = _means(grid, codes), Cells(k / float(ratio), float(ratio))
    expected = naive_tally(projections(threats), m, f, 9, 100, n, w, cells=cells) if stop > n // 8 else {}
    for name, kinds in expected.items():
        for kind, values in kinds.items():
            assert made.bets[name][kind] == pytest.approx(values, rel=1e-9, abs=1e-9), (name, kind)
    half = n // 2
    assert made.n.tolist() == [half, stop - half]
    assert made.count.tolist() == [f[:half].sum(), f[half:].sum()]
    assert made.sum_uf == pytest.approx(np.stack([m[:half][f[:half]].sum(axis=0), m[half:][f[half:]].sum(axis=0)]), abs=1e-10)
    assert made.sum_u == pytest.approx(np.stack([m[:half].sum(axis=0), m[half:].sum(axis=0)]), abs=1e-10)


def _same(one: Moments, other: Moments) -> None:
    assert np.array_equal(one.count, other.count)
    assert one.sum_uf == pytest.approx(other.sum_uf, rel=1e-11, abs=1e-11)
    for name, kinds in other.bets.items():
        for kind, values in kinds.items():
            assert one.bets[name][kind] == pytest.approx(values, rel=1e-10, abs=1e-11), (name, kind)


@pytest.mark.parametrize("d", [1, 6, 5000])
def test_pieces_of_any_size_make_the_same_bets(d: int, monkeypatch: pytest.MonkeyPatch) -> None:
    grid, threats, n = law(Fraction(4), (1.0,)), _threats(d), 203
    codes = _codes(grid, n, d)
    f = codes.astype(np.float64) @ unit(d, 0) <= 1.2 * 8.0
    whole = _fed(grid, codes, f, threats, n).moments()
    for pieces in ((1,), (24, 25, 26, 50, 51, 101, 102), range(1, n), (50, 50, 50)):
        _same(_fed(grid, codes, f, threats, n, pieces).moments(), whole)
    monkeypatch.setattr("certlut.sampling.bets.STRIP", 7 * d)
    _same(_fed(grid, codes, f, threats, n).moments(), whole)


def test_other_devices_make_the_same_bets() -> None:
    grid, threats, n, d = law(Fraction(4), (1.0,)), _threats(6), 203, 6
    codes = _codes(grid, n, d)
    f = codes.astype(np.float64) @ unit(d, 0) <= 1.2 * 8.0
    one = GridTally(projections(threats), d, n, (9, 100), CPU, law=grid)
    # What chooses the route; its tensors are here.
    one._cpu = False
    for start in range(0, n, 50):
        one.add(torch.from_numpy(codes[start : start + 50]), torch.from_numpy(f[start : start + 50]))
    _same(one.moments(), _fed(grid, codes, f, threats, n).moments())


# The inequality behind it, summed over all cells


def _cells(grid: Law, d: int) -> tuple[Array, Array, Array]:
    """(m, k, P) of every point of a grid of d dimensions: shapes (points, d), (points, d), (points,)."""
    k = (grid.codes >> grid.bits).astype(np.float64)
    # Beyond 5.5 nothing that is summed below weighs 1e-6.
    kept = np.abs(k) <= 5.5 * float(grid.ratio)
    p = (grid.weights / TOTAL)[kept]
    axes = [np.meshgrid(*[values] * d, indexing="ij") for values in (grid.mean[np.flatnonzero(kept)], k[kept], p)]
    m, k, p = (np.stack([axis.ravel() for axis in of], axis=1) for of in axes)
    return m, k, p.prod(axis=1)


@pytest.mark.parametrize("ratio", [Fraction(1), Fraction(3, 2), Fraction(4)])
@pytest.mark.parametrize("d", [1, 2])
def test_a_step_is_a_supermartingale_for_every_vote(ratio: Fraction, d: int) -> None:
    grid, rng, r = law(ratio), np.random.default_rng(3), float(ratio)
    m, k, p = _cells(grid, d)
    tail = TAIL + mean_error(r, d)
    lost = 1.0 - p.sum()
    assert lost < 1e-6
    for case in range(60):
        v = rng.standard_normal(d)
        v, w = v / np.linalg.norm(v), np.eye(d)[rng.integers(d)] if case % 2 else v / np.linalg.norm(v)
        rho, z = most_rho(r) * float(rng.choice([1.0, 0.5])), float(rng.uniform(0.0, 2.0))
        h = ndtr((z + rho * (k @ v) / r) / math.sqrt(1.0 - rho * rho))
        away = v if case % 3 else rng.standard_normal(d)
        f = (k @ away <= rng.uniform(0.0, 2.0) * r) ^ (rng.random(len(p)) < float(rng.choice([0.0, 0.02, 0.3])))
        beta, sign = float(rng.choice([0.01, 0.1, BETA_MAX])), float(rng.choice([-1.0, 1.0]))
        mu = 0.0 if case % 2 else float(rng.choice([-MU_MAX, 0.0, 0.1]))
        x = sign * (m @ w) * (f - h)
        xi = beta * (REACH + abs(mu))
        logs = np.log1p(np.maximum(beta * (x - mu), -xi))
        if case % 2:
            # What a coordinate's bet takes near 0.
            a = xi * np.abs(f - h)
            logs = np.where(a < xi * EXACT, beta * x - (0.5 + a / (3.0 * (1.0 - a))) * (beta * x) ** 2, logs)
        grown = float(p @ np.exp(logs)) + lost
        mean = sign * (float((p * f) @ (m @ w)) - float(w @ v) * float(mean_along(r, z, rho, phi(z))))
        assert grown <= math.exp(beta * (mean - mu) + beta * tail) * (1.0 + 1e-6), case


def test_without_the_error_of_the_prediction_a_fair_bet_would_grow() -> None:
    """At R = 2 the mean of the Gaussian prediction is off by what the correction takes away: more than a stake allows."""
    r, rho, z = 2.0, most_rho(2.0), 0.0
    m, k, p = _cells(law(Fraction(2)), 1)
    h = ndtr((z + rho * k[:, 0] / r) / math.sqrt(1.0 - rho * rho))
    exact = float((p * h) @ m[:, 0])
    assert abs(exact - mean_along(r, z, rho, phi(z))) <= mean_error(r, 1)
    assert abs(exact - rho * phi(z)) > 50.0 * mean_error(r, 1)


def test_the_parabola_lies_below_the_logarithm_and_near_it() -> None:
    for a in (1e-6, 0.01, BETA_MAX * REACH * EXACT):
        z = np.linspace(-3.0 * a, 3.0 * a, 4801)
        gap = np.log1p(np.maximum(z, -a)) - np.array([parabola(float(x), a) for x in z])
        assert (gap >= -1e-15).all()
        assert gap[np.abs(z) <= a].max() <= 0.2 * a**2


# Coverage: classifiers of a few coordinates, whose q and y are sums over cells


@cache
def _known(place: int, ratio: Fraction, d: int) -> tuple[Known, Callable[[Codes, Law], Votes]]:
    """A classifier that sees k of two coordinates, as it is known exactly, and its vote."""
    grid, r = law(ratio), float(ratio)

    def half_space(k: Array) -> Votes:
        return k[:, 0] + 0.4 * k[:, 1] <= 1.6 * r

    def axis(k: Array) -> Votes:
        return k[:, 0] <= 1.3 * r

    def slab(k: Array) -> Votes:
        return np.abs(k[:, 1] + 0.2 * r) <= 1.8 * r

    def corner(k: Array) -> Votes:
        return ~((k[:, 0] > 0.9 * r) & (k[:, 1] > 0.3 * r))

    rule = (half_space, axis, slab, corner)[place]
    m, k, p = _cells(grid, 2)
    f = rule(k)
    y = np.zeros(d)
    y[:2] = (p * f) @ m
    return Known(rule.__name__, float(p @ f), y, lambda *_: None), lambda codes, split: rule((codes[:, :2] >> split.bits) / 1.0)  # type: ignore[arg-type,return-value]


def _sampled(
    known: Known, vote: Callable[[Codes, Law], Votes], ratio: Fraction, threats: Sequence[Threat], runs: int, n: int, tally: Any
) -> Statistics:
    grid, rng, out = law(ratio, (1.0, 2.0)), np.random.default_rng(7), []
    for run in range(runs):
        codes = _codes(grid, n, known.d, run)
        one = tally(projections(threats), known.d, n, (int(rng.binomial(100, 1.0 - known.q)), 100), CPU, law=grid)
        one.add(torch.from_numpy(codes), torch.from_numpy(vote(codes, grid)))
        out.append(one.moments())
    return summarise(out, threats, 1.0)


@pytest.mark.parametrize("ratio", [Fraction(1), Fraction(4), Fraction(255, 4)])
@pytest.mark.parametrize("place", range(4))
@pytest.mark.parametrize("estimator", ["adaptive", "chernoff", "paper"])
def test_every_bound_covers(place: int, ratio: Fraction, estimator: str) -> None:
    known, vote = _known(place, ratio, 6)
    threats: list[Threat] = [L1, L2, LINF, Subspace(np.arange(6) % 2 == 0, 2, "half")]
    level, runs, n = 0.1, 60, 1200
    if estimator != "paper":
        threats += [Direction(known.y, "along"), Line(known.y, "line")]
    statistics = _sampled(known, vote, ratio, threats, runs, n, GridTally)
    for quantity in quantities(threats):
        rate = float(missed(known, threats, statistics, quantity, level, estimator).mean())
        assert rate <= allowed(level, runs), str(quantity)
    if estimator != "chernoff":
        assert float(missed_together(known, threats, statistics, level, estimator).mean()) <= allowed(level, runs)


class Uncorrected(GridTally):
    """Takes too large a mean of the prediction for its own."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.tail = TAIL

    def _mean(self, z: torch.Tensor, rho: torch.Tensor, rim: torch.Tensor) -> torch.Tensor:
        return 1.3 * rho * rim


class Short(GridTally):
    """Takes too small a one."""

    def _mean(self, z: torch.Tensor, rho: torch.Tensor, rim: torch.Tensor) -> torch.Tensor:
        return 0.7 * rho * rim


WRONG = [(Uncorrected, Quantity(ALL, "l2", "lower")), (Short, Quantity(ALL, "linf", "upper"))]


@pytest.mark.parametrize(("wrong", "quantity"), WRONG)
def test_coverage_catches(wrong: Any, quantity: Quantity) -> None:
    known, vote = _known(1, Fraction(4), 4)
    threats = [L1, L2]
    rates = {
        tally: float(missed(known, threats, _sampled(known, vote, Fraction(4), threats, 40, 3000, tally), quantity, 0.1).mean())
        for tally in (wrong, GridTally)
    }
    assert rates[wrong] > allowed(0.1, 40)
    assert rates[GridTally] <= allowed(0.1, 40)


# Width


@pytest.mark.parametrize("margin", [1.2, 2.2])
@pytest.mark.parametrize("ratio", [Fraction(255, 4), Fraction(8)])
def test_bounds_are_as_tight_as_under_gaussian_noise(margin: float, ratio: Fraction) -> None:
    """The same noise and votes through both tallies, once as it is and once by its cells."""
    d, n, runs, level = 16, 20_000, 4, 1e-4
    grid, w, threats = law(ratio), unit(d, 0), [L1, L2, Direction(np.ones(d), "along")]
    q = float(ndtr(margin))
    made: dict[str, list[Moments]] = {"grid": [], "gaussian": []}
    for run in range(runs):
        u = np.random.default_rng([run, 4]).standard_normal((n, d))
        k = np.rint(u * float(ratio)).astype(np.int16)
        f = torch.from_numpy(k @ w <= margin * float(ratio))
        tallies = {
            "grid": (GridTally(projections(threats), d, n, (9, 100), CPU, law=grid), torch.from_numpy(k)),
            "gaussian": (Tally(projections(threats), d, n, (9, 100), CPU), torch.from_numpy(u)),
        }
        for name, (one, noise) in tallies.items():
            one.add(noise, f)
            made[name].append(one.moments())
    statistics = {name: summarise(moments, threats, 1.0) for name, moments in made.items()}
    y = -phi(margin) * w
    truth = {"l2": np.linalg.norm(y), "linf": np.abs(y).max(), "dot": y.sum() / math.sqrt(d)}
    for quantity in quantities(threats):
        widths = [
            abs(float((ADAPTIVE.bound(quantity, statistics[name], np.full(runs, q), level) - truth[quantity.norm]).mean()))
            for name in ("grid", "gaussian")
        ]
        assert widths[0] <= 1.03 * widths[1], str(quantity)


def test_nothing_of_a_stage_depends_on_its_own_samples_nor_on_later_ones() -> None:
    class Watched(GridTally):
        def _begin(self) -> None:
            super()._begin()
            self.__dict__.setdefault("fixed", []).append(self._stage)

    grid, n, d = law(Fraction(4)), 400, 4
    codes = _codes(grid, n, d)
    f = codes.astype(np.float64) @ unit(d, 0) <= 5.0
    for changed in range(4):
        start = (0, 50, 100, 200)[changed]
        others, votes = codes.copy(), f.copy()
        others[start:], votes[start:] = _codes(grid, n, d, 9)[start:], ~f[start:]
        fixed = []
        for a, b in ((codes, f), (others, votes)):
            one = Watched(projections(_threats(d)), d, n, (9, 100), CPU, law=grid)
            one.add(torch.from_numpy(a), torch.from_numpy(b))
            fixed.append(one.fixed)
        for stage, (one_, other) in enumerate(itertools.zip_longest(*fixed)):
            same = torch.equal(one_.directions, other.directions) and torch.equal(one_.beta, other.beta)
            assert same == (stage <= changed)
