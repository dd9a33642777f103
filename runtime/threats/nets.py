"""Nets: few directions of a small subspace such that every vector of it is within a proven angle of one of them.

Rank 1: both ways, angle 0. Rank 2: n equal steps of the circle, angle pi/n. Rank 3: the icosahedron's faces cut into f^2 triangles
each and pushed out to the sphere, 10 f^2 + 2 directions.

Why the angle holds for rank 3: the triangles' cones tile space. Let v, |v| = 1, lie in the cone of p1, p2, p3, whose unit normal n
has n.p_i = h > 0. Then v = sum c_i p_i with c_i >= 0, and n.v = h sum c_i <= 1; so the largest v.p_i is at least
sum c_i v.p_i / sum c_i = 1 / sum c_i >= h. The angle is arccos of the least h.
"""

import itertools
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..kernels.arrays import Array

# Radians by which an angle is rounded up.
ROUNDING = 1e-9
# A net finer than this many directions costs more to count than it gives.
MOST = 4000


@dataclass(frozen=True, eq=False)
class Net:
    """Unit vectors, shape (n, rank), and the angle (radians, rounded up) within which they cover."""

    directions: Array
    gap: float

    def embed(self, basis: npt.ArrayLike) -> Array:
        """The directions in the span of `basis`, orthonormal vectors of shape (rank, ...): shape (n, ...)."""
        vectors = np.asarray(basis, dtype=np.float64)
        if len(vectors) != self.directions.shape[1]:
            raise ValueError(f"basis of {len(vectors)} vectors: expected {self.directions.shape[1]}, the net's rank")
        return np.tensordot(self.directions, vectors, axes=1)


def _icosahedron() -> tuple[Array, list[tuple[int, int, int]]]:
    """Its 12 corners, shape (12, 3), on the unit sphere, and its 20 faces."""
    golden = (1.0 + math.sqrt(5.0)) / 2.0
    corners = [np.roll([0.0, one, other * golden], turn) for turn in range(3) for one in (-1.0, 1.0) for other in (-1.0, 1.0)]
    points = np.array(corners) / math.hypot(1.0, golden)
    # Corners of an edge are the nearest ones.
    near = points @ points.T > 0.4
    faces = [face for face in itertools.combinations(range(12), 3) if all(near[pair] for pair in itertools.combinations(face, 2))]
    return points, faces


def _sphere(cuts: int) -> Net:
    corners, faces = _icosahedron()
    points: dict[tuple[int, ...], Array] = {}
    least = 1.0
    for face in faces:
        grid = {}
        for i in range(cuts + 1):
            for j in range(cuts + 1 - i):
                point = (corners[list(face)] * np.array([[i], [j], [cuts - i - j]])).sum(axis=0)
                point /= np.linalg.norm(point)
                # Faces share their edges' points.
                grid[i, j] = points.setdefault(tuple(np.rint(point * 1e8).astype(int)), point)
        for i, j in grid:
            for triangle in (((i, j), (i + 1, j), (i, j + 1)), ((i + 1, j), (i, j + 1), (i + 1, j + 1))):
                if all(corner in grid for corner in triangle):
                    first, second, third = (grid[corner] for corner in triangle)
                    normal = np.cross(second - first, third - first)
                    least = min(least, abs(float(normal @ first)) / float(np.linalg.norm(normal)))
    return Net(np.array(list(points.values())), math.acos(least) + ROUNDING)


def net(rank: int, gap: float = math.radians(10.0)) -> Net:
    """The smallest of these nets that covers within `gap` radians (up to ROUNDING).

    Raises:
        ValueError: a rank other than 1, 2 or 3; a gap outside (0, pi/2), or one that needs more than MOST directions.
    """
    if rank not in (1, 2, 3):
        raise ValueError(f"rank = {rank}: expected 1, 2 or 3; a net of more dimensions needs too many directions")
    if not 0.0 < gap < 0.5 * math.pi:
        raise ValueError(f"gap = {gap!r}: expected an angle above 0 and below pi/2, in radians")
    if rank == 1:
        return Net(np.array([[1.0], [-1.0]]), 0.0)
    if rank == 2:
        count = max(3, math.ceil(math.pi / gap * (1.0 - 1e-12)))
        if count > MOST:
            raise ValueError(f"gap = {gap!r}: needs {count} directions, expected at most {MOST}")
        turns = 2.0 * math.pi * np.arange(count) / count
        return Net(np.stack([np.cos(turns), np.sin(turns)], axis=1), math.pi / count + ROUNDING)
    cuts = 1
    while 10 * cuts * cuts + 2 <= MOST:
        found = _sphere(cuts)
        if found.gap <= gap:
            return found
        cuts += 1
    raise ValueError(f"gap = {gap!r}: needs more than {MOST} directions of the sphere")
