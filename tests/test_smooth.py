import datetime
import inspect
import io
import itertools
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
import torch
from scipy.special import ndtri
from scipy.stats import beta, binomtest

from certlut import Certifier, Smooth, Table


class Plane(torch.nn.Module):
    """Class 2 where the first number is positive, else class 0; class 1 never."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = x.reshape(len(x), -1)[:, 0]
        return torch.stack((torch.zeros_like(first), torch.full_like(first, -1e9), first), dim=1)


@pytest.fixture
def smooth(shipped: Table, monkeypatch: pytest.MonkeyPatch) -> Smooth:
    """sigma = 0.5, with the shipped table and fixed seeds in place of fresh ones."""
    seeds = itertools.count(100)
    monkeypatch.setattr("certlut.certify.load", lambda table: shipped)
    monkeypatch.setattr("secrets.randbits", lambda bits: next(seeds))
    return Smooth(Plane(), 3, 0.5)


def test_the_interface_is_the_one_the_fields_scripts_call() -> None:
    assert Smooth.ABSTAIN == -1
    assert list(inspect.signature(Smooth).parameters) == ["base_classifier", "num_classes", "sigma"]
    assert list(inspect.signature(Smooth.certify).parameters) == ["self", "x", "n0", "n", "alpha", "batch_size"]
    assert list(inspect.signature(Smooth.predict).parameters) == ["self", "x", "n", "alpha", "batch_size"]


def test_certify_in_the_fields_loop(smooth: Smooth) -> None:
    dataset = [
        (torch.tensor([[0.6, 0.0]]), 2),
        (torch.tensor([[-0.9, 1.0]]), 0),
        (torch.zeros(1, 2), 2),
        (torch.tensor([[0.4, 0.0]]), 0),
    ]
    f = io.StringIO()
    print("idx\tlabel\tpredict\tradius\tcorrect\ttime", file=f, flush=True)
    for i in range(len(dataset)):
        (x, label) = dataset[i]
        before_time = time.time()
        prediction, radius = smooth.certify(x, 100, 10_000, 0.001, 1000)
        after_time = time.time()
        correct = int(prediction == label)
        time_elapsed = str(datetime.timedelta(seconds=(after_time - before_time)))
        print("{}\t{}\t{}\t{:.3}\t{}\t{}".format(i, label, prediction, radius, correct, time_elapsed), file=f, flush=True)  # noqa: UP032
    lines = [line.split("\t") for line in f.getvalue().splitlines()[1:]]
    assert [line[2] for line in lines] == ["2", "0", "-1", "2"]
    assert [line[4] for line in lines] == ["1", "1", "0", "0"]
    radii = [float(line[3]) for line in lines]
    assert radii[2] == 0.0
    # Half-spaces: the first-order l2 radius is Cohen's, within sampling error of the distance.
    assert np.allclose(radii, [0.6, 0.9, 0.0, 0.4], atol=0.06)
    assert all(radius <= truth + 5e-4 for radius, truth in zip(radii, [0.6, 0.9, 0.0, 0.4], strict=True))


def _fields_script(smoothed_classifier: Smooth, dataset: Any, outfile: Path, skip: int, max: int) -> None:
    """The structure of the field's certification script, with nothing changed but the names of its arguments."""
    f = outfile.open("w")
    print("idx\tlabel\tpredict\tradius\tcorrect\ttime", file=f, flush=True)
    for i in range(len(dataset)):
        if i % skip != 0:
            continue
        if i == max:
            break
        (x, label) = dataset[i]
        before_time = time.time()
        x = x.to("cpu")
        prediction, radius = smoothed_classifier.certify(x, 100, 2000, 0.001, 400)
        after_time = time.time()
        correct = int(prediction == label)
        time_elapsed = str(datetime.timedelta(seconds=(after_time - before_time)))
        print("{}\t{}\t{}\t{:.3}\t{}\t{}".format(i, label, prediction, radius, correct, time_elapsed), file=f, flush=True)  # noqa: UP032
    f.close()


def _fields_analysis(path: Path, radii: list[float]) -> list[float]:
    """Certified accuracy at radii, as the field's analysis reads a results file."""
    df = pandas.read_csv(path, delimiter="\t")
    return [(df["correct"] & (df["radius"] >= radius)).mean() for radius in radii]


def test_the_fields_scripts_run_unchanged_and_read_our_results_alike(smooth: Smooth, tmp_path: Path, shipped: Table) -> None:
    rng = np.random.default_rng(2)
    dataset = [(torch.from_numpy(x).float(), int(2 * (x[0, 0] > 0))) for x in rng.normal(0.3, 0.6, (24, 1, 2))]
    _fields_script(smooth, dataset, tmp_path / "theirs.tsv", skip=2, max=20)
    certifier = Certifier(Plane(), 0.5, 3, shipped, ("l2",), seed=3)
    certifier.certify_dataset(dataset[:20:2], tmp_path / "ours.tsv", n=2000, batch_size=400, progress=False)
    levels = [0.0, 0.1, 0.3, 0.6, 2.5]
    theirs, ours = (_fields_analysis(tmp_path / f"{name}.tsv", levels) for name in ("theirs", "ours"))
    assert len(pandas.read_csv(tmp_path / "theirs.tsv", delimiter="\t")) == 10
    # Another noise: an input or two may lie between.
    assert np.abs(np.subtract(theirs, ours)).max() <= 0.2
    assert ours[0] >= 0.7 > 0.5 > ours[3] > ours[4] == 0.0


