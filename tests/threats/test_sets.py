import itertools
import math
import re
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri

from certlut import Table
from certlut.tablegen import radius as exact_radius
from certlut.threats import lines, sparse
from certlut.threats.declare import Direction, Line, Lp, Sparse, Subspace, resolve
from certlut.threats.lines import Ray
from certlut.threats.sets import ALL, L1, L2, LENGTH, LINF, Ball, Quantity, Threat, check_shape, complement, containment
from reference.naive_statistics import Array, Known, phi, slab

MASK = np.array([[True, False, True], [True, True, False]])
NORMS = [1.0, 2.0, math.inf]


def _exact(y: Array, threats: Sequence[Threat]) -> dict[Quantity, Array]:
    """Every bound that the threats need, exact: equal to the norm of y."""
    known = Known("known", 0.5, y, lambda *_: (np.zeros(1, np.int64), y[None], y[None]))
    return {q: np.array([known.truth(q, threats)]) for threat in threats for q in threat.needs()}


# Formulas


@pytest.mark.parametrize(
    ("threat", "kappa", "norm"),
    [
        (L1, 1.0, "linf"),
        (L2, 1.0, "l2"),
        (LINF, math.sqrt(6.0), "l1"),
        (Subspace(MASK, 1, "red"), 1.0, "linf"),
        (Subspace(MASK, 2, "red"), 1.0, "l2"),
        (Subspace(MASK, math.inf, "red"), 2.0, "l1"),
    ],
    ids=["l1", "l2", "linf", "mask l1", "mask l2", "mask linf"],
)
def test_a_ball_needs_the_upper_dual_norm_of_its_own_part(threat: Ball, kappa: float, norm: str) -> None:
    assert threat.kappa(6) == pytest.approx(kappa, rel=1e-15)
    upper = Quantity("red" if threat.name == "red" else ALL, norm, "upper")
    rest = Quantity("all but red", "l2", "lower")
    assert threat.needs() == {"l2": (upper,), "red": (upper, LENGTH, rest)}.get(threat.name, (upper, LENGTH))
    # m1 from the upper bound over kappa, m2 from the lower bound of the length; by hand for |y|_2 >= 0.3, dual norm <= 0.2.
    m1, m2 = threat.cut({upper: np.array([0.2]), LENGTH: np.array([0.3]), rest: np.array([0.0])}, 6)
    assert m1.tolist() == pytest.approx([-0.2 / kappa], rel=1e-15)
    across = 0.0 if threat is L2 else math.sqrt(0.09 - (0.2 / kappa) ** 2)
    assert m2.tolist() == pytest.approx([across], rel=1e-14)


def test_a_subspace_takes_the_better_of_two_lower_bounds_across() -> None:
    red = Subspace(MASK, 2, "red")
    upper, length, rest = red.needs()
    bounds = {upper: np.array([0.3, 0.3, 0.5]), length: np.array([0.5, 0.5, 0.4]), rest: np.array([0.1, 0.45, 0.0])}
    m1, m2 = red.cut(bounds, 6)
    assert m1.tolist() == [-0.3, -0.3, -0.5]
    assert m2.tolist() == pytest.approx([0.4, 0.45, 0.0], rel=1e-14)


def test_a_direction_has_a_signed_gradient_and_kappa_1() -> None:
    ray = Direction([[3.0, 0.0], [0.0, 4.0]], "along")
    assert np.allclose(ray.v, [[0.6, 0.0], [0.0, 0.8]], rtol=1e-15)
    assert ray.kappa(4) == 1.0
    dot = Quantity("along", "dot", "lower")
    assert ray.needs() == (dot, LENGTH)
    m1, m2 = ray.cut({dot: np.array([-0.3, 0.3, 0.6]), LENGTH: np.array([0.5, 0.5, 0.5])}, 4)
    assert m1.tolist() == [-0.3, 0.3, 0.6]
    assert m2.tolist() == pytest.approx([0.4, 0.4, 0.0], rel=1e-14)


