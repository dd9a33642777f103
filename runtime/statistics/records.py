"""Statistics as plain records and joined again, field by field of the dataclasses: new fields go along."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .summary import Part, Statistics


def pack(statistics: Statistics) -> dict[str, Any]:
    """As JSON holds it: arrays as lists (Python writes a float's shortest exact form), parts by name."""
    return {field.name: _plain(getattr(statistics, field.name)) for field in dataclasses.fields(statistics)}


def unpack(record: Mapping[str, Any]) -> Statistics:
    """The inverse of `pack`, bit for bit."""
    fields = {name: _array(value) for name, value in record.items() if name != "parts"}
    parts = {name: Part(**{key: _array(value) for key, value in part.items()}) for name, part in record["parts"].items()}
    return Statistics(parts=parts, **fields)


def join(drawn: Sequence[Statistics]) -> Statistics:
    """Concatenate the statistics of inputs of one shape, one sigma and the same parts. ValueError for several shapes."""
    first = drawn[0]
    if any(s.d != first.d for s in drawn):
        sizes = sorted({s.d for s in drawn})
        raise ValueError(f"inputs of {' and '.join(map(str, sizes))} numbers: expected one shape in a statistics file")
    parts = {name: Part(**_joined([s.parts[name] for s in drawn])) for name in first.parts}
    return Statistics(**(_joined(drawn) | {"parts": parts}))


def take(statistics: Statistics, order: Sequence[int]) -> Statistics:
    """The inputs at these places, in this order."""
    where = np.asarray(order)
    parts = {name: Part(**_mapped(part, where)) for name, part in statistics.parts.items()}
    return Statistics(**(_mapped(statistics, where) | {"parts": parts}))


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, Mapping):
        return {
            name: {field.name: _plain(getattr(part, field.name)) for field in dataclasses.fields(part)}
            for name, part in value.items()
        }
    return value


def _array(value: Any) -> Any:
    """Lists are arrays, of whole numbers (int64) or floats."""
    return np.array(value) if isinstance(value, list) else value


def _joined(parts: Sequence[Any]) -> dict[str, Any]:
    """Arrays are one after the other; what is not an array is the same for all."""
    columns = {field.name: [getattr(part, field.name) for part in parts] for field in dataclasses.fields(parts[0])}
    return {name: np.concatenate(column) if isinstance(column[0], np.ndarray) else column[0] for name, column in columns.items()}


def _mapped(part: Any, where: Any) -> dict[str, Any]:
    columns = {field.name: getattr(part, field.name) for field in dataclasses.fields(part)}
    return {name: value[where] if isinstance(value, np.ndarray) else value for name, value in columns.items()}
