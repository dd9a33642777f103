"""The report on data sets from a folder, in small: IDX files and CIFAR batches that are written here."""

import gzip
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from certlut.inputs.data import Arrays
from certlut.report import bundled
from certlut.report.known import FOLDERS
from certlut.report.report import run_report
from certlut.statistics.file import read_statistics
from certlut.tablegen import solve

TRAIN, TEST = 200, 30


def exact(q: float, m1: float, m2: float) -> tuple[float, tuple[float, float, float]]:
    solution = solve(q, m1, m2)
    return solution.radius, solution.multipliers


def images(name: str, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Ten classes in turn: a bright bar whose place is the class, on noise."""
    shape, classes = FOLDERS[name]
    labels = np.arange(count) % len(classes)
    x = np.random.default_rng(seed).integers(0, 60, (count, *shape))
    for i, label in enumerate(labels.tolist()):
        x[i, :, :, 2 * label + 4 : 2 * label + 7] = 250
    return x.astype(np.uint8), labels


def write(name: str, folder: Path) -> None:
    """Tiny files of a data set, as it is distributed."""
    for seed, (split, prefix, count) in enumerate((("train", "train", TRAIN), ("test", "t10k", TEST))):
        x, y = images(name, count, seed)
        if name == "cifar10":
            # Five batches to train on, and one.
            names = [f"data_batch_{i}" for i in range(1, 6)] if split == "train" else ["test_batch"]
            for file, part in zip(names, np.array_split(np.arange(count), len(names)), strict=True):
                batch = {b"data": x[part].reshape(len(part), -1), b"labels": y[part].tolist()}
                (folder / file).write_bytes(pickle.dumps(batch, 2))
        else:
            for kind, array in (("images-idx3", x[:, 0]), ("labels-idx1", y.astype(np.uint8))):
                content = bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()
                if name == "fashion-mnist":
                    (folder / f"{prefix}-{kind}-ubyte.gz").write_bytes(gzip.compress(content))
                else:
                    (folder / f"{prefix}-{kind}-ubyte").write_bytes(content)


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_is_read_and_its_network_learns_it(name: str, tmp_path: Path) -> None:
    write(name, tmp_path)
    data = bundled.load(name, str(tmp_path))
    assert (len(data.train), len(data.test), data.num_classes) == (TRAIN, TEST, 10)
    x, label = data.test[3]
    expected, labels = images(name, TEST, 1)
    assert x.dtype == np.float32
    assert np.array_equal(x, expected[3] / np.float32(255.0))
    assert label == labels[3]
    model = bundled.train(name, data.train, 0.1, epochs=20)
    with torch.inference_mode():
        scores = model(torch.from_numpy(expected / np.float32(255.0)))
    # Pixels in [0, 1], as they are certified: trained on 0 to 255 it would be lost here.
    assert (scores.argmax(dim=1).numpy() == labels).mean() > 0.9


def test_the_training_set_as_bytes_and_as_numbers_gives_the_same_network(tmp_path: Path) -> None:
    write("mnist", tmp_path)
    data = bundled.load("mnist", str(tmp_path)).train
    floats = Arrays(data.x.astype(np.float32) / np.float32(255.0), data.y)
    first, second = (bundled.train("mnist", part, 0.25, epochs=1) for part in (data, floats))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_files_of_another_data_set_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    write("mnist", tmp_path / "a")
    with pytest.raises(
        ValueError, match=r"a: the train split holds images \(1, 28, 28\), labels up to 9; expected cifar10: images"
    ):
        bundled.load("cifar10", str(tmp_path / "a"))
    (tmp_path / "b" / "train" / "cat").mkdir(parents=True)
    with pytest.raises((ValueError, FileNotFoundError), match="b"):
        bundled.load("mnist", str(tmp_path / "b"))
    with pytest.raises(FileNotFoundError):
        bundled.load("mnist", str(tmp_path / "none"))


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_the_report_on_a_folder(name: str, tmp_path: Path) -> None:
    write(name, tmp_path)
    out = tmp_path / "out"
    page = run_report(name, out, exact, quick=True, inputs=5, n=1000, folder=str(tmp_path))
    text = page.read_text()
    assert f"inputs of shape {'×'.join(map(str, FOLDERS[name][0]))}" in text
    kept = sorted(out.glob("statistics_*.h5"))
    assert len(kept) == 2
    sampled = read_statistics(kept[0])
    # Spread over the test set, and drawn as flags say.
    assert sampled.idx.tolist() == [0, 6, 12, 18, 24]
    assert sampled.statistics.n.sum(axis=1).tolist() == [1000] * 5


def test_networks_are_kept_for_their_own_training_set_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from certlut.report import study
    from certlut.report.card import read_config

    card = read_config("mnist").quick()
    trained = []

    def train(*arguments: object) -> torch.nn.Module:
        trained.append(arguments)
        return bundled.network("mnist").eval()

    monkeypatch.setattr(bundled, "train", train)
    for name, seed in (("one", 0), ("two", 0), ("three", 1)):
        folder = tmp_path / name
        folder.mkdir()
        write("mnist", folder)
        if seed:
            labels = folder / "train-labels-idx1-ubyte"
            content = bytearray(labels.read_bytes())
            content[-1] ^= 1
            labels.write_bytes(bytes(content))
        study._trained(study.dataclasses.replace(card, folder=str(folder)), tmp_path, 0.25)()
    # The same files elsewhere are the same; one label that differs is another training set.
    assert len(trained) == 2


def test_a_folder_is_asked_for_and_refused_where_there_is_none(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"mnist: data = 'mnist' needs the folder of its files: --data FOLDER"):
        run_report("mnist", tmp_path / "out", exact)
    with pytest.raises(ValueError, match="leave out --data"):
        run_report("digits", tmp_path / "out", exact, folder=str(tmp_path))
    with pytest.raises(ValueError, match="n = 0: expected 1 or more"):
        run_report("digits", tmp_path / "out", exact, n=0)
    assert not (tmp_path / "out").exists()