@settings(deadline=None, derandomize=True, max_examples=100)
@given(st.integers(0, 2**32 - 1))
def test_kappa_and_m1_bound_every_perturbation_of_the_threat_and_some_attain_both(seed: int) -> None:
    rng = np.random.default_rng(seed)
    d = int(rng.integers(2, 8))
    y = rng.standard_normal(d)
    mask = rng.random(d) < 0.6
    mask[rng.integers(d)] = True
    for p, whole in itertools.product(NORMS, (False, True)):
        threat = {1.0: L1, 2.0: L2, math.inf: LINF}[p] if whole else Subspace(mask, p, "red")
        inside = np.ones(d, dtype=bool) if whole else mask
        m1, m2 = (float(a[0]) for a in threat.cut(_exact(y, [threat]), d))
        delta = np.zeros((200, d))
        delta[:, inside] = rng.standard_normal((200, int(inside.sum())))
        delta /= np.linalg.norm(delta, p, axis=1, keepdims=True)
        kappa = threat.kappa(d)
        assert np.all(np.linalg.norm(delta, axis=1) <= kappa * (1.0 + 1e-12))
        assert np.all(delta @ y >= m1 * kappa - 1e-12)
        # One of them is as long as kappa and as steep as m1 says, and m2 is what is left of y across it.
        worst = np.zeros(d)
        if p == 1.0:
            i = int(np.argmax(np.abs(y) * inside))
            worst[i] = -np.sign(y[i])
        else:
            worst[inside] = -np.sign(y[inside]) if p == math.inf else -y[inside] / np.linalg.norm(y[inside])
        assert worst @ y == pytest.approx(m1 * kappa, rel=1e-12)
        assert np.linalg.norm(worst) == pytest.approx(kappa, rel=1e-12)
        assert np.linalg.norm(y - m1 * worst / kappa) == pytest.approx(m2, abs=1e-7)


@settings(deadline=None, derandomize=True, max_examples=60)
@given(st.integers(0, 2**32 - 1))
def test_any_p_and_any_subspace_bound_every_perturbation_and_the_steepest_attains_the_dual_norm(seed: int) -> None:
    rng = np.random.default_rng(seed)
    d, p = int(rng.integers(2, 8)), float(rng.choice([1.0, 1.3, 2.0, 3.0, 7.5, math.inf]))
    y = rng.standard_normal(d)
    basis = np.linalg.qr(rng.standard_normal((d, d)))[0].T[: rng.integers(1, d + 1)]
    for threat in (Lp(p), Subspace(basis=basis, p=p, name="span")):
        span = threat.basis if threat.basis is not None else np.eye(d)
        m1, m2 = (float(a[0]) for a in threat.cut(_exact(y, [threat]), d))
        delta = rng.standard_normal((300, len(span))) @ span
        delta /= np.linalg.norm(delta, p, axis=1, keepdims=True)
        kappa = threat.kappa(d)
        assert np.all(np.linalg.norm(delta, axis=1) <= kappa * (1.0 + 1e-12))
        assert np.all(delta @ y >= m1 * kappa - 1e-12)
        # m2 is no more than what is left of y across any perturbation as steep as m1 and as long as kappa.
        assert m2**2 <= float(y @ y) - m1**2 + 1e-12
        outside = y - span.T @ (span @ y)
        assert m2 >= np.linalg.norm(outside) - 1e-7
        if threat.basis is None and 1.0 < p < math.inf:
            dual = p / (p - 1.0)
            steepest = -np.sign(y) * np.abs(y) ** (dual - 1.0)
            assert (steepest / np.linalg.norm(steepest, p)) @ y == pytest.approx(m1 * kappa, rel=1e-12)


def test_a_span_of_axes_is_its_mask() -> None:
    mask = np.array([True, False, True, False])
    for p in (1.0, 2.0, 3.0, math.inf):
        masked, spanned = Subspace(mask, p, "a"), Subspace(basis=np.eye(4)[mask], p=p, name="a")
        assert masked.kappa(4) == spanned.kappa(4)
        y = np.array([0.3, -0.2, 0.1, 0.4])
        for ours, theirs in zip(masked.cut(_exact(y, [masked]), 4), spanned.cut(_exact(y, [spanned]), 4), strict=True):
            assert ours == pytest.approx(theirs, rel=1e-14)
        assert containment(spanned, masked, 4) == containment(masked, masked, 4) == 1.0
        assert containment(masked, spanned, 4) == math.inf


# Against the true radius of explicit classifiers


