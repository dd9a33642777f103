import math
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy.special import ndtri
from typer.testing import CliRunner

from certlut import Subspace, Table
from certlut.bounds.binomial import lower_probability
from certlut.bounds.budget import split
from certlut.cli.main import app
from certlut.evaluate import evaluate
from certlut.plan.forecast import forecast
from certlut.plan.model import SHAPES, Vote, gradient
from certlut.plan.plan import MOST, TAILS, least, limits, masked, plan, reached
from certlut.plan.tails import largest_counts
from certlut.sampling.bets import Tally
from certlut.statistics.summary import BETS, Statistics, summarise
from certlut.tablegen import radius as exact_radius
from certlut.threats.declare import Lp, resolve
from certlut.threats.sets import ALL, L1, L2, LENGTH, LINF, Quantity, Threat, complement, projections

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
from reduced import Reduced

Array = npt.NDArray[np.float64]

ALPHA = 0.001
THREATS = (L1, L2, LINF)
TOP, UPPER = Quantity(ALL, "linf", "upper"), Quantity(ALL, "l2", "upper")


def _rim(q: float) -> float:
    return math.exp(-0.5 * float(ndtri(q)) ** 2) / math.sqrt(2.0 * math.pi)


def _against(q: float) -> tuple[int, int]:
    """The typical selection: what a forecast assumes."""
    return round(100 * (1.0 - q)), 100


