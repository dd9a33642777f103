import gc
import os
import pickle
import struct
import sys
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from certlut import Certifier, Table
from certlut.inputs.data import Arrays, load_data
from certlut.inputs.images import ImageFolder
from certlut.inputs.preflight import preflight


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


# .pt files


@pytest.mark.parametrize("pair", [False, True], ids=["dictionary", "pair"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.uint8])
def test_tensors_of_torch_save_are_read(dtype: torch.dtype, pair: bool, tmp_path: Path) -> None:
    x, y = torch.arange(24).reshape(4, 3, 2).to(dtype), torch.tensor([3, 1, 0, 2])
    torch.save((x, y) if pair else {"x": x, "y": y, "more": [1]}, tmp_path / "data.pt")
    data = load_data(str(tmp_path / "data.pt"), 2)
    assert [label for _, label in data] == [3, 0]
    assert (data[1][0].dtype, data[1][0].tolist()) == (np.float32, x[2].float().tolist())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"a": torch.zeros(2)}, "holds keys a; expected tensors x and y"),
        ((torch.zeros(2),), "holds a tuple; expected tensors x and y"),
        (torch.zeros(2), "holds a Tensor"),
        ((torch.zeros(2), [0, 1]), "holds a tuple"),
        ((torch.zeros(2, 3), torch.zeros(3, dtype=torch.int64)), r"x has shape \(2, 3\), y int64 \(3,\)"),
        ((torch.zeros(2, 3), torch.zeros(2)), r"y float32 \(2,\)"),
        ((torch.zeros(2, 3).to_sparse(), torch.zeros(2, dtype=torch.int64)), "expected dense tensors"),
    ],
    ids=["keys", "one", "tensor", "list", "lengths", "float labels", "sparse"],
)
def test_tensors_that_are_not_inputs_and_labels_are_refused_by_name(content: Any, message: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "data.pt")
    with pytest.raises(ValueError, match=rf"data\.pt: .*{message}[^\n]*$"):
        load_data(str(tmp_path / "data.pt"))


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (f"touch {self.path}",)


def test_pickled_objects_among_the_tensors_are_never_run(tmp_path: Path) -> None:
    torch.save({"x": Bomb(tmp_path / "run"), "y": torch.zeros(1)}, tmp_path / "data.pt")
    with pytest.raises(
        ValueError, match=r"data\.pt: holds a pickled posix\.system; expected tensors only \(data files are never unpickled\)$"
    ):
        load_data(str(tmp_path / "data.pt"))
    assert not (tmp_path / "run").exists()


# CIFAR-10, byte by byte

TRAIN = [f"data_batch_{i}" for i in range(1, 6)]


def _records(seed: int, count: int = 3) -> list[tuple[int, bytes]]:
    rng = np.random.default_rng(seed)
    return [(int(rng.integers(10)), rng.integers(256, size=3072, dtype=np.uint8).tobytes()) for _ in range(count)]


def _pixel(pixels: bytes, channel: int, row: int, column: int) -> int:
    return pixels[1024 * channel + 32 * row + column]


def _binary(records: list[tuple[int, bytes]]) -> bytes:
    return b"".join(bytes([label]) + pixels for label, pixels in records)


def _short(text: bytes) -> bytes:
    """Python 2's short str."""
    return b"U" + bytes([len(text)]) + text


def _python2(records: list[tuple[int, bytes]]) -> bytes:
    """A batch as Python 2 pickled it (protocol 2): batch_label, labels, data, filenames."""
    pixels = b"".join(pixels for _, pixels in records)
    dtype = (
        b"cnumpy\ndtype\n"
        + _short(b"u1")
        + b"K\x00K\x01\x87R(K\x03"
        + _short(b"|")
        + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    )
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + _short(b"b") + b"\x87R"
    array += (
        b"(K\x01M"
        + struct.pack("<H", len(records))
        + b"M\x00\x0c\x86"
        + dtype
        + b"\x89T"
        + struct.pack("<I", len(pixels))
        + pixels
        + b"tb"
    )
    labels = b"](" + b"".join(b"K" + bytes([label]) for label, _ in records) + b"e"
    names = b"](" + b"".join(_short(b"image_%d.png" % i) for i in range(len(records))) + b"e"
    items = [(b"batch_label", _short(b"testing batch 1 of 1")), (b"labels", labels), (b"data", array), (b"filenames", names)]
    return b"\x80\x02}(" + b"".join(_short(key) + value for key, value in items) + b"u."


