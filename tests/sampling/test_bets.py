import itertools
import math
import types
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy.integrate import quad
from scipy.special import ndtr, ndtri
from scipy.stats import norm
from torch.utils._python_dispatch import TorchDispatchMode

from certlut.bounds.adaptive import ADAPTIVE
from certlut.sampling import bets
from certlut.sampling.bets import Tally, log_product
from certlut.sampling.factors import COLUMNS, multiply
from certlut.sampling.stakes import BETA_MAX, MU_MAX, REACH, TAIL, chosen_b, stages, thinned
from certlut.statistics.summary import BETS, TARGETS, THIN
from certlut.threats.declare import Direction, Line, Lp, Subspace
from certlut.threats.projections import Projection
from certlut.threats.sets import ALL, L1, L2, LENGTH, LINF, Quantity, Threat, projections
from reference.naive_bets import factor, naive_tally, tail
from reference.naive_statistics import Array, Known, best_b, half_space, phi, slab, stripes, worst_votes
from reference.simulate import CPU, allowed, missed, missed_together, quantities, sampled, unit

Votes = npt.NDArray[np.bool_]


def _fed(
    u: Array,
    f: Votes,
    threats: Sequence[Threat] = (L2,),
    n: int | None = None,
    pieces: Sequence[int] = (),
    tally: Any = Tally,
    w: Array | None = None,
    trial: tuple[float, int] = (0.0, 0),
) -> Any:
    """A tally of these rows, given in pieces that end at these rows; w: a proposal."""
    proposed = None if w is None else torch.from_numpy(w)
    one = tally(projections(threats), u.shape[1], n or len(u), (9, 100), CPU, proposed, trial)
    for start, stop in zip((0, *pieces), (*pieces, len(u)), strict=True):
        one.add(torch.from_numpy(u[start:stop]), torch.from_numpy(f[start:stop]))
    return one


def _rows(d: int, n: int, seed: int = 0, margin: float = 1.2) -> tuple[Array, Votes]:
    u = np.random.default_rng([seed, d, n]).standard_normal((n, d))
    return u, u @ unit(d, 0) <= margin


# Identities behind the inequality


def test_tail_is_the_mean_excess_over_the_reach_rounded_up() -> None:
    exact = 2.0 * quad(lambda t: (t - REACH) * norm.pdf(t), REACH, REACH + 12.0, epsabs=1e-18)[0]
    assert exact == pytest.approx(tail(REACH), rel=1e-6)
    assert exact <= TAIL <= 1.01 * exact


def test_a_factor_never_falls_below_0() -> None:
    assert BETA_MAX * (REACH + MU_MAX) < 0.95


@pytest.mark.parametrize("z", [0.0, 0.4, 1.28, 2.33, 4.5])
@pytest.mark.parametrize("rho", [0.0, 0.3, 0.8, 0.95])
def test_the_prediction_has_the_gradient_that_is_taken_off(z: float, rho: float) -> None:
    scale = math.sqrt(1.0 - rho * rho)
    mean = quad(lambda t: t * ndtr((z + rho * t) / scale) * norm.pdf(t), -12.0, 12.0, epsabs=1e-13, limit=300)[0]
    assert mean == pytest.approx(rho * phi(z), abs=1e-11)


def test_the_prediction_of_a_tally_is_the_vote_of_a_half_space_seen_through_noise() -> None:
    u, f = _rows(5, 4000)
    stage = _fed(u[:3000], f[:3000], n=4000)._stage
    z, rho = stage.h
    v = stage.directions[:, 0]
    assert float(v.norm()) == pytest.approx(1.0, rel=1e-14)
    assert torch.allclose(stage.mean_h, rho * phi(float(z)) * v, rtol=1e-13)
    assert 0.5 < float(rho) <= 0.95


