"""Which inputs a process samples: groups that fill a batch, dealt out to the shards of a run.

Inputs are grouped by their place in the whole data set, and whole groups are dealt out: every arrangement of processes asks the
model with the same batches, so that even kernel rounding is the same.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

# Sums of a group are held at once.
LARGEST_GROUP = 32
# Of inputs sampled in looks only the classes given are held, and the inputs.
LARGEST_POOL, FULL_BATCHES = 256, 16


def group_size(n: int, batch_size: int) -> int:
    """Inputs whose n samples share a batch; 1 where a batch holds no more than one input's."""
    return max(1, min(LARGEST_GROUP, batch_size // max(n, 1)))


def pool_size(first: int, batch_size: int) -> int:
    """Inputs that go on together, look by look, where the first look has so many samples: batches stay full as they get fewer."""
    return max(1, min(LARGEST_POOL, FULL_BATCHES * batch_size // first))


def groups(inputs: int, size: int) -> list[range]:
    """All inputs, in runs of `size`."""
    return [range(start, min(start + size, inputs)) for start in range(0, inputs, size)]


@dataclass(frozen=True)
class Shard:
    """Part `index`, from 0, of `count`."""

    index: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise ValueError(f"shard {self}: expected K/N with 0 <= K < N")

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """From "K/N"; ValueError."""
        index, slash, count = text.partition("/")
        if not (slash and index.isdecimal() and count.isdecimal()):
            raise ValueError(f"shard {text!r}: expected K/N, as in 0/4")
        return cls(int(index), int(count))

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "Shard":
        """Under torchrun from RANK and WORLD_SIZE; else the whole."""
        if "RANK" not in environment or "WORLD_SIZE" not in environment:
            return cls()
        return cls.parse(f"{environment['RANK']}/{environment['WORLD_SIZE']}")

    def path(self, out: Path) -> Path:
        """Where this shard is written: stats.h5 -> stats.0-of-4.h5."""
        return out if self.count == 1 else out.with_name(f"{out.stem}.{self.index}-of-{self.count}{out.suffix}")

    def pick(self, groups: list[range]) -> list[range]:
        """This shard's groups."""
        return groups[self.index :: self.count]


def local_device(device: str, environment: Mapping[str, str] = os.environ) -> str:
    """ "cuda" under torchrun is the GPU of LOCAL_RANK; anything else is itself."""
    return f"cuda:{environment['LOCAL_RANK']}" if device == "cuda" and "LOCAL_RANK" in environment else device
