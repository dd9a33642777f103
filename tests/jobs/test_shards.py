"""Shards, and whole runs in real processes: killed, gone on with, sharded, under torchrun, merged."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest

from certlut.jobs.journal import Journal
from certlut.jobs.shards import Shard, group_size, groups, local_device
from certlut.runs.sample import journal_format
from certlut.statistics.file import read_statistics

ROOT = Path(__file__).resolve().parents[2]


def test_groups_fill_a_batch_and_no_more_than_are_held_at_once() -> None:
    assert [group_size(n, 1000) for n in (1, 10, 100, 334, 500, 501, 1000, 10**6)] == [32, 32, 10, 2, 2, 1, 1, 1]
    assert [list(group) for group in groups(7, 3)] == [[0, 1, 2], [3, 4, 5], [6]]
    assert groups(0, 3) == []


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_shards_deal_out_every_group_once(count: int) -> None:
    every = groups(20, 3)
    dealt = [group for k in range(count) for group in Shard(k, count).pick(every)]
    assert sorted(dealt, key=lambda group: group.start) == every
    sizes = [len(Shard(k, count).pick(every)) for k in range(count)]
    assert max(sizes) - min(sizes) <= 1


def test_a_shard_is_read_from_text_and_from_torchrun() -> None:
    assert Shard.parse("0/4") == Shard(0, 4)
    assert Shard.from_environment({}) == Shard.from_environment({"RANK": "1"}) == Shard(0, 1)
    assert Shard.from_environment({"RANK": "1", "WORLD_SIZE": "3", "LOCAL_RANK": "0"}) == Shard(1, 3)
    assert str(Shard(1, 3)) == "1/3"
    for text in ("4/4", "1", "a/b", "-1/2", "1/0", "/2", "1/2/3", ""):
        with pytest.raises(ValueError, match=r"shard .*expected K/N"):
            Shard.parse(text)


def test_each_shard_has_a_file_of_its_own() -> None:
    assert Shard().path(Path("a/stats.h5")) == Path("a/stats.h5")
    assert Shard(0, 4).path(Path("a/stats.x.h5")) == Path("a/stats.x.0-of-4.h5")
    assert Shard(3, 4).path(Path("stats")) == Path("stats.3-of-4")


def test_a_process_of_torchrun_has_its_own_gpu() -> None:
    assert local_device("cuda", {"LOCAL_RANK": "2"}) == "cuda:2"
    assert [local_device("cuda", {}), local_device("cuda:1", {"LOCAL_RANK": "2"}), local_device("cpu", {"LOCAL_RANK": "2"})] == [
        "cuda",
        "cuda:1",
        "cpu",
    ]


# Processes

INPUTS, N = 8, 400
SETTINGS = (
    "--no-check",
    "--sigma",
    "0.5",
    "--num-classes",
    "3",
    "--n0",
    "50",
    "--n",
    str(N),
    "--batch-size",
    "1000",
    "--seed",
    "3",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """data.npz and make.py, whose models wait before each batch; groups are of 2 inputs."""
    folder = tmp_path_factory.mktemp("run")
    rng = np.random.default_rng(5)
    np.savez(folder / "data.npz", x=rng.normal(size=(INPUTS, 1, 6, 6)).astype(np.float32), y=rng.integers(3, size=INPUTS))
    (folder / "make.py").write_text(
        "import os\nimport time\nimport torch\n\n\n"
        "class Net(torch.nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        torch.manual_seed(1)\n"
        "        self.layers = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(36, 3))\n\n"
        "    def forward(self, x):\n"
        "        time.sleep(float(os.environ.get('WAIT', '0')))\n"
        "        return self.layers(x)\n\n\n"
        "def net():\n    return Net()\n"
    )
    return folder


def _command(out: str, model: str, *more: str) -> list[str]:
    files = ("--model", f"make:{model}", "--data", "data.npz", "--out", out)
    return ["-m", "certlut", "sample", *files, *SETTINGS, *more]


def _environment(wait: float = 0.0) -> dict[str, str]:
    # One thread everywhere: torchrun sets it too, and kernels of several threads round differently.
    return os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "200", "WAIT": str(wait)}


def _start(folder: Path, *command: str, wait: float = 0.0) -> "subprocess.Popen[str]":
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([sys.executable, *command], cwd=folder, env=_environment(wait), text=True, **pipes)


def _finish(process: "subprocess.Popen[str]") -> str:
    out, error = process.communicate(timeout=120)
    assert process.returncode == 0, error
    return out


@pytest.fixture(scope="module")
def whole(folder: Path) -> Path:
    """The statistics of one uninterrupted run."""
    assert _finish(_start(folder, *_command("whole.h5", "net"))) == f"whole.h5: statistics of {INPUTS} inputs\n"
    return folder / "whole.h5"


def _contents(path: Path) -> Iterator[tuple[str, object]]:
    """Every attribute and array of a file, but the times and what is not compared."""
    with h5py.File(path) as file:
        items = [("/", file)]
        file.visititems(lambda name, item: items.append((name, item)))
        for name, item in items:
            yield name, {key: value for key, value in item.attrs.items() if key != "settings"}
            if isinstance(item, h5py.Dataset) and name != "seconds":
                yield name, (item.dtype, item.shape, item[()].tobytes())
    yield "settings", {key: value for key, value in read_statistics(path).settings.items() if key != "information"}


def test_a_killed_run_goes_on_and_ends_the_same_and_a_second_process_is_kept_off(folder: Path, whole: Path) -> None:
    out, journal = folder / "killed.h5", folder / "killed.h5.journal"
    first = _start(folder, *_command("killed.h5", "net"), wait=0.4)
    deadline = time.monotonic() + 60.0
    settings = {key: value for key, value in read_statistics(whole).settings.items() if key != "information"}
    empty = len(json.dumps(settings)) + 100
    while not (journal.exists() and journal.stat().st_size > empty):
        assert first.poll() is None, first.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    first.send_signal(signal.SIGSTOP)
    second = _start(folder, *_command("killed.h5", "net"))
    _, error = second.communicate(timeout=60)
    assert second.returncode == 1
    said = r"another process is writing it \(process \d+ on .*, for 0 min\); if that has ended, delete killed\.h5\.lock"
    assert re.fullmatch(rf"certlut: killed\.h5: {said}", error.strip())
    first.kill()
    assert first.wait() == -signal.SIGKILL
    first.communicate()
    assert not out.exists()
    with Journal(out, settings | {"format": journal_format()}) as left:
        done = len(left.records)
    assert 0 < done < INPUTS
    _finish(_start(folder, *_command("killed.h5", "net")))
    assert list(_contents(out)) == list(_contents(whole))
    assert sorted(path.name for path in folder.glob("killed*")) == ["killed.h5"]


def test_two_ranks_of_torchrun_merge_to_the_same(folder: Path, whole: Path) -> None:
    # The lone "--" keeps torchrun from reading options of ours, as --n, for short forms of its own.
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "--")
    out = _finish(_start(folder, *launcher, *_command("ranks.h5", "net")[1:]))
    assert sorted(out.split("\n"))[1:] == [f"ranks.{k}-of-2.h5: statistics of {INPUTS // 2} inputs" for k in (0, 1)]
    shards = [f"ranks.{k}-of-2.h5" for k in (1, 0)]
    answer = _finish(_start(folder, "-m", "certlut", "merge", *shards, "--out", "merged.h5"))
    assert answer == f"merged.h5: statistics of {INPUTS} inputs\n"
    assert list(_contents(folder / "merged.h5")) == list(_contents(whole))
