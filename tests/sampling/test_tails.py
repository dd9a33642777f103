"""Counts beyond thresholds, against the same in plain NumPy; on the CPU and by the route of other devices."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from scipy.stats import norm

from certlut.bounds.tails import tail_bounds
from certlut.sampling.cells import Law, law
from certlut.sampling.grid import draw
from certlut.sampling.streams import Stream
from certlut.sampling.tails import CLEARANCE, SLACK, GridTails, TailTally
from certlut.threats.families import Family

THRESHOLDS = np.array([0.5, 1.0, 1.7, 2.5, 3.1])
CPU = torch.device("cpu")


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def families(d: int, rng: np.random.Generator) -> dict[str, Family]:
    mask = np.zeros(d, dtype=bool)
    mask[rng.permutation(d)[:2]] = True
    return {"all": Family(), "mask": Family(mask=mask), "net": Family(vectors=unit(rng.normal(size=(4, d))))}


def naive(u: np.ndarray, family: Family) -> np.ndarray:
    """Largest count over the directions, written out."""
    d = u.shape[1]
    axes = np.concatenate([np.eye(d), -np.eye(d)])
    if family.mask is not None:
        axes = axes[np.tile(family.mask, 2)]
    along = u @ (axes if family.vectors is None else family.vectors).T
    return np.array([(along >= tau).sum(axis=0).max() for tau in THRESHOLDS])


@pytest.mark.parametrize("d", [2, 5, 64])
def test_the_largest_counts_are_those_of_plain_numpy_however_rows_are_cut(d: int) -> None:
    rng = np.random.default_rng(d)
    u, kinds = rng.normal(size=(500, d)), families(d, rng)
    tally = TailTally(kinds, d, THRESHOLDS, CPU)
    for part in np.split(u, [0, 1, 130, 499]):
        tally.add(torch.from_numpy(part))
    for name, counts in tally.largest().items():
        np.testing.assert_array_equal(counts, naive(u, kinds[name]))
        assert counts.dtype == np.int64


def test_a_number_on_a_threshold_counts_and_signs_are_apart() -> None:
    tally = TailTally({"all": Family()}, 2, THRESHOLDS, CPU)
    tally.add(torch.tensor([[1.0, 0.0], [1.7, -0.0], [-1.7, 0.3], [np.nextafter(2.5, 0), 0.5]], dtype=torch.float64))
    assert tally.largest()["all"].tolist() == [3, 3, 2, 0, 0]


def test_other_devices_count_the_same() -> None:
    rng = np.random.default_rng(3)
    u = torch.from_numpy(rng.normal(size=(300, 7)))
    u[0, 0], u[1, 1] = 1.0, -3.1
    one, other = (TailTally({"all": Family()}, 7, THRESHOLDS, CPU) for _ in range(2))
    one.add(u)
    other._add_on_device(u)
    np.testing.assert_array_equal(one.largest()["all"], other.largest()["all"])


def test_no_votes_against_leave_zeros() -> None:
    kinds = families(3, np.random.default_rng(0))
    tally = TailTally(kinds, 3, THRESHOLDS, CPU)
    tally.add(torch.empty((0, 3), dtype=torch.float64))
    assert all(counts.tolist() == [0] * 5 for counts in tally.largest().values())


def test_families_are_told_apart() -> None:
    mask = np.array([True, False, True])
    keys = [Family(), Family(mask=mask), Family(mask=~mask), Family(vectors=np.eye(3)), Family(vectors=-np.eye(3))]
    assert len({family.key for family in keys}) == len(keys)
    assert Family(mask=mask).key == Family(mask=mask.copy()).key


# Grid noise


def _drawn(grid: Law, n: int, d: int) -> np.ndarray:
    codes = np.empty((n, d), dtype=np.int16)
    draw(grid, Stream(3, d, 1), 0, codes)
    return codes


@pytest.mark.parametrize("ratio", [Fraction(1), Fraction(4), Fraction(255, 4)])
@pytest.mark.parametrize("d", [2, 64])
def test_counts_of_codes_are_those_of_their_ranks_and_means(ratio: Fraction, d: int) -> None:
    grid, rng = law(ratio, tuple(THRESHOLDS)), np.random.default_rng(d)
    codes, kinds = _drawn(grid, 500, d), families(d, rng)
    place = codes.astype(np.int64) - grid.low
    m, rank = grid.mean[place], grid.rank[place]
    # E[u | k], and the lower edge of a part, are never on the wrong side of a threshold that the part lies beyond.
    one, other = (GridTails(kinds, d, grid, CPU) for _ in range(2))
    for part in np.split(codes, [0, 1, 130, 499]):
        one.add(torch.from_numpy(part))
        other._add_on_device(torch.from_numpy(part))
    beyond = np.stack([[(sign * rank > k).sum(axis=0) for k in range(5)] for sign in (1, -1)])
    expected = {
        "all": beyond.max(axis=(0, 2)),
        "mask": beyond[:, :, kinds["mask"].mask].max(axis=(0, 2)),
        "net": np.array([(m @ kinds["net"].vectors.T >= tau - CLEARANCE / float(ratio)).sum(axis=0).max() for tau in THRESHOLDS]),
    }
    for name, counts in one.largest().items():
        np.testing.assert_array_equal(counts, expected[name], err_msg=name)
    # By the route of other devices.
    np.testing.assert_array_equal(TailTally._beyond(other), one._beyond())


def test_the_clearance_leaves_no_more_than_the_slack() -> None:
    assert math.exp(-6.0 * CLEARANCE**2) <= SLACK
    assert (GridTails.slack, TailTally.slack) == (SLACK, 0.0)


@pytest.mark.parametrize("ratio", [1.0, 1.7, 4.0])
@pytest.mark.parametrize("kind", ["even", "steep", "two"])
def test_noise_along_a_vector_is_seldom_farther_from_its_mean_given_the_cells(ratio: float, kind: str) -> None:
    """By convolving the laws of v_i (u_i - m_i) in their cells; with a share of the clearance the bound is near what is met."""
    v = {"even": np.full(16, 0.25), "steep": 0.7 ** np.arange(12), "two": np.ones(2)}[kind]
    v = v / np.linalg.norm(v)
    step = 1e-3 / ratio
    rng, scale = np.random.default_rng(1), 0.0
    for _ in range(5):
        total, centre = np.ones(1), 0.0
        for weight in v:
            k = round(ratio * rng.standard_normal())
            lo, hi = (k - 0.5) / ratio, (k + 0.5) / ratio
            mass = norm.cdf(hi) - norm.cdf(lo)
            mean = (norm.pdf(lo) - norm.pdf(hi)) / mass
            # The upper ends of small cells: at least what it is.
            cells = max(1, int(np.ceil(weight / ratio / step)))
            ends = lo + (hi - lo) * np.arange(cells + 1) / cells
            total = np.convolve(total, np.diff(norm.cdf(ends)) / mass)
            centre += weight * mean - weight * lo
        grid = (np.arange(len(total)) + len(v)) * step - centre
        for share in (0.3, 0.5, 0.7):
            distance = share * CLEARANCE / ratio
            beyond = float(total[grid >= distance + len(v) * step].sum())
            assert beyond <= math.exp(-6.0 * (distance * ratio) ** 2)
            scale = max(scale, beyond / math.exp(-6.0 * (distance * ratio) ** 2))
    # Nor is it far from the truth where many terms add up.
    assert kind == "two" or scale > 0.05


def test_the_slack_is_added_to_the_bounds_of_nets_and_rays_alone() -> None:
    largest, n, eps = np.array([[40, 3, 0]]), np.array([1000]), np.array([0.1])
    taus = np.array([1.0, 2.0, 3.0])
    plain, wide = (tail_bounds(largest, n, eps, taus, 1e-3, slack) for slack in (0.0, 1e-4))
    assert (wide >= plain).all()
    assert wide[0, 0] == pytest.approx(plain[0, 0] + 1e-5, rel=1e-9)
