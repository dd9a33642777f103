"""certlut.lookup.format: a round trip loses nothing, damage of any kind is refused in one line, no file is ever half-written."""

import errno
import fcntl
import hashlib
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from certlut.lookup.format import AXES, DATASETS, LIMITS, TableData, TableError, compute_digest, read_table, write_table
from certlut.tablegen import Axis, GridSpec, build

GRID = GridSpec(Axis(0.5, 2.0, 3, "sqrt"), Axis(0.0, 0.9, 3, "rim"), Axis(0.0, 180.0, 3, "linear"))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Never changed; see `copy`."""
    path = tmp_path_factory.mktemp("tiny") / "tiny.h5"
    build(path, grid=GRID, jobs=1)
    return path


@pytest.fixture(scope="module")
def data(tiny: Path) -> TableData:
    return read_table(tiny)


@pytest.fixture
def copy(tiny: Path, tmp_path: Path) -> Path:
    path = tmp_path / "copy.h5"
    path.write_bytes(tiny.read_bytes())
    return path


def refusal(path: Path) -> str:
    """The message of the refusal to read `path`: one line that names the file."""
    with pytest.raises(TableError) as error:
        read_table(path)
    message = str(error.value)
    assert str(path) in message
    assert "\n" not in message
    return message


def equal(a: TableData, b: TableData) -> bool:
    return (
        a.attributes() == b.attributes()
        and a.digest == b.digest
        and all(a.datasets[name].tobytes() == b.datasets[name].tobytes() for name in DATASETS)
        and all(a.datasets[name].dtype == b.datasets[name].dtype for name in DATASETS)
    )


# What is written is what is read


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"sigma": 0.25},
        {"sigma": 1.0},
        {"data_version": 3, "proof": {"method": "by hand", "nodes": 27, "date": "2020-02-29"}},
        {"generator": "someone else 9.9", "tolerance": 1e-7},
    ],
)
def test_round_trip(data: TableData, tmp_path: Path, changes: dict[str, Any]) -> None:
    path = tmp_path / "table.h5"
    written = write_table(path, replace(data, **changes))
    read = read_table(path)
    assert equal(written, read)
    assert (read.sigma, read.data_version) == (changes.get("sigma"), changes.get("data_version", 0))
    assert read.proof == changes.get("proof", {})
    # Writing what was read changes nothing.
    assert write_table(tmp_path / "again.h5", read).digest == read.digest


def test_extreme_but_finite_values_survive(data: TableData, tmp_path: Path) -> None:
    rng = np.random.default_rng(71)
    datasets = dict(data.datasets)
    for name in ("radius", "c", "a0"):
        datasets[name] = 10.0 ** rng.uniform(-300, 300, datasets[name].shape)
    for name in ("a1", "a2"):
        datasets[name] = (10.0 ** rng.uniform(-44, 38, datasets[name].shape)).astype(np.float32)
    assert equal(write_table(tmp_path / "t.h5", replace(data, datasets=datasets)), read_table(tmp_path / "t.h5"))


def text(value: Any) -> str:
    """A stored string, of fixed or variable length."""
    return value.decode() if isinstance(value, bytes) else str(value)


def test_the_file_describes_itself(tiny: Path) -> None:
    with h5py.File(tiny, "r") as file:
        assert set(file) == set(DATASETS)
        for name, (dtype, unit, description) in DATASETS.items():
            assert file[name].dtype == np.dtype(dtype)
            assert text(file[name].attrs["units"]) == unit
            assert text(file[name].attrs["description"]) == description
        assert text(file.attrs["filetype"]) == "certlut-table"
        assert text(file.attrs["format_version"]) == "1.0"
        assert file.attrs["data_version"] == 0
        assert json.loads(file.attrs["proof"]) == {}
        assert text(file.attrs["grid"]) == GRID.card()
        assert text(file.attrs["grid_sha256"]) == GRID.sha256()
        assert bool(file.attrs["normalised"])
        assert file.attrs["sigma"] == 1.0


def test_two_writes_are_the_same_to_the_byte(data: TableData, tmp_path: Path) -> None:
    write_table(tmp_path / "one.h5", data)
    time.sleep(1.1)  # a time stamp would have seconds
    write_table(tmp_path / "two.h5", data)
    assert (tmp_path / "one.h5").read_bytes() == (tmp_path / "two.h5").read_bytes()


def test_the_digest_is_the_one_that_is_documented(data: TableData) -> None:
    plain = {name: value for name, value in data.attributes().items() if name != "digest"} | {"proof": {}}
    digest = hashlib.sha256(json.dumps(plain, sort_keys=True, separators=(",", ":")).encode())
    for name in ("z", "rho", "theta", "radius", "a0", "a1", "a2", "c", "status"):
        values = data.datasets[name]
        digest.update(f"{name} {DATASETS[name][0]} {values.shape}".encode() + values.tobytes())
    assert data.digest == digest.hexdigest()


def test_the_digest_forgets_the_date_of_the_proof_and_nothing_else(data: TableData) -> None:
    proven = replace(data, data_version=1, proof={"method": "m", "nodes": 27, "date": "2024-01-01"})

    def digest(other: TableData) -> str:
        return compute_digest(other.attributes(), other.datasets)

    seen = {digest(proven), digest(data)}
    assert len(seen) == 2
    assert digest(replace(proven, proof=proven.proof | {"date": "2025-12-31"})) == digest(proven)
    others = [
        replace(proven, proof=proven.proof | {"nodes": 26}),
        replace(proven, data_version=2),
        replace(proven, sigma=1.0),
        replace(proven, sigma=0.5),
        replace(proven, generator="x"),
        replace(proven, tolerance=1e-8),
        replace(proven, grid=proven.grid + " "),
    ]
    for name in DATASETS:
        changed = data.datasets[name].copy()
        changed.view(np.uint8).ravel()[0] ^= 1
        others.append(replace(proven, datasets=data.datasets | {name: changed}))
    digests = {digest(other) for other in others}
    assert len(digests) == len(others)
    assert not digests & seen


# What is refused


def test_a_missing_file_is_its_own_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.h5.*certlut build") as error:
        read_table(tmp_path / "nowhere.h5")
    assert "\n" not in str(error.value)


def test_a_folder_is_not_a_table(tmp_path: Path) -> None:
    with pytest.raises((FileNotFoundError, TableError), match=tmp_path.name):
        read_table(tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"\x89HDF\r\n\x1a\n", b"certlut-table", b"\0" * 5000], ids=["empty", "magic", "text", "zeros"]
)
def test_what_is_not_hdf5_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file.h5"
    path.write_bytes(content)
    assert "not a readable HDF5 file" in refusal(path)


def test_other_hdf5_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.h5"
    with h5py.File(path, "w") as file:
        file["radius"] = np.zeros(3)
    assert "filetype None" in refusal(path)


def test_a_file_truncated_anywhere_is_refused(tiny: Path, tmp_path: Path) -> None:
    raw = tiny.read_bytes()
    path = tmp_path / "torn.h5"
    for length in [*range(0, len(raw), 311), len(raw) // 2, len(raw) - 1]:
        path.write_bytes(raw[:length])
        assert "fetch or build it again" in refusal(path) or "not a table" in refusal(path), length


_FLIP = """
import sys
from pathlib import Path