def _true_radius(w: Array, low: float, high: float, threat: Threat) -> float:
    """How far the threat may move before low <= w.u <= high has probability 1/2, sigma = 1; inf where it never has."""

    def reach(sign: float) -> float:
        edge = high if sign > 0 else low
        if not math.isfinite(edge):
            return math.inf
        return float(brentq(lambda s: ndtr(high - sign * s) - ndtr(low - sign * s) - 0.5, 0.0, abs(edge) + 1.0, xtol=1e-14))

    if isinstance(threat, Ray):
        along = float(threat.v.ravel() @ w)
        return reach(math.copysign(1.0, along)) / abs(along)
    if isinstance(threat, lines.Line):
        return min(reach(1.0), reach(-1.0)) / abs(float(threat.v.ravel() @ w))
    if isinstance(threat, sparse.Sparse):
        return min(reach(1.0), reach(-1.0)) / max(
            float(np.linalg.norm(some)) for some in itertools.combinations(w, min(threat.k, len(w)))
        )
    part = w if threat.mask is None else w[threat.mask.ravel()]
    dual = {1.0: math.inf, 2.0: 2.0, math.inf: 1.0}[threat.p]
    return min(reach(1.0), reach(-1.0)) / float(np.linalg.norm(part, dual))


def _slabs(rng: np.random.Generator) -> tuple[Array, float, float, Known, list[Threat]]:
    d = int(rng.integers(2, 7))
    w = rng.standard_normal(d) * rng.choice([0.1, 1.0], d)
    w /= np.linalg.norm(w)
    high = float(rng.uniform(0.4, 2.5))
    low = -float(rng.uniform(0.4, 4.0)) if rng.random() < 0.7 else -math.inf
    mask = np.zeros(d, dtype=bool)
    mask[rng.permutation(d)[: rng.integers(1, d)]] = True
    subspaces = [Subspace(mask, p, f"red{p:g}") for p in NORMS]
    v = rng.standard_normal(d)
    few = (Sparse(k) for k in (1, 2, 4))
    return w, low, high, slab(w, low, high), [L1, L2, LINF, *subspaces, *few, Direction(v, "along"), Line(v, "line")]


def _radius(table: Table, q: float, m1: float, m2: float, kappa: float) -> float:
    return float(table.radius(q, m1, m2)) / kappa


@pytest.mark.parametrize("slack", [0.0, 0.05, 0.3])
def test_true_bounds_never_certify_beyond_the_true_radius_of_a_slab(slack: float, shipped: Table) -> None:
    rng = np.random.default_rng(4)
    gained = 0
    for _ in range(150):
        w, low, high, known, threats = _slabs(rng)
        if known.q <= 0.51:
            continue
        # Off by up to `slack` to the side that a confidence bound may be off.
        bounds = _exact(known.y, threats)
        for quantity in bounds:
            size = slack * rng.random() * float(np.linalg.norm(known.y))
            bounds[quantity] = bounds[quantity] + (size if quantity.side == "upper" else -size)
        bounds = {quantity: bound if quantity.norm == "dot" else np.maximum(bound, 0.0) for quantity, bound in bounds.items()}
        for threat in threats:
            m1, m2 = (float(a[0]) for a in threat.cut(bounds, known.d))
            radius = _radius(shipped, known.q, m1, m2, threat.kappa(known.d))
            assert radius <= _true_radius(w, low, high, threat) * (1.0 + 1e-12)
            gained += radius > 1.01 * ndtri(known.q) / threat.kappa(known.d)
    assert gained > 100


@pytest.mark.parametrize(("low", "high"), [(-1.0, 0.7), (-2.0, 0.9), (-3.0, 1.5), (-2.5, 2.4)])
def test_the_l2_radius_of_a_slab_is_its_true_radius_so_the_sign_of_m1_matters(low: float, high: float, shipped: Table) -> None:
    w = np.array([0.6, -0.8])
    known = slab(w, low, high)
    truth = _true_radius(w, low, high, L2)
    m1, m2 = (float(a[0]) for a in L2.cut(_exact(known.y, [L2]), 2))
    assert (m1, m2) == (pytest.approx(phi(low) - phi(high), rel=1e-12), 0.0)
    assert exact_radius(known.q, m1, m2) == pytest.approx(truth, rel=1e-9)
    assert truth * (1.0 - 1e-6) < _radius(shipped, known.q, m1, m2, 1.0) <= truth * (1.0 + 1e-12)
    # As printed in the paper's (7b), and with a bound on the wrong side of the norm, the radius is above the truth.
    assert exact_radius(known.q, -m1, m2) > truth * 1.001
    assert exact_radius(known.q, 0.9 * m1, m2) > truth * 1.001


