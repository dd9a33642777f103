"""Merging in one process; whole runs in real processes are in test_shards.py."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from certlut import Subspace
from certlut.jobs.shards import Shard
from certlut.runs.merge import merge
from certlut.runs.sample import sample_dataset
from certlut.sampling.card import Sampling
from certlut.sampling.sampler import Sampler
from certlut.statistics.file import Sampled, read_statistics, write_statistics
from reference.fields import flat

RED = Subspace(np.array([True, False, False, True]), 2, "red")


def _sample(out: Path, shard: Shard | None = None, seed: int = 4, **options: Any) -> Sampled:
    torch.manual_seed(2)
    model = torch.nn.Linear(4, 3)
    rng = np.random.default_rng(30)
    data = [(rng.normal(0.3, 0.5, 4), i % 3) for i in range(11)]
    # Groups of 2 inputs.
    card = Sampling(20, 201, 0.01, 500, seed, **options)
    sampler = Sampler(model, 0.5, 3, ("l1", "l2", RED))
    return sample_dataset(sampler, data, out, card, {"model": "linear"}, shard=shard, progress=False)


def _equal(a: Sampled, b: Sampled) -> None:
    assert flat(a.statistics) == flat(b.statistics)
    for name in ("idx", "label", "predict"):
        assert getattr(a, name).tolist() == getattr(b, name).tolist()
    assert a.settings == b.settings


@pytest.mark.parametrize("early_stop", [False, True])
@pytest.mark.parametrize("count", [1, 2, 3, 6])
def test_any_number_of_shards_merges_to_the_unsharded_run(count: int, early_stop: bool, tmp_path: Path) -> None:
    whole = _sample(tmp_path / "whole.h5", early_stop=early_stop)
    shards = [Shard(k, count) for k in range(count)]
    parts = [_sample(tmp_path / "s.h5", shard, early_stop=early_stop) for shard in shards]
    assert sum(len(part.idx) for part in parts) == 11
    if count == 1:
        _equal(parts[0], whole)
        return
    merged = merge([shard.path(tmp_path / "s.h5") for shard in reversed(shards)], tmp_path / "s.h5")
    _equal(merged, whole)
    _equal(read_statistics(tmp_path / "s.h5"), whole)
    seconds = {int(i): s for part in parts for i, s in zip(part.idx, part.seconds, strict=True)}
    assert merged.seconds.tolist() == [seconds[i] for i in range(11)]


def test_more_shards_than_batches_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="shard 6/7: nothing is left for it, 11 inputs make fewer batches"):
        _sample(tmp_path / "s.h5", Shard(6, 7))
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_all_shards_of_one_run_is_refused(tmp_path: Path) -> None:
    for k in range(3):
        _sample(tmp_path / "s.h5", Shard(k, 3))
    _sample(tmp_path / "two.h5", Shard(1, 2))
    _sample(tmp_path / "seed.h5", Shard(1, 3), seed=5)
    _sample(tmp_path / "bf16.h5", Shard(1, 3), autocast="bf16")
    _sample(tmp_path / "whole.h5")
    s = [tmp_path / f"s.{k}-of-3.h5" for k in range(3)]
    (tmp_path / "s.5-of-9.h5.journal").touch()
    damaged = tmp_path / "damaged.h5"
    part = read_statistics(s[1])
    write_statistics(damaged, dataclasses.replace(part, idx=part.idx + 1))
    for paths, message in [
        ([s[0], s[2]], r"missing of 3 shards: 1/3$"),
        ([s[1]], r"missing of 3 shards: 0/3, 2/3$"),
        ([*s, s[1]], r"s\.1-of-3\.h5: shard 1/3 is in .*s\.1-of-3\.h5 already"),
        ([s[0], tmp_path / "two.1-of-2.h5"], r"are not of one run: shards are 3 and 2"),
        ([s[0], tmp_path / "seed.1-of-3.h5", s[2]], r"s\.0-of-3\.h5 and .*seed\.1-of-3\.h5 are not of one run: seed is 4 and 5$"),
        ([s[0], tmp_path / "bf16.1-of-3.h5", s[2]], r"autocast is None and 'bf16'$"),
        ([tmp_path / "whole.h5"], r"whole\.h5: not a shard"),
        ([s[0], tmp_path / "s.7-of-9.h5"], r"s\.7-of-9\.h5: no such statistics file"),
        (
            [s[0], tmp_path / "s.5-of-9.h5"],
            r"s\.5-of-9\.h5: not finished \(.*journal is there\): run its command",
        ),
        ([s[0], damaged, s[2]], r"the shards hold 11 inputs, expected each of 11 once"),
        ([], r"no shards to merge"),
    ]:
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            merge(paths, tmp_path / "out.h5")
        assert not (tmp_path / "out.h5").exists()
    with pytest.raises(ValueError, match=r"whole\.h5: exists"):
        merge(s, tmp_path / "whole.h5")
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder"):
        merge(s, tmp_path / "nowhere" / "out.h5")