def test_certify_gives_python_numbers_and_a_fresh_draw_each_time(smooth: Smooth) -> None:
    results = [smooth.certify(torch.tensor([0.5]), n0=10, n=1000, alpha=0.01, batch_size=100) for _ in range(4)]
    assert all(type(prediction) is int and type(radius) is float for prediction, radius in results)
    assert len({radius for _, radius in results}) > 1


def test_the_first_order_radius_is_never_below_the_zeroth_order_one(smooth: Smooth) -> None:
    # A slab: its gradient is small, so the first-order radius is larger.
    class Slab(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            inside = 0.8 - x[:, 0].abs()
            return torch.stack((torch.zeros_like(inside), inside), dim=1)

    _, radius = Smooth(Slab(), 2, 0.5).certify(torch.zeros(2), 100, 50_000, 0.001, 5000)
    q = 0.8904
    assert radius > 1.05 * 0.5 * ndtri(q)
    assert radius > 0.5 * ndtri(beta.ppf(0.001, int(q * 50_000), int((1.0 - q) * 50_000)))
    assert radius < 0.8


def test_predict_names_the_class_or_abstains(smooth: Smooth) -> None:
    assert smooth.predict(torch.tensor([0.6, 0.0]), 1000, 0.001, 100) == 2
    assert smooth.predict(torch.tensor([-0.6, 0.0]), 1000, 0.001, 100) == 0
    assert smooth.predict(np.array([0.6, 0.0]), n=1000, alpha=0.001, batch_size=100) == 2
    assert type(smooth.predict(torch.tensor([0.6]), 1000, 0.001, 100)) is int


def test_predict_abstains_as_the_two_sided_test_of_the_two_leading_classes_says(smooth: Smooth) -> None:
    # 100 samples: the test says 1 / 2 at alpha = 0.05 unless 61 agree.
    assert binomtest(61, 100, 0.5).pvalue <= 0.05 < binomtest(60, 100, 0.5).pvalue
    votes: list[int] = []

    def counted(x: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = Plane()(x)
        if len(x) == 100:
            votes.append(int((scores.argmax(dim=1) == 2).sum()))
        return scores

    model = Smooth(counted, 3, 0.5)
    answers = [model.predict(torch.tensor([0.05]), 100, 0.05, 100) for _ in range(60)]
    # The first two are the look at the model.
    expected = [2 if ones >= 61 else 0 if ones <= 39 else Smooth.ABSTAIN for ones in votes[2:]]
    assert answers == expected
    assert {2, Smooth.ABSTAIN} <= set(answers)


def test_predict_is_wrong_at_most_alpha_of_the_time(smooth: Smooth) -> None:
    # As near to a tie as can be: any answer but abstention is as likely wrong as right.
    answers = [smooth.predict(torch.tensor([0.0]), 100, 0.1, 100) for _ in range(400)]
    wrong = np.mean([answer == 0 for answer in answers])
    assert 0.0 < wrong <= 0.05 + 3.0 * np.sqrt(0.05 * 0.95 / 400)


def test_bad_arguments_are_refused_by_name(smooth: Smooth) -> None:
    x = torch.zeros(2)
    with pytest.raises(ValueError, match="n = 5"):
        smooth.certify(x, 100, 5, 0.001, 1000)
    with pytest.raises(ValueError, match="n0 = 0"):
        smooth.certify(x, 0, 1000, 0.001, 1000)
    with pytest.raises(ValueError, match=r"input 0 of shape \(2,\)"):
        smooth.certify(x * float("nan"), 100, 1000, 0.001, 1000)
    with pytest.raises(ValueError, match=r"sigma = 0"):
        Smooth(Plane(), 3, 0.0)
    with pytest.raises(ValueError, match=r"\(16, 2\) \(2 classes\)"):
        Smooth(Plane(), 2, 0.5).predict(x, 1000, 0.001, 1000)


def test_predict_refuses_an_n_that_can_never_decide(smooth: Smooth) -> None:
    # Ten votes of ten come by chance with 2^-9 = .00195.
    x = torch.tensor([5.0, 0.0])
    with pytest.raises(
        ValueError, match=r"n = 10: even a unanimous vote comes by chance \(0\.00195\) more often than alpha = 0\.001"
    ):
        smooth.predict(x, 10, 0.001, 100)
    assert smooth.predict(x, 10, 0.002, 100) == smooth.predict(x, 11, 0.001, 100) == 2


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"x": torch.tensor([float("nan")])}, "input"),
        ({"n": 0}, "n = 0"),
        ({"alpha": 1.5}, "alpha"),
        ({"batch_size": 0}, "batch_size = 0"),
    ],
)
def test_predict_refuses_bad_arguments_by_name(change: dict[str, object], name: str, smooth: Smooth) -> None:
    class First(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.tensor([[1.0, 0.0, 0.0]]).expand(len(x), 3)

    arguments = {"x": torch.zeros(1), "n": 1000, "alpha": 0.001, "batch_size": 100} | change
    with pytest.raises(ValueError, match=name):
        Smooth(First(), 3, 0.5).predict(**arguments)
