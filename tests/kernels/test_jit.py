"""certlut.kernels.jit in containers: another user, no HOME, nothing to write in; a cache that is full or damaged."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from certlut.tablegen import radius

ROOT = Path(__file__).resolve().parents[2]
LINE = "certlut: no use of a cache of compiled code ("
RADIUS = ("radius", "--q", "0.9", "--m1", "-0.1", "--m2", "0.05")
# Root may write anywhere. Another user may not, but has to find an interpreter that root may have installed at home.
READS = "=-all,+dac_read_search"
OTHER = ["setpriv", "--reuid=54321", "--regid=54321", "--clear-groups", f"--inh-caps{READS}", f"--ambient-caps{READS}"]


@pytest.fixture(scope="module")
def container() -> Iterator[Path]:
    """A folder with a copy of the packages that nobody may write in, and an empty one to work in."""
    folder = Path(tempfile.mkdtemp())
    for name, target in (("runtime", "packages/certlut"), ("tablegen", "packages/certlut/tablegen"), ("tables", "packages/tables")):
        shutil.copytree(ROOT / name, folder / target, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "work").mkdir()
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o777 if path.name == "work" else 0o555 if path.is_dir() else 0o444)
    yield folder
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    shutil.rmtree(folder)


def start(container: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Python there, as another user without a name or a home."""
    user = OTHER if os.geteuid() == 0 else []
    home = {} if user else {"HOME": os.devnull}
    plain = {"PATH": os.environ["PATH"], "PYTHONPATH": str(container / "packages"), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [*user, sys.executable, *arguments],
        env=plain | home | environment,
        cwd=container / "work",
        capture_output=True,
        text=True,
        check=False,
    )


def test_without_any_folder_to_write_in_it_works_and_says_how_to_get_a_cache(container: Path) -> None:
    done = start(container, "-m", "certlut", *RADIUS)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) == radius(0.9, -0.1, 0.05)
    (line,) = done.stderr.splitlines()
    assert line.startswith(LINE)
    assert "NUMBA_CACHE_DIR" in line
    # Not even a folder named "~".
    assert list((container / "work").iterdir()) == []


@pytest.mark.parametrize("command", [("--help",), ("--version",), ("info",)])
def test_commands_that_compile_nothing_work_too(container: Path, command: tuple[str, ...]) -> None:
    done = start(container, "-m", "certlut", *command)
    assert (done.returncode, done.stdout != "") == (0, True), done.stderr
    assert all(line.startswith(LINE) for line in done.stderr.splitlines())
    assert len(done.stderr.splitlines()) <= 1
    assert list((container / "work").iterdir()) == []


NET = "import torch\n\ndef make():\n    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 2))\n"


def test_a_data_set_is_sampled_there(container: Path) -> None:
    work = container / "work"
    (work / "net.py").write_text(NET)
    np.savez(work / "data.npz", x=np.linspace(0.0, 1.0, 96, dtype=np.float32).reshape(2, 3, 4, 4), y=np.arange(2))
    for path in work.iterdir():
        path.chmod(0o444)
    files = ("--model", "net.py:make", "--data", "data.npz", "--out", "s.h5")
    done = start(container, "-m", "certlut", "sample", *files, "--sigma", "0.5", "--num-classes", "2", "--n", "200")
    assert (done.returncode, done.stdout) == (0, "s.h5: statistics of 2 inputs\n"), done.stderr
    assert all(line.startswith(LINE) for line in done.stderr.splitlines() if line.strip())
    assert sorted(path.name for path in work.iterdir()) == ["data.npz", "net.py", "s.h5"]
    for path in work.iterdir():
        path.unlink()


def test_a_cache_where_the_variable_says_is_used_in_silence(container: Path) -> None:
    cache = container / "work" / "cache"
    code = "from certlut.kernels.normal import density; print(density(0.0), sum(density.stats.cache_hits.values()))"
    for hits in ("0", "1"):
        done = start(container, "-c", code, NUMBA_CACHE_DIR=str(cache))
        assert (done.returncode, done.stderr, done.stdout.split()[1]) == (0, "", hits), done.stderr
    shutil.rmtree(cache)


FULL = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))
from certlut.kernels.normal import density, upper
print(density(0.0), upper(0.0))
"""


def test_a_full_disk_costs_the_cache_only(container: Path) -> None:
    cache = container / "work" / "cache"
    done = start(container, "-c", FULL, NUMBA_CACHE_DIR=str(cache))
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[1] == "0.5"
    (line,) = done.stderr.splitlines()
    assert line.startswith(LINE + "[Errno 27]")
    shutil.rmtree(cache)


@pytest.mark.parametrize("damage", [b"", b"no pickle"])
def test_a_damaged_cache_costs_the_cache_only(container: Path, damage: bytes) -> None:
    cache = container / "work" / "cache"
    code = "from certlut.kernels.normal import density; print(density(0.0))"
    first = start(container, "-c", code, NUMBA_CACHE_DIR=str(cache))
    for path in cache.rglob("*.nbi"):
        path.write_bytes(damage)
    done = start(container, "-c", code, NUMBA_CACHE_DIR=str(cache))
    assert (done.returncode, done.stdout) == (0, first.stdout), done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith(LINE)
    shutil.rmtree(cache)
