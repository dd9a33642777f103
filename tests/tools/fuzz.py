"""Forge tables: one attribute or dataset changed at a time, the digest made to fit; then load, prove and look up.

A forged table is refused on loading, or refused (or mended) by its proof, or what it answers is never above the exact radius.
Whether a cut is true no reader can see: that is what a proof is for. Run: python tests/tools/fuzz.py [COUNT] [--seed S]
"""

import argparse
import json
import math
import os
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from certlut import load
from certlut.kernels.normal import density, upper
from certlut.lookup.format import AXES, DATASETS, TableError, compute_digest, read_table
from certlut.tablegen import Axis, GridSpec, build, prove, radius

GRID = GridSpec(Axis(0.3, 3.0, 3, "sqrt"), Axis(0.0, 0.99, 4, "rim"), Axis(0.0, 180.0, 4, "linear"))
STRANGE = (math.nan, math.inf, -math.inf, -1.0, 0.0, -0.0, 5e-324, 1e-300, 1e-12, 0.5, 1.0, 2.0, 90.0, 181.0, 1e9, 1e300)


def queries(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """(q, m1, m2) in rows, in and around the grid, and the exact radii."""
    z, rho, turn = rng.uniform(0.05, 4.0, count), 1.0 - 10.0 ** rng.uniform(-3.5, 0.0, count), rng.uniform(0.0, math.pi, count)
    rim = np.array([density(x) for x in z])
    points = np.array([[1.0 - upper(x) for x in z], -rho * rim * np.cos(turn), rho * rim * np.sin(turn)])
    return points, np.asarray(radius(*points))


def change_attribute(rng: np.random.Generator, attributes: dict[str, Any], _datasets: dict[str, np.ndarray]) -> str:
    """Change, retype or remove one attribute."""
    name = str(rng.choice(list(attributes)))
    value = attributes[name]
    changes: list[Any] = [float(rng.choice(STRANGE)), int(rng.integers(-3, 4)), bool(rng.integers(2))]
    changes += ["", "{}", "null", b"", np.zeros(2), np.zeros(1000), h5py.Empty("f8")]
    if isinstance(value, str):
        at = int(rng.integers(len(value)))
        changes += [value[:at], value[:at] + chr(int(rng.integers(32, 127))) + value[at + 1 :], value + " "] * 2
    else:
        changes += [float(value) * float(rng.choice([0.5, 2.0, -1.0])), str(value)] * 2
    if name == "proof":
        changes += [json.dumps({"method": "none", "nodes": int(rng.integers(100))}), "[]", "{"]
    pick = int(rng.integers(len(changes) + 1))
    if pick == len(changes):
        del attributes[name]
        return f"{name} removed"
    attributes[name] = changes[pick]
    return f"{name} = {changes[pick]!r}"


def change_dataset(rng: np.random.Generator, _attributes: dict[str, Any], datasets: dict[str, np.ndarray]) -> str:
    """Change some numbers of one dataset, its order, type or shape."""
    names = [*AXES, *DATASETS]  # axes twice as often
    name = names[int(rng.integers(len(names)))]
    values = datasets[name].copy()
    one = tuple(int(rng.integers(n)) for n in values.shape)
    sign, size = float(rng.choice([-1.0, 1.0])), 10.0 ** rng.uniform(-8.0, 0.0)
    close = float(values.ravel()[0]) + 5e-324 * np.arange(values.size).reshape(values.shape)
    shapes = [
        values[:1],
        values[..., :-1],
        values.ravel(),
        np.concatenate([values, values]),
        values[:0],
        values.ravel()[:1].reshape(()),
    ]
    ways: dict[str, Callable[[], np.ndarray | None]] = {
        "one value strange": lambda: values.__setitem__(one, rng.choice(STRANGE)),
        "one value scaled": lambda: values.__setitem__(one, values[one] * 10.0 ** rng.uniform(-9.0, 1.0)),
        "one value nudged": lambda: values.__setitem__(one, values[one] * (1.0 + sign * size)),
        "all values nudged": lambda: (values * (1.0 + sign * size)).astype(values.dtype),
        "all values shifted": lambda: (values + rng.choice(STRANGE)).astype(values.dtype),
        "values turned round": lambda: np.flip(values).copy(),
        "values shuffled": lambda: rng.permuted(values),
        "denormal steps": lambda: close.astype(values.dtype),
        "another type": lambda: values.astype(str(rng.choice(["<f4", "<f8", ">f8", "<i4", "S4", "<f2", "?"]))),
        "another shape": lambda: shapes[int(rng.integers(len(shapes)))],
    }
    way = str(rng.choice(list(ways)))
    with np.errstate(all="ignore"):
        changed = ways[way]()
    datasets[name] = values if changed is None else changed
    return f"{name}: {way}"


def forge(path: Path, attributes: dict[str, Any], datasets: dict[str, np.ndarray]) -> None:
    """Write them with the digest that a reader will compute, where one can be computed at all."""
    try:
        digest = compute_digest(attributes, datasets)
    except (KeyError, ValueError, TypeError, AttributeError):
        digest = "0" * 64
    with h5py.File(path, "w") as file:
        for name, value in (attributes | {"digest": digest}).items():
            file.attrs[name] = value
        for name, values in datasets.items():
            file[name] = values


def answers_are_sound(path: Path, points: np.ndarray, exact: np.ndarray) -> bool:
    """Of scalars and arrays: between 0 and the exact radii, at the table's sigma."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        table = load(path)
    radii = np.asarray(table.radius(*points))
    one = table.radius(*(float(x) for x in points[:, 0]))
    return bool((radii >= 0.0).all() and (radii <= table.sigma * exact * (1.0 + 2e-9)).all() and one == radii[0])


def outcome(path: Path, points: np.ndarray, exact: np.ndarray) -> str:
    """What becomes of a forged table."""
    try:
        read_table(path)
    except TableError as error:
        return "refused on loading" if len(str(error).splitlines()) == 1 and str(path) in str(error) else "UNCLEAR REFUSAL"
    if answers_are_sound(path, points, exact):
        return "accepted and sound"
    proof = prove(path, jobs=1)
    if proof.failed:
        return "refused by its proof"
    return "mended by its proof" if answers_are_sound(path, points, exact) else "ACCEPTED AND UNSOUND"


def fuzz(count: int, seed: int, tell: Callable[[str], None] = lambda _: None) -> Counter[str]:
    """How many of `count` forged tables came to which end."""
    rng = np.random.default_rng(seed)
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        build(Path(folder, "right.h5"), grid=GRID, jobs=1)
        prove(Path(folder, "right.h5"), jobs=1)
        right = read_table(Path(folder, "right.h5"))
        points, exact = queries(rng, 500)
        for number in range(count):
            attributes, datasets = right.attributes(), dict(right.datasets)
            change = (change_attribute if rng.random() < 0.3 else change_dataset)(rng, attributes, datasets)
            path = Path(folder, f"forged-{number}.h5")
            forge(path, attributes, datasets)
            end = outcome(path, points, exact)
            counts[end] += 1
            tell(f"{number}: {change}: {end}")
            os.unlink(path)
    return counts


def main() -> None:
    """Count, print, and fail where a forged table was believed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("count", type=int, nargs="?", default=5000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--each", action="store_true", help="print every change and what became of it")
    arguments = parser.parse_args()
    counts = fuzz(arguments.count, arguments.seed, print if arguments.each else lambda _: None)
    for end, number in sorted(counts.items()):
        print(f"{number:7} {end}")
    raise SystemExit(any(end.isupper() for end in counts))


if __name__ == "__main__":
    main()