def _tally(y: Array, q: float, rho: float, n: int, threats: Sequence[Threat], rng: np.random.Generator) -> Tally:
    """Fed with n samples of the model classifier, every normal drawn."""
    d, v = len(y), torch.as_tensor(y / np.linalg.norm(y))
    tally = Tally(projections(threats), d, n, _against(q), torch.device("cpu"))
    for start in range(0, n, 2**21 // d):
        u = torch.as_tensor(rng.standard_normal((min(2**21 // d, n - start), d)))
        latent = rho * (u @ v) + math.sqrt(1.0 - rho**2) * torch.as_tensor(rng.standard_normal(len(u)))
        tally.add(u, latent >= -float(ndtri(q)))
    return tally


def _spread(y: object) -> Array:
    """A grouped gradient as a vector."""
    return np.repeat(y.size, y.times.astype(int))  # type: ignore[attr-defined]


def _bound(quantity: Quantity, statistics: Statistics, estimator: str, threats: Sequence[Threat] = THREATS) -> Array:
    budget = split(ALPHA, threats, estimator)
    q = lower_probability(statistics.count.sum(axis=1), statistics.n.sum(axis=1), budget.q)
    return budget.estimator.bound(quantity, statistics, q, budget.norms[quantity])


def _agrees(truth: float, simulated: Array, forecast_: Array) -> None:
    """The forecast width is within a tenth of the mean one, and what chance leaves open of that."""
    width, expected = float(simulated.mean()) - truth, float(forecast_[0]) - truth
    chance = float(simulated.std()) / math.sqrt(len(simulated))
    assert abs(expected - width) <= 0.1 * abs(width) + 1.5 * chance
    assert chance < 0.1 * abs(width)


@pytest.mark.parametrize(("q", "n", "runs"), [(0.9, 10_000, 24), (0.99, 50_000, 12), (0.9, 100_000, 8)])
def test_every_width_is_within_a_tenth_of_what_sampling_gives_in_64_dimensions(q: float, n: int, runs: int) -> None:
    y, rng = gradient(64, 0.8 * _rim(q)), np.random.default_rng(n)
    drawn = [_tally(_spread(y)[np.random.default_rng(1).permutation(64)], q, 0.8, n, THREATS, rng) for _ in range(runs)]
    sampled = summarise([tally.moments() for tally in drawn], THREATS, 1.0)
    ahead = forecast([n], THREATS, 64, q, 0.8)
    for quantity in split(ALPHA, THREATS).norms:
        for estimator in ("paper", "adaptive"):
            simulated = _bound(quantity, sampled, estimator)
            if not simulated.any():
                assert _bound(quantity, ahead, estimator) == 0.0
                continue
            _agrees(getattr(y, quantity.norm), simulated, _bound(quantity, ahead, estimator))


@pytest.mark.parametrize("cosine", [None, 0.97])
@pytest.mark.parametrize(("q", "n", "runs"), [(0.9, 10_000, 40), (0.99, 200_000, 8), (0.9, 200_000, 8)])
def test_lengths_are_within_a_tenth_in_3072_dimensions(q: float, n: int, runs: int, cosine: float | None) -> None:
    y, rng = gradient(3072, 0.8 * _rim(q)), np.random.default_rng(n)
    v, across = _spread(y) / y.l2, np.random.default_rng(1).standard_normal(3072)
    across -= (across @ v) * v
    w = None if cosine is None else cosine * v + math.sqrt(1.0 - cosine**2) * across / np.linalg.norm(across)
    sampled = summarise([Reduced(v, q, 0.8, n, _against(q), rng, w).draw() for _ in range(runs)], THREATS, 1.0)
    sampled = replace(sampled, proposal={"by": "votes" if cosine is None else "gradient"})
    ahead = forecast([n], THREATS, 3072, q, 0.8, cosine=cosine)
    # What the bets were along reaches about as far.
    reach = sampled.parts[ALL].reach.mean(axis=0)
    assert reach[:, :BETS] == pytest.approx(ahead.parts[ALL].reach[0, :, :BETS], rel=0.25)
    assert reach[:, BETS] == pytest.approx(ahead.parts[ALL].reach[0, :, BETS], rel=0.05)
    for quantity, estimator in [
        (LENGTH, "adaptive"),
        (UPPER, "adaptive"),
        (UPPER, "paper"),
        (Quantity(ALL, "l1", "upper"), "adaptive"),
    ]:
        _agrees(getattr(y, quantity.norm), _bound(quantity, sampled, estimator), _bound(quantity, ahead, estimator))


@pytest.mark.parametrize("shape", SHAPES)
def test_the_larger_coordinates_of_a_proposal_bound_l1_as_sampling_does(shape: str, shipped: Table) -> None:
    d, q, rho, n, c, rng = 150_528, 0.9, 0.95, 20_000, 0.97, np.random.default_rng(5)
    y = gradient(d, rho * _rim(q), shape)
    v, across = _spread(y) / y.l2 * rng.choice([-1.0, 1.0], d), rng.standard_normal(d)
    across -= (across @ v) * v
    w = c * v + math.sqrt(1.0 - c * c) * across / np.linalg.norm(across)
    drawn = summarise([Reduced(v, q, rho, n, _against(q), rng, w).draw() for _ in range(6)], THREATS, 1.0)
    drawn, ahead = replace(drawn, proposal={"by": "gradient"}), forecast([n], THREATS, d, q, rho, shape=shape, cosine=c)
    sampled, expected = drawn.parts[ALL].thin.mean(axis=0), ahead.parts[ALL].thin[0]
    spread = drawn.parts[ALL].thin[:, 0].std(axis=0).max()
    assert np.abs(sampled[0] - expected[0]).max() <= 0.005 * y.l2 + spread
    assert sampled[1] == pytest.approx(expected[1], rel=0.03)
    l1 = Quantity(ALL, "l1", "upper")
    unthinned = replace(ahead, parts={ALL: replace(ahead.parts[ALL], thin=np.full_like(ahead.parts[ALL].thin, np.nan))})
    one, other, without = (evaluate(s, THREATS, ALPHA, "adaptive", shipped).bounds[l1] for s in (drawn, ahead, unthinned))
    assert one.mean() == pytest.approx(other[0], rel=0.01)
    assert shape == "flat" or without[0] > 1.02 * other[0]


def test_bets_on_3072_coordinates_and_the_reduced_draws_agree_with_every_normal_drawn() -> None:
    q, n, rng = 0.9, 8_000, np.random.default_rng(3)
    y = gradient(3072, 0.8 * _rim(q))
    real = summarise([_tally(_spread(y), q, 0.8, n, THREATS, rng).moments() for _ in range(3)], THREATS, 1.0)
    ahead = forecast([n], THREATS, 3072, q, 0.8)
    assert float(_bound(TOP, real, "adaptive").mean()) == pytest.approx(float(_bound(TOP, ahead, "adaptive")[0]), rel=0.07)
    reduced = [Reduced(_spread(y) / y.l2, q, 0.8, n, _against(q), rng).draw() for _ in range(30)]
    drawn = summarise(reduced, THREATS, 1.0)
    for quantity in (LENGTH, UPPER, Quantity(ALL, "l1", "upper")):
        many, few = _bound(quantity, drawn, "adaptive"), _bound(quantity, real, "adaptive")
        assert abs(few.mean() - many.mean()) <= 4.0 * many.std() / math.sqrt(3)


def test_a_mask_is_forecast_with_its_share_of_the_gradient() -> None:
    d, n, q = 64, 50_000, 0.9
    rng = np.random.default_rng(8)
    red = masked(d, 24)
    threats = (L2, red)
    own, rest = gradient(24, math.sqrt(24 / 64)), gradient(40, math.sqrt(40 / 64))
    y = np.concatenate((_spread(own), _spread(rest))) * 0.8 * _rim(q)
    sampled = summarise([_tally(y, q, 0.8, n, threats, rng).moments() for _ in range(16)], threats, 1.0)
    ahead = forecast([n], threats, d, q, 0.8)
    for name, side, truth in (("mask", "upper", y[:24]), (complement("mask"), "lower", y[24:])):
        quantity = Quantity(name, "l2", side)
        size = float(np.linalg.norm(truth))
        _agrees(size, _bound(quantity, sampled, "adaptive", threats), _bound(quantity, ahead, "adaptive", threats))


@pytest.mark.parametrize(("d", "shape", "q", "rho"), [(64, "normal", 0.9, 0.8), (200, "sparse", 0.97, 0.9), (1, "flat", 0.8, 0.5)])
def test_the_largest_counts_beyond_thresholds_are_what_samples_give(d: int, shape: str, q: float, rho: float) -> None:
    n, rng = 20_000, np.random.default_rng(d)
    y = gradient(d, rho * _rim(q), shape)
    v, thresholds = _spread(y) / y.l2, np.array([0.5, 1.5, 2.5])
    drawn = []
    for _ in range(15):
        u = rng.standard_normal((n, d))
        against = u[rho * (u @ v) + math.sqrt(1.0 - rho**2) * rng.standard_normal(n) < -float(ndtri(q))]
        drawn.append([max((against >= tau).sum(axis=0).max(), (against <= -tau).sum(axis=0).max()) for tau in thresholds])
    median, found = np.median(drawn, axis=0), largest_counts(Vote(q, rho), y, [n], thresholds)[0]
    # A median of 15 strays by about a third of the count's own deviation.
    assert np.all(np.abs(found - median) <= 1.0 * np.sqrt(median) + 1.0)


def test_the_gain_at_n_is_what_certifying_samples_gives(shipped: Table) -> None:
    q, n, rng = 0.95, 40_000, np.random.default_rng(12)
    y = gradient(64, 0.8 * _rim(q))
    sampled = summarise([_tally(_spread(y), q, 0.8, n, THREATS, rng).moments() for _ in range(12)], THREATS, 1.0)
    made = plan(64, q, 0.8, ALPHA, THREATS, shipped, n)
    assert {(row.threat, row.estimator) for row in made.rows} == {
        *((t, e) for t in ("l1", "l2", "linf") for e in ("paper", "adaptive")),
        ("l1", TAILS),
    }
    gains = {row.estimator: row.gain or 0.0 for row in made.rows if row.threat == "l1"}
    assert gains[TAILS] > gains["adaptive"] + 3.0
    for row in (row for row in made.rows if row.estimator != TAILS):
        radius = evaluate(sampled, THREATS, ALPHA, row.estimator, shipped).radius
        scale = 8.0 if row.threat == "linf" else 1.0
        gain = 100.0 * (np.mean(scale * radius[row.threat] / radius["cohen"]) - 1.0)
        assert row.gain == pytest.approx(gain, abs=0.4 + 0.1 * abs(gain))


def test_the_limit_is_the_exact_radius_of_the_exact_norms(shipped: Table) -> None:
    d, q, rho = 3072, 0.97, 0.7
    z, length = float(ndtri(q)), 0.7 * _rim(q)
    y = gradient(d, length)
    own = length * math.sqrt(1024 / d)
    cuts = {
        "l1": (-y.linf, math.sqrt(length**2 - y.linf**2)),
        "l2": (-length, 0.0),
        "linf": (-y.l1 / math.sqrt(d), math.sqrt(length**2 - y.l1**2 / d)),
        "mask": (-own, math.sqrt(length**2 - own**2)),
    }
    found = limits(d, q, rho, (*THREATS, masked(d, 1024)), shipped)
    assert set(found) == set(cuts)
    for name, (m1, m2) in cuts.items():
        assert found[name] == pytest.approx(100.0 * (exact_radius(q, m1, m2) / z - 1.0), abs=0.05)


def test_more_samples_tend_to_the_limit_from_below(shipped: Table) -> None:
    ns = [10**k for k in range(3, 12)]
    statistics = forecast(ns, THREATS, 3072, 0.99, 0.8)
    ends = limits(3072, 0.99, 0.8, THREATS, shipped)
    for estimator in ("paper", "adaptive"):
        radius = evaluate(statistics, THREATS, ALPHA, estimator, shipped).radius
        for name, end in ends.items():
            own = radius[name] * (math.sqrt(3072) if name == "linf" else 1.0)
            assert (np.diff(own) >= 0.0).all()
            gain = 100.0 * (own / radius["cohen"] - 1.0)
            assert (gain <= end + 1e-9).all()
            assert gain[-1] == pytest.approx(end, abs=1.3)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("d", [1, 2, 10, 3072, 150_528])
def test_a_shape_has_the_length_and_the_coordinates_it_should(shape: str, d: int) -> None:
    y = gradient(d, 0.3, shape)
    assert y.times.sum() == d
    assert y.l2 == pytest.approx(0.3, rel=1e-12)
    assert y.linf <= y.l2 * (1 + 1e-12)
    assert y.l1 <= math.sqrt(d) * y.l2 * (1 + 1e-12)
    if d >= 3072:
        normals = np.abs(np.random.default_rng(0).standard_normal(d if shape == "normal" else d // 100))
        direction = np.ones(d) if shape == "flat" else normals
        direction = 0.3 * direction / np.linalg.norm(direction)
        assert y.l1 == pytest.approx(direction.sum(), rel=0.1)
        assert y.linf == pytest.approx(direction.max(), rel=0.2)


def test_the_first_n_is_read_between_grid_points() -> None:
    ns, gain = np.array([100, 1000, 10_000]), np.array([math.nan, 0.0, 4.0])
    assert reached(ns, gain, 1.0, 5.0) == pytest.approx(1000 * 10**0.25)
    assert reached(ns, gain, 4.0, 5.0) == pytest.approx(10_000)
    assert reached(ns, gain, 4.5, 5.0) > MOST
    assert reached(ns, gain, 6.0, 5.0) == math.inf
    assert reached(ns, np.array([2.0, 3.0, 4.0]), 1.0, 5.0) == 100


def test_below_the_least_n_the_input_is_expected_to_abstain() -> None:
    for q in (0.55, 0.7, 0.999999):
        n = least(q, ALPHA, THREATS)
        level = split(ALPHA, THREATS).q
        assert lower_probability(q * n, n, level) > 0.5
        assert lower_probability(q * (n - 1), n - 1, level) <= 0.5


def test_the_least_n_pays_for_the_tails(shipped: Table) -> None:
    alpha = 2.0**-11 / 0.875
    assert least(1.0 - 1e-9, alpha, THREATS) == 11
    assert least(1.0 - 1e-9, alpha, THREATS, {"axes": ("l1",)}) == 12
    assert plan(64, 1.0 - 1e-9, 0.8, alpha, THREATS, shipped).least == 12
    with pytest.raises(ValueError, match=r"n = 11: even a unanimous vote cannot reach"):
        plan(64, 0.9, 0.8, alpha, THREATS, shipped, n=11)


def test_a_proposal_needs_fewer_samples_and_tends_to_the_same_limit(shipped: Table) -> None:
    votes, gradient_ = (plan(3072, 0.99, 0.8, ALPHA, (L1, L2), shipped, cosine=cosine) for cosine in (None, 0.97))
    for a, b in zip(votes.rows, gradient_.rows, strict=True):
        assert (a.threat, a.estimator) == (b.threat, b.estimator)
        if (a.threat, a.estimator) == ("l1", "adaptive"):
            assert all(fewer < more for fewer, more in zip(b.samples, a.samples, strict=True))
            # By 10 %.
            assert b.samples[2] < 0.5 * a.samples[2]
        if a.estimator == "paper":
            assert a == b
        elif a.estimator == "adaptive":
            assert a.limit == b.limit


def test_arguments_out_of_range_are_refused_by_name(shipped: Table) -> None:
    with pytest.raises(ValueError, match=r"n = 10: even a unanimous vote cannot reach alpha = 0\.001"):
        plan(64, 0.9, 0.8, ALPHA, THREATS, shipped, n=10)
    for changes, match in (
        ({"q": 0.5}, r"q = 0\.5: expected 1/2 < q < 1"),
        ({"rho": 1.1}, r"rho = 1\.1: expected 0 <= rho <= 1"),
        ({"d": 0}, "d = 0"),
        ({"cosine": 0.0}, r"cosine = 0\.0: expected 0 < cosine <= 1, or None where votes propose"),
        ({"shape": "round"}, "shape 'round': expected one of normal, flat, sparse"),
    ):
        with pytest.raises(ValueError, match=match):
            plan(**{"d": 64, "q": 0.9, "rho": 0.8, "alpha": ALPHA, "threats": THREATS, "table": shipped} | changes)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="l1, l2, linf and masks"):
        forecast([100], resolve([Lp(3)]), 64, 0.9, 0.8)
    with pytest.raises(ValueError, match="l1, l2, linf and masks"):
        forecast([100], resolve([Subspace(basis=np.eye(64)[:2])]), 64, 0.9, 0.8)
    with pytest.raises(ValueError, match="coordinates = 64: expected 1 to d - 1 = 63"):
        masked(64, 64)
    with pytest.raises(ValueError, match=r"threat 'red' has shape \(3, 8\): expected a mask of d = 64 numbers"):
        plan(64, 0.9, 0.8, ALPHA, resolve([Subspace(np.ones((3, 8), dtype=bool), name="red")]), shipped)


def test_a_mask_of_ones_own_is_forecast_as_one_of_its_size(shipped: Table) -> None:
    mask = np.zeros((4, 4, 4), dtype=bool)
    mask.ravel()[np.random.default_rng(2).permutation(64)[:24]] = True
    made = [plan(64, 0.9, 0.8, ALPHA, (L2, own), shipped, 20_000) for own in (masked(64, 24), Subspace(mask, name="spots"))]
    (first, second) = ([row for row in one.rows if row.threat != "l2"] for one in made)
    assert [row.threat for row in second] == ["spots", "spots"]
    assert [(row.samples, row.limit, row.gain) for row in first] == [(row.samples, row.limit, row.gain) for row in second]


def test_the_command_answers_within_seconds_at_the_size_of_imagenet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    arguments = ["plan", "--d", "150528", "--q", "0.99", "--rho", "0.8", "--n", "4000000", "--coordinates", "50176"]
    start = time.process_time()
    result = CliRunner().invoke(app, arguments)
    assert time.process_time() - start < 10.0
    assert result.exit_code == 0, result.output
    for text in ("l1", "linf", "mask", "adaptive", "paper", "never", "4,000,000", "expected to abstain below n = 11"):
        assert text in result.output
    # Nothing is cut, and a terminal of 80 columns need not wrap.
    assert "…" not in result.output
    assert max(map(len, result.output.splitlines())) <= 80


def test_the_command_takes_threats_as_the_others_do(tmp_path: Path) -> None:
    np.save(tmp_path / "red.npy", np.arange(12).reshape(3, 2, 2) < 4)
    arguments = ["plan", "--d", "12", "--q", "0.9", "--rho", "0.8", "--threat", "linf", "--threat", f"red=mask:{tmp_path}/red.npy"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert {line.split()[0] for line in result.output.splitlines() if " adaptive " in line} == {"linf", "red", "l2"}
    assert isinstance(CliRunner().invoke(app, [*arguments, "--threat", "sparse:2"]).exception, ValueError)
