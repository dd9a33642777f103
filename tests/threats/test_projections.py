import math
from collections.abc import Callable

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from certlut.threats.projections import Projection, norm
from reference.naive_statistics import Array


def _projections(rng: np.random.Generator, d: int) -> dict[str, tuple[Projection, Array]]:
    """Name -> a random projection of that kind, and its matrix."""
    mask = np.zeros(d, dtype=bool)
    mask[rng.permutation(d)[: rng.integers(1, d + 1)]] = True
    basis = np.linalg.qr(rng.standard_normal((d, d)))[0][:, : rng.integers(1, d + 1)]
    v = basis[:, 0]
    return {
        "all": (Projection(), np.eye(d)),
        "mask": (Projection(mask=mask), np.diag(mask.astype(float))),
        "basis": (Projection(basis=basis), basis @ basis.T),
        "outside": (Projection(basis=basis, outside=True), np.eye(d) - basis @ basis.T),
        "vector": (Projection(vector=v), np.outer(v, v)),
    }


@settings(deadline=None, derandomize=True, max_examples=60)
@given(st.integers(0, 2**32 - 1))
def test_every_kind_is_the_orthogonal_projection_of_its_rank(seed: int) -> None:
    rng = np.random.default_rng(seed)
    d = int(rng.integers(1, 8))
    x = rng.standard_normal(d)
    for name, (by, matrix) in _projections(rng, d).items():
        assert by.embed(x) == pytest.approx(matrix @ x, abs=1e-13), name
        assert by.embed(by.embed(x)) == pytest.approx(by.embed(x), abs=1e-13), name
        assert by.rank(d) == round(np.trace(matrix)), name
        assert by.size in ((None,) if name == "all" else (d,))
        # What the norms see has the length of the image, and no fewer coordinates than it touches.
        assert np.linalg.norm(by(x)) == pytest.approx(np.linalg.norm(matrix @ x), abs=1e-13), name
        touched = int((np.abs(matrix).max(axis=1) > 1e-12).sum())
        assert by.coordinates(d) == 1 if name == "vector" else by.coordinates(d) >= touched
        if name in ("all", "mask", "basis"):
            assert by.coordinates(d) == touched, name


def test_a_basis_touches_only_the_coordinates_that_it_has() -> None:
    basis = np.zeros((5, 2))
    basis[[1, 3], [0, 1]] = 1.0
    assert Projection(basis=basis).coordinates(5) == 2
    # Its complement may touch all.
    assert Projection(basis=basis, outside=True).coordinates(5) == 5


def test_the_component_along_a_vector_keeps_its_sign() -> None:
    by = Projection(vector=np.array([0.6, -0.8]))
    assert by(np.array([1.0, 2.0])).tolist() == pytest.approx([-1.0])
    assert by.embed(np.array([1.0, 2.0])).tolist() == pytest.approx([-0.6, 0.8])


def _variants() -> list[Callable[[], Projection]]:
    v = np.array([0.6, 0.8, 0.0])
    mask = np.array([True, False, True])
    return [
        lambda: Projection(),
        lambda: Projection(dual=1.5),
        lambda: Projection(mask=mask),
        lambda: Projection(mask=~mask),
        lambda: Projection(mask=mask, dual=3.0),
        lambda: Projection(vector=v),
        lambda: Projection(vector=-v),
        lambda: Projection(basis=v[:, None]),
        lambda: Projection(basis=v[:, None], outside=True),
        lambda: Projection(basis=np.eye(3)[:, :2].copy()),
        lambda: Projection(basis=np.eye(3)[:, 1:].copy()),
    ]


def test_keys_tell_projections_apart_and_know_them_again() -> None:
    keys = [make().key for make in _variants()]
    assert len(set(keys)) == len(keys)
    assert keys == [make().key for make in _variants()]
    assert keys[0] == ""


def test_the_memory_order_of_a_basis_does_not_change_its_key() -> None:
    basis = np.linalg.qr(np.random.default_rng(0).standard_normal((5, 2)))[0]
    assert Projection(basis=np.asfortranarray(basis)).key == Projection(basis=np.ascontiguousarray(basis)).key


@pytest.mark.parametrize("p", [1.0, 1.5, 2.0, 3.0, 40.0, 1001.0, 1e9, math.inf])
@pytest.mark.parametrize("scale", [1e-200, 1e-3, 1.0, 1e150])
def test_a_norm_neither_vanishes_nor_overflows(p: float, scale: float) -> None:
    x = scale * np.array([0.3, -0.7, 0.0, 1e-4, 0.7])
    with mpmath.workdps(40):
        size = [abs(mpmath.mpf(float(a))) for a in x]
        expected = (
            max(size) if p == math.inf else max(size) * mpmath.fsum((a / max(size)) ** p for a in size) ** (1 / mpmath.mpf(p))
        )
    assert norm(x, p) == pytest.approx(float(expected), rel=1e-13)


def test_a_norm_of_nothing_is_0() -> None:
    assert norm(np.zeros(0), 3.0) == norm(np.zeros(4), 3.0) == norm(np.zeros(4), math.inf) == 0.0
