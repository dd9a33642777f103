"""certlut.threats.nets: every vector is within the stated angle of a direction, and some vector is that far."""

import math

import numpy as np
import pytest

from certlut.threats.nets import net


def farthest(directions: np.ndarray, vectors: np.ndarray) -> float:
    """The largest angle between a vector and its nearest direction."""
    return float(np.arccos(np.clip((vectors @ directions.T).max(axis=1), -1.0, 1.0)).max())


def unit(rng: np.random.Generator, n: int, rank: int) -> np.ndarray:
    x = rng.standard_normal((n, rank))
    return x / np.linalg.norm(x, axis=1)[:, None]


@pytest.mark.parametrize(("rank", "degrees"), [(2, 44.0), (2, 10.0), (2, 1.0), (3, 40.0), (3, 20.0), (3, 10.0), (3, 6.0)])
def test_the_angle_covers_and_is_not_loose(rank: int, degrees: float) -> None:
    found = net(rank, math.radians(degrees))
    assert np.linalg.norm(found.directions, axis=1) == pytest.approx(np.ones(len(found.directions)), abs=1e-14)
    assert found.gap <= math.radians(degrees) * (1.0 + 1e-7)
    seen = farthest(found.directions, unit(np.random.default_rng(61), 200_000, rank))
    assert seen <= found.gap
    assert seen >= 0.97 * found.gap


def test_sizes() -> None:
    assert len(net(1, 0.3).directions) == 2
    assert net(1, 0.3).gap == 0.0
    assert len(net(2, math.radians(10.0)).directions) == 18
    assert [len(net(3, math.radians(x)).directions) for x in (38.0, 21.0, 10.0)] == [12, 42, 252]


def test_no_direction_stands_twice() -> None:
    directions = net(3, math.radians(8.0)).directions
    gram = directions @ directions.T - 2.0 * np.eye(len(directions))
    assert gram.max() < 0.9999


def test_directions_go_into_the_span_of_a_basis() -> None:
    basis = np.linalg.qr(np.random.default_rng(62).standard_normal((12, 3)))[0].T.reshape(3, 3, 4)
    found = net(3, math.radians(15.0))
    vectors = found.embed(basis)
    assert vectors.shape == (len(found.directions), 3, 4)
    flat = vectors.reshape(len(vectors), -1)
    assert np.linalg.norm(flat, axis=1) == pytest.approx(np.ones(len(flat)))
    assert flat @ basis.reshape(3, -1).T == pytest.approx(found.directions)
    with pytest.raises(ValueError, match="basis of 2 vectors"):
        found.embed(basis[:2])


@pytest.mark.parametrize(
    ("rank", "gap", "message"),
    [(0, 0.1, "rank = 0"), (4, 0.1, "rank = 4"), (2, 0.0, "gap"), (2, math.nan, "gap"), (3, 1.6, "gap"), (3, 1e-3, "4000")],
)
def test_nets_that_do_not_exist_are_refused(rank: int, gap: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        net(rank, gap)
