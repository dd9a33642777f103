"""Threat models as users declare them, and by the kind that a file stores."""

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from ..kernels.arrays import Array, real, reals
from . import lines, sparse
from .lines import Ray
from .sets import ALL, L1, L2, LINF, Ball, Threat

KINDS: Mapping[str, Callable[..., Threat]] = {threat.kind: threat for threat in (Ball, Ray, lines.Line, sparse.Sparse)}


def Lp(p: float, name: str | None = None) -> Ball:
    """Perturbations with |delta|_p <= R, 1 <= p <= inf; `name`, by default l<p>, heads its column of the results.

    Raises:
        ValueError: p < 1 or NaN.

    Examples:
        >>> from certlut import Lp
        >>> Lp(3).name, Lp(1.5, name="mild").name
        ('l3', 'mild')
    """
    p = _exponent(f"Lp({p})", p)
    known = {1.0: L1, 2.0: L2, math.inf: LINF}
    if name is None and p in known:
        return known[p]
    return Ball(_free_name(name or f"l{p:g}"), p)


def Subspace(
    mask: npt.ArrayLike | None = None, p: float = 2, name: str = "subspace", *, basis: npt.ArrayLike | None = None
) -> Ball:
    """Perturbations inside a subspace, |delta|_p <= R: the coordinates where `mask` is true, or the span of `basis`.

    Args:
        mask: boolean, in the input's shape (for one colour channel: `mask[0] = True` on a (3, h, w) array).
        p: 1 <= p <= inf.
        name: column `radius_<name>` of the results.
        basis: orthonormal vectors in the input's shape, shape (m, *shape).

    Raises:
        ValueError: not exactly one of mask and basis, an empty or non-boolean mask, a basis that is not orthonormal, p < 1, a name
            that is taken.

    Examples:
        >>> import numpy as np
        >>> from certlut import Subspace
        >>> mask = np.zeros((3, 8, 8), dtype=bool)
        >>> mask[0] = True
        >>> red = Subspace(mask, p=2, name="red")
        >>> red.coordinates(d=192)
        64
        >>> span = Subspace(basis=np.eye(192)[:2].reshape(2, 3, 8, 8), name="span")
        >>> span.shape
        (3, 8, 8)
    """
    p = _exponent(f"subspace {name!r}", p)
    if (mask is None) == (basis is None):
        raise ValueError(f"subspace {name!r}: expected a mask or a basis, and not both")
    if basis is not None:
        vectors = reals(f"subspace {name!r}: basis", basis)
        flat = vectors.reshape(len(vectors), -1) if vectors.ndim > 1 and len(vectors) else np.empty((0, 0))
        if not flat.size or len(flat) > flat.shape[1] or not np.isfinite(flat).all():
            raise ValueError(
                f"subspace {name!r}: basis of shape {vectors.shape}, expected 1 to d finite vectors, (m, *input shape)"
            )
        if (error := float(np.abs(flat @ flat.T - np.eye(len(flat))).max())) > 1e-9:
            raise ValueError(f"subspace {name!r}: the basis is not orthonormal (off by {error:.1e}); numpy.linalg.qr makes one")
        # As orthonormal as float64 allows.
        q, r = np.linalg.qr(flat.T)
        # No rounding where no vector has anything: these coordinates do not change.
        q[~flat.any(axis=0)] = 0.0
        return Ball(_free_name(name), p, basis=(q * np.sign(np.diag(r))).T.reshape(vectors.shape))
    if np.ma.is_masked(mask):
        raise ValueError(f"subspace {name!r}: mask is a masked array: expected its gaps filled, x.filled(value)")
    array = np.asarray(mask)
    if array.dtype != np.bool_:
        raise ValueError(f"subspace {name!r}: mask has dtype {array.dtype}, expected bool")
    if not array.any():
        raise ValueError(f"subspace {name!r}: the mask selects no coordinate")
    return Ball(_free_name(name), p, array.copy())


