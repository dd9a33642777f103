"""What a sampler takes and refuses: inputs, places, shapes; that it needs no table and keeps no seed."""

import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch

from certlut import Direction, Subspace
from certlut.sampling.card import Sampling
from certlut.sampling.engine import Choice, Engine, Input
from certlut.sampling.sampler import Sampler, check_input
from certlut.statistics.summary import summarise

CARD = Sampling(20, 500, 0.01, 400, 7)


def _first(x: torch.Tensor) -> torch.Tensor:
    first = x.reshape(len(x), -1)[:, 0]
    return torch.stack((torch.zeros_like(first), first), dim=1)


def test_what_is_drawn_is_what_the_engine_draws() -> None:
    x = torch.tensor([0.3, -0.1, 0.2])
    sampler, engine = Sampler(_first, 0.5, 2, ("l1", Direction(np.ones(3), "along"))), Engine(_first, 0.5, 2)
    drawn = sampler.sample(x, CARD, 5)
    votes = engine.votes([Input(5, x)], CARD)[0]
    assert drawn.votes.tolist() == votes.tolist()
    assert drawn.predict == 1
    moments = engine.moments([Input(5, x)], [Choice.of(votes)], CARD)
    alone = summarise(moments, sampler.threats[2:], 0.5)
    assert drawn.statistics.count.tolist() == alone.count.tolist()
    assert set(drawn.statistics.parts) == {"all", "along"}
    assert drawn.statistics.sums.size == 0
    kept = sampler.sample(x, Sampling(20, 500, 0.01, 400, 7, keep_means=True), 5).statistics
    assert kept.sums[0, :, 0].tolist() == [half.tolist() for half in moments[0].sum_uf]


def test_a_choice_is_the_class_with_the_most_votes_and_the_votes_against_it() -> None:
    assert Choice.of(np.array([3, 90, 7])) == Choice(1, 10, 100)
    assert Choice.of(np.array([5, 5])) == Choice(0, 5, 10)


def test_no_call_leaves_a_seed_behind() -> None:
    sampler, x = Sampler(_first, 0.5, 2), torch.full((3,), 0.1)
    fresh = Sampling(20, 500, 0.01, 400)
    first = sampler.sample(x, CARD)
    others = [sampler.sample(x, fresh).statistics.parts["all"].l1[0] for _ in range(2)]
    again = sampler.sample(x, CARD)
    assert again.statistics.parts["all"].l1[0] == first.statistics.parts["all"].l1[0]
    assert len({first.statistics.parts["all"].l1[0], *others}) == 3


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.ones(3, dtype=np.uint16), r"input holds torch\.uint16 \(torch\.strided\): expected real numbers in a dense array"),
        (np.ones(3, dtype=np.uint64), r"input holds torch\.uint64"),
        (torch.ones(3).to(torch.float8_e4m3fn), r"input holds torch\.float8_e4m3fn"),
        (np.array([1j]), r"input holds torch\.complex128"),
        (torch.eye(3).to_sparse(), r"input holds torch\.float32 \(torch\.sparse_coo\)"),
        (np.ma.masked_array([1.0, 2.0], [False, True]), r"input is a masked array: expected its gaps filled"),
        ([[1.0, 2.0], [3.0]], r"input is a list: expected a tensor or an array of numbers \(expected sequence of length 2"),
        (np.array(["a"]), r"input is a ndarray: expected a tensor or an array of numbers"),
        (np.ones(2, dtype=np.longdouble), r"input is a ndarray: expected a tensor or an array of numbers"),
        ("cat.png", r"input is a str: expected a tensor"),
        (None, r"input is a NoneType: expected a tensor"),
        ({"x": 1}, r"input is a dict: expected a tensor"),
        ([], r"input of shape \(0,\): expected finite real numbers"),
        ([math.nan], r"input of shape \(1,\): expected finite"),
    ],
)
def test_what_is_no_array_of_numbers_is_said_in_one_line(x: Any, message: str) -> None:
    with warnings.catch_warnings():
        # torch's own, once a process, of sparse tensors.
        warnings.simplefilter("ignore")
        with pytest.raises(ValueError, match=message) as error:
            check_input(x)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "x",
    [
        np.ma.masked_array([1.0, 2.0]),
        [True, False],
        np.float32(1.0),
        torch.ones(2, dtype=torch.bfloat16),
        # Another byte order, backwards, not to be written in: as files and views give them.
        np.array([1.0, 2.0], dtype=">f4"),
        np.array([1.0, 2.0, 3.0])[::-1],
        np.broadcast_to(np.float32(1.0), (4,)),
    ],
)
def test_what_loses_nothing_is_taken(x: Any) -> None:
    if isinstance(x, np.ndarray):
        assert check_input(x).numpy().tolist() == x.tolist()
        return
    assert check_input(x).tolist() == np.asarray(torch.as_tensor(x).float()).tolist()