def _step(
    cuts: Sequence[float], sign: float, h: Callable[[float], float], mu: float, beta: float, reach: float
) -> tuple[float, float]:
    """(E of the clipped factor, E x) of one sample whose vote is that of stripes along w."""

    def f(t: float) -> float:
        return float(np.searchsorted(cuts, t) % 2)

    edges = sorted({-12.0, *np.clip(cuts, -12.0, 12.0).tolist(), -reach, 0.0, reach, 12.0})

    def mean(value: Callable[[float], float]) -> float:
        return sum(
            quad(lambda t: value(sign * t * (f(t) - h(t))) * norm.pdf(t), a, b, epsabs=1e-13, limit=200)[0]
            for a, b in itertools.pairwise(edges)
        )

    return mean(lambda x: factor(x, mu, beta, reach)), mean(lambda x: x)


@pytest.mark.parametrize("reach", [REACH, 1.0])
def test_a_step_is_a_supermartingale_for_every_vote(reach: float) -> None:
    rng = np.random.default_rng(1)
    votes: list[Sequence[float]] = [(-math.inf, 1.28), (-0.8, 1.6), (0.0,), (-2.0,)]
    votes += [np.sort(rng.normal(0.0, 1.5, rng.integers(1, 6))).tolist() for _ in range(6)]
    for i, cuts in enumerate(votes):
        beta = float(rng.choice([0.01, 0.1, min(BETA_MAX, 0.9 / (reach + MU_MAX))]))
        mu, z, rho = float(rng.choice([-MU_MAX, 0.0, 0.1])), float(rng.uniform(0.0, 2.5)), float(rng.choice([0.0, 0.6, 0.95]))
        for sign in (-1.0, 1.0):
            grown, mean = _step(
                cuts, sign, lambda t, z=z, rho=rho: float(ndtr((z + rho * t) / math.sqrt(1.0 - rho * rho))), mu, beta, reach
            )
            # E x in closed form.
            y = stripes(np.ones(1), cuts).y[0] - rho * phi(z)
            assert mean == pytest.approx(sign * y, abs=1e-9), i
            assert grown <= math.exp(beta * (sign * y - mu) + beta * tail(reach)) * (1.0 + 1e-12)


@pytest.mark.parametrize("reach", [REACH, 1.0])
def test_without_the_tail_a_fair_bet_would_grow(reach: float) -> None:
    # No vote for, and a prediction of 1: x = -t. No guess of a mean can be fairer.
    def value(t: float) -> float:
        return factor(-t, 0.0, 0.1, reach) * float(norm.pdf(t))

    grown = sum(quad(value, a, b, epsabs=1e-15)[0] for a, b in itertools.pairwise([-14.0, 0.0, reach, 14.0]))
    assert grown - 1.0 == pytest.approx(0.05 * tail(reach), rel=1e-6)


# The tally


def test_a_logarithm_of_products_is_the_sum_of_logarithms() -> None:
    rng = np.random.default_rng(2)
    for rows in (1, 15, 16, 17, 160, 333):
        factors = rng.uniform(0.06, 3.0, (rows, 2, 3))
        assert log_product(torch.from_numpy(factors)).numpy() == pytest.approx(np.log(factors).sum(axis=0), rel=1e-12, abs=1e-12)
    # 16 of the smallest factors, or of the largest.
    for extreme in (1.0 - BETA_MAX * (REACH + MU_MAX), 1.0 + BETA_MAX * 12.0):
        assert float(log_product(torch.full((32,), extreme, dtype=torch.float64))) == pytest.approx(32 * math.log(extreme))


@pytest.mark.parametrize("d", [1, 7, COLUMNS, COLUMNS + 3])
def test_factors_are_multiplied_up(d: int) -> None:
    rng = np.random.default_rng(d)
    m, s, beta = rng.standard_normal((30, d)), rng.uniform(-1.0, 1.0, 30), np.array([0.02, 0.1, 0.2])
    rows, least, factors = np.array([3, 4, 11, 29]), 1.0 - 2.0 * beta, rng.uniform(0.5, 2.0, (2, 3, d))
    expected = factors.copy()
    for bet in range(3):
        for sign in range(2):
            x = (2 * sign - 1) * beta[bet] * s[rows, None] * m[rows]
            expected[sign, bet] *= np.maximum(1.0 + x, least[bet]).prod(axis=0)
    multiply(m, rows, s, beta, least, factors)
    assert factors == pytest.approx(expected, rel=1e-13)


