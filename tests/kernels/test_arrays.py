"""What users give for numbers: float64 of the same value, or one line."""

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from certlut import Direction, Lp, Subspace, Table
from certlut.kernels.arrays import real, reals
from certlut.tablegen import radius


@pytest.mark.parametrize(
    "value",
    [
        [0.5, 1.0],
        (True, False),
        np.float16(0.5),
        np.array([1, 2], dtype=np.uint64),
        np.array([0.5], dtype=">f4"),
        torch.tensor([0.5, -1.0], requires_grad=True),
        torch.tensor([0.5], dtype=torch.bfloat16),
        torch.tensor([3], dtype=torch.int64),
        np.ma.masked_array([0.5, 1.0]),
        [],
    ],
)
def test_numbers_keep_their_values(value: Any) -> None:
    found = reals("x", value)
    assert found.dtype == np.float64
    assert found.tolist() == (value.tolist() if hasattr(value, "tolist") else [float(x) for x in value])


def test_contiguous_float64_is_read_where_it_is() -> None:
    x = np.arange(5.0)
    assert reals("x", x) is x


BAD = [
    (0.5 + 0.0j, "holds complex128"),
    (torch.tensor([1j]), "holds complex64"),
    ("0.5", "is a str"),
    (["0.5"], "is a list"),
    (None, "is a NoneType"),
    ({0.5}, "is a set"),
    ([1.0, None], "is a list"),
    ([[1.0], [1.0, 2.0]], "is a list"),
    (np.array([1.0, None], dtype=object), "is a ndarray"),
    (np.longdouble(0.9), "holds float128"),
    (np.array(["2020-01-01"], dtype="M8[D]"), "holds datetime64"),
    (np.ma.masked_array([0.5, 1.0], [False, True]), "is a masked array: expected its gaps filled"),
]


@pytest.mark.parametrize(("value", "said"), BAD)
def test_what_float64_does_not_hold_is_refused_by_name(value: Any, said: str) -> None:
    with pytest.raises(ValueError, match=rf"^my x {said}") as error:
        reals("my x", value)
    assert "\n" not in str(error.value)


def test_one_number_is_one() -> None:
    assert real("p", np.float32(0.5)) == 0.5
    with pytest.raises(ValueError, match=re.escape("p has shape (1,): expected one number")):
        real("p", [0.5])


@pytest.mark.parametrize(("value", "said"), BAD)
def test_no_number_is_read_into_what_is_none(value: Any, said: str, shipped: Table) -> None:
    tries: list[tuple[str, Callable[[], object]]] = [
        ("q", lambda: shipped.radius(value, -0.1, 0.05)),
        ("m1", lambda: shipped.radius(0.9, value, 0.05)),
        ("m2", lambda: shipped.radius(0.9, -0.1, value)),
        ("q", lambda: radius(value, -0.1, 0.05)),
        ("direction 'direction'", lambda: Direction(value)),
        ("subspace 'subspace': basis", lambda: Subspace(basis=value)),
    ]
    if value is None:
        tries.pop()
    for name, try_ in tries:
        with pytest.raises(ValueError, match=rf"^{name} {said}"):
            try_()


def test_an_exponent_and_a_mask_are_checked_too() -> None:
    with pytest.raises(ValueError, match=r"Lp\(2\): p is a str"):
        Lp("2")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"p holds complex128"):
        Subspace(np.ones(3, dtype=bool), p=2j)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="mask is a masked array"):
        Subspace(np.ma.masked_array([True, False], [False, True]))
    assert Lp(np.float32(2)).p == 2.0
    assert math.isinf(Lp(math.inf).p)
