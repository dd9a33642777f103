"""The configuration of a report: a TOML file with every setting, checked by pydantic. Shipped ones are found by name."""

import dataclasses
import os
import re
import tomllib
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError, with_config

from ..threats.declare import Subspace
from ..threats.sets import Ball
from ..threats.specs import parse_threats
from .known import BUNDLED, FOLDERS

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails


def _different(values: tuple[float, ...]) -> tuple[float, ...]:
    if len(set(values)) < len(values):
        raise ValueError("different numbers")
    return values


def _known_part(name: str) -> str:
    if name not in ("left", "red") and not re.fullmatch(r"[^=]+=mask:.+", name):
        raise ValueError("left, red or NAME=mask:FILE.npy")
    return name


# Strict: true is no number, "5" and 5.0 are no whole numbers; 1 will do for 1.0.
Whole = Annotated[int, Field(strict=True, ge=1)]
Sigma = Annotated[float, Field(strict=True, gt=0.0, allow_inf_nan=False)]
NotEmpty = Field(min_length=1)
NO_OTHER_KEYS = ConfigDict(extra="forbid")


@with_config(NO_OTHER_KEYS)
@dataclass(frozen=True)
class Growth:
    """How the gain grows with n: the first `inputs` inputs at one sigma, at each n."""

    sigma: Sigma = 0.5
    inputs: Whole = 4
    n: Annotated[tuple[Whole, ...], NotEmpty, AfterValidator(_different)] = (10_000, 100_000)


@with_config(NO_OTHER_KEYS)
@dataclass(frozen=True)
class Attack:
    """The searches for shifts that break a vote."""

    sigma: Sigma = 0.5
    """Of the network that is attacked."""
    inputs: Whole | None = None
    """How many of the certified inputs, the first ones; by default all."""
    classifiers: Whole = 60
    """Random ones whose vote is known in closed form."""


@with_config(NO_OTHER_KEYS)
@dataclass(frozen=True)
class Config:
    """Every setting of a report; the field names are the keys of the TOML file."""

    title: str
    data: str
    """digits or patches; mnist, fashion-mnist or cifar10 with a folder; or what `load_data` opens, with a model."""
    inputs: Whole
    """How many test inputs are certified: the first ones, of a folder's spread evenly over its test split."""
    folder: str = ""
    """Where the files of mnist, fashion-mnist or cifar10 are."""
    model: str = ""
    """For data of your own: what `load_model` opens, with {sigma} where each noise level has a model of its own."""
    normalise: str = ""
    """A layer for its front, in place of a checkpoint's (`inputs.normalise.parse`)."""
    num_classes: Annotated[int, Field(strict=True, ge=0)] = 0
    """For data of your own."""
    skip: Whole = 1
    """Take every skip-th input of data of your own."""
    split: str = "test"
    epochs: Whole = 10
    """Training of the networks, where they are ours."""
    sigma: Annotated[tuple[Sigma, ...], NotEmpty, AfterValidator(_different)] = (0.12, 0.25, 0.5, 1.0)
    alpha: Annotated[float, Field(strict=True, gt=0.0, lt=1.0)] = 0.001
    n0: Whole = 100
    n: Whole = 100_000
    batch_size: Whole = 1000
    seed: Annotated[int, Field(strict=True, ge=0, lt=2**63)] = 0
    device: str = "cpu"
    subspace: Annotated[str, AfterValidator(_known_part)] = "left"
    """The fourth threat, in l2: the left half of the image, the red channel of a (3, h, w) input, or NAME=mask:FILE.npy."""
    growth: Growth = field(default_factory=Growth)
    attack: Attack = field(default_factory=Attack)

    @property
    def trained(self) -> bool:
        """Whether the networks are our own, small ones that are trained first."""
        return self.data in BUNDLED or self.data in FOLDERS

    def quick(self) -> "Config":
        """The same report in small: a few inputs, few samples, two noise levels. For a first look and for tests."""
        ends = (self.sigma[0], self.sigma[-1]) if len(self.sigma) > 1 else self.sigma
        return dataclasses.replace(
            self,
            inputs=min(self.inputs, 6),
            epochs=min(self.epochs, 2),
            n=min(self.n, 2000),
            sigma=ends,
            growth=Growth(ends[-1], 2, (1000, 4000)),
            attack=Attack(ends[-1], 2, min(self.attack.classifiers, 6)),
        )