def _proposal(kind: str, d: int) -> Array | None:
    """A direction for the half-space of `_rows`."""
    anything = np.random.default_rng(d).standard_normal(d)
    kinds = {"the gradient": -unit(d, 0), "its opposite": unit(d, 0), "anything": anything / np.linalg.norm(anything)}
    return kinds.get(kind)


def _every_part(d: int) -> list[Threat]:
    out: list[Threat] = [L1, LINF, Lp(3.0), Direction(np.arange(1.0, d + 1.0) * (-1.0) ** np.arange(d), "along")]
    if d > 1:
        out += [Subspace(np.arange(d) % 2 == 0, 2, "half"), Subspace(np.ones(d, dtype=bool), 1, "full")]
        basis = np.linalg.qr(np.random.default_rng(d).standard_normal((d, 2)))[0].T
        out += [Subspace(np.arange(d) == 1, 1, "one"), Subspace(basis=basis, p=3.0, name="span")]
    return out


@pytest.mark.parametrize(
    ("d", "n", "stop"),
    [(4, 400, 400), (4, 403, 403), (1, 203, 203), (3, 9, 9), (3, 5, 5), (2, 2, 2), (4, 301, 170), (5, 301, 200), (30, 60, 60)],
)
@pytest.mark.parametrize("proposed", ["nothing", "the gradient", "its opposite", "anything"])
def test_bets_are_those_of_a_plain_loop(d: int, n: int, stop: int, proposed: str) -> None:
    parts, w = projections(_every_part(d)), _proposal(proposed, d)
    if w is not None:
        parts[THIN] = Projection(vector=thinned(w))
    u, f = (a[:stop] for a in _rows(d, n))
    # Copies that were in favour, against, or not asked.
    trial = {"the gradient": (0.15, 300), "its opposite": (-0.1, 50)}.get(proposed, (0.0, 0))
    made = _fed(u, f, _every_part(d), n, w=w, trial=trial).moments()
    expected = naive_tally(parts, u, f, 9, 100, n, w, trial) if stop > n // 8 else {}
    assert made.b == chosen_b(9.5 / 101.0)
    for name, kinds in expected.items():
        for kind, values in kinds.items():
            assert made.bets[name][kind] == pytest.approx(values, rel=1e-9, abs=1e-9), (name, kind)
        assert ("top" in made.bets[name]) == ("top" in kinds)
    half = n // 2
    assert made.n.tolist() == [half, stop - half]
    assert made.count.tolist() == [f[:half].sum(), f[half:].sum()]
    assert made.sum_uf == pytest.approx(np.stack([u[:half][f[:half]].sum(axis=0), u[half:][f[half:]].sum(axis=0)]), abs=1e-10)
    assert made.sum_u == pytest.approx(np.stack([u[:half].sum(axis=0), u[half:].sum(axis=0)]), abs=1e-10)


@pytest.mark.parametrize("d", [1, 6, 5000])
def test_pieces_of_any_size_make_the_same_bets(d: int) -> None:
    threats, n = _every_part(d), 203
    u, f = _rows(d, n)
    whole = _fed(u, f, threats).moments()
    for pieces in ((1,), (24, 25, 26, 50, 51, 101, 102), range(1, n), (50, 50, 50)):
        parts = _fed(u, f, threats, pieces=pieces).moments()
        assert np.array_equal(parts.count, whole.count)
        assert parts.sum_uf == pytest.approx(whole.sum_uf, rel=1e-12, abs=1e-12)
        for name, kinds in whole.bets.items():
            for kind, values in kinds.items():
                assert parts.bets[name][kind] == pytest.approx(values, rel=1e-11, abs=1e-12), (name, kind)


