"""Radii proven one by one in ball arithmetic, without a table; worker processes import this."""

import numpy as np

from certlut.kernels.arrays import Array
from certlut.kernels.slab import slab_edges
from certlut.tablegen import Status
from certlut.tablegen.dual import maximise
from certlut.tablegen.enclose import hinge_upper, working_precision
from certlut.tablegen.node import slab_multipliers, solve_node


def proves(query: Array, radius: float) -> bool:
    """Does one cut, bounded in ball arithmetic, prove p(radius) >= 1/2 at the query? Its multipliers are only proposed in floats.

    Tried a hair below `radius`: at m2 = 0 the look-up loses so little that the best cut at the radius itself is 1/2 to rounding.
    """
    from flint import arb

    q, m1, m2, z = (float(x) for x in query[:4])
    r = radius * (1.0 - 2e-9)
    a = np.empty(3)
    _, _, _, status, _ = solve_node(1.0 - q, m1, m2, z, a)
    if status == Status.SLAB:
        slab_multipliers(*slab_edges(1.0 - q, m1, z, 0.0), r, 0.0, a)
    else:
        maximise(1.0 - q, m1, m2, z, r, a, False)
    a0, a1, a2 = (float(x) for x in a)
    with working_precision(a2):
        p = 1 - hinge_upper(r, a0, a1, a2) - arb(a0) * (1 - arb(q)) + arb(a1) * arb(m1) + arb(a2) * arb(m2)
        return bool(p >= arb(1) / 2)


def unproven(queries: Array, radii: Array) -> list[tuple[float, ...]]:
    return [tuple(query) for query, radius in zip(queries, radii, strict=True) if not proves(query, radius)]
