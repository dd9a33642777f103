"""certlut.lookup.outline: chords lie above a ball's boundary at every angle, hardly; what reaches beyond the last ray is kept."""

import math

import numpy as np
import pytest

from certlut.kernels.covering import Covering, reach
from certlut.lookup.outline import outline, stacked

ANGLES = np.radians([0.0, 1.75, 5.0, 9.0, 14.0, 20.0, 27.0, 35.0, 45.5, 55.0, 64.0, 75.0])
FAMILIES = [
    Covering.lp(1, 2),
    Covering.lp(1, 9),
    Covering.lp(1, 1000),
    Covering.lp(1.5, 3000),
    Covering.lp(1.9, 5),
    Covering.lp(2, 3),
    Covering.lp(2.7, 6),
    Covering.lp(math.inf, 8),
    Covering.sparse(2),
    Covering.sparse(5),
    Covering.net(0.09),
    Covering.net(0.3),
]


def chord(piece: np.ndarray, low: float, high: float, angle: float) -> float:
    """How far the line through a piece's two ends is at an angle."""
    rays = np.array([[math.cos(low), math.sin(low)], [math.cos(high), math.sin(high)]])
    ends = piece[1:].reshape(2, 2) @ rays
    normal = np.array([ends[1, 1] - ends[0, 1], ends[0, 0] - ends[1, 0]])
    along = normal @ np.array([math.cos(angle), math.sin(angle)])
    return float(normal @ ends[0] / along) if abs(along) > 1e-300 else math.inf


@pytest.mark.parametrize("covering", FAMILIES, ids=str)
def test_every_shift_of_the_boundary_lies_below_the_chords(covering: Covering) -> None:
    pieces, starts = outline(covering, ANGLES)
    assert starts[0] == starts[1] == 0
    assert starts[-1] == len(pieces)
    lost = []
    for sector in range(1, ANGLES.size):
        low, high = ANGLES[sector - 1], ANGLES[sector]
        rows = pieces[starts[sector] : starts[sector + 1]]
        assert (len(rows) > 0) == (low < covering.last)
        if not len(rows):
            continue
        assert (rows[:, 1:] >= -1e-15).all()
        # The pieces' own angles, from their ends.
        x, y = rows[:, 1::2], rows[:, 2::2]
        ends = np.arctan2(y * math.sin(high) + x * math.sin(low), y * math.cos(high) + x * math.cos(low))
        assert ends[0, 0] == pytest.approx(low, abs=1e-9)
        assert ends[-1, 1] == pytest.approx(min(high, covering.last), abs=1e-9)
        assert ends[1:, 0] == pytest.approx(ends[:-1, 1], abs=1e-9)
        for row, (start, stop) in zip(rows, ends, strict=True):
            for angle in np.linspace(start, stop, 40)[1:-1].tolist():
                length = reach(angle, covering.p, covering.w)
                assert length <= chord(row, low, high, angle)
                assert length <= row[0]
                lost.append(chord(row, low, high, angle) / length - 1.0)
            # The furthest is one of the piece, or nearly.
            assert row[0] <= 1.02 * max(reach(x, covering.p, covering.w) for x in np.linspace(start, stop, 40).tolist())
    # Loose only below the corners' chords.
    assert np.median(lost) <= 2e-3
    assert max(lost) <= 0.15


@pytest.mark.parametrize("covering", FAMILIES, ids=str)
def test_what_lies_beyond_the_last_ray_is_one_piece(covering: Covering) -> None:
    pieces, starts = outline(covering, ANGLES)
    beyond = pieces[starts[-2] : starts[-1]]
    if covering.last <= ANGLES[-1]:
        assert not len(beyond)
        return
    assert len(beyond) == 1
    angles = np.linspace(ANGLES[-1], covering.last, 3000)
    longest = max(reach(x, covering.p, covering.w) for x in angles.tolist())
    assert longest * (1.0 - 1e-12) <= beyond[0, 0] <= longest * 1.01


def test_an_l1_ball_s_edge_is_a_chord_itself() -> None:
    covering = Covering.lp(1, 1000)
    pieces, starts = outline(covering, ANGLES)
    for sector in range(1, 8):
        low, high = ANGLES[sector - 1], ANGLES[sector]
        for row in pieces[starts[sector] : starts[sector + 1]]:
            ends = row[1:].reshape(2, 2) @ np.array([[math.cos(low), math.sin(low)], [math.cos(high), math.sin(high)]])
            # a + b = 1, but for the comparison part by part.
            assert ends.sum(axis=1) == pytest.approx(np.ones(2), abs=5e-4)
            assert (ends.sum(axis=1) >= 1.0).all()


def test_outlines_are_stacked_with_their_own_starts() -> None:
    parts = [outline(covering, ANGLES) for covering in FAMILIES[:3]]
    pieces, starts = stacked(parts)
    assert starts.shape == (3, ANGLES.size + 2)
    for (own, own_starts), row in zip(parts, starts, strict=True):
        for i in range(ANGLES.size + 1):
            assert np.array_equal(pieces[row[i] : row[i + 1]], own[own_starts[i] : own_starts[i + 1]], equal_nan=True)