def Direction(v: npt.ArrayLike, name: str = "direction") -> Ray:
    """The ray x + r v, r >= 0; `v` in the input's shape, any length (it is normalised). ValueError for a zero or non-finite v.

    One-sided: nothing is said of x - r v (`Line` goes both ways). The radius is an l2 length along v / |v|_2, whatever v's length.

    Examples:
        >>> import numpy as np
        >>> from certlut import Direction
        >>> brighter = Direction(np.full((2, 2), 10.0), name="brighter")
        >>> brighter.v.tolist()
        [[0.5, 0.5], [0.5, 0.5]]
    """
    return Ray(_free_name(name), _unit(f"direction {name!r}", v))


def Line(v: npt.ArrayLike, name: str = "line") -> lines.Line:
    """The line x + r v, r of either sign; as `Direction`.

    Examples:
        >>> import numpy as np
        >>> from certlut import Line
        >>> brightness = Line(np.ones((2, 2)), name="brightness")
        >>> brightness.name, float(np.linalg.norm(brightness.v))
        ('brightness', 1.0)
    """
    return lines.Line(_free_name(name), _unit(f"line {name!r}", v))


def Sparse(k: float, name: str | None = None) -> sparse.Sparse:
    """Perturbations of any k coordinates, |delta|_2 <= R; `name`, by default sparse<k>. ValueError for k below 1 or not whole.

    Examples:
        >>> from certlut import Sparse
        >>> Sparse(3).name
        'sparse3'
    """
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or k < 1:
        raise ValueError(f"Sparse({k}): k = {k}, expected a whole number of coordinates, 1 or more")
    return sparse.Sparse(_free_name(name or f"sparse{k}"), int(k))


def _unit(what: str, v: npt.ArrayLike) -> Array:
    """`v` at l2 length 1; scaled first, so that no square overflows."""
    array = reals(what, v)
    size = float(np.abs(array).max(initial=0.0))
    if not (math.isfinite(size) and size > 0.0):
        raise ValueError(f"{what}: largest component {size}, expected a finite vector other than 0")
    array = array / size
    return np.asarray(array / np.linalg.norm(array))


def _exponent(what: str, p: float) -> float:
    value = real(f"{what}: p", p)
    if not value >= 1.0:
        raise ValueError(f"{what}: p = {p}, expected 1 <= p <= inf")
    return value


def _free_name(name: str) -> str:
    if name in ("l1", "l2", "linf", "cohen", ALL) or not re.fullmatch(r"\w[\w.+-]*", name):
        raise ValueError(f"threat name {name!r}: expected a letter or digit, then also . + - _; not l1, l2, linf, cohen or {ALL}")
    return name


def resolve(threats: Sequence[str | Threat]) -> tuple[Threat, ...]:
    """Threats by name or object, "l2" always among them. ValueError for an unknown or repeated name."""
    known = {"l1": L1, "l2": L2, "linf": LINF}
    out: list[Threat] = []
    if isinstance(threats, str) or not isinstance(threats, Iterable):
        raise ValueError(f"threats = {threats!r}: expected a list, as ('l1', 'l2')")
    for threat in threats:
        if isinstance(threat, str):
            if threat not in known:
                raise ValueError(
                    f"threat {threat!r}: expected l1, l2, linf, or an Lp, Sparse, Subspace, Direction or Line (on the command line "
                    "lp:P, sparse:K, NAME=mask:FILE, NAME=basis:FILE, NAME=direction:FILE or NAME=line:FILE)"
                )
            threat = known[threat]
        elif not isinstance(threat, Threat):
            raise ValueError(f"threats = {threats!r}: expected names and declared threats, as ('l1', Lp(3))")
        out.append(threat)
    if all(threat.name != L2.name for threat in out):
        out.append(L2)
    names = [threat.name for threat in out]
    if len(set(names)) < len(names):
        raise ValueError(f"threats {', '.join(names)}: every name must be there once only")
    return tuple(out)
