import contextlib
import importlib.metadata
import json
import os
import re
import resource
import struct
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from certlut.jobs.journal import Journal

RECORDS = [b"\0", b"one", bytes(range(256)) * 5]


def start(out: Path, records: list[bytes]) -> Path:
    with Journal(out, {"task": "x", "n": 3}) as journal:
        for record in records:
            journal.append(record)
    return journal.path


def test_records_survive_reopening_and_finish_removes_the_file(tmp_path: Path) -> None:
    path = start(tmp_path / "out", RECORDS)
    with Journal(tmp_path / "out", {"n": 3, "task": "x"}) as journal:
        assert journal.records == RECORDS
        journal.append(b"more")
        journal.finish()
    assert not path.exists()


@settings(max_examples=60, deadline=None, derandomize=True)
@given(cut=st.integers(0, 1400))
def test_a_file_cut_anywhere_keeps_whole_records_and_goes_on(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    out = tmp_path_factory.mktemp("journal") / "out"
    path = start(out, RECORDS)
    os.truncate(path, min(cut, path.stat().st_size))
    with Journal(out, {"task": "x", "n": 3}) as journal:
        kept = list(journal.records)
        journal.append(b"new")
    assert kept == RECORDS[: len(kept)]
    with Journal(out, {"task": "x", "n": 3}) as journal:
        assert journal.records == [*kept, b"new"]


def test_a_flipped_byte_drops_that_record_and_what_follows_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = start(tmp_path / "out", RECORDS)
    data = bytearray(path.read_bytes())
    behind = len(RECORDS[1]) + len(RECORDS[2]) + 2 * 8
    data[-behind + 8] ^= 1
    path.write_bytes(data)
    assert capsys.readouterr().err == ""
    with Journal(tmp_path / "out", {"task": "x", "n": 3}) as journal:
        assert journal.records == RECORDS[:1]
    assert capsys.readouterr().err == f"{path}: its last {behind} bytes are damaged or unfinished, and dropped\n"


def test_a_zero_filled_tail_is_dropped(tmp_path: Path) -> None:
    path = start(tmp_path / "out", RECORDS)
    with path.open("ab") as file:
        file.write(bytes(4096))
    with Journal(tmp_path / "out", {"task": "x", "n": 3}) as journal:
        assert journal.records == RECORDS


def test_other_settings_are_refused_with_the_difference_and_nothing_lost(tmp_path: Path) -> None:
    path = start(tmp_path / "out", RECORDS)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"out\.journal.*n was 3, is 4"):
        Journal(tmp_path / "out", {"task": "x", "n": 4})
    assert path.read_bytes() == before


def test_a_format_that_an_upgrade_changed_is_refused_with_both_versions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Journal(tmp_path / "out", {"n": 3, "format": "votes 1"}) as journal:
        journal.append(b"one")
    now = importlib.metadata.version("certlut")
    before = journal.path.read_bytes()
    message = (
        rf"out\.journal: written by certlut {re.escape(now)} \(format votes 1\), which this certlut 9\.9\.9 \(format votes 2\) "
        r"cannot go on with; let that version finish it, or delete it to start again$"
    )
    with monkeypatch.context() as patch:
        patch.setattr("importlib.metadata.version", lambda _: "9.9.9")
        with pytest.raises(ValueError, match=message):
            Journal(tmp_path / "out", {"n": 4, "format": "votes 2"})
        assert journal.path.read_bytes() == before
        # Another version that writes the same goes on.
        with Journal(tmp_path / "out", {"n": 3, "format": "votes 1"}) as again:
            assert again.records == [b"one"]


def test_a_journal_from_before_formats_had_names_is_known_to_be_older(tmp_path: Path) -> None:
    path = start(tmp_path / "out", RECORDS)
    settings = json.dumps({"task": "x", "n": 3}).encode()
    rest = path.read_bytes()
    length = int.from_bytes(rest[:4], "little") + 8
    path.write_bytes(struct.pack("<II", len(settings), zlib.crc32(settings)) + settings + rest[length:])
    with pytest.raises(
        ValueError, match=r"out\.journal: written by an earlier certlut \(format None\), which this certlut .* votes 2\)"
    ):
        Journal(tmp_path / "out", {"task": "x", "n": 3, "format": "votes 2"})
    with Journal(tmp_path / "out", {"task": "x", "n": 3}) as journal:
        assert journal.records == RECORDS


def test_one_without_records_serves_any_settings_and_is_deleted_when_its_job_fails(tmp_path: Path) -> None:
    path = start(tmp_path / "out", [])

    def failing(*records: bytes) -> list[bytes]:
        found: list[bytes] = []
        with contextlib.suppress(ZeroDivisionError), Journal(tmp_path / "out", {"task": "x", "n": 4}) as journal:
            found += journal.records
            for record in records:
                journal.append(record)
            raise ZeroDivisionError
        return found

    assert failing() == []
    assert list(tmp_path.iterdir()) == []
    assert failing(b"one") == []
    assert list(tmp_path.iterdir()) == [path]
    assert failing() == [b"one"]
    assert list(tmp_path.iterdir()) == [path]


def test_a_second_writer_is_refused_until_the_first_has_gone(tmp_path: Path) -> None:
    with Journal(tmp_path / "out", {"n": 3}) as journal:
        journal.append(b"one")
        with pytest.raises(
            ValueError,
            match=r"out: another process is writing it \(process \d+ on .*, for 0 min\); if",
        ):
            Journal(tmp_path / "out", {"n": 3})
        journal.append(b"two")
    with Journal(tmp_path / "out", {"n": 3}) as journal:
        assert journal.records == [b"one", b"two"]
        journal.finish()
    assert list(tmp_path.iterdir()) == []


def test_one_that_refuses_its_settings_lets_others_in(tmp_path: Path) -> None:
    start(tmp_path / "out", RECORDS)
    with pytest.raises(ValueError, match="n was 3, is 4"):
        Journal(tmp_path / "out", {"task": "x", "n": 4})
    assert start(tmp_path / "out", []).exists()


def test_a_lock_file_left_by_a_kill_does_not_lock(tmp_path: Path) -> None:
    (tmp_path / "out.lock").touch()
    start(tmp_path / "out", RECORDS)
    assert [path.name for path in tmp_path.iterdir()] == ["out.journal"]


def test_a_folder_that_is_not_there_is_said_and_not_made(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere: no such folder to write out in"):
        Journal(tmp_path / "nowhere" / "out", {})
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_in_is_said() -> None:
    with pytest.raises(PermissionError, match=r"/proc/out\.lock"):
        Journal("/proc/out", {})


def test_a_full_disk_keeps_the_records_before(tmp_path: Path) -> None:
    path = start(tmp_path / "out", RECORDS)
    size = path.stat().st_size
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 500, limits[1]))
    try:
        with (
            Journal(tmp_path / "out", {"task": "x", "n": 3}) as journal,
            pytest.raises(OSError, match=r"File too large; what was written before is kept: '.*out\.journal'"),
        ):
            journal.append(bytes(1000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.stat().st_size == size + 500
    with Journal(tmp_path / "out", {"task": "x", "n": 3}) as journal:
        assert journal.records == RECORDS
        journal.append(bytes(1000))
