"""CIFAR-10 and CIFAR-100 as they are distributed: binary batches, and Python's, of which no pickled code is run."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from .untrusted import Recorded, load_plain

SHAPE = (3, 32, 32)
PIXELS = 3 * 32 * 32

Images = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Cifar:
    """One of the two data sets."""

    name: str
    classes: int
    folders: tuple[str, ...]
    """What its archives unpack to."""
    batches: Mapping[str, tuple[str, ...]]
    """Files of each split."""
    meta: tuple[str, ...]
    """Files that must lie beside Python batches whose names say little."""
    label_bytes: int
    """Before the pixels of a binary record; the last one is the label."""
    labels: str
    """Their name in a Python batch."""


TEN = Cifar(
    name="CIFAR-10",
    classes=10,
    folders=("cifar-10-batches-bin", "cifar-10-batches-py"),
    batches={"train": tuple(f"data_batch_{i}" for i in range(1, 6)), "test": ("test_batch",)},
    meta=(),
    label_bytes=1,
    labels="labels",
)
HUNDRED = Cifar(
    name="CIFAR-100",
    classes=100,
    folders=("cifar-100-binary", "cifar-100-python"),
    batches={"train": ("train",), "test": ("test",)},
    meta=("meta",),
    label_bytes=2,
    labels="fine_labels",
)


def cifar_folder(path: Path) -> tuple[Cifar, Path, str] | None:
    """(which, folder, suffix of its batches) if `path` holds one of them or a folder of its name, else None."""
    for cifar in (TEN, HUNDRED):
        for folder in (path, *(path / name for name in cifar.folders)):
            for suffix in (".bin", ""):
                there = any((folder / f"{name}{suffix}").is_file() for names in cifar.batches.values() for name in names)
                if there and (suffix or all((folder / name).is_file() for name in cifar.meta)):
                    return cifar, folder, suffix
    return None


def load_cifar(cifar: Cifar, folder: Path, suffix: str, split: str) -> tuple[Images, Labels]:
    """Images (N, 3, 32, 32), uint8, and labels (of CIFAR-100 the fine ones) from all batches of a split.

    Args:
        cifar: which of the two.
        folder: where the batches are.
        suffix: ".bin" for the binary version, "" for the Python one, which is read without running any pickled code.
        split: train or test.

    Raises:
        FileNotFoundError: a batch that is not there.
        ValueError: a split that it has not, a batch that is damaged or another thing.
    """
    if split not in cifar.batches:
        raise ValueError(f"{folder}: {cifar.name} has no split {split!r}, expected train or test")
    images, labels = [], []
    for name in cifar.batches[split]:
        path = folder / f"{name}{suffix}"
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file; the {split} split is {', '.join(cifar.batches[split])}")
        x, y = _binary_batch(path, cifar.label_bytes) if suffix else _python_batch(path, cifar)
        if len(y) == 0 or y.min() < 0 or y.max() >= cifar.classes:
            seen = sorted(set(y.tolist()))[:20]
            raise ValueError(f"{path}: labels {seen}, expected some of 0 to {cifar.classes - 1}: not a batch of {cifar.name}")
        images.append(x)
        labels.append(y)
    return np.concatenate(images), np.concatenate(labels)


def _binary_batch(path: Path, label_bytes: int) -> tuple[Images, Labels]:
    """Records of labels, a byte each, and 3072 bytes: the red, green and blue planes, row by row."""
    size, record = path.stat().st_size, label_bytes + PIXELS
    if size == 0 or size % record:
        raise ValueError(f"{path}: {size} bytes, expected a multiple of {record} ({label_bytes} of labels and 3x32x32 pixels each)")
    records = np.fromfile(path, dtype=np.uint8).reshape(-1, record)
    return records[:, label_bytes:].reshape(-1, *SHAPE), records[:, label_bytes - 1].astype(np.int64)


def _python_batch(path: Path, cifar: Cifar) -> tuple[Images, Labels]:
    """A dictionary with data (N, 3072), planes as in the binary version, and a list of N labels."""
    content = load_plain(path)
    if not isinstance(content, dict):
        raise ValueError(f"{path}: holds a {type(content).__name__}, expected the dictionary of a batch of {cifar.name}")
    named = {key.decode("latin1") if isinstance(key, bytes) else key: value for key, value in content.items()}
    data, labels = named.get("data"), named.get(cifar.labels)
    numbers = isinstance(labels, list) and all(type(label) is int and abs(label) < 2**31 for label in labels)
    if not isinstance(data, Recorded) or not isinstance(labels, list) or not numbers:
        raise ValueError(f"{path}: has {', '.join(map(str, named))}; expected an array data and a list of numbers {cifar.labels}")
    try:
        images = data.uint8()
    except (ValueError, TypeError, IndexError) as error:
        raise ValueError(f"{path}: `data` is not a whole array of uint8 ({error})") from None
    filenames = named.get("filenames", labels)
    if images.shape != (len(labels), PIXELS) or not isinstance(filenames, list) or len(filenames) != len(labels):
        raise ValueError(f"{path}: {len(labels)} labels, data {images.shape}; expected (N, {PIXELS}) and N labels and filenames")
    if not isinstance(named.get("batch_label", ""), (bytes, str)):
        raise ValueError(f"{path}: batch_label is a {type(named['batch_label']).__name__}, expected text")
    return images.reshape(-1, *SHAPE), np.array(labels, dtype=np.int64).reshape(-1)