def test_the_printed_sign_would_double_a_radius() -> None:
    # q = 0.9 and 90 % of the largest gradient: 1.305, where the printed sign gives 2.64.
    rim = phi(float(ndtri(0.9)))
    assert exact_radius(0.9, -0.9 * rim, 0.0) == pytest.approx(1.305, abs=5e-4)
    assert exact_radius(0.9, 0.9 * rim, 0.0) == pytest.approx(2.64, abs=5e-3)


# Containment


@settings(deadline=None, derandomize=True, max_examples=60)
@given(st.integers(0, 2**32 - 1))
def test_containment_is_the_least_factor_over_points_of_the_inner_ball(seed: int) -> None:
    rng = np.random.default_rng(seed)
    d = 4
    small = np.zeros(d, dtype=bool)
    small[rng.permutation(d)[: rng.integers(1, 3)]] = True
    large = small | (rng.random(d) < 0.5)
    balls = [L1, L2, LINF]
    balls += [Subspace(mask, p, f"{name}{p:g}") for name, mask in (("small", small), ("large", large)) for p in NORMS]
    for inner, outer in itertools.product(balls, balls):
        inside = np.ones(d, dtype=bool) if inner.mask is None else inner.mask
        allowed = np.ones(d, dtype=bool) if outer.mask is None else outer.mask
        factor = containment(inner, outer, d)
        if outer.mask is not None and (inner.mask is None or (inside & ~allowed).any()):
            assert factor == math.inf
            continue
        points = rng.standard_normal((500, d)) * inside
        # The ball's most extreme points: a corner of the cube, a corner of the cross-polytope.
        corner = np.vstack((inside.astype(float), np.eye(d)[np.argmax(inside)]))
        points = np.vstack((points, corner))
        points /= np.linalg.norm(points, inner.p, axis=1, keepdims=True)
        size = np.linalg.norm(points, outer.p, axis=1)
        assert size.max() == pytest.approx(factor, rel=1e-12)


def test_containment_of_a_direction_is_its_length_in_the_outer_norm() -> None:
    ray = Direction([3.0, 0.0, 4.0], "along")
    assert containment(ray, L2, 3) == pytest.approx(1.0)
    assert containment(ray, L1, 3) == pytest.approx(1.4)
    assert containment(ray, LINF, 3) == pytest.approx(0.8)
    assert containment(ray, Subspace([True, False, True], 1, "red"), 3) == pytest.approx(1.4)
    assert containment(ray, Subspace([True, True, False], 1, "red"), 3) == math.inf
    # A ray has no room for a ball, nor for another ray.
    for inner in (L1, L2, LINF, Subspace([True, False, False], 2, "red"), Direction([3.0, 0.0, 4.0], "again")):
        assert containment(inner, ray, 3) == math.inf


def test_a_span_holds_its_own_vectors_only() -> None:
    span = Subspace(basis=np.eye(3)[:2], p=2, name="span")
    again = Subspace(basis=np.eye(3)[:2], p=1, name="again")
    assert containment(again, span, 3) == 1.0
    assert containment(span, again, 3) == pytest.approx(math.sqrt(2.0))
    mask = Subspace([True, True, False], 2, "mask")
    for inner in (L1, L2, LINF, Lp(3.0), mask, Direction([1.0, 0.0, 0.0], "ray"), Subspace(basis=np.eye(3)[:1], name="one")):
        assert containment(inner, span, 3) == math.inf
    # But a span lies in a mask that has all that it touches.
    assert containment(span, mask, 3) == 1.0
    assert containment(Subspace(basis=np.eye(3)[1:], name="other"), mask, 3) == math.inf


@pytest.mark.parametrize("p", [200.0, 5000.0, 1e6])
def test_containment_in_a_ball_of_a_large_exponent_does_not_vanish(p: float) -> None:
    # Powers of the components underflow.
    ray = Direction(np.ones(3072), "ray")
    factor = containment(ray, Lp(p), 3072)
    assert factor == pytest.approx(3072.0 ** (1.0 / p - 0.5), rel=1e-9)
    assert factor >= containment(ray, LINF, 3072)