from certlut.lookup.format import DATASETS, TableError, read_table

original, damaged = Path(sys.argv[1]), Path(sys.argv[2])
raw, reference = original.read_bytes(), read_table(original)
for line in sys.stdin:
    position, bit = map(int, line.split())
    broken = bytearray(raw)
    broken[position] ^= 1 << bit
    damaged.write_bytes(broken)
    print("at", position, bit, flush=True)
    try:
        data = read_table(damaged)
    except TableError as error:
        print("refused" if len(str(error).splitlines()) == 1 else "long")
        continue
    same = data.attributes() == reference.attributes() and data.digest == reference.digest
    same = same and all(data.datasets[name].tobytes() == reference.datasets[name].tobytes() for name in DATASETS)
    print("unharmed" if same else "taken")
"""


def outcomes(tiny: Path, tmp_path: Path, flips: list[tuple[int, int]]) -> list[str]:
    """Read `tiny` with one bit flipped at a time, in a process of its own: damage must not hang or crash the reader either."""
    arguments = [sys.executable, "-c", _FLIP, str(tiny), str(tmp_path / "flipped.h5")]
    lines = "".join(f"{position} {bit}\n" for position, bit in flips)
    folder = Path(__file__).resolve().parents[2]
    try:
        done = subprocess.run(arguments, input=lines, capture_output=True, text=True, timeout=30, cwd=folder, check=False)
    except subprocess.TimeoutExpired as error:
        seen = (error.stdout or b"").decode().splitlines()
        pytest.fail(f"the reader hangs on a flipped bit {seen[-1]} of {tiny.stat().st_size} bytes")
    seen = done.stdout.splitlines()
    assert done.returncode == 0, (seen[-1:], done.stderr[-800:])
    return [line for line in seen if not line.startswith("at")]


def test_one_flipped_bit_anywhere_is_refused_unless_nothing_reads_it(tiny: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(72)
    raw = tiny.read_bytes()
    # The strings' heap apart, see below.
    heap = range(raw.find(b"GCOL"), raw.find(b"GCOL") + 4096) if b"GCOL" in raw else range(0)
    flips = [(int(p), int(rng.integers(8))) for p in rng.integers(0, len(raw), 600) if p not in heap]
    found = outcomes(tiny, tmp_path, flips)
    assert len(found) == len(flips)
    assert set(found) <= {"refused", "unharmed"}
    assert found.count("refused") >= 100


def test_one_flipped_bit_in_a_stored_string_is_refused(tiny: Path, tmp_path: Path) -> None:
    raw = tiny.read_bytes()
    card = raw.find(GRID.card().encode())
    assert card > 0
    flips = [(p, bit) for p in range(card, card + 48) for bit in (0, 3, 7)]
    found = outcomes(tiny, tmp_path, flips)
    assert len(found) == len(flips)
    assert set(found) <= {"refused", "unharmed"}
    assert found.count("refused") >= 48 * 3


@pytest.mark.parametrize("name", DATASETS)
def test_one_changed_value_is_refused(copy: Path, name: str) -> None:
    with h5py.File(copy, "r+") as file:
        values = file[name][...]
        values.view(np.uint8).ravel()[-values.dtype.itemsize] ^= 1
        file[name][...] = values
    assert "digest" in refusal(copy)


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("filetype", "certlut-statistics", "filetype 'certlut-statistics'"),
        ("format_version", "2.0", "format_version 2.0"),
        ("format_version", "10.0", "format_version 10.0"),
        ("format_version", "0.9", "format_version 0.9"),
        ("format_version", "1.1", "digest"),
        ("data_version", 1, "digest"),
        ("sigma", 0.5, ""),
        ("normalised", False, ""),
        ("grid", "{}", ""),
        ("grid_sha256", "0" * 64, ""),
        ("generator", "me", "digest"),
        ("tolerance", 1e-3, "digest"),
        ("proof", '{"nodes": 27}', "digest"),
        ("proof", "{", "malformed"),
        ("proof", "[]", "malformed"),
        ("digest", "0" * 64, "digest"),
        ("comment", "one attribute too many", "digest"),
    ],
)
def test_one_edited_attribute_is_refused(copy: Path, name: str, value: Any, reason: str) -> None:
    with h5py.File(copy, "r+") as file:
        file.attrs[name] = value
    assert reason in refusal(copy)


@pytest.mark.parametrize(
    "name",
    [
        "filetype",
        "format_version",
        "data_version",
        "sigma",
        "normalised",
        "grid",
        "grid_sha256",
        "generator",
        "tolerance",
        "proof",
        "digest",
    ],
)
def test_a_missing_attribute_is_refused(copy: Path, name: str) -> None:
    with h5py.File(copy, "r+") as file:
        del file.attrs[name]
    refusal(copy)


@pytest.mark.parametrize("name", DATASETS)
def test_a_missing_dataset_is_refused(copy: Path, name: str) -> None:
    with h5py.File(copy, "r+") as file:
        del file[name]
    assert "incomplete" in refusal(copy) or name in refusal(copy)


def test_a_group_in_the_place_of_a_dataset_is_refused(copy: Path) -> None:
    with h5py.File(copy, "r+") as file:
        del file["c"]
        file.create_group("c")
    refusal(copy)


def test_the_messages_say_what_to_do(copy: Path) -> None:
    with h5py.File(copy, "r+") as file:
        file.attrs["format_version"] = "2.0"
    assert "install" in refusal(copy)
    copy.write_bytes(copy.read_bytes()[:-100])
    assert "fetch or build it again" in refusal(copy)


# Bad contents with a right digest: refused on writing and on reading alike


def broken_datasets(data: TableData) -> dict[str, tuple[dict[str, Any], str]]:
    d = data.datasets

    def put(name: str, value: float) -> dict[str, Any]:
        changed = d[name].copy()
        changed.ravel()[changed.size // 2] = value
        return d | {name: changed}

    cases = {f"nan in {name}": (put(name, math.nan), f"{name} has non-finite") for name in DATASETS if name != "status"}
    cases |= {f"inf in {name}": (put(name, math.inf), f"{name} has non-finite") for name in ("radius", "c", "a0", "a1", "a2")}
    cases |= {f"negative {name}": (put(name, -1e-9), f"{name} has negative") for name in ("radius", "c", "a0", "a1", "a2")}
    cases |= {f"{name} repeats": (put(name, d[name][0]), f"{name} is not increasing") for name in AXES}
    for name, (low, high) in LIMITS.items():
        first, last, close = d[name].copy(), d[name].copy(), d[name].copy()
        first[0], last[-1], close[1] = low - 1e-4, high + 1e-4, np.nextafter(close[0], np.inf)
        cases[f"{name} from too low"] = d | {name: first}, f"axis {name} runs from"
        cases[f"{name} to too high"] = d | {name: last}, f"axis {name} runs from"
        cases[f"{name} in steps of next to nothing"] = d | {name: close}, f"axis {name} is not increasing"
    cases |= {
        "failed node": (put("status", 0), "1 nodes did not converge"),
        "shape": (d | {"c": d["c"][:, :, :2]}, "dataset c is"),
        "flat": (d | {"radius": d["radius"].ravel()}, "dataset radius is"),
        "single knot": (
            d | {name: d[name][:1] if name == "z" else d[name][:1] if d[name].ndim == 3 else d[name] for name in d},
            "axis z",
        ),
    }
    return cases


CASES = [
    *(f"nan in {name}" for name in DATASETS if name != "status"),
    *(f"{kind} {name}" for kind in ("inf in", "negative") for name in ("radius", "c", "a0", "a1", "a2")),
    *(f"{name} {fault}" for name in AXES for fault in ("repeats", "from too low", "to too high", "in steps of next to nothing")),
    *("failed node", "shape", "flat", "single knot"),
]


def forge(path: Path, data: TableData, datasets: dict[str, Any], **attributes: Any) -> None:
    """Write any contents with a digest that fits, as an enemy of `write_table` would."""
    plain = data.attributes() | attributes
    with h5py.File(path, "w", libver=("v110", "v110")) as file:
        for name, value in (plain | {"digest": compute_digest(plain, datasets)}).items():
            file.attrs[name] = value
        for name in DATASETS:
            file[name] = datasets[name]


def test_a_forged_file_is_read_where_nothing_is_wrong_with_it(data: TableData, tmp_path: Path) -> None:
    forge(tmp_path / "forged.h5", data, data.datasets)
    assert equal(read_table(tmp_path / "forged.h5"), data)


@pytest.mark.parametrize("case", CASES)
def test_bad_contents_are_refused(data: TableData, tmp_path: Path, case: str) -> None:
    datasets, reason = broken_datasets(data)[case]
    path = tmp_path / "bad.h5"
    with pytest.raises(TableError, match=reason):
        write_table(path, replace(data, datasets=datasets))
    assert list(tmp_path.iterdir()) == []
    forge(path, data, datasets)
    assert reason in refusal(path)


@pytest.mark.parametrize("sigma", [0.0, -0.25, math.nan, math.inf, -math.inf])
def test_a_sigma_that_is_not_positive_is_refused(data: TableData, tmp_path: Path, sigma: float) -> None:
    path = tmp_path / "bad.h5"
    with pytest.raises(TableError, match=r"sigma = .*expected a positive number"):
        write_table(path, replace(data, sigma=sigma))
    assert list(tmp_path.iterdir()) == []
    forge(path, data, data.datasets, sigma=sigma, normalised=False)
    assert "sigma" in refusal(path)


@pytest.mark.parametrize("dtype", ["<f4", "<i8", "S8"])
def test_another_type_of_numbers_is_refused(data: TableData, tmp_path: Path, dtype: str) -> None:
    datasets = data.datasets | {"radius": data.datasets["radius"].astype(dtype)}
    with pytest.raises(TableError, match="dataset radius is"):
        write_table(tmp_path / "bad.h5", replace(data, datasets=datasets))


# Nothing is ever half-written


def fail(*_: object, **__: object) -> None:
    raise OSError(errno.EIO, "disk on fire")


@pytest.mark.parametrize("where", ["replace", "create_dataset"])
@pytest.mark.parametrize("existing", [True, False])
def test_a_failed_write_leaves_the_old_file_and_no_other(
    data: TableData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, existing: bool
) -> None:
    path = tmp_path / "table.h5"
    if existing:
        write_table(path, data)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    if where == "replace":
        monkeypatch.setattr(os, "replace", fail)
        monkeypatch.setattr(Path, "replace", fail)
    else:
        original: Callable[..., Any] = h5py.File.create_dataset
        monkeypatch.setattr(
            h5py.File, "create_dataset", lambda self, name, **kw: fail() if name == "a2" else original(self, name, **kw)
        )
    with pytest.raises(OSError, match=f"disk on fire|{os.strerror(errno.EIO)}"):
        write_table(path, replace(data, generator="new"))
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


_FULL = """
import resource, signal, sys
from certlut.lookup.format import read_table, write_table