def _dumped(protocol: int) -> Callable[[list[tuple[int, bytes]]], bytes]:
    """A batch as Python 3 and the NumPy of today pickle it."""

    def dump(records: list[tuple[int, bytes]]) -> bytes:
        data = np.frombuffer(b"".join(pixels for _, pixels in records), dtype=np.uint8).reshape(-1, 3072)
        return pickle.dumps({b"data": data.copy(), b"labels": [label for label, _ in records]}, protocol)

    return dump


FORMS: dict[str, tuple[str, Callable[[list[tuple[int, bytes]]], bytes]]] = {
    "binary": (".bin", _binary),
    "Python 2": ("", _python2),
    **{f"Python 3, protocol {p}": ("", _dumped(p)) for p in (2, 4, 5)},
}


def _cifar(folder: Path, form: str) -> None:
    folder.mkdir(exist_ok=True)
    suffix, write = FORMS[form]
    for seed, name in enumerate(["test_batch", *TRAIN]):
        (folder / f"{name}{suffix}").write_bytes(write(_records(seed)))


def test_python_2s_bytes_are_what_pickle_reads_too() -> None:
    records = _records(0)
    with warnings.catch_warnings():
        # Some NumPy 2 warn of the old flags and module names.
        warnings.simplefilter("ignore")
        batch = pickle.loads(_python2(records), encoding="bytes")
    assert batch[b"labels"] == [label for label, _ in records]
    assert batch[b"data"].tobytes() == b"".join(pixels for _, pixels in records)


@pytest.mark.parametrize("form", FORMS)
def test_cifar_10_is_read_in_every_version(form: str, tmp_path: Path) -> None:
    _cifar(tmp_path / "cifar", form)
    data = load_data(str(tmp_path / "cifar"))
    assert isinstance(data, Arrays)
    assert data.x.dtype == np.uint8
    assert [label for _, label in data] == [label for label, _ in _records(0)]
    x, _ = data[1]
    assert (x.dtype, x.shape) == (np.float32, (3, 32, 32))
    for channel, row, column in ((0, 0, 0), (1, 2, 3), (2, 31, 30)):
        assert x[channel, row, column] == np.float32(_pixel(_records(0)[1][1], channel, row, column)) / np.float32(255)
    train = load_data(str(tmp_path / "cifar"), skip=4, split="train")
    everything = [record for seed in range(1, 6) for record in _records(seed)]
    assert [label for _, label in train] == [label for label, _ in everything[::4]]
    assert train[3][0].flat[99] == np.float32(everything[12][1][99]) / np.float32(255)


def _cifar_100(folder: Path, binary: bool) -> None:
    """A coarse label, which is not the class, before each fine one."""
    folder.mkdir()
    for seed, name in enumerate(("test", "train")):
        records = [(7 * label + 30, pixels) for label, pixels in _records(seed)]
        if binary:
            (folder / f"{name}.bin").write_bytes(b"".join(bytes([3, label]) + pixels for label, pixels in records))
        else:
            data = np.frombuffer(b"".join(pixels for _, pixels in records), dtype=np.uint8).reshape(-1, 3072)
            labels = {b"fine_labels": [label for label, _ in records], b"coarse_labels": [3] * len(records)}
            (folder / name).write_bytes(pickle.dumps({b"data": data.copy(), **labels}, 2))
    (folder / ("fine_label_names.txt" if binary else "meta")).write_bytes(b"x")


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("inside", [True, False])
def test_cifar_100_is_read_by_its_fine_labels(binary: bool, inside: bool, tmp_path: Path) -> None:
    folder = tmp_path / ("cifar-100-binary" if binary else "cifar-100-python")
    _cifar_100(folder, binary)
    where = str(tmp_path if inside else folder)
    for seed, split in enumerate(("test", "train")):
        data = load_data(where, split=split)
        assert [label for _, label in data] == [7 * label + 30 for label, _ in _records(seed)]
        x, _ = data[1]
        assert (x.dtype, x.shape) == (np.float32, (3, 32, 32))
        assert x[1, 2, 3] == np.float32(_pixel(_records(seed)[1][1], 1, 2, 3)) / np.float32(255)
    assert [label for _, label in load_data(where)] == [label for _, label in load_data(where, split="test")]
    with pytest.raises(ValueError, match="CIFAR-100 has no split 'val', expected train or test"):
        load_data(where, split="val")


