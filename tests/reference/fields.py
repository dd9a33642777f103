"""Statistics as plain values, to compare them to the bit."""

import dataclasses

import numpy as np

from certlut.statistics.summary import Statistics


def flat(statistics: Statistics) -> dict[str, object]:
    """Every field of it, of its parts and of its tails; arrays by their type and bytes."""
    out: dict[str, object] = {}
    tails = [(f"tails/{name}", tail) for name, tail in statistics.tails.items()]
    for place, item in [("", statistics), *statistics.parts.items(), *tails]:
        for field in dataclasses.fields(item):
            value = getattr(item, field.name)
            if field.name not in ("parts", "tails"):
                out[f"{place}/{field.name}"] = (
                    (value.dtype, value.shape, value.tobytes()) if isinstance(value, np.ndarray) else value
                )
    return out
