"""Files that are there whole or not at all: written under a temporary name, renamed at the end."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """A file to write under a temporary name, renamed at the end: what was there stays until all of it is on the disk."""
    # Through a link; and each process under a name of its own.
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        raise ValueError(f"{os.fspath(path)}: exists and is not a regular file; expected a name for one")
    partial = target.with_name(f"{target.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, target)
    except OSError as error:
        raise OSError(error.errno, os.strerror(error.errno or 0), os.fspath(path)) from None
    finally:
        partial.unlink(missing_ok=True)


def check_out(out: str | os.PathLike[str], *read: str | os.PathLike[str] | None) -> Path:
    """`out` as a path. FileNotFoundError where its folder is not there, ValueError where it is no file, or one of those `read`."""
    out = Path(out)
    if not out.parent.is_dir():
        raise FileNotFoundError(f"{out.parent}: no such folder to write {out.name} in")
    if out.exists() and not out.is_file():
        raise ValueError(f"{out}: exists and is not a regular file; expected a name for one")
    if any(path is not None and out.exists() and os.path.exists(path) and out.samefile(path) for path in read):
        raise ValueError(f"{out}: is read as well; expected another file to write")
    return out
