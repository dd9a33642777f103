"""Image data sets in their own formats: CIFAR-10's binary and Python batches, and a tree of class folders as ImageNet's."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .untrusted import Recorded, load_plain

CIFAR_SHAPE = (3, 32, 32)
PIXELS = 3 * 32 * 32
FOLDERS = ("cifar-10-batches-bin", "cifar-10-batches-py")
BATCHES = {"train": tuple(f"data_batch_{i}" for i in range(1, 6)), "test": ("test_batch",)}
SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
# The field's: shorter side to 256 pixels, then the central 224 x 224.
RESIZE, CROP = 256, 224

Images = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]


def cifar_folder(path: Path) -> tuple[Path, str] | None:
    """(folder, suffix of its batches) if `path` holds CIFAR-10 or the folder of that name, else None."""
    for folder in (path, *(path / name for name in FOLDERS)):
        for suffix in (".bin", ""):
            if any((folder / f"{name}{suffix}").is_file() for names in BATCHES.values() for name in names):
                return folder, suffix
    return None


def load_cifar(folder: Path, suffix: str, split: str) -> tuple[Images, Labels]:
    """Images (N, 3, 32, 32), uint8, and labels 0 to 9 of CIFAR-10 from all batches of a split.

    Args:
        folder: where the batches are.
        suffix: ".bin" for the binary version, "" for the Python one, which is read without running any pickled code.
        split: train or test.

    Raises:
        FileNotFoundError: a batch that is not there.
        ValueError: a split that CIFAR-10 has not, a batch that is damaged or another thing.
    """
    if split not in BATCHES:
        raise ValueError(f"{folder}: CIFAR-10 has no split {split!r}, expected train or test")
    images, labels = [], []
    for name in BATCHES[split]:
        path = folder / f"{name}{suffix}"
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file; the {split} split is {', '.join(BATCHES[split])}")
        x, y = _binary_batch(path) if suffix else _python_batch(path)
        if len(y) == 0 or y.min() < 0 or y.max() > 9:
            raise ValueError(f"{path}: labels {sorted(set(y.tolist()))[:20]}, expected some of 0 to 9: not a batch of CIFAR-10")
        images.append(x)
        labels.append(y)
    return np.concatenate(images), np.concatenate(labels)


def _binary_batch(path: Path) -> tuple[Images, Labels]:
    """Records of a label's byte and 3072 bytes: the red, green and blue planes, row by row."""
    size = path.stat().st_size
    if size == 0 or size % (PIXELS + 1):
        raise ValueError(f"{path}: {size} bytes, expected a multiple of {PIXELS + 1} (a label and 3x32x32 pixels each)")
    records = np.fromfile(path, dtype=np.uint8).reshape(-1, PIXELS + 1)
    return records[:, 1:].reshape(-1, *CIFAR_SHAPE), records[:, 0].astype(np.int64)


def _python_batch(path: Path) -> tuple[Images, Labels]:
    """A dictionary with data (N, 3072), planes as in the binary version, and a list of N labels."""
    content = load_plain(path)
    if not isinstance(content, dict):
        raise ValueError(f"{path}: holds a {type(content).__name__}, expected the dictionary of a CIFAR-10 batch")
    named = {key.decode("latin1") if isinstance(key, bytes) else key: value for key, value in content.items()}
    data, labels = named.get("data"), named.get("labels")
    numbers = isinstance(labels, list) and all(type(label) is int and abs(label) < 2**31 for label in labels)
    if not isinstance(data, Recorded) or not isinstance(labels, list) or not numbers:
        raise ValueError(f"{path}: has {', '.join(map(str, named))}; expected an array `data` and a list of numbers `labels`")
    try:
        images = data.uint8()
    except (ValueError, TypeError, IndexError) as error:
        raise ValueError(f"{path}: `data` is not a whole array of uint8 ({error})") from None
    filenames = named.get("filenames", labels)
    if images.shape != (len(labels), PIXELS) or not isinstance(filenames, list) or len(filenames) != len(labels):
        raise ValueError(f"{path}: {len(labels)} labels, data {images.shape}; expected (N, {PIXELS}) and N labels and filenames")
    if not isinstance(named.get("batch_label", ""), (bytes, str)):
        raise ValueError(f"{path}: batch_label is a {type(named['batch_label']).__name__}, expected text")
    return images.reshape(-1, *CIFAR_SHAPE), np.array(labels, dtype=np.int64).reshape(-1)


