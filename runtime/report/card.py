"""The configuration of a report: a TOML file with every setting, checked field by field. Shipped ones are found by name."""

import dataclasses
import math
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np

from ..threats.declare import Subspace
from ..threats.sets import Ball

SUBSPACES = ("left", "red")
BUNDLED = ("digits", "patches")


@dataclass(frozen=True)
class Growth:
    """How the gain grows with n: the first `inputs` inputs at one sigma, at each n."""

    sigma: float = 0.5
    inputs: int = 4
    n: tuple[int, ...] = (10_000, 100_000)


@dataclass(frozen=True)
class Attack:
    """The search for adversarial points: `inputs` inputs of the network, and `classifiers` random closed-form ones."""

    sigma: float = 0.5
    inputs: int = 2
    classifiers: int = 60


@dataclass(frozen=True)
class Config:
    """Every setting of a report; the field names are the keys of the TOML file."""

    title: str
    data: str
    """digits or patches, or what `load_data` opens: an .npz file or a data set's folder."""
    inputs: int
    """How many test inputs are certified."""
    model: str = ""
    """For data of your own: what `load_model` opens, with {sigma} where each noise level has a model of its own."""
    num_classes: int = 0
    """For data of your own."""
    skip: int = 1
    """Take every skip-th input of data of your own."""
    split: str = "test"
    epochs: int = 10
    """Training of the bundled networks."""
    sigma: tuple[float, ...] = (0.12, 0.25, 0.5, 1.0)
    alpha: float = 0.001
    n0: int = 100
    n: int = 100_000
    batch_size: int = 1000
    seed: int = 0
    device: str = "cpu"
    subspace: str = "left"
    """The fourth threat, in l2: the left half of the image, or the red channel of a (3, h, w) input."""
    growth: Growth = field(default_factory=Growth)
    attack: Attack = field(default_factory=Attack)

    @property
    def bundled(self) -> bool:
        """Whether the data and the networks are our own."""
        return self.data in BUNDLED

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
            attack=Attack(ends[-1], 1, min(self.attack.classifiers, 6)),
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
        config: Config = _fill(Config, tomllib.loads(data.decode()), "")
        _check(config)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, ValueError) as error:
        raise ValueError(f"{source}: {error}") from None
    return config


def _fill(kind: Any, values: Mapping[str, Any], prefix: str) -> Any:
    """An instance of the dataclass `kind`; every key and type checked."""
    hints = get_type_hints(kind)
    if unknown := sorted(set(values) - set(hints)):
        raise ValueError(f"unknown key {prefix}{unknown[0]}, expected one of {', '.join(prefix + name for name in hints)}")
    needed = [
        f.name for f in dataclasses.fields(kind) if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]
    if missing := [name for name in needed if name not in values]:
        raise ValueError(f"key {prefix}{missing[0]} is missing")
    return kind(**{name: _convert(hints[name], value, prefix + name) for name, value in values.items()})


def _convert(hint: Any, value: Any, key: str) -> Any:
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, dict):
            raise ValueError(f"{key} = {value!r}: expected a section [{key}]")
        return _fill(hint, value, f"{key}.")
    if arguments := get_args(hint):
        if not isinstance(value, list) or not value:
            raise ValueError(f"{key} = {value!r}: expected a list of numbers")
        return tuple(_convert(arguments[0], item, key) for item in value)
    # A bool is an int for isinstance; an int will do where a float is expected.
    if isinstance(value, bool) or not isinstance(value, (int, float) if hint is float else hint):
        raise ValueError(
            f"{key} = {value!r}: expected {'a number' if hint is float else 'a whole number' if hint is int else 'text'}"
        )
    return hint(value)


def _check(config: Config) -> None:
    positive = {
        "inputs": config.inputs,
        "epochs": config.epochs,
        "skip": config.skip,
        "n0": config.n0,
        "batch_size": config.batch_size,
    }
    positive |= {"n": config.n, "growth.inputs": config.growth.inputs, "growth.n": min(config.growth.n)}
    positive |= {"attack.inputs": config.attack.inputs, "attack.classifiers": config.attack.classifiers}
    for key, value in positive.items():
        if value < 1:
            raise ValueError(f"{key} = {value}: expected 1 or more")
    if not all(math.isfinite(sigma) and sigma > 0 for sigma in config.sigma) or len(set(config.sigma)) < len(config.sigma):
        raise ValueError(f"sigma = {list(config.sigma)}: expected different positive numbers")
    for key, sigma in (("growth.sigma", config.growth.sigma), ("attack.sigma", config.attack.sigma)):
        if sigma not in config.sigma:
            raise ValueError(f"{key} = {sigma}: expected one of sigma = {list(config.sigma)}")
    if not 0.0 < config.alpha < 1.0:
        raise ValueError(f"alpha = {config.alpha}: expected 0 < alpha < 1")
    if not 0 <= config.seed < 2**63:
        raise ValueError(f"seed = {config.seed}: expected 0 <= seed < 2**63")
    if config.subspace not in SUBSPACES:
        raise ValueError(f"subspace = {config.subspace!r}: expected one of {', '.join(SUBSPACES)}")
    own = [f for f in dataclasses.fields(config) if f.name in ("model", "num_classes", "skip", "split", "device")]
    if config.bundled and (changed := [f.name for f in own if getattr(config, f.name) != f.default]):
        raise ValueError(f"data = {config.data!r} comes with its networks: leave out {' and '.join(changed)}")
    if len(set(config.growth.n)) < len(config.growth.n):
        raise ValueError(f"growth.n = {list(config.growth.n)}: expected different numbers")
    if not config.bundled and (not config.model or config.num_classes < 2):
        raise ValueError(f"data = {config.data!r} needs a model and num_classes of 2 or more (bundled data: {', '.join(BUNDLED)})")


def subspace(name: str, shape: tuple[int, ...]) -> Ball:
    """The fourth threat of a report for inputs of this shape. ValueError where the shape has no such part."""
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
