"""Data sets that people have in memory, as (input, label) pairs: sequences, arrays, zip, torch's Dataset and DataLoader."""

from collections.abc import Sequence
from typing import Any

EXPECTED = (
    "expected (input, label) pairs (a sequence, a torch Dataset, zip(inputs, labels)), a pair of arrays (x, y), or a DataLoader"
)


class Pairs(Sequence[tuple[Any, int]]):
    """The pairs of a sequence, each checked when it is asked for."""

    def __init__(self, source: Any, num_classes: int) -> None:
        self.source, self.num_classes = source, num_classes

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: Any) -> Any:
        """ValueError unless it is a pair whose label is a class."""
        if isinstance(index, slice):
            return Pairs([self.source[place] for place in range(*index.indices(len(self)))], self.num_classes)
        item = self.source[index]
        if not isinstance(item, (tuple, list)) or len(item) != 2:
            raise ValueError(f"data[{index}] is {described(item)}: expected a pair (input, label)")
        x, given = item
        try:
            label = float("nan" if isinstance(given, str) else given)
        except (TypeError, ValueError, RuntimeError):
            label = float("nan")
        if not (label.is_integer() and 0 <= label < self.num_classes):
            said = f"{label:g}" if label == label else f"of {described(given)}"
            raise ValueError(
                f"data[{index}] has label {said}: expected a whole number from 0 to {self.num_classes - 1} "
                f"({self.num_classes} classes)"
            )
        return x, int(label)


def as_pairs(data: Any, num_classes: int) -> Pairs:
    """What users have in memory, as pairs: read when they are asked for where that is possible.

    Args:
        data: a sequence or torch Dataset of (input, label); an iterator of them, as zip(inputs, labels); a pair of arrays (x, y) of
            equal length; a DataLoader of batches (x, y), in a fixed order.
        num_classes: labels are 0 to num_classes - 1.

    Raises:
        ValueError: anything else, in one line.
    """
    if any(kind.__name__ == "DataLoader" for kind in type(data).__mro__):
        data = _of_loader(data)
    elif isinstance(data, (tuple, list)) and len(data) == 2 and hasattr(data[0], "shape") and hasattr(data[1], "__len__"):
        x, y = data
        if len(x) != len(y):
            raise ValueError(f"data = {described(x)} and {described(y)}: expected as many labels as inputs")
        data = list(zip(x, y, strict=True))
    elif hasattr(data, "__iter__") and not (hasattr(data, "__getitem__") and hasattr(data, "__len__")):
        data = list(data)
    sequence = hasattr(data, "__getitem__") and hasattr(data, "__len__")
    if hasattr(data, "shape") or isinstance(data, (str, bytes, dict)) or not sequence:
        raise ValueError(f"data = {described(data)}: {EXPECTED}")
    return Pairs(data, num_classes)


def _of_loader(loader: Any) -> Any:
    """The data set behind a DataLoader that changes nothing of it; else all its batches, taken apart."""
    from torch.utils.data import SequentialSampler, default_collate

    if "Random" in type(loader.sampler).__name__:
        raise ValueError("data = a DataLoader that shuffles: expected the same order each time; give its dataset, or shuffle=False")
    if isinstance(loader.sampler, SequentialSampler) and loader.collate_fn is default_collate and not loader.drop_last:
        return loader.dataset
    if loader.batch_sampler is None:
        return list(loader)
    pairs: list[Any] = []
    for batch in loader:
        if not isinstance(batch, (tuple, list)) or len(batch) != 2:
            raise ValueError(f"data = a DataLoader whose batch is {described(batch)}: expected a pair (x, y)")
        pairs.extend(zip(*batch, strict=True))
    return pairs


def described(thing: Any) -> str:
    """Its type, and its shape or length."""
    if (shape := getattr(thing, "shape", None)) is not None:
        return f"{type(thing).__name__} of shape {tuple(shape)}"
    return f"{type(thing).__name__} of length {len(thing)}" if hasattr(thing, "__len__") else type(thing).__name__