def split_folder(root: Path, split: str | None) -> Path:
    """The folder of a split (train, val, test) of a tree; without one, val or test if one of them is there, else `root` itself.

    Raises:
        FileNotFoundError: no such folder in `root`.
        ValueError: both val and test, and no split said.
    """
    there = [name for name in ("train", "val", "test") if (root / name).is_dir()]
    if split is not None:
        if split not in there:
            raise FileNotFoundError(f"{root / split}: no such folder; splits there: {', '.join(there) or 'none'}")
        return root / split
    held_out = [name for name in there if name != "train"]
    if len(held_out) > 1:
        raise ValueError(f"{root}: has val and test, say which with --split")
    if there and not held_out:
        raise ValueError(f"{root}: has no val or test; --split train takes the training images")
    return root / held_out[0] if held_out else root


class ImageFolder(Sequence[tuple[Any, int]]):
    """(image, label) pairs of a tree folder/<class>/**/<image>, read when asked for; labels number the sorted class folders.

    An image is float32 in [0, 1], shape (3, 224, 224): RGB, shorter side resized to 256 (bilinear), central 224 x 224.

    Raises:
        ValueError: no class folders with images in them; on access, an image that cannot be read.
        ImportError: Pillow is not installed.
    """

    def __init__(self, folder: Path) -> None:
        _pillow()
        self.classes = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())
        self.paths: list[str] = []
        labels: list[int] = []
        for label, name in enumerate(self.classes):
            before = len(self.paths)
            for where, _, files in sorted(os.walk(folder / name, followlinks=True)):
                self.paths += [os.path.join(where, file) for file in sorted(files) if file.lower().endswith(SUFFIXES)]
            if len(self.paths) == before:
                raise ValueError(f"{folder / name}: a class folder without images ({', '.join(SUFFIXES)})")
            labels += [label] * (len(self.paths) - before)
        if not self.paths:
            raise ValueError(f"{folder}: no class folders; expected CIFAR-10's batches, or [split/]class/image as ImageNet's")
        self.y: Labels = np.array(labels, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            part = ImageFolder.__new__(ImageFolder)
            part.classes, part.paths, part.y = self.classes, self.paths[index], self.y[index]
            return part
        return read_image(self.paths[index]), int(self.y[index])


def read_image(path: str) -> npt.NDArray[np.float32]:
    """One image as `ImageFolder` gives it. ValueError where it cannot be read."""
    image_module = _pillow()
    try:
        with image_module.open(path) as file:
            if file.mode[0] in "IF":
                # Conversion would clip them to 8 bits.
                raise ValueError(f"mode {file.mode}: expected 8 bits a channel")
            image = file.convert("RGB")
    except (OSError, SyntaxError, ValueError, EOFError, image_module.DecompressionBombError) as error:
        raise ValueError(f"{path}: cannot be read as an image ({error})") from None
    shorter = min(image.size)
    width, height = (RESIZE if side == shorter else int(RESIZE * side / shorter) for side in image.size)
    left, top = round((width - CROP) / 2), round((height - CROP) / 2)
    image = image.resize((width, height), image_module.Resampling.BILINEAR).crop((left, top, left + CROP, top + CROP))
    return np.ascontiguousarray(np.asarray(image, dtype=np.float32).transpose(2, 0, 1) / np.float32(255))


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError:
        raise ImportError("reading images needs Pillow: pip install pillow (or certlut[vision])") from None
    return Image
