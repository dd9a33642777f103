"""Statistics as plain records and joined again, field by field of the dataclasses: new fields go along."""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .summary import Part, Statistics
from .votes import Tail

# Fields that hold a dataclass by name.
NAMED: Mapping[str, type] = {"parts": Part, "tails": Tail}
# Arrays that are the same for all inputs, and those that are whole numbers even where they are empty.
SHARED = ("thresholds",)
WHOLE = ("classes", "class_count", "looks", "selection", "largest")


def pack(statistics: Statistics) -> dict[str, Any]:
    """As JSON holds it: arrays as lists (Python writes a float's shortest exact form), parts by name."""
    return {name: _plain(value) for name, value in _fields(statistics).items()}


def unpack(record: Mapping[str, Any]) -> Statistics:
    """The inverse of `pack`, bit for bit."""
    return Statistics(**{name: _restored(name, value) for name, value in record.items()})


def layout() -> str:
    """Identifies what a record holds: the names of all fields."""
    names = [[field.name for field in dataclasses.fields(kind)] for kind in (Statistics, Part, Tail)]
    return hashlib.sha256(repr(names).encode()).hexdigest()[:8]


def join(drawn: Sequence[Statistics]) -> Statistics:
    """Concatenate the statistics of inputs of one shape, one sigma and the same parts. ValueError for several shapes."""
    first = drawn[0]
    if any(s.d != first.d for s in drawn):
        sizes = sorted({s.d for s in drawn})
        raise ValueError(f"inputs of {' and '.join(map(str, sizes))} numbers: expected one shape in a statistics file")
    return Statistics(**_joined(drawn))


def take(statistics: Statistics, order: Sequence[int]) -> Statistics:
    """The inputs at these places, in this order."""
    return Statistics(**_taken(statistics, np.asarray(order)))


def _fields(item: Any) -> dict[str, Any]:
    return {field.name: getattr(item, field.name) for field in dataclasses.fields(item)}


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if dataclasses.is_dataclass(value):
        value = _fields(value)
    return {name: _plain(item) for name, item in value.items()} if isinstance(value, Mapping) else value


def _restored(name: str, value: Any) -> Any:
    if name in NAMED:
        return {key: NAMED[name](**{field: _restored(field, part) for field, part in item.items()}) for key, item in value.items()}
    if not isinstance(value, list):
        return value
    # Lists are arrays, of whole numbers (int64) or floats.
    return np.array(value, dtype=np.int64) if name in WHOLE else np.array(value)


def _joined(items: Sequence[Any]) -> dict[str, Any]:
    """Arrays one after the other; the rest must be the same for all."""
    out: dict[str, Any] = {}
    for name, value in _fields(items[0]).items():
        column = [getattr(item, name) for item in items]
        if name in NAMED:
            out[name] = {key: NAMED[name](**_joined([part[key] for part in column])) for key in value}
        elif isinstance(value, np.ndarray) and name not in SHARED:
            out[name] = np.concatenate(column)
        elif all(np.array_equal(value, other) for other in column):
            out[name] = value
        else:
            raise ValueError(f"statistics: {name} is not the same for all inputs: {value} for the first")
    return out


def _taken(item: Any, where: npt.NDArray[np.int64]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name, value in _fields(item).items():
        if name in NAMED:
            out[name] = {key: NAMED[name](**_taken(part, where)) for key, part in value.items()}
        else:
            out[name] = value[where] if isinstance(value, np.ndarray) and name not in SHARED else value
    return out
