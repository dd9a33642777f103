import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.journal import Journal

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


def test_a_flipped_byte_drops_that_record_and_what_follows(tmp_path: Path) -> None:
    path = start(tmp_path / "out", RECORDS)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with Journal(tmp_path / "out", {"task": "x", "n": 3}) as journal:
        assert journal.records == RECORDS[:-1]


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
