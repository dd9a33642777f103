"""`Certifier.certify_dataset` at scale: batches that inputs share, stops, memory, a lock."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from certlut import Certifier, Table
from certlut.jobs.journal import Journal
from certlut.runs.results import read_tsv

SETTINGS: dict[str, Any] = {"n0": 20, "n": 1000, "alpha": 0.01, "progress": False}


# Sizes of the batches that choose classes: before the first of them a model is looked at.
SELECTION = (20, 60, 80)


class Net(torch.nn.Module):
    """Three scores by fixed planes in float64, so that votes do not hang on rounding; stops at a batch, or above `room` rows."""

    def __init__(self, stop: int = 10**9, room: int | None = None) -> None:
        super().__init__()
        self.w = torch.nn.Buffer(torch.randn(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)))
        self.room, self.stop, self.sizes = room, stop, list[int]()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.sizes or len(x) in SELECTION:
            self.sizes.append(len(x))
        if len(self.sizes) == self.stop:
            raise KeyboardInterrupt
        if self.room is not None and len(x) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return (x.reshape(len(x), -1).to(torch.float64)[:, :, None] * self.w).sum(dim=1)


class Lazy(Sequence[tuple[Any, int]]):
    """Inputs made when they are asked for, as a folder of images is."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: Any) -> Any:
        if not 0 <= index < self.count:
            raise IndexError(index)
        return torch.from_numpy(np.random.default_rng(index).normal(0.0, 0.7, 6)).float(), index % 3


def _run(table: Table, out: Path, model: Net | None = None, batch_size: int = 4000, **options: Any) -> dict[str, Any]:
    data = options.pop("data", Lazy(11))
    # The batches that a proposal by gradients asks for are test_proposed.py's business.
    certifier = Certifier(model or Net(), 0.5, 3, table, seed=4, proposal="votes", **options)
    certifier.certify_dataset(data, out, batch_size=batch_size, **SETTINGS)
    return read_tsv(out)


def _close(a: dict[str, Any], b: dict[str, Any]) -> None:
    assert list(a) == list(b)
    for name, values in a.items():
        assert np.allclose(values, b[name], rtol=0, atol=2e-6 if "radius" in name else 0.0), name


def test_inputs_share_batches_and_get_what_they_get_alone(tmp_path: Path, shipped: Table) -> None:
    together, alone = Net(), Net()
    _close(_run(shipped, tmp_path / "a.tsv", together), _run(shipped, tmp_path / "b.tsv", alone, batch_size=1000))
    # Groups of 4, 4 and 3: the selection, then the rest.
    assert together.sizes == [80, 4000, 80, 4000, 60, 3000]
    assert alone.sizes == [20, 1000] * 11
    assert (read_tsv(tmp_path / "a.tsv")["predict"] >= 0).sum() > 3


@pytest.mark.parametrize("stop", [1, 2, 3, 4, 6])
def test_a_stop_in_any_group_ends_the_same(stop: int, tmp_path: Path, shipped: Table) -> None:
    whole = _run(shipped, tmp_path / "whole.tsv")
    with pytest.raises(KeyboardInterrupt):
        _run(shipped, tmp_path / "out.tsv", Net(stop))
    model = Net()
    again = _run(shipped, tmp_path / "out.tsv", model)
    assert {name: values.tolist() for name, values in again.items()} == {name: values.tolist() for name, values in whole.items()}
    assert len(model.sizes) == 6 - 2 * ((stop - 1) // 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.tsv", "out.tsv.json", "whole.tsv", "whole.tsv.json"]


def test_batches_that_memory_refuses_are_halved_for_good(tmp_path: Path, shipped: Table) -> None:
    whole, model = _run(shipped, tmp_path / "whole.tsv"), Net(room=600)
    with pytest.warns(RuntimeWarning, match=r"out of memory: batches of (2000|1000|500) from here on"):
        halved = _run(shipped, tmp_path / "halved.tsv", model)
    _close(halved, whole)
    assert model.sizes == [80, 4000, 2000, 1000] + [500] * 8 + [80] + [500] * 8 + [60] + [500] * 6


def test_inputs_of_different_shapes_are_taken_one_at_a_time(tmp_path: Path, shipped: Table) -> None:
    data = [(np.full(shape, 0.3), 1) for shape in ((6,), (2, 3), (6,))]
    columns = _run(shipped, tmp_path / "out.tsv", data=data)
    assert columns["n"].tolist() == [1000] * 3
    single = Certifier(Net(), 0.5, 3, shipped, seed=4).certify(data[1][0], 20, 1000, 0.01, index=1)
    assert columns["count"][1] == single.count


def test_stopping_early_certifies_the_same_radii(tmp_path: Path, shipped: Table) -> None:
    whole, early = (_run(shipped, tmp_path / f"{on}.tsv", early_stop=on) for on in (False, True))
    for name in whole:
        if name == "predict" or "radius" in name:
            assert np.array_equal(whole[name], early[name]), name
    assert (early["n"] <= whole["n"]).all()
    assert (early["predict"][early["n"] < whole["n"]] == -1).all()


def test_a_data_set_that_another_process_certifies_is_refused(tmp_path: Path, shipped: Table) -> None:
    with Journal(tmp_path / "out.tsv", {}) as other:
        with pytest.raises(ValueError, match=r"out\.tsv: another process is writing it"):
            _run(shipped, tmp_path / "out.tsv")
        other.finish()
    assert len(_run(shipped, tmp_path / "out.tsv")["idx"]) == 11