class Watched(Tally):
    """Keeps what was fixed for every stage."""

    def _begin(self) -> None:
        super()._begin()
        self.__dict__.setdefault("fixed", []).append(self._stage)


def _same(a: Any, b: Any) -> bool:
    return all(
        torch.equal(x, y) if isinstance(x, torch.Tensor) else x is y is None
        for x, y in ((getattr(a, name), getattr(b, name)) for name in a.__dataclass_fields__)
    )


@pytest.mark.parametrize("proposed", ["nothing", "the gradient"])
@pytest.mark.parametrize("changed", range(4))
def test_nothing_of_a_stage_depends_on_its_own_samples_nor_on_later_ones(changed: int, proposed: str) -> None:
    n, threats = 400, _every_part(4)
    u, f = _rows(4, n)
    start = sum(stages(n)[:changed])
    others, votes = u.copy(), f.copy()
    others[start:], votes[start:] = np.random.default_rng(9).standard_normal((n - start, 4)) * 3.0, ~f[start:]
    ours, theirs = (_fed(a, b, threats, tally=Watched, w=_proposal(proposed, 4)).fixed for a, b in ((u, f), (others, votes)))
    assert len(ours) == len(theirs) == 4
    for stage in range(4):
        assert _same(ours[stage], theirs[stage]) == (stage <= changed), stage


@pytest.mark.parametrize("proposed", ["nothing", "the gradient"])
def test_the_last_directions_of_the_last_stage_are_those_of_the_first_half_mean(proposed: str) -> None:
    threats = _every_part(6)
    for seed in range(5):
        u, f = _rows(6, 160, seed)
        tally = _fed(u, f, threats, w=_proposal(proposed, 6))
        moments = tally.moments()
        x = (moments.sum_uf[0] - moments.b * moments.sum_u[0]) / moments.n[0]
        parts = projections(threats)
        for column, by in enumerate(parts.values()):
            expected = by.embed(x) if by.vector is None else by.vector
            v = tally._stage.directions[:, column - len(tally.parts)].numpy()
            assert v == pytest.approx(expected / np.linalg.norm(expected), abs=1e-14)


def test_a_tally_that_stops_early_says_no_more_than_its_samples_do() -> None:
    u, f = _rows(4, 4000)
    widths = []
    for stop in (2001, 3000, 4000):
        moments = _fed(u[:stop], f[:stop], _every_part(4), 4000).moments()
        for kinds in moments.bets.values():
            for values in kinds.values():
                assert np.isfinite(values).all()
        widths.append(moments.bets[ALL]["half_low"][1])
        assert moments.n.tolist() == [2000, stop - 2000]
    assert (widths[0] > widths[1]).all()
    assert (widths[1] > widths[2]).all()
    # Read twice, it says the same.
    tally = _fed(u, f, n=4000)
    first, second = tally.moments(), tally.moments()
    assert all(np.array_equal(first.bets[ALL][kind], second.bets[ALL][kind]) for kind in first.bets[ALL])


@pytest.mark.parametrize("n", [2, 3, 7, 9, 40])
@pytest.mark.parametrize("vote", [True, False])
@pytest.mark.parametrize("against", [(0, 10**6), (0, 0), (50, 100)])
def test_unanimous_votes_and_few_samples_leave_bounds_that_hold(n: int, vote: bool, against: tuple[int, int]) -> None:
    # y = 0; where b = 1 the mean of votes for is the zero vector.
    for d in (1, 3):
        u = np.random.default_rng(n).standard_normal((n, d))
        tally = Tally(projections((L1, L2)), d, n, against, CPU)
        tally.add(torch.from_numpy(u), torch.full((n,), vote))
        kinds = tally.moments().bets[ALL]
        assert not any(np.isnan(values).any() for values in kinds.values())
        assert (kinds["length"][0] - 6.0 * kinds["length"][1] <= 0.0).all()
        assert (kinds["half_low"][0] - 6.0 * kinds["half_low"][1] <= 0.0).all()
        for kind in ("half_high", "top"):
            assert (kinds[kind][0] + 6.0 * kinds[kind][1] >= 0.0).all()