@pytest.mark.parametrize("index", [-1, 2**63, 2**64, 1.5, True, None])
def test_a_place_that_is_none_is_refused_by_name(index: Any) -> None:
    with pytest.raises(ValueError, match=rf"index = {index}: expected a whole number, from 0 to 9223372036854775807"):
        Sampler(_first, 0.5, 2).sample(torch.zeros(3), CARD, index)


@pytest.mark.parametrize(
    ("sigma", "said"),
    [
        ("0.5", "is a str"),
        (None, "is a NoneType"),
        (0.5j, "holds complex128"),
        (np.array([0.5, 0.25]), r"has shape \(2,\)"),
        (np.ma.masked_array([0.5], [True]), "is a masked array"),
        (np.longdouble(0.5), "holds float128"),
        (math.nan, "= nan"),
        (0, "= 0"),
    ],
)
def test_a_sigma_that_is_no_positive_number_is_refused_by_name(sigma: Any, said: str) -> None:
    with pytest.raises(ValueError, match=f"^sigma {said}") as error:
        Sampler(_first, sigma, 2)
    assert "\n" not in str(error.value)


def test_a_model_that_is_no_function_is_refused() -> None:
    with pytest.raises(ValueError, match=r"model is a str: expected a function of a batch"):
        Sampler("net.pt", 0.5, 2)  # type: ignore[arg-type]


def test_a_sigma_in_a_tensor_is_one() -> None:
    assert Sampler(_first, torch.tensor(0.5), 2).sigma == 0.5  # type: ignore[arg-type]


def test_the_last_place_is_one() -> None:
    assert Sampler(_first, 0.5, 2).sample(torch.zeros(3), CARD, 2**63 - 1).votes.sum() == 20


class Images(torch.nn.Module):
    """Scores of 1 or 3 channels of 4 x 4."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Conv2d(channels, 2, 3), torch.nn.Flatten(), torch.nn.Linear(8, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.layers(x)
        return scores


@pytest.mark.parametrize(
    ("model", "given", "wanted", "what"),
    [
        (Images(1), (4, 4), (1, 4, 4), r"with a channel axis, x\[None\]"),
        (Images(3), (4, 4, 3), (3, 4, 4), r"channels first, x\.transpose\(2, 0, 1\)"),
        (Images(1), (4, 4, 1), (1, 4, 4), r"channels first"),
        (Images(3), (48,), (3, 4, 4), r"as x\.reshape\(3, 4, 4\)"),
        (Images(1), (16,), (1, 4, 4), r"as x\.reshape\(1, 4, 4\)"),
        (Images(3), (1, 3, 4, 4), (3, 4, 4), r"without the first axis, x\[0\]"),
        (torch.nn.Linear(48, 3), (3, 4, 4), (48,), r"flat, x\.reshape\(-1\)"),
    ],
)
@pytest.mark.parametrize("batch_size", [1, 100])
def test_inputs_of_another_shape_than_the_models_are_told_the_one_it_takes(
    model: torch.nn.Module, given: tuple[int, ...], wanted: tuple[int, ...], what: str, batch_size: int
) -> None:
    sampler, card = Sampler(model, 0.5, 3), Sampling(20, 200, 0.01, batch_size)
    shape = ", ".join(map(str, wanted)) + ("," if len(wanted) == 1 else "")
    for ask in (lambda: sampler.sample(torch.zeros(given), card), lambda: sampler.settings([(torch.zeros(given), 0)], card)):
        with pytest.raises(
            ValueError, match=rf"the model failed on .*; the model takes inputs of shape \({shape}\): give .*{what}"
        ):
            ask()
    sampler.sample(torch.zeros(wanted), card)


def test_a_shape_that_no_change_mends_is_left_without_advice() -> None:
    with pytest.raises(ValueError, match="the model failed on") as error:
        Sampler(Images(3), 0.5, 3).sample(torch.zeros(5, 7), CARD)
    assert "the model takes" not in str(error.value)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscripts_error_is_told_by_its_last_line_and_compiling_it_is_refused_in_one() -> None:
    model = torch.jit.script(torch.nn.Sequential(torch.nn.Linear(4, 3)))
    with pytest.raises(
        ValueError, match=r"batch of shape \(16, 5\): RuntimeError: mat1 and mat2 shapes cannot be multiplied"
    ) as error:
        Sampler(model, 0.5, 3).sample(torch.zeros(5), CARD)
    assert "\n" not in str(error.value)
    compiled = Sampling(20, 500, 0.01, 400, 7, compile=True)
    with pytest.raises(ValueError, match=r"compile = True: torch\.compile does not support compiling torch\.jit\.script") as error:
        Sampler(model, 0.5, 3).sample(torch.zeros(4), compiled)
    assert "\n" not in str(error.value)


def test_a_threat_of_another_shape_is_refused() -> None:
    sampler = Sampler(_first, 0.5, 2, (Subspace(np.array([True, False]), 2, "red"),))
    with pytest.raises(ValueError, match=r"threat 'red' has shape \(2,\), the input has shape \(3,\)"):
        sampler.sample(torch.zeros(3), CARD)
