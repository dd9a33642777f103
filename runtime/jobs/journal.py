"""Append-only journal of a long job, beside the file it leads to: settings first, then records, each with length and checksum.

A stop at any moment (Ctrl-C, kill -9, a full disk) costs at most the record being written: a torn tail is dropped on reopening.
One without records is deleted when its job fails, and serves any settings: it keeps nothing.
The setting "format" says how its records are laid out: after an upgrade that changed it, both versions are named.
While it is open, a lock file beside it keeps other processes off the same output.
"""

import importlib.metadata
import json
import os
import struct
import sys
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .lock import Lock

_HEAD = struct.Struct("<II")  # length, crc32
# Scores that differ by less, relative to the largest, may be those of one model on two machines.
ROUNDING = 1e-3


def differing(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """(name, value, value) of the settings that two runs do not share; of a model's scores the two furthest apart."""
    changed = []
    for name in sorted({*first, *second}):
        a, b = first.get(name), second.get(name)
        if name == "model scores" and a and b and len(a) == len(b):
            largest = max(map(abs, [*a, *b]))
            a, b = max(zip(a, b, strict=True), key=lambda pair: abs(pair[0] - pair[1]))
            if abs(a - b) <= ROUNDING * largest:
                continue
        if a != b:
            changed.append((name, a, b))
    return changed


def check_same(path: Path, what: str, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """ValueError naming what differs between a finished file's settings and those wanted; "information" is not compared."""
    changed = [f"{name} was {a!r}, is {b!r}" for name, a, b in differing(found, wanted) if name != "information"]
    if changed:
        raise ValueError(f"{path}: holds the {what} of other settings: {'; '.join(changed)}; delete it or write another file")


class Journal:
    """The journal `<out>.journal`; use as a context manager, and call `finish` once the output is complete."""

    def __init__(
        self, out: str | os.PathLike[str], settings: Mapping[str, Any], unit: str = "records", total: int = 0, quiet: bool = True
    ) -> None:
        """Open or start it; `records` holds what earlier runs left.

        Args:
            out: the output that the job leads to.
            settings: what the records depend on: they go on only with the same.
            unit: what a record is, in the plural.
            total: how many the job makes.
            quiet: do not say on stderr where the job goes on, nor what is kept where Ctrl-C stops it.

        Raises:
            ValueError: that run had other settings, or another process has the journal open.
            OSError: the folder does not exist, cannot be written in, or is full.
        """
        self.path = Path(f"{os.fspath(out)}.journal")
        self._of, self._quiet = f"of {total} {unit}", quiet
        if not self.path.parent.is_dir():
            raise FileNotFoundError(f"{self.path.parent}: no such folder to write {Path(out).name} in")
        self.records: list[bytes] = []
        wanted = json.loads(json.dumps(settings))
        version = importlib.metadata.version("certlut")
        self._lock = Lock(out)
        try:
            # "r+b" cannot create and "ab" cannot truncate. Unbuffered: a failed write leaves nothing to be tried again on closing.
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        except BaseException:
            self._lock.release()
            raise
        self._file = os.fdopen(descriptor, "r+b", buffering=0)
        try:
            end = self._read()
            lost = os.fstat(self._file.fileno()).st_size - end
            if self.records:
                started = json.loads(self.records.pop(0))
                by = started.pop("certlut", None)
                if differing(started, wanted) and not self.records:
                    # It holds nothing but settings, which may be what was wrong.
                    end = 0
                else:
                    self._check(started, wanted, by, version)
            self._kept = len(self.records)
            if lost:
                print(f"{self.path}: its last {lost} bytes are damaged or unfinished, and dropped", file=sys.stderr)
            self._file.seek(end)
            self._file.truncate()
            if end == 0:
                self._write(json.dumps(wanted | {"certlut": version}).encode())
            if self._kept and not quiet:
                print(f"{self.path}: {self._kept} {self._of} are done, going on behind them", file=sys.stderr)
        except BaseException:
            self.close()
            raise

    def _read(self) -> int:
        """Fill `records`; the position behind the last whole one."""
        end, size = 0, os.fstat(self._file.fileno()).st_size
        while len(head := self._file.read(_HEAD.size)) == _HEAD.size:
            length, checksum = _HEAD.unpack(head)
            # Length 0 is what a zero-filled tail looks like; a damaged length may be anything.
            if length == 0 or length > size - self._file.tell():
                break
            record = self._file.read(length)
            if zlib.crc32(record) != checksum:
                break
            self.records.append(record)
            end = self._file.tell()
        return end

    def _check(self, started: dict[str, Any], wanted: dict[str, Any], by: str | None, version: str) -> None:
        if started.get("format") != wanted.get("format"):
            who = f"certlut {by}" if by else "an earlier certlut"
            raise ValueError(
                f"{self.path}: written by {who} (format {started.get('format')}), which this certlut {version} "
                f"(format {wanted.get('format')}) cannot go on with; let that version finish it, or delete it to start again"
            )
        if changed := differing(started, wanted):
            differences = "; ".join(f"{name} was {a!r}, is {b!r}" for name, a, b in changed)
            raise ValueError(f"{self.path}: started with other settings: {differences}; delete it to start again")

    def _write(self, record: bytes) -> None:
        data = memoryview(_HEAD.pack(len(record), zlib.crc32(record)) + record)
        try:
            while data:
                data = data[self._file.write(data) :]
            os.fsync(self._file.fileno())
        except OSError as error:
            text = f"{os.strerror(error.errno or 0)}; what was written before is kept"
            raise OSError(error.errno, text, str(self.path)) from None

    def append(self, record: bytes) -> None:
        """Add one record, not empty, and push it to the disk. It is not kept in `records`: memory does not grow with the job."""
        self._write(record)
        self._kept += 1

    def finish(self) -> None:
        """Delete the journal: its output is complete."""
        self._file.close()
        self.path.unlink()
        self._lock.release()

    def close(self) -> None:
        """Close it and let other processes in; what was appended stays."""
        self._file.close()
        self._lock.release()

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and not self._kept and not self._file.closed:
            self.finish()
        else:
            self.close()
        if kind is KeyboardInterrupt and not self._quiet:
            kept = f"{self._kept} {self._of} are kept: the same again goes on behind them" if self._kept else "nothing was finished"
            print(f"{self.path}: stopped; {kept}", file=sys.stderr)
