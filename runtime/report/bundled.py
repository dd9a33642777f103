"""Data sets to train a small network on: digits (d = 64) and colour patches (d = 3072), which come with scikit-learn, and MNIST,
Fashion-MNIST and CIFAR-10 from a folder of their files.

The patches are 3x32x32 squares cut from scikit-learn's two photographs. A photograph is divided into bands (rows; which band of
which photograph is the class) and into upright strips (columns); a patch lies inside one band and one strip, and a strip serves
either training or testing, so that no test pixel has been trained on.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
import torch
from sklearn.datasets import load_digits, load_sample_images

from ..inputs.data import Arrays, load_data
from .known import FOLDERS

SEED = 0
HELD_OUT_DIGITS = 100
# Of the patches.
SIDE = 32
BANDS = 3
STRIPS = 10
# Three of the ten strips are held out; no two of them touch.
TEST_STRIPS = (2, 5, 8)
TRAIN_PATCHES = 6000
TEST_PATCHES = 600


@dataclass(frozen=True)
class Bundled:
    """A data set to train and to certify on."""

    train: Arrays
    test: Arrays
    num_classes: int
    classes: tuple[str, ...]
    regions: npt.NDArray[np.int64]
    """Of each test input, shape (N,): inputs of one region hang together, as overlapping crops do."""


@cache
def load(name: str, folder: str = "") -> Bundled:
    """A data set by name, in a folder the ones of FOLDERS.

    Raises:
        FileNotFoundError: no such folder or file.
        ValueError: another name; files that are damaged, or of another data set.
    """
    if name in FOLDERS:
        return on_disk(name, folder)
    made = {"digits": digits, "patches": patches}
    if name not in made:
        raise ValueError(f"data set {name!r}: expected one of {', '.join((*made, *FOLDERS))}")
    return made[name]()


def on_disk(name: str, folder: str) -> Bundled:
    """Both splits as `load_data` reads them, uint8."""
    shape, classes = FOLDERS[name]
    splits = []
    for split in ("train", "test"):
        data = load_data(folder, split=split)
        if not isinstance(data, Arrays):
            raise ValueError(f"{folder}: holds folders of images, expected the files of {name}")
        if data.x.shape[1:] != shape or data.y.max(initial=0) >= len(classes):
            seen = f"images {data.x.shape[1:]}, labels up to {data.y.max(initial=0)}"
            raise ValueError(f"{folder}: the {split} split holds {seen}; expected {name}: images {shape}, {len(classes)} classes")
        splits.append(data)
    train_set, test = splits
    return Bundled(train_set, test, len(classes), classes, np.arange(len(test)))


def digits() -> Bundled:
    """The 1,797 scans, float32 in [0, 1], shape (8, 8); HELD_OUT_DIGITS random ones for the test, the same every time."""
    data = load_digits()
    x, y = (data.images / 16.0).astype(np.float32), data.target
    order = np.random.default_rng(SEED).permutation(len(x))
    test, train = order[:HELD_OUT_DIGITS], order[HELD_OUT_DIGITS:]
    classes = tuple(str(label) for label in data.target_names)
    return Bundled(Arrays(x[train], y[train]), Arrays(x[test], y[test]), len(classes), classes, np.arange(len(test)))


def patches(train_count: int = TRAIN_PATCHES, test_count: int = TEST_PATCHES) -> Bundled:
    """Random patches of both photographs, float32 in [0, 1], shape (3, 32, 32), classes in equal numbers; the same every time."""
    photographs = [np.asarray(image, dtype=np.float32).transpose(2, 0, 1) / 255.0 for image in load_sample_images().images]
    rng = np.random.default_rng(SEED)
    held_out = np.array(TEST_STRIPS)
    kept = np.setdiff1d(np.arange(STRIPS), held_out)
    train, _ = _cut(photographs, kept, train_count, rng)
    test, regions = _cut(photographs, held_out, test_count, rng)
    classes = tuple(f"{photograph}, {band}" for photograph in ("temple", "flower") for band in ("top", "middle", "bottom"))
    return Bundled(train, test, len(classes), classes, regions)


def corners(label: int, strips: npt.NDArray[np.int64], shape: tuple[int, int], rng: np.random.Generator) -> tuple[int, int]:
    """Upper left corner of a random patch inside one of the strips and inside the band of class `label`."""
    height, width = shape[0] // BANDS, shape[1] // STRIPS
    top = (label % BANDS) * height + int(rng.integers(height - SIDE + 1))
    return top, int(rng.choice(strips)) * width + int(rng.integers(width - SIDE + 1))


def _cut(
    photographs: list[npt.NDArray[np.float32]], strips: npt.NDArray[np.int64], count: int, rng: np.random.Generator
) -> tuple[Arrays, npt.NDArray[np.int64]]:
    """Patches, and the (class, strip) that each was cut from."""
    labels = np.arange(count) % (BANDS * len(photographs))
    x, regions = np.empty((count, 3, SIDE, SIDE), dtype=np.float32), np.empty(count, dtype=np.int64)
    for i, label in enumerate(labels.tolist()):
        photograph = photographs[label // BANDS]
        row, column = corners(label, strips, (photograph.shape[1], photograph.shape[2]), rng)
        x[i] = photograph[:, row : row + SIDE, column : column + SIDE]
        regions[i] = label * STRIPS + column // (photograph.shape[2] // STRIPS)
    return Arrays(x, labels), regions


def network(name: str) -> torch.nn.Module:
    """The untrained network of a data set, the same weights every time."""
    convolution, linear, relu, flatten = torch.nn.Conv2d, torch.nn.Linear, torch.nn.ReLU, torch.nn.Flatten
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        if name == "digits":
            return torch.nn.Sequential(flatten(), linear(64, 128), relu(), linear(128, 128), relu(), linear(128, 10))
        shape, classes = FOLDERS.get(name, ((3, SIDE, SIDE), 2 * BANDS * ("",)))
        return torch.nn.Sequential(
            # Strides instead of pooling: one forward pass costs about as much as its noise. 28 and 32 pixels both end at 4.
            convolution(shape[0], 16, kernel_size=4, stride=4),
            relu(),
            convolution(16, 32, kernel_size=3, stride=2, padding=1),
            relu(),
            flatten(),
            linear(32 * 4 * 4, 64),
            relu(),
            linear(64, len(classes)),
        )


def train(name: str, data: Arrays, sigma: float, epochs: int) -> torch.nn.Module:
    """The network of `name` trained on `data` plus N(0, sigma^2) noise, in eval mode; reproducible on one machine."""
    return fit(network(name), data, sigma, epochs)


def fit(model: torch.nn.Module, data: Arrays, sigma: float, epochs: int) -> torch.nn.Module:
    """Train `model` in place on the data plus N(0, sigma^2) noise, fresh in every epoch; returns it in eval mode."""
    generator = torch.Generator().manual_seed(SEED)
    x, y = torch.tensor(data.x), torch.tensor(data.y)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    for _ in range(epochs):
        for batch in torch.randperm(len(x), generator=generator).split(128):
            clean = x[batch].to(torch.float32) / float(data.unit)
            noisy = clean + sigma * torch.randn(clean.shape, generator=generator)
            loss = torch.nn.functional.cross_entropy(model(noisy), y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
    return model.eval()


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch on one thread: networks this small lose time to a second one, much of it where the cores are shared."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
