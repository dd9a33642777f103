"""Locks, also where the file system has none, and what is said of one that is held."""

import errno
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from certlut.jobs.journal import Journal
from certlut.jobs.lock import Lock


def _no_flock(number: int) -> Any:
    def flock(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    return flock


def test_a_lock_is_held_until_it_is_released_and_leaves_nothing(tmp_path: Path) -> None:
    first = Lock(tmp_path / "out")
    refusal = (
        rf"out: another process is writing it \(process {os.getpid()} on {re.escape(socket.gethostname())}, for 0 min\); if that"
    )
    with pytest.raises(ValueError, match=refusal):
        Lock(tmp_path / "out")
    first.release()
    first.release()
    assert list(tmp_path.iterdir()) == []
    Lock(tmp_path / "out").release()


def test_the_age_and_the_host_of_a_lock_are_told(tmp_path: Path) -> None:
    first, path = Lock(tmp_path / "out"), tmp_path / "out.lock"
    path.write_text("4242\nelsewhere\n")
    os.utime(path, (path.stat().st_mtime - 7200,) * 2)
    with pytest.raises(ValueError, match=rf"\(process 4242 on elsewhere, for 120 min\); if that has ended, delete {path}"):
        Lock(tmp_path / "out")
    # As an older version leaves it.
    path.write_text("")
    with pytest.raises(ValueError, match=r"another process is writing it \(another process\); if that has ended"):
        Lock(tmp_path / "out")
    first.release()


def test_a_file_left_by_another_host_does_not_lock_where_the_kernel_does(tmp_path: Path) -> None:
    (tmp_path / "out.lock").write_text("4242\nelsewhere\n")
    Lock(tmp_path / "out").release()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_without_the_kernels_locks_the_file_itself_locks(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fcntl.flock", _no_flock(number))
    path = tmp_path / "out.lock"
    with Journal(tmp_path / "out", {"n": 3}) as journal:
        journal.append(b"one")
        with pytest.raises(ValueError, match=rf"\(process {os.getpid()} on .*\); if that has ended, delete {path}"):
            Journal(tmp_path / "out", {"n": 3})
    assert [entry.name for entry in tmp_path.iterdir()] == ["out.journal"]
    # Left by another host: refused until it is deleted.
    path.write_text("4242\nelsewhere\n")
    with pytest.raises(ValueError, match=rf"\(process 4242 on elsewhere, for 0 min\); if that has ended, delete {path}"):
        Journal(tmp_path / "out", {"n": 3})
    path.unlink()
    with Journal(tmp_path / "out", {"n": 3}) as journal:
        assert journal.records == [b"one"]


def test_without_the_kernels_locks_one_left_on_this_host_by_a_kill_is_taken_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True, check=True)
    (tmp_path / "out.lock").write_text(f"{dead.stdout.strip()}\n{socket.gethostname()}\n")
    monkeypatch.setattr("fcntl.flock", _no_flock(errno.ENOLCK))
    Lock(tmp_path / "out").release()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [errno.EIO, errno.EROFS, errno.ENOSPC])
def test_a_lock_that_fails_is_said_with_its_path(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fcntl.flock", _no_flock(number))
    with pytest.raises(OSError, match=re.escape(f"{os.strerror(number)}: '{tmp_path / 'out.lock'}'")):
        Journal(tmp_path / "out", {})
