import dataclasses
import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from certlut.bounds.looks import Goal, Looks
from certlut.lookup.tail_format import THRESHOLDS
from certlut.sampling.card import Sampling, whole


def test_everything_that_changes_the_classifier_is_off_by_default_and_said() -> None:
    off = {
        "autocast": None,
        "channels_last": False,
        "compile": False,
        "early_stop": None,
        "keep_means": False,
        "looks": None,
        "goal": None,
    }
    drawn = {"seed": None, "n0": 100, "n": 100_000, "inputs a batch": 1, "thresholds": list(THRESHOLDS)}
    drawn["proposal"] = {"by": "gradient", "copies": 1000, "temperature": 0.3}
    noise = {"noise": "gaussian", "grid_step": None}
    assert Sampling().settings() == drawn | off | noise
    assert Sampling().schedule is None


def test_what_is_on_is_said_and_early_stopping_with_its_alpha() -> None:
    options: dict[str, Any] = {"autocast": "bf16", "channels_last": True, "compile": "eager"}
    card = Sampling(20, 300, 0.01, 1000, 4, early_stop=True, keep_means=True, thresholds=(1, 2.5), proposal="votes", **options)
    on = options | {"early_stop": 0.01, "keep_means": True, "thresholds": [1.0, 2.5], "proposal": {"by": "votes"}}
    on |= {"looks": Looks.giving_up(300).describe(), "goal": None, "noise": "gaussian", "grid_step": None}
    assert card.settings() == {"seed": 4, "n0": 20, "n": 300, "inputs a batch": 3, **on}


def test_a_goal_sets_looks_and_is_said_with_the_alpha_it_is_decided_at() -> None:
    card = Sampling(n=4000, alpha=0.01, goal=Goal({"l2": 0.5}, 0.02), looks=4, early_stop=True)
    assert card.schedule == Looks.geometric(4000, 4)
    said = card.settings()
    assert said["looks"] == Looks.geometric(4000, 4).describe()
    assert said["goal"] == {"targets": {"l2": 0.5}, "precision": 0.02, "alpha": 0.01}
    # 16 batches at the first look.
    assert card.inputs_a_batch == 32


def test_copies_are_a_hundredth_of_the_samples_within_bounds() -> None:
    assert [Sampling(n=n).copies for n in (2, 25_000, 25_100, 99_999, 100_000, 10**7)] == [250, 250, 251, 999, 1000, 1000]


def test_neither_alpha_nor_the_size_of_a_batch_changes_what_is_drawn() -> None:
    assert Sampling(alpha=0.01, batch_size=7).settings() == Sampling().settings()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n": 1.5}, r"n = 1\.5: expected a whole number, 2 or more"),
        ({"n": 1}, r"n = 1: expected a whole number, 2 or more"),
        ({"n": True}, r"n = True: expected a whole number"),
        ({"n": "100"}, r"n = 100: expected a whole number"),
        ({"n": None}, r"n = None: expected a whole number"),
        ({"n0": 0}, r"n0 = 0: expected a whole number, 1 or more"),
        ({"n0": math.nan}, r"n0 = nan: expected a whole number"),
        ({"batch_size": 1.5}, r"batch_size = 1\.5: expected a whole number, 1 or more"),
        ({"batch_size": np.bool_(True)}, r"batch_size = True: expected a whole number"),
        ({"seed": 1.5}, r"seed = 1\.5: expected a whole number, from 0 to 9223372036854775807"),
        ({"seed": 2**63}, r"seed = 9223372036854775808: expected a whole number, from 0"),
        ({"seed": -1}, r"seed = -1"),
        ({"alpha": "0.1"}, r"alpha is a str: expected real numbers that float64 holds"),
        ({"alpha": None}, r"alpha is a NoneType"),
        ({"alpha": 0.1j}, r"alpha holds complex128"),
        ({"alpha": (0.1, 0.2)}, r"alpha has shape \(2,\): expected one number"),
        ({"alpha": 0}, r"alpha = 0.0: expected 0 < alpha < 1"),
        ({"alpha": math.nan}, r"alpha = nan: expected 0 < alpha < 1"),
        ({"thresholds": (1.0, 1.0)}, r"thresholds = \(1\.0, 1\.0\): expected increasing positive numbers"),
        ({"thresholds": (0.0, 1.0)}, r"thresholds = \(0\.0, 1\.0\): expected increasing positive numbers"),
        ({"noise": "grids"}, r"noise = 'grids': expected one of gaussian, grid"),
        ({"grid_step": "1/255"}, r"grid_step = 1/255: expected with noise 'grid' only"),
        ({"noise": "grid", "grid_step": "a"}, r"grid_step = a: expected a fraction p/q"),
        ({"noise": "grid", "grid_step": 0.1234567}, r"grid_step = 0\.1234567: expected a fraction p/q"),
        ({"proposal": "best"}, r"proposal = 'best': expected one of auto, gradient, votes"),
        ({"autocast": "fp8"}, r"autocast = 'fp8': expected None or one of bf16, fp16"),
    ],
)
def test_what_is_out_of_range_or_no_whole_number_is_refused_by_name(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        Sampling(**change)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("step", ["1/255", 1.0 / 255.0, Fraction(1, 255)])
def test_a_step_is_kept_as_a_fraction_and_left_to_the_data_where_none_is_given(step: Any) -> None:
    card = Sampling(noise="grid", grid_step=step)
    assert card.grid_step == Fraction(1, 255)
    assert {name: card.settings()[name] for name in ("noise", "grid_step")} == {"noise": "grid", "grid_step": "1/255"}
    assert Sampling(noise="grid").grid_step == Sampling(noise="grid", grid_step="auto").grid_step == "auto"


def test_numbers_of_numpy_are_numbers_and_become_pythons() -> None:
    card = Sampling(np.int8(20), np.uint64(300), np.float64(0.01), np.int64(7), np.int64(4))  # type: ignore[arg-type]
    assert card == Sampling(20, 300, 0.01, 7, 4)
    assert {type(value) for value in (card.n0, card.n, card.batch_size, card.seed)} == {int}
    assert type(card.alpha) is float
    assert whole("k", np.array(3)) == 3


def test_a_card_does_not_change_and_a_fresh_seed_makes_another() -> None:
    card = Sampling()
    with pytest.raises(dataclasses.FrozenInstanceError):
        card.n = 3  # type: ignore[misc]
    first, second = card.seeded(), card.seeded()
    assert card.seed is None
    assert None is not first.seed != second.seed is not None
    assert dataclasses.replace(first, seed=None) == card
    assert Sampling(seed=0).seeded().seed == 0


@pytest.mark.parametrize(
    ("n0", "n", "batch_size", "inputs", "rows"),
    [
        (100, 1000, 4000, 1, 1000),
        (100, 1000, 4000, 3, 3000),
        (100, 1000, 4000, 99, 4000),
        (5000, 100, 4000, 1, 4000),
        (9, 9, 1, 5, 1),
    ],
)
def test_the_rows_of_the_largest_batch(n0: int, n: int, batch_size: int, inputs: int, rows: int) -> None:
    assert Sampling(n0, n, batch_size=batch_size).rows(inputs) == rows