def test_a_damaged_batch_of_cifar_100_is_refused_by_name(tmp_path: Path) -> None:
    _cifar_100(tmp_path / "c", True)
    (tmp_path / "c" / "test.bin").write_bytes(bytes(3073))
    with pytest.raises(ValueError, match=r"test\.bin: 3073 bytes, expected a multiple of 3074"):
        load_data(str(tmp_path / "c"))
    (tmp_path / "c" / "test.bin").write_bytes(b"\x01\x64" + bytes(3072))
    with pytest.raises(ValueError, match=r"test\.bin: labels \[100\], expected some of 0 to 99: not a batch of CIFAR-100"):
        load_data(str(tmp_path / "c"))


@pytest.mark.parametrize("form", ["binary", "Python 2"])
def test_cifar_10_is_certified(form: str, tmp_path: Path, shipped: Table) -> None:
    # The folder that the archive unpacks to lies in the one that is named.
    _cifar(tmp_path / ("cifar-10-batches-bin" if form == "binary" else "cifar-10-batches-py"), form)
    data = load_data(str(tmp_path), limit=2)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3072, 10))
    with torch.no_grad():
        net[1].weight.zero_()
        net[1].bias.copy_(torch.arange(10.0) == data[0][1])
    rows = Certifier(net, 0.5, 10, shipped, seed=0).certify_dataset(data, tmp_path / "r.tsv", 5, 50, progress=False)
    assert [int(row["predict"]) for row in rows] == [data[0][1]] * 2
    assert rows[0]["correct"] == 1
    assert float(rows[0]["radius_l2"]) > 0.4


@pytest.mark.parametrize("suffix", [".bin", ""])
def test_a_batch_or_split_that_is_not_there_is_said(suffix: str, tmp_path: Path) -> None:
    _cifar(tmp_path, "binary" if suffix else "Python 2")
    (tmp_path / f"data_batch_3{suffix}").unlink()
    assert len(load_data(str(tmp_path))) == 3
    with pytest.raises(FileNotFoundError, match=rf"data_batch_3{suffix}: no such file; the train split is data_batch_1, "):
        load_data(str(tmp_path), split="train")
    with pytest.raises(ValueError, match="CIFAR-10 has no split 'val', expected train or test"):
        load_data(str(tmp_path), split="val")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("test_batch.bin", b"", "0 bytes, expected a multiple of 3073"),
        ("test_batch.bin", _binary(_records(0))[:-1], "9218 bytes"),
        ("test_batch.bin", b"\x0a" + bytes(3072), r"labels \[10\], expected some of 0 to 9"),
        ("test_batch", b"", "not a readable pickle of plain data"),
        ("test_batch", b"hello", "not a readable pickle of plain data"),
        ("test_batch", _python2(_records(0))[:-5000], "not a readable pickle of plain data"),
        ("test_batch", pickle.dumps([1, 2]), "holds a list, expected the dictionary"),
        ("test_batch", pickle.dumps({"data": 3, "labels": [1]}), "has data, labels; expected an array"),
        ("test_batch", pickle.dumps({"data": np.zeros((1, 3072), np.uint8), "labels": ["x"]}), "a list of numbers"),
        ("test_batch", pickle.dumps({"data": np.zeros((1, 3072)), "labels": [1]}), "another type than uint8"),
        ("test_batch", pickle.dumps({"data": np.zeros((2, 3072), np.uint8), "labels": [1]}), r"1 labels, data \(2, 3072\)"),
        ("test_batch", pickle.dumps({"data": np.zeros((1, 300), np.uint8), "labels": [1]}), r"1 labels, data \(1, 300\)"),
        ("test_batch", pickle.dumps({"data": np.zeros((1, 3072), np.uint8), "labels": [-1]}), r"labels \[-1\]"),
        ("test_batch", pickle.dumps({"data": np.zeros((0, 3072), np.uint8), "labels": []}), r"labels \[\]"),
        ("test_batch", _dumped(2)(_records(0)).replace(b"latin1", b"rot_13"), "holds text in 'rot_13'"),
        (
            "test_batch",
            pickle.dumps({"data": np.zeros((1, 3072), np.uint8), "labels": [1], "filenames": []}),
            "and N labels and filenames",
        ),
        (
            "test_batch",
            pickle.dumps({"data": np.zeros((1, 3072), np.uint8), "labels": [1], "batch_label": 3}),
            "batch_label is a int",
        ),
    ],
)
def test_a_damaged_batch_is_refused_by_name(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"{name}: .*{message}[^\n]*$"):
        load_data(str(tmp_path))


