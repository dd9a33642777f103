"""certlut.lookup.tail_format: a round trip loses nothing, damage of any kind is refused in one line, no file is half-written."""

import hashlib
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from certlut.lookup.format import TableError
from certlut.lookup.tail_format import DATASETS, TailData, read_tails, write_tails


@pytest.fixture
def data() -> TailData:
    rng = np.random.default_rng(91)
    datasets: dict[str, np.ndarray] = {
        "tau": np.array([0.5, 1.0, 2.0]),
        "theta": np.array([0.0, 20.0, 60.0]),
        "r": np.array([0.5, 1.5]),
        "level": np.array([[0.0, 0.1, 1.0], [0.0, 0.5, 5.0]]),
        "excess": rng.random((3, 2, 4, 3)).astype(np.float32),
    }
    return TailData(datasets, "a test")


def refusal(path: Path) -> str:
    with pytest.raises(TableError) as error:
        read_tails(path)
    message = str(error.value)
    assert str(path) in message
    assert "\n" not in message
    return message


@pytest.mark.parametrize("changes", [{}, {"data_version": 2, "proof": {"nodes": 6, "date": "2020-02-29"}}, {"generator": "x 9"}])
def test_round_trip(data: TailData, tmp_path: Path, changes: dict[str, Any]) -> None:
    written = write_tails(tmp_path / "t.h5", replace(data, **changes))
    read = read_tails(tmp_path / "t.h5")
    assert read.attributes() == written.attributes()
    assert read.digest == written.digest
    for name, values in data.datasets.items():
        assert read.datasets[name].tobytes() == values.tobytes()
        assert read.datasets[name].dtype == values.dtype
    assert list(tmp_path.iterdir()) == [tmp_path / "t.h5"]


def test_two_writes_are_the_same_to_the_byte(data: TailData, tmp_path: Path) -> None:
    write_tails(tmp_path / "one.h5", data)
    time.sleep(1.1)
    write_tails(tmp_path / "two.h5", data)
    assert (tmp_path / "one.h5").read_bytes() == (tmp_path / "two.h5").read_bytes()


def test_the_digest_is_the_one_that_is_documented(data: TailData, tmp_path: Path) -> None:
    written = write_tails(tmp_path / "t.h5", replace(data, data_version=1, proof={"nodes": 6, "date": "2020-02-29"}))
    plain = written.attributes() | {"proof": {"nodes": 6}}
    digest = hashlib.sha256(json.dumps(plain, sort_keys=True, separators=(",", ":")).encode())
    for name in ("tau", "theta", "r", "level", "excess"):
        digest.update(f"{name} {DATASETS[name][0]} {data.datasets[name].shape}".encode() + data.datasets[name].tobytes())
    assert written.digest == digest.hexdigest()


def test_the_file_describes_itself(data: TailData, tmp_path: Path) -> None:
    write_tails(tmp_path / "t.h5", data)
    with h5py.File(tmp_path / "t.h5") as file:
        assert set(file) == set(DATASETS)
        assert file.attrs["filetype"] == "certlut-tails"
        assert file.attrs["format_version"] == "1.0"
        for name, (dtype, unit, description) in DATASETS.items():
            assert file[name].dtype == np.dtype(dtype)
            assert (file[name].attrs["units"], file[name].attrs["description"]) == (unit, description)


def test_what_is_no_table_is_refused(data: TailData, tmp_path: Path) -> None:
    path = tmp_path / "t.h5"
    with pytest.raises(FileNotFoundError, match=r"t\.h5"):
        read_tails(path)
    path.write_bytes(b"not HDF5 at all")
    assert "not a readable HDF5 file" in refusal(path)
    write_tails(path, data)
    path.write_bytes(path.read_bytes()[:-100])
    refusal(path)
    with h5py.File(path, "w") as file:
        file.attrs["filetype"] = "certlut-table"
    assert "certlut-tails" in refusal(path)


