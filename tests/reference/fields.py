"""Statistics as plain values, to compare them to the bit."""

import dataclasses

import numpy as np

from certlut.statistics.summary import Statistics


def flat(statistics: Statistics) -> dict[str, object]:
    """Every field of it and of its parts; arrays by their type and bytes."""
    out: dict[str, object] = {}
    for place, item in [("", statistics), *statistics.parts.items()]:
        for field in dataclasses.fields(item):
            value = getattr(item, field.name)
            if field.name != "parts":
                out[f"{place}/{field.name}"] = (
                    (value.dtype, value.shape, value.tobytes()) if isinstance(value, np.ndarray) else value
                )
    return out
