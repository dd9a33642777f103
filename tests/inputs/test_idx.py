"""MNIST's files, written here in small."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from certlut import Certifier, Table
from certlut.inputs.data import load_data

SHAPE = (28, 28)


def _idx(array: np.ndarray) -> bytes:
    return bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.astype(np.uint8).tobytes()


def _images(split: str) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0 if split == "test" else 1)
    count = 7 if split == "test" else 11
    return rng.integers(256, size=(count, *SHAPE)), rng.integers(10, size=count)


def _mnist(folder: Path, gz: bool = False, dot: str = "-") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for split, prefix in (("train", "train"), ("test", "t10k")):
        for what, array in zip(("images", "labels"), _images(split), strict=True):
            content, name = _idx(array), f"{prefix}-{what}{dot}idx{array.ndim}-ubyte"
            (folder / (name + ".gz" * gz)).write_bytes(gzip.compress(content) if gz else content)


@pytest.mark.parametrize("gz", [False, True])
@pytest.mark.parametrize("dot", ["-", "."])
@pytest.mark.parametrize("below", ["", "raw", "MNIST/raw", "FashionMNIST/raw"])
def test_both_splits_are_read_plain_and_packed(gz: bool, dot: str, below: str, tmp_path: Path) -> None:
    _mnist(tmp_path / below, gz, dot)
    for split in ("train", "test"):
        x, y = _images(split)
        data = load_data(str(tmp_path), split=split)
        assert len(data) == len(y)
        assert [label for _, label in data] == y.tolist()
        first, _ = data[3]
        assert (first.dtype, first.shape) == (np.float32, (1, *SHAPE))
        assert np.array_equal(first[0], x[3].astype(np.float32) / np.float32(255))
    assert len(load_data(str(tmp_path))) == len(_images("test")[1])
    assert [label for _, label in load_data(str(tmp_path), skip=2, limit=3)] == _images("test")[1][:6:2].tolist()


def test_they_are_certified(tmp_path: Path, shipped: Table) -> None:
    _mnist(tmp_path / "mnist", gz=True)
    net = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 5, 3), torch.nn.Flatten(), torch.nn.Linear(128, 10))
    data = load_data(str(tmp_path / "mnist"), limit=2)
    rows = Certifier(net, 0.5, 10, shipped, seed=0).certify_dataset(data, tmp_path / "r.tsv", 5, 50, progress=False)
    assert [row["label"] for row in rows] == _images("test")[1][:2].tolist()


def test_what_is_missing_or_no_split_is_said(tmp_path: Path) -> None:
    _mnist(tmp_path)
    with pytest.raises(ValueError, match="has no split 'val', expected train or test"):
        load_data(str(tmp_path), split="val")
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(FileNotFoundError, match=r"no t10k-labels-idx1-ubyte, plain or \.gz"):
        load_data(str(tmp_path))
    assert len(load_data(str(tmp_path), split="train")) == 11


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t10k-images-idx3-ubyte", b"", r"begins with , expected 00 00 08 03: no IDX file"),
        ("t10k-images-idx3-ubyte", b"\x1f\x8b\x08\x00rest of a gzip file", "begins with 1f 8b 08 00, expected 00 00 08 03"),
        ("t10k-images-idx3-ubyte", _idx(np.zeros(5)), "begins with 00 00 08 01, expected 00 00 08 03"),
        ("t10k-images-idx3-ubyte", bytes((0, 0, 13, 3)) + bytes(12), "begins with 00 00 0d 03"),
        ("t10k-images-idx3-ubyte", bytes((0, 0, 8, 3, 0)), "no IDX file of bytes"),
        ("t10k-images-idx3-ubyte", _idx(_images("test")[0])[:-1], r"5487 bytes of data, expected 5488 for shape \(7, 28, 28\)"),
        ("t10k-images-idx3-ubyte", _idx(_images("test")[0]) + b"0", "5489 bytes of data, expected 5488"),
        ("t10k-images-idx3-ubyte", _idx(_images("train")[0]), "11 images and 7 labels in the test split"),
    ],
)
def test_a_damaged_file_is_refused_by_name(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    _mnist(tmp_path)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        load_data(str(tmp_path))
    assert "\n" not in str(error.value)


def test_a_torn_archive_is_refused_by_name(tmp_path: Path) -> None:
    _mnist(tmp_path, gz=True)
    path = tmp_path / "t10k-images-idx3-ubyte.gz"
    whole = path.read_bytes()
    for content in (whole[:-20], whole[:50] + bytes(40) + whole[90:], b"hello"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"t10k-images-idx3-ubyte\.gz: cannot be unpacked \([^\n]+\)$"):
            load_data(str(tmp_path))
