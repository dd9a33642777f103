"""An upper bound of the votes against at a node of the tail table, for a profile of tail bounds (kernels/greedy.py).

Let B(r, theta) be the most that votes against can weigh at a shift of length r at an angle theta from e. Weak duality: for ANY
levels Lam_0 <= ... <= Lam_K of the segments between the thresholds,

    B(r, theta) <= sum over k of Lam_k (P_k - P_{k+1}) + E[(L - Lam_k)_+; segment k].

The table has the expectations, bounded from above, at the levels of one increasing list for each r; the profile enters as it is.
The best nondecreasing choice from the list is isotonic regression of convex terms: each segment's own best place in the list, found
by counting, then pooling what is out of order. Segments that no informative threshold divides are one to begin with.

Rounding. The expectations are bounds; the sum is raised by more than its rounding. Which levels are chosen does not matter for it.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..kernels.arrays import Array
from ..kernels.jit import jit

Single = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]

UP = 1.0 + 1e-14
HAIR = np.float32(1.0 + 4e-7)


class Nodes(NamedTuple):
    """A table as the kernels take it: J radii, I angles, K thresholds, G levels."""

    radii: Array
    """Increasing, shape (J,)."""
    chi: Array
    """Shape (I,), nondecreasing."""
    cap: Array
    """cap[i] belongs to the sector from angle i - 1 to angle i, shape (I,)."""
    ceiling: Array
    """Q(tau_k), rounded up, shape (K,)."""
    levels: Array
    """Increasing in each row, shape (J * G,)."""
    steps: Single
    """Differences between the levels, for choosing only, shape (J * G,); the last of a row is infinite."""
    excess: Single
    """Upper bounds of E[(L - Lam)_+; segment], shape (I * J * (K + 1) * G,)."""


class Scratch(NamedTuple):
    """What one thread works in."""

    profile: Array
    first: Indices
    mass: Array
    place: Indices
    pool_first: Indices
    pool_place: Indices
    pool_mass: Array
    falls: Single


def scratch(size: int, levels: int) -> Scratch:
    """Room for K = size thresholds."""

    def real() -> Array:
        return np.zeros(size + 2)

    def whole() -> Indices:
        return np.zeros(size + 2, np.int64)

    return Scratch(real(), whole(), real(), whole(), whole(), whole(), real(), np.zeros(levels, np.float32))


@jit
def group(eps: float, p: Array, ceiling: Array, work: Scratch) -> int:
    """Join the segments that no informative threshold divides; returns how many groups carry mass.

    Group q is segments first[q] to first[q + 1] - 1, its P_first - P_next in mass[q].
    """
    size = p.size
    profile, first, mass = work.profile, work.first, work.mass
    profile[0] = eps
    first[0] = 0
    count, last = 0, eps
    for k in range(1, size + 1):
        profile[k] = min(profile[k - 1], p[k - 1], ceiling[k - 1])
        if profile[k] < profile[k - 1] and profile[k] < ceiling[k - 1]:
            mass[count] = last - profile[k]
            last = profile[k]
            count += 1
            first[count] = k
    if last > 0.0:
        mass[count] = last
        count += 1
        first[count] = size + 1
    return count


@jit
def node_votes(nodes: Nodes, work: Scratch, count: int, i: int, j: int) -> float:
    """An upper bound of B at radius j and angle i, for the groups in `work`: the dual's value at the levels chosen, rounded up.

    One function, and the two counting loops stand twice: LLVM vectorises them so, and this is where the look-up's time goes.
    """
    first, place, falls = work.first, work.place, work.falls
    head, best, mass = work.pool_first, work.pool_place, work.pool_mass
    width = nodes.levels.size // nodes.radii.size
    size = (nodes.ceiling.size + 1) * width
    node = nodes.excess[(i * nodes.radii.size + j) * size : (i * nodes.radii.size + j + 1) * size]
    steps = nodes.steps[j * width : (j + 1) * width]
    levels = nodes.levels[j * width : (j + 1) * width]
    for q in range(count):
        # The best level of a group alone: the number of steps up that lower its term (its differences fall). Between the lowest
        # levels they drown in single precision: a hair is added, so that no step there looks wrong.
        own = np.float32(work.mass[q])
        lower = np.int32(0)
        row = node[first[q] * width : (first[q] + 1) * width]
        if first[q + 1] - first[q] == 1:
            for g in range(width - 1):
                lower += np.int32(row[g] * HAIR - row[g + 1] > own * steps[g])
        else:
            for g in range(width - 1):
                falls[g] = row[g] * HAIR - row[g + 1]
            for k in range(first[q] + 1, first[q + 1]):
                row = node[k * width : (k + 1) * width]
                for g in range(width - 1):
                    falls[g] += row[g] * HAIR - row[g + 1]
            for g in range(width - 1):
                lower += np.int32(falls[g] > own * steps[g])
        place[q] = lower
    pools = 0
    for q in range(count):
        start, total, g = q, work.mass[q], place[q]
        while pools > 0 and best[pools - 1] > g:
            # Out of order: the best level of the two together lies between theirs, and is looked for from above.
            pools -= 1
            start, total, least, g = head[pools], total + mass[pools], g, best[pools]
            while g > least:
                fall = np.float32(0.0)
                for at in range(first[start] * width + g, first[q + 1] * width + g, width):
                    fall += node[np.uint64(at) - np.uint64(1)] - node[np.uint64(at)]
                if fall > np.float32(total) * steps[np.uint64(g - 1)]:
                    break
                g -= 1
        head[pools], mass[pools], best[pools] = start, total, g
        pools += 1
    head[pools] = count
    votes = 0.0
    for pool in range(pools):
        g = best[pool]
        votes += levels[np.uint64(g)] * mass[pool]
        for at in range(first[head[pool]] * width + g, first[head[pool + 1]] * width + g, width):
            votes += np.float64(node[np.uint64(at)])
    return votes * UP