@pytest.mark.parametrize("protocol", range(6))
def test_pickled_objects_in_a_batch_are_never_run(protocol: int, tmp_path: Path) -> None:
    (tmp_path / "test_batch").write_bytes(pickle.dumps({"data": Bomb(tmp_path / "run"), "labels": [1]}, protocol))
    with pytest.raises(ValueError, match=r"test_batch: not a readable pickle .*holds a pickled posix\.system, expected plain data"):
        load_data(str(tmp_path))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "name", [b"builtins\neval", b"__builtin__\neval", b"numpy\nload", b"numpy.core.multiarray\nscalar", b"_codecs\ndecode"]
)
def test_no_other_name_is_found(name: bytes, tmp_path: Path) -> None:
    (tmp_path / "test_batch").write_bytes(b"\x80\x02c" + name + b"\n.")
    with pytest.raises(ValueError, match="expected plain data: it is not read"):
        load_data(str(tmp_path))


# A tree of class folders


def _tree(root: Path, size: tuple[int, int] = (300, 260)) -> None:
    for index, name in enumerate(("n02", "n01/deep", "n03")):
        folder = root / name
        folder.mkdir(parents=True)
        for i in range(2):
            Image.new("RGB", size, (10 * index, 200, 50 * i)).save(folder / f"{1 - i}.png")
        (folder / "notes.txt").write_text("not an image")


def test_a_tree_is_read_in_the_order_of_its_names(tmp_path: Path) -> None:
    _tree(tmp_path / "val")
    data = load_data(str(tmp_path))
    assert isinstance(data, ImageFolder)
    assert data.classes == ["n01", "n02", "n03"]
    assert [label for _, label in data] == [0, 0, 1, 1, 2, 2]
    x, label = data[2]
    assert (x.dtype, x.shape, label) == (np.float32, (3, 224, 224), 1)
    # n02/0.png is the second that was made there.
    assert np.array_equal(x[:, 100, 7], np.array([0, 200, 50], dtype=np.float32) / np.float32(255))
    part = load_data(str(tmp_path), skip=2, limit=2)
    assert [label for _, label in part] == [0, 1]
    assert np.array_equal(part[1][0], x)
    with pytest.raises(IndexError):
        data[6]


def test_what_systems_leave_behind_is_no_class_and_no_image(tmp_path: Path) -> None:
    _tree(tmp_path)
    for name in (".ipynb_checkpoints", "__MACOSX", "__MACOSX/n01", ".git"):
        (tmp_path / name).mkdir()
    Image.new("RGB", (10, 10)).save(tmp_path / "__MACOSX" / "n01" / "0.png")
    (tmp_path / "n02" / "._0.png").write_bytes(b"\0\x05\x16\x07")
    (tmp_path / ".DS_Store").write_bytes(b"x")
    data = load_data(str(tmp_path))
    assert data.classes == ["n01", "n02", "n03"]
    assert [label for _, label in data] == [0, 0, 1, 1, 2, 2]
    assert all(x.shape == (3, 224, 224) for x, _ in data)


def test_folders_that_are_numbers_are_in_their_order_and_the_other_order_is_told(tmp_path: Path) -> None:
    for number in range(12):
        (tmp_path / str(number)).mkdir()
        Image.new("L", (10, 10), 20 * number).save(tmp_path / str(number) / "0.png")
    data = load_data(str(tmp_path))
    assert [round(float(x[0, 0, 0]) * 255 / 20) for x, _ in data] == [label for _, label in data] == list(range(12))
    warnings = preflight(lambda x: torch.zeros(len(x), 12), data, 0.25, 12, 100).warnings
    said = "are numbers and labelled in their order (0, 1, 2, ...); torchvision's ImageFolder sorts them as text"
    assert any(said in warning for warning in warnings)
    (tmp_path / "twelve").mkdir()
    Image.new("L", (10, 10)).save(tmp_path / "twelve" / "0.png")
    assert load_data(str(tmp_path)).classes == ["0", "1", "10", "11", *map(str, range(2, 10)), "twelve"]