def shipped() -> list[str]:
    """Names of the configurations that come with the package."""
    return sorted(entry.name[: -len(".toml")] for entry in (files(__package__) / "cards").iterdir() if entry.name.endswith(".toml"))


def read_config(name: str | os.PathLike[str]) -> Config:
    """Read a shipped configuration by name, or a TOML file.

    Raises:
        FileNotFoundError: neither a shipped name nor a file.
        ValueError: not TOML, an unknown or missing key, a value of another type or out of range; the key is named.
    """
    path = Path(name)
    if os.fspath(name) in shipped():
        source, data = f"{name}.toml", (files(__package__) / "cards" / f"{name}.toml").read_bytes()
    elif path.is_file():
        source, data = str(path), path.read_bytes()
    else:
        raise FileNotFoundError(f"{name}: no such configuration file (shipped ones: {', '.join(shipped())})")
    try:
        config = TypeAdapter(Config).validate_python(tomllib.loads(data.decode("utf-8-sig")))
        _check(config)
    except ValidationError as error:
        raise ValueError(f"{source}: {_in_words(error.errors()[0])}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, ValueError) as error:
        raise ValueError(f"{source}: {error}") from None
    return config


def _in_words(error: "ErrorDetails") -> str:
    """What pydantic found, in one line: key, what was seen, what was expected."""
    key, kind = ".".join(name for name in error["loc"] if isinstance(name, str)), error["type"]
    section, _, _ = key.rpartition(".")
    if kind == "missing":
        return f"key {key} is missing"
    if kind == "unexpected_keyword_argument":
        known = dataclasses.fields({"growth": Growth, "attack": Attack}.get(section, Config))
        return f"unknown key {key}, expected one of {', '.join(f'{section}.{f.name}'.lstrip('.') for f in known)}"
    # TOML's words where pydantic's are Python's.
    words = {"tuple_type": "a list of numbers", "too_short": "a list of one number or more", "dataclass_type": f"a section [{key}]"}
    expected = (
        str(error["ctx"]["error"]) if kind == "value_error" else words.get(kind, error["msg"].removeprefix("Input should be "))
    )
    return f"{key} = {error['input']!r}: expected {expected}"


def _check(config: Config) -> None:
    """What no single key tells."""
    for key, sigma in (("growth.sigma", config.growth.sigma), ("attack.sigma", config.attack.sigma)):
        if sigma not in config.sigma:
            raise ValueError(f"{key} = {sigma}: expected one of sigma = {list(config.sigma)}")
    own = [f for f in dataclasses.fields(config) if f.name in ("model", "normalise", "num_classes", "skip", "split", "device")]
    if config.trained and (changed := [f.name for f in own if getattr(config, f.name) != f.default]):
        raise ValueError(f"data = {config.data!r} comes with its networks: leave out {' and '.join(changed)}")
    if not config.trained and (not config.model or config.num_classes < 2):
        known = ", ".join((*BUNDLED, *FOLDERS))
        raise ValueError(f"data = {config.data!r} needs a model and num_classes of 2 or more (data with networks: {known})")


def subspace(name: str, shape: tuple[int, ...]) -> Ball:
    """The fourth threat of a report for inputs of this shape. ValueError where the shape has no such part, or no such mask."""
    if "=" in name:
        (own,) = parse_threats([name])
        assert isinstance(own, Ball)
        if own.shape != shape:
            raise ValueError(f"subspace = {name!r}: the mask has shape {own.shape}, the inputs have shape {shape}")
        return own
    mask = np.zeros(shape, dtype=bool)
    if name == "red":
        if len(shape) != 3 or shape[0] != 3:
            raise ValueError(f"subspace = 'red': the inputs have shape {shape}, expected (3, height, width)")
        mask[0] = True
    else:
        if len(shape) < 2 or shape[-1] < 2:
            raise ValueError(f"subspace = 'left': the inputs have shape {shape}, expected images (..., height, width)")
        mask[..., : shape[-1] // 2] = True
    return Subspace(mask, p=2, name=name)
