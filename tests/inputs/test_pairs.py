"""What `certify_dataset` takes for a data set, and what it says of the rest."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from certlut import Certifier, Table
from certlut.inputs.data import Arrays
from certlut.inputs.pairs import as_pairs

X = np.random.default_rng(0).normal(size=(5, 2, 3)).astype(np.float32)
Y = np.array([0, 2, 1, 2, 0])


class Made(Dataset[tuple[Any, int]]):
    """As torchvision's: an item is made when it is asked for."""

    def __len__(self) -> int:
        return len(X)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return torch.from_numpy(X[index]), int(Y[index])


class Streamed(IterableDataset[tuple[Any, int]]):
    def __iter__(self) -> Any:
        return iter(Made()[i] for i in range(len(X)))


FORMS: dict[str, Callable[[], Any]] = {
    "list of pairs": lambda: [(x, int(y)) for x, y in zip(X, Y, strict=True)],
    "list of lists": lambda: [[x, y] for x, y in zip(X, Y, strict=True)],
    "zip": lambda: zip(X, Y, strict=True),
    "generator": lambda: ((x, y) for x, y in zip(X, Y, strict=True)),
    "arrays": lambda: (X, Y),
    "list of arrays": lambda: [X, Y],
    "tensors": lambda: (torch.from_numpy(X), torch.from_numpy(Y)),
    "array and list": lambda: (X, Y.tolist()),
    "labels of floats": lambda: (X, Y.astype(np.float32)),
    "Arrays": lambda: Arrays(X, Y),
    "TensorDataset": lambda: TensorDataset(torch.from_numpy(X), torch.from_numpy(Y)),
    "Dataset": Made,
    "IterableDataset": Streamed,
    "DataLoader": lambda: DataLoader(Made(), batch_size=2),
    "DataLoader with a collate_fn": lambda: DataLoader(Made(), 2, collate_fn=lambda items: list(zip(*items, strict=True))),
    "DataLoader of a stream": lambda: DataLoader(Streamed(), batch_size=3),
    "DataLoader without batches": lambda: DataLoader(Made(), batch_size=None),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_pairs(form: str) -> None:
    pairs = as_pairs(FORMS[form](), 3)
    assert len(pairs) == 5
    for _ in range(2):
        for i in (0, 4, 2):
            x, label = pairs[i]
            assert np.array_equal(np.asarray(x), X[i])
            assert (label, type(label)) == (Y[i], int)
    assert [label for _, label in pairs] == Y.tolist()
    assert [label for _, label in pairs[1::2]] == Y[1::2].tolist()


def test_two_pairs_are_not_taken_for_two_arrays() -> None:
    for data in ([(X[0], 0), (X[1], 1)], ((X[0], 0), (X[1], 1)), [[X[0], 0], [X[1], 1]]):
        pairs = as_pairs(data, 2)
        assert [label for _, label in pairs] == [0, 1]
        assert np.array_equal(pairs[1][0], X[1])


def test_an_item_is_made_only_when_it_is_asked_for() -> None:
    class Large(Made):
        asked: list[int] = []  # noqa: RUF012

        def __len__(self) -> int:
            return 10**9

        def __getitem__(self, index: int) -> tuple[Any, int]:
            self.asked.append(index)
            return super().__getitem__(index % 5)

    for data in (Large(), DataLoader(Large(), batch_size=4)):
        assert as_pairs(data, 3)[10**8][1] == Y[0]
    assert Large.asked == [10**8] * 2


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (X, r"data = ndarray of shape \(5, 2, 3\): expected \(input, label\) pairs .*a pair of arrays \(x, y\), or a DataLoader"),
        ({"x": X, "y": Y}, "data = dict of length 2: expected"),
        ("test.npz", "data = str of length 8: expected"),
        (3, "data = int: expected"),
        (None, "data = NoneType: expected"),
        ((X, Y[:4]), r"data = ndarray of shape \(5, 2, 3\) and ndarray of shape \(4,\): expected as many labels as inputs"),
        (DataLoader(Made(), 2, shuffle=True), "a DataLoader that shuffles: expected the same order each time"),
        (DataLoader(Made(), 2, collate_fn=dict), "a DataLoader whose batch is dict of length 2: expected a pair"),
    ],
)
def test_what_is_no_data_set_is_said_in_one_line(data: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        as_pairs(data, 3)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (X[0], r"data\[1\] is ndarray of shape \(2, 3\): expected a pair \(input, label\)"),
        ({"image": X[0], "label": 1}, r"data\[1\] is dict of length 2: expected a pair"),
        ((X[0], 1, 2), r"data\[1\] is tuple of length 3: expected a pair"),
        ((X[0], -1), r"data\[1\] has label -1: expected a whole number from 0 to 2 \(3 classes\)"),
        ((X[0], 3), r"data\[1\] has label 3: expected a whole number from 0 to 2"),
        ((X[0], 1.7), r"data\[1\] has label 1\.7: expected a whole number"),
        ((X[0], torch.tensor(3)), r"data\[1\] has label 3: expected"),
        ((X[0], np.eye(3)[1]), r"data\[1\] has label of ndarray of shape \(3,\): expected a whole number"),
        ((X[0], "1"), r"data\[1\] has label of str of length 1: expected"),
        ((X[0], None), r"data\[1\] has label of NoneType: expected"),
        ((X[0], float("nan")), r"data\[1\] has label of float: expected"),
        ((X[0], float("inf")), r"data\[1\] has label inf: expected"),
    ],
)
def test_an_item_that_is_no_pair_or_has_no_label_is_named(item: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _ = as_pairs([(X[0], 0), item, (X[1], 1)], 3)[1]


def _net() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(6, 3))


def test_every_form_is_certified_alike_and_resumed_as_the_same_data(tmp_path: Path, shipped: Table) -> None:
    found = []
    for form in ("list of pairs", "zip", "arrays", "Dataset", "DataLoader"):
        out = tmp_path / f"{form}.tsv"
        certifier = Certifier(_net(), 0.5, 3, shipped, seed=1)
        rows = certifier.certify_dataset(FORMS[form](), out, 20, 300, progress=False)
        assert certifier.certify_dataset(FORMS["list of pairs"](), out, 20, 300, progress=False) == rows
        found.append([{name: value for name, value in row.items() if name != "time"} for row in rows])
    assert len(found[0]) == 5
    assert all(rows == found[0] for rows in found)


@pytest.mark.parametrize("label", [-1, 3, 3.7])
def test_a_label_that_is_no_class_is_refused_before_sampling(label: float, tmp_path: Path, shipped: Table) -> None:
    data: list[tuple[npt.NDArray[np.float32], float]] = [(x, 1) for x in X] * 40
    data[100] = (X[0], label)
    calls = []

    def model(x: torch.Tensor) -> torch.Tensor:
        calls.append(len(x))
        return x.flatten(1)[:, :3]

    with pytest.raises(ValueError, match=rf"data\[100\] has label {label:g}: expected a whole number from 0 to 2"):
        Certifier(model, 0.5, 3, shipped, seed=1).certify_dataset(data, tmp_path / "r.tsv", 20, 300, batch_size=30, progress=False)
    assert sum(calls) < 300
    assert list(tmp_path.iterdir()) == []