class Waits(TorchDispatchMode):
    """Counts the operations that would wait for a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, function: Any, kinds: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(function)
        if any(
            part in name for part in ("_local_scalar_dense", "nonzero", "equal.default", "unique", "masked_select", "index.Tensor")
        ):
            self.found.append(name)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("w", [None, torch.full((6,), 6.0**-0.5)])
def test_the_device_is_waited_for_to_pick_samples_alone(w: torch.Tensor | None) -> None:
    u, f = (torch.from_numpy(a) for a in _rows(6, 400))
    for cpu, expected in ((True, set()), (False, {"aten.nonzero.default", "aten.index.Tensor"})):
        tally = Tally(projections(_every_part(6)), 6, 400, (9, 100), CPU, w)
        tally._cpu = cpu
        with Waits() as waits:
            for start in range(0, 400, 37):
                tally.add(u[start : start + 37], f[start : start + 37])
        # Of a GPU: to pick the samples that logarithms are taken of.
        assert set(waits.found) == expected
    with Waits() as waits:
        float(u.sum())
    assert waits.found != []


# Any proposal covers


def _proposals(known: Known) -> dict[str, Array]:
    """Good and bad ones, fixed before the samples."""
    d, rng = known.d, np.random.default_rng(known.d)
    y = known.y / np.linalg.norm(known.y)
    other = rng.standard_normal(d)
    other /= np.linalg.norm(other)
    across = other - (other @ y) * y
    return {
        "the gradient": y,
        "its opposite": -y,
        "random": other,
        "across": across / np.linalg.norm(across),
        "constant": np.full(d, d**-0.5),
        "one coordinate": np.eye(d)[0],
    }


@pytest.mark.parametrize("place", range(4))
def test_bounds_hold_whatever_was_proposed(place: int) -> None:
    w0, level, runs, n = unit(6, 0), 0.1, 40, 1200
    worst = worst_votes(w0, 0.05, 5.0 / n, float(best_b(0.05)))
    known = (half_space(w0, 1.3), half_space(w0, 2.3), slab(w0, -1.9, 1.5), worst)[place]
    threats = [L1, L2, Subspace(np.arange(6) % 2 == 0, 2, "half"), Direction(known.y, "along")]
    # What copies said may be as wrong: here that w is the gradient, or its opposite, for sure.
    trials = {"random": (0.3, 10**9), "across": (-0.3, 10**9)}
    for name, w in _proposals(known).items():
        proposed = partial(Tally, w=torch.from_numpy(w), trial=trials.get(name, (0.0, 0)))
        statistics = replace(sampled(known, threats, runs, n, 11, proposed), proposal={"by": "gradient"})
        for quantity in quantities(threats):
            rate = float(missed(known, threats, statistics, quantity, level).mean())
            assert rate <= allowed(level, runs), (name, str(quantity))
        thin = statistics.parts[ALL].thin
        missed_thin = thin[:, 0, 0] - thin[:, 1, 0] * (math.log(1.0 / level) + 1e-6) > thinned(w) @ known.y
        assert float(missed_thin.mean()) <= allowed(level, runs), name
        together = float(missed_together(known, threats, statistics, level).mean())
        assert together <= allowed(level, runs), name


@pytest.mark.parametrize("q", [0.9, 0.99])
def test_a_good_proposal_finds_the_length_where_votes_find_none_and_a_bad_one_leaves_what_votes_find(q: float) -> None:
    d, n, runs = 400, 6000, 3
    known, level = half_space(unit(d, 0), float(ndtri(q))), 1e-5
    rim = phi(float(ndtri(q)))
    across = np.random.default_rng(1).standard_normal(d)
    across -= (across @ known.y) * known.y / rim**2
    near = known.y / rim + 0.25 * across / np.linalg.norm(across)
    cases = {"votes": None, "good": near / np.linalg.norm(near), "bad": across / np.linalg.norm(across)}
    low = {}
    for name, w in cases.items():
        statistics = sampled(known, (L2, L1), runs, n, 5, partial(Tally, w=None if w is None else torch.from_numpy(w)))
        low[name] = ADAPTIVE.bound(LENGTH, statistics, np.full(runs, q), level).mean() / rim
    # The cosine is .97; Chernoff's bound along w, at half the level, loses sqrt(2 L variance / n); chance is .04.
    t, c = np.linspace(-9.0, 9.0, 1801), 0.97
    p = ndtr((float(ndtri(q)) + c * t) / math.sqrt(1.0 - c * c))
    spread = float(np.sum(norm.pdf(t) * t * t * p * (1.0 - p)) * (t[1] - t[0]))
    assert low["good"] >= c - math.sqrt(2.0 * math.log(2.0 / level) * spread / n) / rim - 0.12
    assert low["good"] > low["votes"] + 0.1
    assert low["bad"] >= low["votes"] - 0.1


# Mutants: were a sign, the tail or the order in time wrong, simulated coverage would tell

SOURCE = Path(bets.__file__).read_text()
ONE = half_space(unit(4, 0), float(ndtri(0.9)))
BARS = {name: Quantity(ALL, norm, side) for name, norm, side in (("top", "linf", "upper"), ("long", "l2", "upper"))}
BARS |= {"short": LENGTH, "ray": Quantity("along", "dot", "lower"), "line": Quantity("line", "abs", "upper")}
TRIALS, LEVEL = 50, 0.1


def _mutant(*changes: tuple[str, str], **constants: float) -> Any:
    """The class Tally of a copy of the module with lines, or constants of the schedule, changed."""
    source = SOURCE
    for old, new in changes:
        assert source.count(old) == 1, old
        source = source.replace(old, new)
    module = types.ModuleType("certlut.sampling.mutant")
    module.__package__ = "certlut.sampling"
    exec(compile(source, "mutant", "exec"), module.__dict__)
    assert constants.keys() <= module.__dict__.keys()
    module.__dict__.update(constants)
    return module.Tally


def _rates(tally: Any, n: int = 3000, known: Any = ONE) -> dict[str, float]:
    threats = [L1, L2, Direction(known.y, "along"), Line(known.y, "line")]
    statistics = sampled(known, threats, TRIALS, n, 3, tally)
    return {name: float(missed(known, threats, statistics, quantity, LEVEL).mean()) for name, quantity in BARS.items()}


def test_the_tally_itself_covers() -> None:
    assert max(_rates(_mutant()).values()) <= allowed(LEVEL, TRIALS)


MUTANTS: dict[str, tuple[tuple[tuple[str, str], ...], str]] = {
    "the mean of h with the wrong sign, coordinates": (
        (("torch.stack((-stage.mean_h, stage.mean_h))", "torch.stack((stage.mean_h, -stage.mean_h))"),),
        "top",
    ),
    "the mean of h left out, coordinates": (
        (("torch.stack((-stage.mean_h, stage.mean_h))", "torch.zeros_like(torch.stack((stage.mean_h, stage.mean_h)))"),),
        "top",
    ),
    "the mean of h with the wrong sign, from above": (
        (("stage.mean_h @ stage.directions + stage.mu", "stage.mu - stage.mean_h @ stage.directions"),),
        "long",
    ),
    "the mean of h taken twice": (
        (("stage.mean_h @ stage.directions + stage.mu", "2.0 * stage.mean_h @ stage.directions + stage.mu"),),
        "short",
    ),
    "the centre with the wrong sign": (
        (("x = t * s[:, None] - stage.mu", "x = t * s[:, None] + stage.mu"),),
        "ray",
    ),
    "h that is the vote itself on one side": (
        (
            (
                "exact = s[rows].abs() >= EXACT",
                "s[rows] *= t[rows, 0] > 0.0; exact = s[rows].abs() >= EXACT",
            ),
        ),
        "top",
    ),
    "a direction of length two": (
        (("y / torch.clamp(size, min=TINY)", "y / torch.clamp(0.5 * size, min=TINY)"),),
        "short",
    ),
    "what is known with the wrong sign, from above along a direction": (
        (("(along * (-known - self.tail)).index_select", "(along * (known - self.tail)).index_select"),),
        "line",
    ),
    "the stakes from above taken twice": ((("high = along.index_select(1", "high = 0.5 * along.index_select(1"),), "line"),
    "the stakes of the last stage counted twice": ((("self.half_stake += half", "self.half_stake += 2.0 * half"),), "long"),
    "only one sign of each coordinate": ((("-top.amin(dim=(0, 2))", "-top[0].amin(dim=1)"),), "top"),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_coverage_catches(name: str) -> None:
    changes, bar = MUTANTS[name]
    rates = _rates(_mutant(*changes))
    assert rates[bar] > allowed(LEVEL, TRIALS), rates


def test_coverage_catches_a_clip_without_its_tail_and_passes_the_clip_with_it() -> None:
    # Votes against far out on both sides: no half-space predicts them, and a reach of 1 clips them all.
    known = slab(np.ones(1), -1.5, 1.6)
    without = _rates(_mutant(REACH=1.0, TAIL=0.0), 4000, known)
    having = _rates(_mutant(REACH=1.0, TAIL=tail(1.0)), 4000, known)
    assert max(without.values()) > allowed(LEVEL, TRIALS), without
    assert max(having.values()) <= allowed(LEVEL, TRIALS), having


def test_coverage_catches_directions_that_have_seen_their_own_samples() -> None:
    class Peeking(Tally):
        def add(self, u: torch.Tensor, votes: torch.Tensor) -> None:
            self.__dict__["ahead"] = u.T @ (votes.to(torch.float64) - self.b)
            super().add(u, votes)

        def _begin(self) -> None:
            super()._begin()
            assert self._stage is not None
            self._stage.directions[:, 0] = self.ahead / self.ahead.norm()
            self._stage.mean_h = self._stage.mean_h.norm() * self._stage.directions[:, 0]

    known = half_space(unit(300, 0), float(ndtri(0.9)))
    assert _rates(Peeking, 1000, known)["short"] > allowed(LEVEL, TRIALS)
    assert _rates(Tally, 1000, known)["short"] <= allowed(LEVEL, TRIALS)


# Width


@pytest.mark.parametrize("margin", [1.2, 2.2])
def test_few_logarithms_are_nearly_as_good_as_all(margin: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same noise and votes: bounds of the largest coordinate from both."""
    d, n = 16, 20_000
    for seed in range(3):
        u, f = _rows(d, n, seed, margin)
        some = _fed(u, f).moments().bets[ALL]
        monkeypatch.setattr(bets, "EXACT", 0.0)
        every = _fed(u, f).moments().bets[ALL]
        monkeypatch.undo()
        truth = phi(margin) * np.abs(unit(d, 0)).max()
        for k, target in enumerate(TARGETS):
            width, best = (kinds["top"][0, k] + kinds["top"][1, k] * target - truth for kinds in (some, every))
            assert best <= width <= 1.03 * best


@pytest.mark.parametrize("q", [0.9, 0.99])
def test_bets_are_nearly_the_best_of_their_kind_at_the_levels_they_are_tuned_to(q: float) -> None:
    known, rim = half_space(unit(16, 0), float(ndtri(q))), phi(float(ndtri(q)))
    part = sampled(known, (L1, L2), 4, 20_000, 0).parts[ALL]
    for k, target in enumerate(TARGETS):
        for kind, sign in (("length", -1.0), ("half_low", -1.0), ("half_high", 1.0), ("top", 1.0)):
            bet = getattr(part, kind)
            assert bet.shape == (4, 2, BETS)
            widths = sign * bet[:, 0] + bet[:, 1] * target
            assert (widths[:, k] <= widths.min(axis=1) + 0.02 * rim).all(), (kind, target)
