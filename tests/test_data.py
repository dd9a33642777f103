import gc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtime.data import Arrays, load_data


def _save(path: Path, x: Any, y: Any) -> str:
    np.savez(path, x=x, y=y)
    return str(path)


X = np.arange(40, dtype=np.float64).reshape(10, 2, 2)
Y = np.arange(10, dtype=np.uint8)


def test_inputs_are_read_as_float32_with_integer_labels(tmp_path: Path) -> None:
    data = load_data(_save(tmp_path / "data.npz", X, Y))
    assert len(data) == 10
    x, label = data[3]
    assert (x.dtype, x.tolist()) == (np.float32, X[3].tolist())
    assert (type(label), label) == (int, 3)
    assert [label for _, label in data] == list(range(10))


def test_compressed_and_integer_inputs_are_read_too(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "data.npz", x=X.astype(np.uint8), y=Y, more=np.zeros(3))
    x, _ = load_data(str(tmp_path / "data.npz"))[9]
    assert (x.dtype, x.tolist()) == (np.float32, X[9].tolist())


@pytest.mark.parametrize(
    ("skip", "limit", "labels"),
    [
        (1, None, range(10)),
        (3, None, [0, 3, 6, 9]),
        (3, 2, [0, 3]),
        (1, 4, range(4)),
        (1, 100, range(10)),
        (20, None, [0]),
        (2, 0, []),
    ],
)
def test_skip_and_limit_take_every_so_many_and_at_most_so_many(
    skip: int, limit: int | None, labels: list[int], tmp_path: Path
) -> None:
    data = load_data(_save(tmp_path / "data.npz", X, Y), skip, limit)
    assert [label for _, label in data] == list(labels)
    assert len(data) == len(labels)


def test_a_slice_is_a_data_set_again() -> None:
    part = Arrays(X, Y)[2:8:3]
    assert isinstance(part, Arrays)
    assert [label for _, label in part] == [2, 5]
    assert part[1][0].tolist() == X[5].tolist()
    with pytest.raises(IndexError):
        part[2]


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such data file"):
        load_data(str(tmp_path / "none.npz"))


@pytest.mark.parametrize("what", ["empty", "text", "npy", "truncated", "zip", "damaged", "no y", "no x", "objects"])
def test_a_file_without_arrays_x_and_y_is_refused_by_name(what: str, tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    match what:
        case "empty":
            path.write_bytes(b"")
        case "text":
            path.write_text("x,y\n1,2\n")
        case "npy":
            with path.open("wb") as file:
                np.save(file, X)
        case "truncated":
            whole = Path(_save(tmp_path / "whole.npz", X, Y)).read_bytes()
            path.write_bytes(whole[: len(whole) // 2])
        case "zip":
            with zipfile.ZipFile(path, "w") as file:
                file.writestr("readme.txt", "hello")
        case "damaged":
            whole = bytearray(Path(_save(tmp_path / "whole.npz", X, Y)).read_bytes())
            whole[300] ^= 0xFF
            path.write_bytes(whole)
        case "no y":
            np.savez(path, x=X)
        case "no x":
            np.savez(path, y=Y)
        case "objects":
            np.savez(path, x=np.array([None] * 10), y=Y)
    with pytest.raises(ValueError, match=r"data\.npz: expected an \.npz file with arrays x and y"):
        load_data(str(path))
    # A file left open would be reported while it is collected.
    gc.collect()


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (X, Y[:9], r"x has shape \(10, 2, 2\), y uint8 \(9,\); expected \(N, ...\) and integer \(N,\)"),
        (X, Y.astype(float), r"y float64 \(10,\)"),
        (X, Y[:, None], r"y uint8 \(10, 1\)"),
        (X, Y[0], r"y uint8 \(\)"),
        (X[0, 0, 0], Y[:1], r"x has shape \(\)"),
    ],
    ids=["lengths", "float labels", "one-hot labels", "scalar label", "scalar input"],
)
def test_shapes_and_types_that_disagree_are_refused_by_name(x: Any, y: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"data\.npz: .*{message}"):
        load_data(_save(tmp_path / "data.npz", x, y))


@pytest.mark.parametrize("x", [np.array(["a"] * 10), np.array([1j] * 10)], ids=["text", "complex"])
def test_inputs_that_are_not_real_numbers_are_refused_by_name(x: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"data\.npz"):
        load_data(_save(tmp_path / "data.npz", x, Y))


def test_pickled_content_is_never_run(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return Path.touch, (tmp_path / "run",)

    path = tmp_path / "data.npz"
    np.savez(path, x=np.array([Bomb()] * 10, dtype=object), y=Y)
    with pytest.raises(ValueError, match=r"expected an \.npz file"):
        load_data(str(path))
    assert not (tmp_path / "run").exists()
