"""How inputs are sampled: one card of numbers, checked once, that travels from the caller to the engine and into every file."""

import itertools
import math
import operator
import secrets
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

import numpy as np

from ..bounds.looks import COUNT, Goal, Looks
from ..jobs.shards import group_size, pool_size
from ..kernels.arrays import real
from ..lookup.tail_format import THRESHOLDS
from .levels import grid_step

PRECISIONS = ("bf16", "fp16")
NOISES = ("gaussian", "grid")
# The step that the data have.
AUTO = "auto"
# What proposes the direction of the gradient (proposal.py), and the copies that it takes: some thousandths of n.
PROPOSALS = ("auto", "gradient", "votes")
FEWEST_COPIES, MOST_COPIES, SAMPLES_A_COPY = 250, 1000, 100
# Temperature of a proposal over the deviation of the margins.
SHARPNESS = 0.3


def whole(name: str, value: Any, least: int = 0, most: int | None = None) -> int:
    """`value` as an int; ValueError, with its name, unless it is a whole number (no bool) from `least` to `most`."""
    try:
        number = None if isinstance(value, (bool, np.bool_)) else operator.index(value)
    except TypeError:
        number = None
    if number is None or number < least or (most is not None and number > most):
        range_ = f"{least} or more" if most is None else f"from {least} to {most}"
        raise ValueError(f"{name} = {value!s}: expected a whole number, {range_}")
    return number


@dataclass(frozen=True)
class Sampling:
    """What is drawn of each input, and how the model is run. ValueError, with its name, for a field that is out of range."""

    n0: int = 100
    """Samples to choose the class from; they are not used again."""
    n: int = 100_000
    """Fresh samples to certify it with, in two halves."""
    alpha: float = 0.001
    """Probability that any radius of an input is wrong. What is drawn depends on it with `early_stop` only."""
    batch_size: int = 1000
    """Rows of a forward pass."""
    seed: int | None = None
    """With a seed the noise depends on (seed, index) alone; without one it is fresh each time."""
    autocast: str | None = None
    """"bf16" or "fp16": torch.autocast. Another precision is another classifier: certify what you will deploy."""
    channels_last: bool = False
    """Images in channels-last order: the same function up to kernel rounding."""
    compile: bool | str = False
    """True, or a backend's name, for torch.compile: the same function up to kernel rounding."""
    early_stop: bool = False
    """Stop an input whose abstention is certain (`certlut.bounds.looks`)."""
    goal: Goal = field(default_factory=Goal)
    """Stop an input once its targets are reached, or out of reach, or more samples would add too little: n is a ceiling."""
    looks: int = COUNT
    """With a goal: how often an input is looked at."""
    thresholds: tuple[float, ...] = THRESHOLDS
    """Beyond which votes against are counted along directions, increasing, sigma = 1 units; () counts none."""
    noise: str = "gaussian"
    """"gaussian": floats; "grid": whole steps of the grid that the inputs lie on, of a known law (docs/noise.md)."""
    grid_step: Fraction | str | float | None = None
    """With noise on a grid its step, in input units: a fraction, "1/255", the float nearest to one, or "auto", the data's."""
    keep_means: bool = False
    """Keep mean vectors in statistics files, 32 d bytes an input, so that threats thought of later can be certified."""
    proposal: str = "auto"
    """What proposes the direction that the gradient's length is bet along: "gradient" of the model, or "votes"; "auto": votes where
    the model gives no gradient."""

    def __post_init__(self) -> None:
        for name, least in (("n0", 1), ("n", 2), ("batch_size", 1), ("looks", 1)):
            object.__setattr__(self, name, whole(name, getattr(self, name), least))
        if self.seed is not None:
            object.__setattr__(self, "seed", whole("seed", self.seed, 0, 2**63 - 1))
        object.__setattr__(self, "alpha", real("alpha", self.alpha))
        if not 0.0 < self.alpha < 1.0:
            raise ValueError(f"alpha = {self.alpha}: expected 0 < alpha < 1")
        object.__setattr__(self, "thresholds", tuple(map(float, self.thresholds)))
        if any(not 0.0 < low < high < math.inf for low, high in itertools.pairwise((*self.thresholds, 1e9))):
            raise ValueError(f"thresholds = {self.thresholds}: expected increasing positive numbers, in units of sigma")
        if self.noise not in NOISES:
            raise ValueError(f"noise = {self.noise!r}: expected one of {', '.join(NOISES)}")
        if self.noise == "gaussian" and self.grid_step is not None:
            raise ValueError(f"grid_step = {self.grid_step}: expected with noise 'grid' only")
        if self.noise == "grid":
            step = AUTO if self.grid_step in (None, AUTO) else grid_step(self.grid_step)
            object.__setattr__(self, "grid_step", step)
        if self.proposal not in PROPOSALS:
            raise ValueError(f"proposal = {self.proposal!r}: expected one of {', '.join(PROPOSALS)}")
        if self.autocast is not None and self.autocast not in PRECISIONS:
            raise ValueError(f"autocast = {self.autocast!r}: expected None or one of {', '.join(PRECISIONS)}")

    @property
    def inputs_a_batch(self) -> int:
        """How many inputs share batches."""
        if self.goal and self.schedule is not None:
            return pool_size(self.schedule.sizes[0], self.batch_size)
        return group_size(self.n, self.batch_size)

    def rows(self, inputs: int) -> int:
        """Rows of the largest batch that the model is asked with, for so many inputs."""
        return min(self.batch_size, min(inputs, self.inputs_a_batch) * max(self.n0, self.n))

    @property
    def schedule(self) -> Looks | None:
        """When inputs are looked at; None where all n samples are drawn of each."""
        if self.goal:
            return Looks.geometric(self.n, self.looks)
        return Looks.giving_up(self.n) if self.early_stop else None

    @property
    def copies(self) -> int:
        """Noisy copies of an input that a direction is proposed from."""
        return min(MOST_COPIES, max(FEWEST_COPIES, self.n // SAMPLES_A_COPY))

    @property
    def proposed(self) -> dict[str, Any]:
        """What proposes, and its settings, as statistics tell it; "auto" counts as "gradient" (Sampler.resolved)."""
        by_votes: dict[str, Any] = {"by": "votes"}
        return by_votes if self.proposal == "votes" else {"by": "gradient", "copies": self.copies, "temperature": SHARPNESS}

    def seeded(self) -> "Sampling":
        """The same, with a fresh seed where it has none."""
        return self if self.seed is not None else replace(self, seed=secrets.randbits(63))

    def settings(self) -> dict[str, Any]:
        """What the numbers drawn depend on: a run goes on only with the same."""
        return {
            "seed": self.seed,
            "n0": self.n0,
            "n": self.n,
            "inputs a batch": self.inputs_a_batch,
            "thresholds": list(self.thresholds),
            "keep_means": self.keep_means,
            "noise": self.noise,
            "grid_step": None if self.grid_step is None else str(self.grid_step),
            "proposal": self.proposed,
            "autocast": self.autocast,
            "channels_last": self.channels_last,
            "compile": self.compile,
            "early_stop": self.alpha if self.early_stop else None,
            "looks": None if self.schedule is None else self.schedule.describe(),
            "goal": {"targets": dict(self.goal.targets), "precision": self.goal.precision, "alpha": self.alpha}
            if self.goal
            else None,
        }
