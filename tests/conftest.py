"""Shared fixtures. Compiled kernels are cached by the digest of their sources: Numba does not see a change in a callee's file."""

import hashlib
import os
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_sources = b"".join(path.read_bytes() for folder in ("runtime", "tablegen") for path in sorted((ROOT / folder).rglob("*.py")))
os.environ.setdefault(
    "NUMBA_CACHE_DIR", str(Path(tempfile.gettempdir()) / f"certlut-numba-{hashlib.sha256(_sources).hexdigest()[:16]}")
)

import pytest  # noqa: E402
import torch  # noqa: E402

from certlut import Table  # noqa: E402
from certlut.lookup.format import TableData, read_table  # noqa: E402
from certlut.lookup.tail_format import TailData, read_tails  # noqa: E402
from certlut.lookup.tails import TailTable  # noqa: E402
from certlut.tablegen import build  # noqa: E402

# Two processes are done at the same time where no long file starts last.
SLOW = ("test_soundness", "test_main", "test_report", "test_shards", "test_solve", "test_engine", "test_table")

# Small products gain nothing from a second thread, and lose much where both cores are busy.
torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: SLOW.index(item.path.stem) if item.path.stem in SLOW else len(SLOW))


@pytest.fixture(scope="session")
def small_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A freshly built table of the preset `small`; copy it before changing it."""
    path = tmp_path_factory.mktemp("tables") / "small.h5"
    build(path, grid="small", jobs=1)
    return path


@pytest.fixture(scope="session")
def small_data(small_path: Path) -> TableData:
    """It, as read."""
    return read_table(small_path)


@pytest.fixture(scope="session")
def small(small_data: TableData, small_path: Path) -> Table:
    """It, opened."""
    return Table(small_data, small_path)


@pytest.fixture(scope="session")
def shipped_data() -> TableData:
    """The shipped default table as read."""
    return read_table(ROOT / "tables" / "default.h5")


@pytest.fixture(scope="session")
def shipped(shipped_data: TableData) -> Table:
    """The shipped default table."""
    return Table(shipped_data, ROOT / "tables" / "default.h5")


@pytest.fixture(scope="session")
def tails_data() -> TailData:
    """The shipped tail table as read."""
    return read_tails(ROOT / "tables" / "tails.h5")


@pytest.fixture(scope="session")
def tails(tails_data: TailData) -> TailTable:
    """The shipped tail table."""
    return TailTable(tails_data, ROOT / "tables" / "tails.h5")
