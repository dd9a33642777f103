"""Images in a tree of class folders, as ImageNet's."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
# The field's: shorter side to 256 pixels, then the central 224 x 224.
RESIZE, CROP = 256, 224

Labels = npt.NDArray[np.int64]


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

    Names that are whole numbers are sorted as such, 2 before 10. What begins with a dot, and __MACOSX, is no class and no image.

    An image is float32 in [0, 1], shape (3, 224, 224): RGB, shorter side resized to 256 (bilinear), central 224 x 224.

    Raises:
        ValueError: no class folders with images in them; on access, an image that cannot be read.
        ImportError: Pillow is not installed.
    """

    def __init__(self, folder: Path) -> None:
        _pillow()
        names = [entry.name for entry in os.scandir(folder) if entry.is_dir() and not _is_hidden(entry.name)]
        numbers = all(name.isdecimal() for name in names)
        self.classes = sorted(names, key=lambda name: (int(name) if numbers else 0, name))
        self.paths: list[str] = []
        labels: list[int] = []
        for label, name in enumerate(self.classes):
            before = len(self.paths)
            for where, _, files in sorted(os.walk(folder / name, followlinks=True)):
                images = (file for file in sorted(files) if file.lower().endswith(SUFFIXES) and not _is_hidden(file))
                self.paths += [os.path.join(where, file) for file in images]
            if len(self.paths) == before:
                raise ValueError(f"{folder / name}: a class folder without images ({', '.join(SUFFIXES)})")
            labels += [label] * (len(self.paths) - before)
        if not self.paths:
            raise ValueError(
                f"{folder}: no class folders; expected CIFAR's batches, MNIST's IDX files, or [split/]class/image as ImageNet's"
            )
        self.y: Labels = np.array(labels, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            part = ImageFolder.__new__(ImageFolder)
            part.classes, part.paths, part.y = self.classes, self.paths[index], self.y[index]
            return part
        return read_image(self.paths[index]), int(self.y[index])


def _is_hidden(name: str) -> bool:
    """What systems leave behind: .DS_Store, ._cat.png, .ipynb_checkpoints, __MACOSX."""
    return name.startswith(".") or name == "__MACOSX"


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