def test_a_basis_touches_what_its_vectors_touch_and_no_more() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        vectors = np.zeros((2, 6))
        vectors[:, 3:] = np.linalg.qr(rng.standard_normal((3, 2)))[0].T
        span = Subspace(basis=vectors, p=math.inf, name="span")
        assert span.basis is not None
        assert not span.basis[:, :3].any()
        assert span.kappa(6) == pytest.approx(math.sqrt(3.0))


# What is refused


def test_bad_subspaces_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="subspace 'red': mask has dtype int64, expected bool"):
        Subspace(np.array([1, 0]), 2, "red")
    with pytest.raises(ValueError, match="subspace 'red': the mask selects no coordinate"):
        Subspace(np.zeros(3, dtype=bool), 2, "red")
    for p in (0.5, 0, -1, math.nan):
        with pytest.raises(ValueError, match=rf"subspace 'red': p = {p}, expected 1 <= p <= inf"):
            Subspace(MASK, p, "red")
        with pytest.raises(ValueError, match=rf"Lp\({p}\): p = {p}, expected 1 <= p <= inf"):
            Lp(p)
    for arguments in ({}, {"mask": MASK, "basis": np.eye(6)[:1]}):
        with pytest.raises(ValueError, match="subspace 'red': expected a mask or a basis, and not both"):
            Subspace(name="red", **arguments)
    with pytest.raises(ValueError, match=r"subspace 'red': the basis is not orthonormal \(off by 1.0e\+00\)"):
        Subspace(basis=[[1.0, 1.0]], name="red")
    for bad in (np.ones((0, 3)), np.ones(3), np.eye(3)[[0, 1, 2, 0]], [[math.nan, 1.0]]):
        with pytest.raises(ValueError, match=r"subspace 'red': basis of shape .*, expected 1 to d finite vectors"):
            Subspace(basis=bad, name="red")


@pytest.mark.parametrize("v", [[0.0, 0.0], [math.nan, 1.0], [math.inf, 1.0]])
def test_bad_directions_are_refused_by_name(v: list[float]) -> None:
    with pytest.raises(ValueError, match=r"direction 'along': .*(0.0|nan|inf), expected a finite vector other than 0"):
        Direction(v, "along")


@pytest.mark.parametrize("name", ["l1", "l2", "linf", "cohen", "all", "", "two words", "tab\t"])
def test_a_name_that_is_taken_or_not_one_word_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"threat name {name!r}: expected")):
        Subspace(MASK, 2, name)
    with pytest.raises(ValueError, match=re.escape(f"threat name {name!r}: expected")):
        Direction([1.0], name)


def test_threats_are_resolved_by_name_with_l2_always_there() -> None:
    red = Subspace(MASK, 2, "red")
    assert resolve(("l1", "linf")) == (L1, LINF, L2)
    assert resolve(("l2", red)) == (L2, red)
    assert resolve(()) == (L2,)
    with pytest.raises(
        ValueError,
        match=r"threat 'l3': expected l1, l2, linf, or an Lp, Sparse, Subspace, Direction or Line \(on the command line lp:P, ",
    ):
        resolve(("l3",))
    with pytest.raises(ValueError, match="threats l1, l1, l2: every name must be there once only"):
        resolve(("l1", L1))
    with pytest.raises(ValueError, match="threats red, red, l2: every name must be there once only"):
        resolve((red, Direction([1.0], "red")))


def test_a_mask_or_direction_of_another_shape_is_refused_by_name() -> None:
    red, along = Subspace(MASK, 2, "red"), Direction(np.ones(6), "along")
    check_shape((L1, L2, LINF, red), (2, 3))
    check_shape((along,), (6,))
    with pytest.raises(ValueError, match=r"threat 'red' has shape \(2, 3\), the input has shape \(6,\)"):
        check_shape((L2, red), (6,))
    with pytest.raises(ValueError, match=r"threat 'along' has shape \(6,\), the input has shape \(2, 3\)"):
        check_shape((L2, along), (2, 3))


def test_a_mask_is_copied() -> None:
    mask = MASK.copy()
    red = Subspace(mask, 2, "red")
    mask[:] = False
    assert red.mask is not None
    assert np.array_equal(red.mask, MASK)
    assert complement("red") == "all but red"