@pytest.mark.parametrize("name", DATASETS)
def test_a_missing_dataset_is_refused(data: TailData, tmp_path: Path, name: str) -> None:
    write_tails(tmp_path / "t.h5", data)
    with h5py.File(tmp_path / "t.h5", "r+") as file:
        del file[name]
    assert "again" in refusal(tmp_path / "t.h5")


@pytest.mark.parametrize("name", ["digest", "generator", "proof", "data_version", "format_version", "filetype"])
def test_a_missing_attribute_is_refused(data: TailData, tmp_path: Path, name: str) -> None:
    write_tails(tmp_path / "t.h5", data)
    with h5py.File(tmp_path / "t.h5", "r+") as file:
        del file.attrs[name]
    refusal(tmp_path / "t.h5")


@pytest.mark.parametrize(("name", "value"), [("generator", "y"), ("data_version", 1), ("proof", '{"nodes": 1}')])
def test_an_edited_attribute_is_refused(data: TailData, tmp_path: Path, name: str, value: object) -> None:
    write_tails(tmp_path / "t.h5", data)
    with h5py.File(tmp_path / "t.h5", "r+") as file:
        file.attrs[name] = value
    assert "edited or damaged" in refusal(tmp_path / "t.h5")


@pytest.mark.parametrize("name", DATASETS)
def test_an_edited_number_is_refused(data: TailData, tmp_path: Path, name: str) -> None:
    write_tails(tmp_path / "t.h5", data)
    with h5py.File(tmp_path / "t.h5", "r+") as file:
        values = file[name][...]
        values.flat[-1] = np.nextafter(values.flat[-1], values.dtype.type(0))
        file[name][...] = values
    assert "edited or damaged" in refusal(tmp_path / "t.h5")


def test_a_newer_format_is_refused(data: TailData, tmp_path: Path) -> None:
    write_tails(tmp_path / "t.h5", data)
    with h5py.File(tmp_path / "t.h5", "r+") as file:
        file.attrs["format_version"] = "2.0"
    assert "format_version 2.0" in refusal(tmp_path / "t.h5")


def changed(values: np.ndarray, place: tuple[int, ...], value: float) -> np.ndarray:
    values = values.copy()
    values[place] = value
    return values


@pytest.mark.parametrize(
    ("name", "place", "value", "message"),
    [
        ("tau", (1,), np.nan, "non-finite"),
        ("tau", (1,), 0.5, "not increasing"),
        ("theta", (0,), 1.0, "from 0 up"),
        ("theta", (2,), 90.0, "below 90"),
        ("theta", (2,), 10.0, "not increasing"),
        ("r", (0,), 0.0, "positive"),
        ("r", (1,), np.inf, "non-finite"),
        ("level", (1, 0), 0.01, "first levels"),
        ("level", (1, 2), 0.4, "not increasing"),
        ("excess", (0, 0, 0, 0), np.nan, "non-finite"),
        ("excess", (0, 0, 0, 0), -1e-9, "outside 0 to 1"),
        ("excess", (2, 1, 3, 2), 1.5, "outside 0 to 1"),
    ],
)
def test_values_out_of_range_are_never_written(
    data: TailData, tmp_path: Path, name: str, place: tuple[int, ...], value: float, message: str
) -> None:
    with pytest.raises(TableError, match=message):
        write_tails(tmp_path / "t.h5", replace(data, datasets=data.datasets | {name: changed(data.datasets[name], place, value)}))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["tau", "theta", "r", "level", "excess"])
def test_shapes_and_types_that_disagree_are_never_written(data: TailData, tmp_path: Path, name: str) -> None:
    values = data.datasets[name]
    for wrong in (values[..., :-1], values.astype(np.float16), values[None]):
        with pytest.raises(TableError, match="dataset"):
            write_tails(tmp_path / "t.h5", replace(data, datasets=data.datasets | {name: wrong}))
