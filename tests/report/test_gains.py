import math
from dataclasses import replace
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pytest
from scipy.special import betaincinv

from certlut import Table
from certlut.evaluate import evaluate
from certlut.gains import average, gain, pair
from certlut.lookup.tails import load_tails
from certlut.report.gains import METHODS, certified, counted
from certlut.runs.certify import result_rows
from certlut.runs.results import read_tsv, write_tsv
from certlut.statistics.file import Sampled
from certlut.statistics.summary import Moments, Statistics, summarise
from certlut.statistics.votes import Tail
from certlut.threats.declare import Sparse, Subspace
from certlut.threats.families import Family
from certlut.threats.sets import L1, L2, LINF

D, N, ALPHA, SIGMA = 4, 100_000, 0.001, 0.5
THREATS = (L1, L2, LINF)
RED = Subspace(np.array([True, True, False, False]), math.inf, "red")


def sampled(votes: list[int]) -> Statistics:
    """Inputs with so many votes of N and no gradient to speak of."""
    rng = np.random.default_rng(130)
    moments = []
    for count in votes:
        half = np.array([count // 2, count - count // 2])
        sums = rng.standard_normal((2, 2, D)) * math.sqrt(N / 4)
        moments.append(Moments(np.array([N // 2, N // 2]), half, sums[0], sums[0] + sums[1]))
    return summarise(moments, THREATS, SIGMA)


@pytest.fixture(scope="module")
def between(shipped: Table) -> int:
    """Votes that Cohen certifies with all of alpha, and ours, with nine tenths of it for q, do not."""
    votes = range(N // 2, N // 2 + 600)
    result = evaluate(sampled([*votes]), THREATS, ALPHA, "adaptive", shipped)
    only_his = (result.radius["cohen"] > 0.0) & (result.q_lower <= 0.5)
    assert 0 < only_his.sum() < 20
    return votes[int(np.flatnonzero(only_his)[0])]


def test_cohen_keeps_the_inputs_where_ours_abstains_and_he_does_not(shipped: Table, between: int) -> None:
    # Right; right where only Cohen certifies; there but wrong; wrong; nobody certifies.
    statistics = sampled([90_000, between, between, 90_000, 40_000])
    right = np.array([True, True, False, False, True])
    for estimator in ("adaptive", "paper"):
        radii = counted(evaluate(statistics, THREATS, ALPHA, estimator, shipped).radius, right)
        for threat in THREATS:
            ours, cohen = pair(radii, threat, D)
            assert (ours > 0.0).tolist() == [True, False, False, False, False]
            assert (cohen > 0.0).tolist() == [True, True, False, False, False]
        # By an independent way: his bound at the full alpha, averaged over all five inputs.
        z = [NormalDist().inv_cdf(float(betaincinv(k, N - k + 1, ALPHA))) for k in (90_000, between)]
        assert average(pair(radii, L2, D)[1]) == pytest.approx(SIGMA * sum(z) / 5, rel=1e-6)


def test_the_results_file_says_nothing_of_cohen_where_ours_abstains_and_the_averages_need_more(
    shipped: Table, between: int, tmp_path: Path
) -> None:
    statistics = sampled([90_000, between])
    kept = Sampled(statistics, np.arange(2), np.array([3, 7]), np.array([3, 7]), np.zeros(2), {})
    result = evaluate(statistics, THREATS, ALPHA, "adaptive", shipped)
    write_tsv(tmp_path / "results.tsv", result_rows(kept, result))
    columns = read_tsv(tmp_path / "results.tsv")
    assert columns["predict"].tolist() == [3, -1]
    assert columns["radius_cohen"][1] == 0.0
    radii = counted(result.radius, kept.predict == kept.label)
    assert radii["cohen"][1] > 0.0
    from_file = gain(average(columns["radius_l1"]), average(columns["radius_cohen"]))
    assert gain(average(radii["l1"]), average(radii["cohen"])) < from_file - 0.001


@pytest.mark.parametrize(
    ("threat", "factor"), [(L1, 1.0), (L2, 1.0), (LINF, 2.0), (RED, math.sqrt(2.0))], ids=["l1", "l2", "linf", "subspace"]
)
def test_cohens_ball_holds_so_much_of_the_threat_and_a_wrong_input_nothing(threat: Subspace, factor: float) -> None:
    radii = {"cohen": np.array([0.8, 0.4, 9.0]), threat.name: np.array([0.9, 0.5, 9.0])}
    radii = counted(radii, np.array([True, True, False]))
    ours, cohen = pair(radii, threat, D)
    assert ours.tolist() == [0.9, 0.5, 0.0]
    assert cohen == pytest.approx([0.8 / factor, 0.4 / factor, 0.0])


def test_average_and_gain_by_hand() -> None:
    assert average(np.array([0.9, 0.45, 0.0])) == pytest.approx(0.45)
    assert gain([0.45, 0.5, 0.3, 0.0], [0.3, 1.0, 0.0, 0.0]) == pytest.approx([50.0, -50.0, math.nan, math.nan], nan_ok=True)
    assert math.isnan(gain(0.5, 0.0))


def test_methods_use_the_same_statistics_and_the_paper_leaves_out_what_it_has_no_bound_for(shipped: Table) -> None:
    rng = np.random.default_rng(131)
    threats = (*THREATS, Sparse(1), Sparse(3))
    sums = rng.standard_normal((2, 2, D)) * math.sqrt(N / 4)
    moments = Moments(np.array([N // 2, N // 2]), np.array([48_000, 48_000]), sums[0], sums[0] + sums[1])
    # Of 4,000 votes against, 30 lie beyond 1.5 along the worst axis.
    tail = Tail(key=Family().key, thresholds=np.array([1.5]), largest=np.array([[30]]))
    statistics = summarise([replace(moments, tails={"all": tail})], threats, SIGMA)
    made = dict(certified(statistics, threats, ALPHA, tuple(METHODS), shipped))
    assert list(made) == ["paper", "first order", "tails"]
    assert set(made["paper"]) == {"l1", "l2", "linf", "sparse1", "cohen"}
    assert set(made["first order"]) == set(made["tails"]) == {*made["paper"], "sparse3"}
    expected = evaluate(statistics, threats, ALPHA, "adaptive", shipped, load_tails()).radius
    for threat in ("l1", "sparse1", "sparse3"):
        assert made["tails"][threat] == expected[threat]
        assert made["tails"][threat][0] > 1.05 * made["first order"][threat][0]
    assert made["first order"]["l1"] == evaluate(statistics, threats, ALPHA, "adaptive", shipped).radius["l1"]
