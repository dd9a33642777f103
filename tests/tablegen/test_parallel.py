"""certlut.tablegen.parallel: the same results in any number of processes, and where none can be started."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from distributed.scheduler import KilledWorker

from certlut.tablegen.parallel import run

SCRIPT = """
import sys
{}
from certlut.tablegen import build, prove
build(sys.argv[1], grid="small", jobs=2)
print(prove(sys.argv[1], nodes=60, jobs=2, seed=1).nodes)
"""
# What the library meets where /dev/shm is missing, full or read-only.
NO_SEMAPHORES = """
import _multiprocessing
def refuse(*_, **__):
    raise OSError(30, "Read-only file system")
_multiprocessing.SemLock = refuse
"""


def test_tasks_come_back_from_any_number_of_processes() -> None:
    tasks = [(x, 2.0) for x in range(20)]
    for jobs in (1, 2, -1):
        assert sorted(run(pow, tasks, jobs)) == [x**2.0 for x in range(20)]


@pytest.mark.parametrize(("before", "environment"), [(NO_SEMAPHORES, {}), ("", {"JOBLIB_MULTIPROCESSING": "0"})])
def test_without_processes_one_does_all(tmp_path: Path, small_path: Path, before: str, environment: dict[str, str]) -> None:
    out = tmp_path / "small.h5"
    command = [sys.executable, "-c", SCRIPT.format(before), str(out)]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["60"]
    assert out.read_bytes() == small_path.read_bytes()
    said = [line for line in done.stderr.splitlines() if line.strip()]
    assert said == ["certlut: no processes can be started (no usable /dev/shm?), so one does all the work"] * 2  # build, prove


def test_one_job_asks_for_no_processes_and_is_told_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("joblib.parallel.mp", None)
    assert list(run(pow, [(2, 3), (3, 2)], 1)) == [8, 9]
    assert capsys.readouterr().err == ""
    assert list(run(pow, [(2, 3), (3, 2)], 2)) == [8, 9]
    assert "no usable /dev/shm" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore:.*:ResourceWarning")
def test_a_worker_that_is_killed_is_said_in_one_line() -> None:
    with pytest.raises(ChildProcessError, match=r"^a worker process ended in the middle of its task [^\n]* --jobs 1 starts none$"):
        list(run(os._exit, [(3,)] * 3, 2))
    # The next one gets workers of its own.
    assert list(run(pow, [(2, 3)], 2)) == [8]


def test_so_is_one_on_a_cluster_and_other_errors_are_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    class Parallel:
        raised: Exception

        def __init__(self, **_: object) -> None:
            pass

        def __call__(self, _: object) -> list[int]:
            raise self.raised

    monkeypatch.setattr("joblib.Parallel", Parallel)
    Parallel.raised = KilledWorker("task", None, 3)
    with pytest.raises(ChildProcessError, match=r"^a worker process ended in the middle of its task"):
        list(run(pow, [(2, 3)], 2))
    Parallel.raised = ZeroDivisionError("of its own")
    with pytest.raises(ZeroDivisionError, match="of its own"):
        list(run(pow, [(2, 3)], 2))
