"""The look-up of tail radii: a frontier from angle to angle, threats held against it.

Let B(a, b) be the most that votes against can weigh at a shift a e + b e' (votes.py), (r, theta) the polar coordinates of (a, b).

Between nodes. For any fixed h the map x -> E h(u + x) bends down by at most 2 phi(1) in every direction. So, along a line, with
s0 = 1/2 - c |x|^2 - B at one point and s1 at another, h apart, B <= 1/2 - c |x|^2 holds between them if
sqrt(phi(1)) h <= sqrt(s0) + sqrt(s1). Along a ray this carries a bound from node to node, and gives the crossing in the first cell
where it does not. It starts from B <= Phi(r - z), z = Phi^-1(1 - eps).

Between rays. Let the bound above hold with c = phi(1) chi_i^2 up to rho_i on ray i, and likewise on ray i - 1. A segment from a
point at r' on ray i - 1 to one at r on ray i is then certified (B <= 1/2) if its length is at most chi_i r + chi_{i-1} r'. With
r' = s r that is a quadratic in s, true for 1 <= s <= cap_i. So with s = min(rho_{i-1}, cap_i rho_i)/rho_i every segment from
t s rho_i to t rho_i, 0 < t <= 1, is certified: all of the sector below the last one.

Turning lemma. B does not fall as theta grows: what is certified on ray i is on all lower rays, if chi does not fall with theta.
A lower ray starts where the one above it ended, and a sector whose balls all end below rho_i needs no further ray.

Threats. What must be certified is star-shaped, for B rises with b: R is certified where R times the unit ball's boundary lies below
the polyline through the rho_i (outline.py). A piece of it may instead lie inside a disc that another certificate covers.

Rounding. Sums, roots and radii are lowered by far more than their rounding.
"""

import math

import numpy as np
import numpy.typing as npt

from ..kernels.arrays import Array
from ..kernels.greedy import BEND, ROOT_BEND
from ..kernels.jit import jit
from ..kernels.normal import upper, upper_quantile
from .votes import Nodes, Scratch, group, node_votes

Indices = npt.NDArray[np.int64]

DOWN = 1.0 - 1e-12
SLACK = 1e-14
# `probe` ends where a bad node is at most CLOSE times a good one; no ball is tried beyond AMPLE times the bad one.
CLOSE, AMPLE = 1.1, 1.05
# Nodes of the first step where only the first FEW sectors matter: their frontier is far out.
STRIDE, FEW = 4, 9
# A ball that is much shorter at its largest angle than along e is held by its small angles: there a probe saves more than it costs.
NARROW = 0.8


