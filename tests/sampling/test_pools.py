"""Threads: what a process is given beside others on one machine, with real processes, and that all pools keep to it."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numba
import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_info

from certlut.jobs import threads
from certlut.jobs.threads import Share, cores, stated
from certlut.sampling.pools import Pools, pools, set_threads


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    yield
    set_threads(1)


def _other(folder: Path) -> "subprocess.Popen[str]":
    """A process that holds a place and says what it got, until it is told to end."""
    code = (
        "import sys\nfrom pathlib import Path\nfrom certlut.jobs.threads import Share\n"
        f"with Share(Path({str(folder)!r})) as share:\n"
        "    for line in sys.stdin:\n        print(share.threads(), flush=True)"
    )
    return subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _asked(process: "subprocess.Popen[str]") -> int:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    return int(process.stdout.readline())


def test_processes_divide_the_cores_and_have_them_back_when_others_end_or_are_killed(tmp_path: Path) -> None:
    with Share(tmp_path) as share:
        alone = share.threads()
        assert alone == cores()
        others = [_other(tmp_path) for _ in range(2)]
        try:
            assert _asked(others[0]) == max(1, cores() // 2)
            assert share.threads() == max(1, cores() // 2)
            assert _asked(others[1]) == max(1, cores() // min(3, cores()))
            others[0].send_signal(signal.SIGKILL)
            others[0].wait()
            others[1].communicate("")
            assert others[1].returncode == 0
            assert share.threads() == alone
        finally:
            for process in others:
                process.kill()
                process.communicate()


def test_a_place_is_given_back(tmp_path: Path) -> None:
    with Share(tmp_path), Share(tmp_path) as second:
        assert second.threads() == max(1, cores() // 2)
    with Share(tmp_path) as again:
        assert again.threads() == cores()


def test_without_a_folder_for_locks_a_process_counts_itself_alone(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with Share(tmp_path / "file" / "folder") as share:
        assert share.threads() == cores()


def test_what_the_environment_says_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "cpu_count", lambda: 8)
    assert stated({}) is None
    assert stated({"OMP_NUM_THREADS": "3"}) == 3
    assert stated({"OMP_NUM_THREADS": "4,2"}) == 4
    # torchrun sets OMP_NUM_THREADS to 1 by itself.
    assert stated({"OMP_NUM_THREADS": "1", "LOCAL_WORLD_SIZE": "2"}) == 4
    assert stated({"LOCAL_WORLD_SIZE": "100"}) == 1
    assert stated({"OMP_NUM_THREADS": "many", "LOCAL_WORLD_SIZE": "0"}) is None


def test_all_pools_are_set_together() -> None:
    np.ones((2, 2)) @ np.ones((2, 2))
    for wanted in (2, 1):
        set_threads(wanted)
        assert torch.get_num_threads() == wanted
        assert {pool["num_threads"] for pool in threadpool_info()} == {wanted}
        assert numba.get_num_threads() == min(wanted, numba.config.NUMBA_NUM_THREADS)


def test_what_is_asked_for_is_kept_and_a_share_follows_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OMP_NUM_THREADS", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    with Share(tmp_path) as share:
        fixed, shared, slow = Pools(1, share), Pools(None, share, every=0.0), Pools(None, share)
        fixed.keep()
        assert torch.get_num_threads() == 1
        shared.keep()
        slow.keep()
        assert torch.get_num_threads() == cores()
        with Share(tmp_path):
            # Not counted again so soon.
            slow.keep()
            assert torch.get_num_threads() == cores()
            shared.keep()
            assert torch.get_num_threads() == max(1, cores() // 2)
        shared.keep()
        assert torch.get_num_threads() == cores()
    with pools(1):
        assert torch.get_num_threads() == 1


SPY = """
import os, torch

class Spy(torch.nn.Module):
    def forward(self, x):
        with open(os.environ["SEEN"], "a") as file:
            file.write(f"{torch.get_num_threads()}\\n")
        return x[:, :2]

def spy():
    return Spy()
"""


@pytest.mark.parametrize(
    ("options", "environment", "wanted"),
    [(["--threads", "1"], {}, 1), ([], {"LOCAL_WORLD_SIZE": "64"}, 1), (["--threads", "2"], {"OMP_NUM_THREADS": "1"}, 2)],
)
def test_a_command_keeps_to_its_threads(tmp_path: Path, options: list[str], environment: dict[str, str], wanted: int) -> None:
    np.savez(tmp_path / "d.npz", x=np.zeros((2, 4), dtype=np.float32), y=np.zeros(2, dtype=np.int64))
    (tmp_path / "spy.py").write_text(SPY)
    clean = {name: value for name, value in os.environ.items() if name not in ("OMP_NUM_THREADS", "LOCAL_WORLD_SIZE")}
    model, data = f"{tmp_path / 'spy.py'}:spy", str(tmp_path / "d.npz")
    command = [sys.executable, "-m", "certlut", "sample", "--model", model, "--data", data]
    command += ["--sigma", "1", "--num-classes", "2", "--n", "200", "--no-check", "--out", str(tmp_path / "s.h5"), *options]
    subprocess.run(command, env=clean | environment | {"SEEN": str(tmp_path / "seen")}, check=True, capture_output=True)
    assert {int(line) for line in (tmp_path / "seen").read_text().split()} == {wanted}