@pytest.mark.parametrize("size", [(400, 256), (256, 400)], ids=["wide", "tall"])
def test_the_centre_is_cropped(size: tuple[int, int], tmp_path: Path) -> None:
    width, height = size
    rows, columns = np.mgrid[:height, :width]
    pixels = np.stack((columns % 256, rows % 256, np.full_like(rows, 7)), axis=-1).astype(np.uint8)
    (tmp_path / "a").mkdir()
    Image.fromarray(pixels).save(tmp_path / "a" / "x.png")
    x, _ = load_data(str(tmp_path))[0]
    # The shorter side is 256 already: nothing is resized, so pixels are whole.
    left, top = (width - 224) // 2, (height - 224) // 2
    expected = pixels[top : top + 224, left : left + 224].transpose(2, 0, 1).astype(np.float32) / np.float32(255)
    assert np.array_equal(x, expected)


def test_small_grey_and_transparent_images_become_rgb_of_the_same_size(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    Image.new("L", (20, 31), 100).save(tmp_path / "a" / "grey.JPEG")
    Image.new("RGBA", (64, 50), (255, 0, 0, 10)).save(tmp_path / "a" / "red.png")
    data = load_data(str(tmp_path))
    assert [x.shape for x, _ in data] == [(3, 224, 224)] * 2
    assert np.abs(data[0][0] - 100 / 255).max() < 0.02
    assert data[1][0][:, 5, 5].tolist() == [1.0, 0.0, 0.0]


def test_the_split_is_a_folder_and_must_be_clear(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no class folders; expected CIFAR's batches, MNIST's IDX files, or"):
        load_data(str(tmp_path))
    _tree(tmp_path / "train")
    with pytest.raises(ValueError, match="has no val or test; --split train takes"):
        load_data(str(tmp_path))
    assert len(load_data(str(tmp_path), split="train")) == 6
    with pytest.raises(FileNotFoundError, match=r"test: no such folder; splits there: train"):
        load_data(str(tmp_path), split="test")
    _tree(tmp_path / "val")
    assert load_data(str(tmp_path)).paths[0] == str(tmp_path / "val" / "n01" / "deep" / "0.png")
    (tmp_path / "test").mkdir()
    with pytest.raises(ValueError, match="has val and test, say which with --split"):
        load_data(str(tmp_path))
    (tmp_path / "val" / "empty").mkdir()
    with pytest.raises(ValueError, match="empty: a class folder without images"):
        load_data(str(tmp_path), split="val")
    with pytest.raises(ValueError, match=r"data\.npz: a file is one split; --split test is for folders"):
        load_data(_save(tmp_path / "data.npz", X, Y), split="test")


def test_an_image_that_cannot_be_read_is_named_when_it_is_needed(tmp_path: Path) -> None:
    _tree(tmp_path)
    whole = (tmp_path / "n02" / "0.png").read_bytes()
    (tmp_path / "n02" / "0.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "n03" / "0.png").write_bytes(b"hello")
    data = load_data(str(tmp_path))
    for i, name in ((2, "n02"), (4, "n03")):
        with pytest.raises(ValueError, match=rf"{name}/0\.png: cannot be read as an image \([^\n]+\)$"):
            data[i]


def test_without_pillow_what_to_install_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _tree(tmp_path)
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError, match=r"reading images needs Pillow: pip install pillow"):
        load_data(str(tmp_path))


def test_images_of_a_tree_are_certified(tmp_path: Path, shipped: Table) -> None:
    _tree(tmp_path)
    net = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    rows = Certifier(net, 0.25, 3, shipped, seed=0).certify_dataset(
        load_data(str(tmp_path), limit=1), tmp_path / "r.tsv", 5, 40, batch_size=20, progress=False
    )
    # Green is brightest by far.
    assert rows[0]["predict"] == 1
    assert float(rows[0]["radius_l2"]) > 0.1


def test_an_image_of_more_than_8_bits_is_refused_not_clipped(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    deep = np.full((40, 40), 30_000, dtype=np.uint16)
    Image.fromarray(deep).save(tmp_path / "a" / "x.png")
    with pytest.raises(ValueError, match=r"x\.png: cannot be read as an image \(mode I;?1?6?: expected 8 bits a channel\)"):
        load_data(str(tmp_path))[0]
    (tmp_path / "a" / "x.png").unlink()
    Image.fromarray(np.full((40, 40), 0.5, dtype=np.float32)).save(tmp_path / "a" / "x.tiff")
    with pytest.raises(ValueError, match=r"x\.tiff: cannot be read as an image \(mode F"):
        load_data(str(tmp_path))[0]
    (tmp_path / "a" / "x.tiff").unlink()
    Image.fromarray(np.full((40, 40), 51, dtype=np.uint8)).save(tmp_path / "a" / "x.png")
    assert np.allclose(load_data(str(tmp_path))[0][0], 0.2)