@jit
def climb(nodes: Nodes, work: Scratch, count: int, i: int, j: int, spare: float, stride: int) -> tuple[int, float, float]:
    """(last node certified on ray i, what it has to spare, rho_i), from node j with `spare` there; j = -1 is the origin.

    The first step is over `stride` nodes, halved where it fails.
    """
    radii = nodes.radii
    inset = BEND * nodes.chi[i] * nodes.chi[i]
    fresh = j < 0
    while j + 1 < radii.size:
        k = min(j + stride, radii.size - 1)
        here = radii[j] if j >= 0 else 0.0
        step = radii[k] - here
        other = 0.5 - SLACK - inset * radii[k] * radii[k] - node_votes(nodes, work, count, i, k)
        good = other >= 0.0 and ROOT_BEND * step <= math.sqrt(spare) + math.sqrt(other)
        if not good and k > j + 1:
            stride = max(1, stride // 2)
            continue
        if not good and not fresh:
            spare = max(spare, 0.5 - SLACK - inset * here * here - node_votes(nodes, work, count, i, j))
            good = other >= 0.0 and ROOT_BEND * step <= math.sqrt(spare) + math.sqrt(other)
        if not good:
            # The first root of (1 - t) spare + t other - phi(1) step^2 t (1 - t).
            bend = BEND * step * step
            middle = bend + spare - other
            t = 2.0 * spare / (middle + math.sqrt(max(middle * middle - 4.0 * bend * spare, 0.0)))
            return j, spare, (here + t * step) * DOWN
        j, spare, fresh = k, other, True
    return j, spare, radii[j]


@jit
def base(nodes: Nodes, eps: float, z: float, i: int) -> tuple[int, float]:
    """(node, what it has to spare) up to which B <= Phi(r - z) alone certifies ray i, and every lower one; -1 is the origin."""
    inset = BEND * nodes.chi[i] * nodes.chi[i]
    j = -1
    while j + 1 < nodes.radii.size and nodes.radii[j + 1] < z:
        j += 1
    while j >= 0:
        r = nodes.radii[j]
        spare = 0.5 - SLACK - upper(z - r) - inset * r * r
        if spare >= 0.0:
            return j, spare
        j -= 1
    return -1, 0.5 - eps


@jit
def probe(nodes: Nodes, work: Scratch, count: int, z: float) -> float:
    """The length of a node on ray 0 that fails, so that no walk passes it: an early end for every ball; inf for none."""
    radii = nodes.radii
    inset = BEND * nodes.chi[0] * nodes.chi[0]
    good, bad = 0, radii.size
    while good + 1 < bad and (bad == radii.size or radii[bad] > CLOSE * radii[good]):
        j = (good + bad) // 2
        if bad == radii.size:
            j = good + 1
            while j + 1 < bad and radii[j] < 1.25 * max(z, radii[good]):
                j += 1
        if node_votes(nodes, work, count, 0, j) > 0.5 - inset * radii[j] * radii[j]:
            bad = j
        else:
            good = j
    return radii[bad] if bad < radii.size else math.inf


@jit
def hold(pieces: Array, low: float, high: float, below: float, disc: Array, best: Array) -> None:
    """Lower `best`, shape (M,), to what the pieces of a threat in one sector allow.

    A piece (furthest, X1, Y1, X2, Y2 in the basis of the sector's rays) is certified below the polyline from `low` on the lower ray
    to `high` on the upper one, within `below`, and within disc[m].
    """
    for row in range(pieces.shape[0]):
        furthest = pieces[row, 0]
        bent = max(pieces[row, 1] / low + pieces[row, 2] / high, pieces[row, 3] / low + pieces[row, 4] / high)
        size = max(1.0 / bent, below / furthest)
        for m in range(best.size):
            best[m] = min(best[m], max(size, disc[m] / furthest))


@jit
def walk(
    nodes: Nodes,
    work: Scratch,
    count: int,
    start: tuple[int, float],
    pieces: Array,
    starts: Indices,
    far: Array,
    disc: Array,
    best: Array,
) -> None:
    """Lower `best`, shape (T, M), sector by sector from the highest, to what the frontier and the discs certify.

    `start` is what `base` returns for the highest ray; far[t, i] is the furthest of threat t in the sector below ray i.
    """
    j, spare = start
    highest = far.shape[1] - 1
    rho, ray = 0.0, highest + 1
    stride = STRIDE if highest < FEW else 1
    for i in range(highest, 0, -1):
        open_ = False
        for t in range(best.shape[0]):
            for m in range(best.shape[1]):
                open_ = open_ or best[t, m] * far[t, i] > max(rho, disc[t, m])
        if not open_:
            continue
        if ray != i:
            j, spare, top = climb(nodes, work, count, i, j, spare, stride)
            rho = max(rho, top)
        j, spare, top = climb(nodes, work, count, i - 1, j, spare, 1)
        below, rho, ray, stride = rho, max(rho, top), i - 1, 1
        low = min(rho, nodes.cap[i] * below)
        for t in range(best.shape[0]):
            hold(pieces[starts[t, i] : starts[t, i + 1]], low, below, below, disc[t], best[t])


@jit
def tail_radii(
    nodes: Nodes, work: Scratch, eps: Array, p: Array, pieces: Array, starts: Indices, sizes: Array, covered: Array, out: Array
) -> None:
    """out[n, t]: a certified size of threat t for input n, sigma = 1.

    Args:
        eps, p: shapes (N,) and (N, K), p at the table's thresholds; every eps < 1/2.
        pieces: the threats' outlines, shape (rows, 5); those of threat t in the sector below ray i are rows starts[t, i] to
            starts[t, i + 1] - 1; i = I: beyond the last ray.
        sizes, covered: shape (N, T, M): every shift no longer than covered[n, t, m] of a ball of size at most sizes[n, t, m] needs
            no tails.
    """
    threats, last, looks = starts.shape[0], nodes.chi.size - 1, sizes.shape[2]
    highest, narrow = 0, False
    far = np.zeros((threats, last + 2))
    for t in range(threats):
        for i in range(1, last + 2):
            for row in range(starts[t, i], starts[t, i + 1]):
                far[t, i] = max(far[t, i], pieces[row, 0])
                highest = max(highest, i) if i <= last else highest
        narrow = narrow or pieces[starts[t, last + 1] - 1, 0] < NARROW
    best, disc = np.empty((threats, looks + 1)), np.empty((threats, looks + 1))
    for n in range(eps.size):
        z = upper_quantile(eps[n]) * DOWN
        count = group(eps[n], p[n], nodes.ceiling, work)
        end = AMPLE * probe(nodes, work, count, z) if narrow else math.inf
        for t in range(threats):
            for m in range(looks + 1):
                disc[t, m] = max(z, covered[n, t, m]) if m < looks else z
                # (size, 0) is in every ball; ray 1 may reach further than ray 0, whose node bounds are coarser.
                best[t, m] = min(sizes[n, t, m] if m < looks else math.inf, max(end, disc[t, m]))
                if far[t, last + 1] > 0.0:
                    best[t, m] = min(best[t, m], disc[t, m] / far[t, last + 1])
        walk(nodes, work, count, base(nodes, eps[n], z, highest), pieces, starts, far[:, : highest + 1], disc, best)
        for t in range(threats):
            out[n, t] = best[t].max() * DOWN