data = read_table(sys.argv[1])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    write_table(sys.argv[2], data)
except OSError as error:
    print(error.errno, error.filename)
"""


def test_a_disk_that_fills_up_is_an_os_error_and_leaves_the_old_file(tiny: Path, tmp_path: Path) -> None:
    # In a process of its own, which must not crash on its way out either.
    path = tmp_path / "table.h5"
    path.write_bytes(b"old")
    command = [sys.executable, "-c", _FULL, str(tiny), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (done.stdout.split(), done.stderr) == ([str(errno.EFBIG), str(path)], "")
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"table.h5": b"old"}


def test_reading_takes_no_lock(copy: Path, data: TableData) -> None:
    """Where another holds one, and so where there are none to have (NFS, Lustre, FUSE)."""
    with copy.open("r+b") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        # The lock is one that HDF5 would trip over.
        with pytest.raises(OSError, match="lock"):
            h5py.File(copy, "r", locking=True)
        assert equal(read_table(copy), data)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ESTALE, errno.ENOLCK])
def test_a_file_that_the_machine_does_not_hand_over_is_not_called_damaged(
    copy: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, "Unable to synchronously open file")

    monkeypatch.setattr(h5py, "File", refuse)
    with pytest.raises(OSError, match=os.strerror(number)) as error:
        read_table(copy)
    assert not isinstance(error.value, TableError)
    assert error.value.filename == str(copy)


def test_bad_data_leave_the_old_file_alone(data: TableData, tmp_path: Path) -> None:
    path = tmp_path / "table.h5"
    write_table(path, data)
    before = path.read_bytes()
    with pytest.raises(TableError):
        write_table(path, replace(data, sigma=-1.0))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_writing_replaces_the_whole_file_at_once(data: TableData, tmp_path: Path) -> None:
    path = tmp_path / "table.h5"
    write_table(path, data)
    with path.open("rb") as reader:  # a reader of the old file keeps the old file
        old = path.read_bytes()
        write_table(path, replace(data, sigma=0.5))
        assert reader.read() == old
    assert read_table(path).sigma == 0.5
    assert list(tmp_path.iterdir()) == [path]


def test_an_unwritable_place_is_an_os_error_and_leaves_nothing(data: TableData, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="missing"):
        write_table(tmp_path / "missing" / "table.h5", data)
    assert list(tmp_path.iterdir()) == []
