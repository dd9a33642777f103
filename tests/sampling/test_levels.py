import re
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import pytest
import torch

from certlut.sampling.levels import grid_step, infer_step, levels

BYTES = np.arange(256, dtype=np.uint8)


def loaders() -> dict[str, tuple[npt.ArrayLike, Fraction]]:
    """All bytes as loaders give them, and the step."""
    unit = BYTES / np.float32(255)
    return {
        "float32 division": (unit, Fraction(1, 255)),
        "float32 product": (BYTES * np.float32(1 / 255), Fraction(1, 255)),
        "float64 division": (BYTES / 255.0, Fraction(1, 255)),
        "torch, as ToTensor": (torch.from_numpy(BYTES).to(torch.float32).div(255), Fraction(1, 255)),
        "from -1 to 1": (2.0 * unit - np.float32(1), Fraction(1, 255)),
        "bytes": (BYTES, Fraction(1)),
        "digits": ((BYTES[:17] / np.float32(16)).astype(np.float16), Fraction(1, 16)),
    }


@pytest.mark.parametrize("name", loaders())
def test_what_loaders_make_of_bytes_is_on_the_grid(name: str) -> None:
    x, step = loaders()[name]
    found = levels(x, step)
    assert found.dtype == np.int32
    expected = 2 * BYTES.astype(int) - 255 if name == "from -1 to 1" else BYTES[: len(found)]
    assert np.array_equal(found, expected)
    assert infer_step([x]) == step
    # Each half may lack values of the other: the step is that of all.
    assert infer_step([np.asarray(x)[::2], np.asarray(x)[1::2]]) == step


def test_levels_keep_the_shape_and_may_be_negative() -> None:
    x = np.array([[-3, 0], [7, 1]]) / 16
    assert levels(x, Fraction(1, 16)).tolist() == [[-3, 0], [7, 1]]
    assert levels(x, Fraction(1, 32)).tolist() == [[-6, 0], [14, 2]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (0.123, "input 5[1, 2] = 0.123: not on the grid of step 1/255 (nearest: 31 steps = 0.121568627)"),
        (1 / 255 + 1e-5, "input 5[1, 2] = 0.00393156863: not on the grid of step 1/255 (nearest: 1 steps = 0.00392156863)"),
        (np.nan, "input 5[1, 2] = nan: not on the grid of step 1/255; give images as they are stored"),
        (np.inf, "input 5[1, 2] = inf: not on the grid of step 1/255; give images as they are stored"),
        (1e9 / 255, "input 5: a value is 1000000000 steps of 1/255: expected at most 16744448"),
    ],
)
def test_a_value_off_the_grid_is_named(change: float, message: str) -> None:
    x = np.full((3, 4), 8 / 255)
    x[1, 2] = change
    with pytest.raises(ValueError, match=re.escape(message)):
        levels(x, Fraction(1, 255), "input 5")


def test_the_first_of_several_values_off_the_grid_is_named() -> None:
    with pytest.raises(ValueError, match=re.escape("input[1] = 0.3: not on the grid of step 1/16")):
        levels(np.array([0.25, 0.3, 0.31]), Fraction(1, 16))


@pytest.mark.parametrize("like", ["normalised", "resized", "float16"])
def test_images_that_were_changed_are_refused(like: str) -> None:
    x = (np.random.default_rng(0).integers(0, 256, (3, 8, 8)) / 255).astype(np.float32)
    changed = {"normalised": (x - np.float32(0.4914)) / np.float32(0.247), "resized": (x[:, ::2] + 2 * x[:, 1::2]) / 3}
    image = changed.get(like, x.astype(np.float16))
    with pytest.raises(ValueError, match="not on the grid of step 1/255"):
        levels(image, Fraction(1, 255))
    if like != "float16":
        with pytest.raises(ValueError, match="are on no grid of step 1, 1/2"):
            infer_step([np.random.default_rng(1).normal(size=1000), image])


def test_the_step_is_the_coarsest_that_holds_all_values() -> None:
    assert infer_step([np.array([0.0, 1.0])]) == 1
    assert infer_step([np.array([0.0, 0.5]), np.array([1 / 3])]) == Fraction(1, 6)
    assert infer_step([np.arange(65536, dtype=np.uint16) / np.float32(65535)]) == Fraction(1, 65535)


@pytest.mark.parametrize(
    ("given", "step"),
    [("1/255", Fraction(1, 255)), (1 / 255, Fraction(1, 255)), (0.0625, Fraction(1, 16)), (1, 1), ("2/3", Fraction(2, 3))],
)
def test_a_step_is_read_as_a_fraction(given: str | float | Fraction, step: Fraction) -> None:
    assert grid_step(given) == step


@pytest.mark.parametrize(
    "given", [0.0, -1 / 255, "one", "1/0", "1/70000", 0.003921569, float("nan"), float("inf"), "300", float(np.float32(1 / 255))]
)
def test_what_is_no_step(given: str | float) -> None:
    with pytest.raises(ValueError, match=r"grid_step = .*: expected a fraction p/q with p from 1 to 256, q up to 65535"):
        grid_step(given)
