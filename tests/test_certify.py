import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy.special import ndtri
from scipy.stats import beta

from certlut import ABSTAIN, Certificate, Certifier, Direction, Subspace, Table
from certlut.bounds.binomial import lower_probability
from certlut.runs.results import read_tsv
from certlut.threats.lines import Ray
from certlut.threats.sets import Threat

Array = npt.NDArray[np.float64]


class Linear(torch.nn.Module):
    """Class 1 where w.x + b > 0, else class 0."""

    def __init__(self, w: Array, b: float) -> None:
        super().__init__()
        self.w, self.b = torch.nn.Parameter(torch.from_numpy(w).to(torch.float32)), b

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        score = x @ self.w + self.b
        return torch.stack((torch.zeros_like(score), score), dim=1)


def _plain(sign: float = 1.0) -> Callable[[torch.Tensor], torch.Tensor]:
    """Class 1 where the first number is positive; computed number by number, so that votes do not hang on the batch's shape."""

    def model(x: torch.Tensor) -> torch.Tensor:
        first = sign * x.reshape(len(x), -1)[:, 0]
        return torch.stack((torch.zeros_like(first), first), dim=1)

    return model


def _never(x: torch.Tensor) -> torch.Tensor:
    raise AssertionError("the model must not be asked")


def _asked(x: torch.Tensor) -> torch.Tensor:
    assert len(x) != 20, "no samples must be drawn"
    return torch.zeros(len(x), 2)


def _same(a: Certificate, b: Certificate) -> bool:
    numbers = (a.prediction, a.radius, a.bounds, a.count, a.n) == (b.prediction, b.radius, b.bounds, b.count, b.n)
    return numbers and a.counts.tolist() == b.counts.tolist()


# Against the true radii of linear classifiers


def _random_threats(rng: np.random.Generator, d: int) -> tuple[str | Threat, ...]:
    mask = np.zeros(d, dtype=bool)
    mask[rng.permutation(d)[: rng.integers(1, d)]] = True
    subspaces = [Subspace(mask, p, name) for p, name in ((1, "red1"), (2, "red2"), (math.inf, "redinf"))]
    return "l1", "l2", "linf", *subspaces, Direction(rng.standard_normal(d), "along")


def _true_radii(w: Array, margin: float, threats: Sequence[Threat]) -> dict[str, float]:
    """Of a linear classifier whose score at x is `margin` on its class's side: margin / dual norm, in input units."""
    out = {}
    for threat in threats:
        if isinstance(threat, Ray):
            along = float(threat.v @ w)
            out[threat.name] = margin / along if along > 0.0 else math.inf
        else:
            part = w if threat.mask is None else w[threat.mask]
            out[threat.name] = margin / float(np.linalg.norm(part, {1.0: math.inf, 2.0: 2.0, math.inf: 1.0}[threat.p]))
    return out


def _certified_beyond_the_truth(
    rng: np.random.Generator, table: Table, n: int, alpha: float, noise: str = "gaussian"
) -> tuple[set[str], Certificate]:
    """Certify a fresh linear classifier at a fresh input; which radii are above the truth.

    Behind rounding to a grid it has the same, where many coordinates count: rounding all of them adds noise that is as likely up as
    down. (Along one coordinate alone it moves the boundary to the edge of a cell.)
    """
    d = int(rng.choice([2, 10, 64] if noise == "gaussian" else [10, 64]))
    w = rng.standard_normal(d) * np.where(rng.random(d) < 0.7, 1.0, 0.1)
    x = rng.standard_normal(d)
    sigma = float(np.exp(rng.uniform(-2.0, 2.0)))
    options: dict[str, Any] = {}
    if noise == "grid":
        w = rng.uniform(0.5, 1.5, d) * rng.choice([-1.0, 1.0], d)
        x, sigma = rng.integers(0, 33, d) / 16.0, float(rng.choice([4.0, 64.0])) / 16.0
        options = {"noise": noise, "grid_step": "1/16"}
    score = sigma * float(np.linalg.norm(w)) * float(rng.uniform(0.05, 2.5)) * rng.choice([-1.0, 1.0])
    model, threats = Linear(w, score - float(w @ x)), _random_threats(rng, d)
    certifier = Certifier(model, sigma, 2, table, threats, seed=int(rng.integers(2**63)), **options)
    c = certifier.certify(torch.from_numpy(x), n0=50, n=n, alpha=alpha, batch_size=4096)
    label = int(score > 0.0)
    # A step toward the other class is a step along sign(score) w the wrong way round.
    truth = _true_radii(-math.copysign(1.0, score) * w, abs(score), certifier.sampler.threats)
    if c.prediction == ABSTAIN:
        assert set(c.radius.values()) == {0.0}
    wrong = {name for name in truth if c.radius[name] > (truth[name] if c.prediction in (label, ABSTAIN) else 0.0)}
    return wrong, c


def test_200_certificates_of_random_linear_classifiers_are_never_beyond_the_truth(shipped: Table) -> None:
    rng = np.random.default_rng(20)
    above, sure = 0, 0
    for _ in range(200):
        wrong, c = _certified_beyond_the_truth(rng, shipped, 20_000, 1e-7)
        assert wrong == set()
        sure += c.prediction != ABSTAIN
        above += c.radius["l1"] > c.radius["cohen"] * 1.001
    assert sure > 180
    assert above > 40


def test_the_share_of_certificates_with_any_radius_beyond_the_truth_is_at_most_alpha(shipped: Table) -> None:
    rng, alpha, runs = np.random.default_rng(21), 0.1, 500
    missed = sum(bool(_certified_beyond_the_truth(rng, shipped, 300, alpha)[0]) for _ in range(runs))
    error = math.sqrt(alpha * (1.0 - alpha) / runs)
    assert missed / runs <= alpha + 3.0 * error
    # Nor is alpha left unused: q has nine tenths of it, and Cohen's bound of a half-space is exact up to the step of a count.
    assert missed / runs >= 0.5 * alpha


def test_no_certificate_of_a_linear_classifier_under_grid_noise_is_beyond_the_truth(shipped: Table) -> None:
    rng, sure = np.random.default_rng(22), 0
    for _ in range(60):
        wrong, c = _certified_beyond_the_truth(rng, shipped, 20_000, 1e-7, "grid")
        assert wrong == set()
        sure += c.prediction != ABSTAIN
    assert sure > 50


def test_the_share_of_certificates_under_grid_noise_with_any_radius_beyond_the_truth_is_at_most_alpha(shipped: Table) -> None:
    rng, alpha, runs = np.random.default_rng(23), 0.1, 200
    missed = sum(bool(_certified_beyond_the_truth(rng, shipped, 300, alpha, "grid")[0]) for _ in range(runs))
    error = math.sqrt(alpha * (1.0 - alpha) / runs)
    assert 0.4 * alpha <= missed / runs <= alpha + 3.0 * error


def test_the_l1_radius_of_sparse_linear_classifiers_is_above_cohens(shipped: Table) -> None:
    rng = np.random.default_rng(22)
    l1, cohen, truth = [], [], []
    for _ in range(12):
        d = 64
        w = np.zeros(d)
        w[rng.permutation(d)[:4]] = rng.choice([-1.0, 1.0], 4) * rng.uniform(0.8, 1.2, 4)
        margin = 0.5 * float(np.linalg.norm(w)) * float(rng.uniform(0.4, 1.2))
        c = Certifier(Linear(w, margin), 0.5, 2, shipped, ("l1",), seed=int(rng.integers(2**63))).certify(np.zeros(d), n=20_000)
        l1.append(c.radius["l1"])
        cohen.append(c.radius["cohen"])
        truth.append(margin / np.abs(w).max())
        assert l1[-1] <= truth[-1]
    assert np.mean(l1) > 1.15 * np.mean(cohen)


def test_cohens_radius_is_what_the_fields_formula_gives_for_the_same_counts(shipped: Table) -> None:
    c = Certifier(_plain(), 0.5, 2, shipped, seed=1).certify(np.full(4, 0.4), n=5000, alpha=0.001)
    lower = beta.ppf(0.001, c.count, c.n - c.count + 1)
    assert c.radius["cohen"] == pytest.approx(0.5 * ndtri(lower), rel=1e-8)
    assert c.radius["l2"] >= 0.5 * ndtri(beta.ppf(0.00085, c.count, c.n - c.count + 1)) * (1.0 - 1e-8)


# What a certificate holds


def test_a_certificate_has_every_threat_its_bounds_and_its_votes(shipped: Table) -> None:
    red = Subspace(np.eye(2, dtype=bool), 1, "red")
    certifier = Certifier(_plain(), 0.5, 2, shipped, ("l1", red), seed=1)
    c = certifier.certify([[0.5, 0.0], [0.0, 0.0]], n0=64, n=1001, alpha=0.01)
    assert c.prediction == 1
    assert set(c.radius) == {"l1", "l2", "red", "cohen"}
    assert all(type(radius) is float for radius in c.radius.values())
    assert set(c.bounds) == {
        "q_lower",
        "upper linf of all",
        "lower l2 of all",
        "upper l2 of all",
        "upper linf of red",
        "lower l2 of all but red",
    }
    assert c.counts.sum() == 64
    assert c.counts.shape == (2,)
    assert (c.n, 700 < c.count < 1001) == (1001, True)
    assert 0.5 < c.bounds["q_lower"] < c.count / c.n


@pytest.mark.parametrize(
    "x",
    [
        0.5,
        [0.5, 1.0],
        np.array([[0.5], [1.0]]),
        np.ones((2, 1, 3), dtype=np.float32),
        np.array([1, 0, 3]),
        torch.tensor([1, 2], dtype=torch.uint8),
        torch.full((3,), 0.5, dtype=torch.float16),
        torch.full((2, 2), 0.5, dtype=torch.float64, requires_grad=True),
    ],
    ids=["scalar", "list", "float64", "float32", "int64", "uint8", "float16", "with gradient"],
)
def test_an_input_of_any_shape_and_type_is_certified(x: Any, shipped: Table) -> None:
    c = Certifier(_plain(), 0.5, 2, shipped, seed=1).certify(x, n=2000)
    assert c.prediction == 1
    assert 0.0 < c.radius["l2"] < float(torch.as_tensor(x).detach().reshape(-1)[0])


def test_a_table_is_given_by_its_path_too(shipped: Table) -> None:
    x, path = np.full(2, 0.5), shipped.path
    assert path is not None
    certificates = [Certifier(_plain(), 0.5, 2, table, seed=1).certify(x, n=2000) for table in (shipped, path, str(path))]
    assert all(_same(certificates[0], other) for other in certificates)
    with pytest.raises(FileNotFoundError, match=r"absent\.h5: no such table file"):
        Certifier(_plain(), 0.5, 2, "absent.h5")


def test_an_input_is_not_changed(shipped: Table) -> None:
    x = np.array([0.5, 1.0], dtype=np.float32)
    Certifier(_plain(), 0.5, 2, shipped, seed=1).certify(x, n=1000)
    assert x.tolist() == [0.5, 1.0]


def test_without_a_majority_it_abstains_with_every_radius_0(shipped: Table) -> None:
    c = Certifier(_plain(), 0.5, 2, shipped, seed=1).certify(np.zeros(3), n=2000)
    assert c.prediction == ABSTAIN == -1
    assert c.radius == {"l1": 0.0, "l2": 0.0, "linf": 0.0, "cohen": 0.0}


def test_when_q_is_sure_only_at_the_full_alpha_every_radius_is_0_cohens_too(shipped: Table) -> None:
    # So many votes for class 1 that they are sure at alpha, but not at nine tenths of it.
    n = 100_000
    count = next(k for k in range(n // 2, n) if lower_probability(k, n, 0.001) > 0.5)
    seen = 0

    def model(x: torch.Tensor) -> torch.Tensor:
        nonlocal seen
        ones = (torch.arange(seen, seen + len(x)) < count).to(x.dtype)
        seen += len(x)
        return torch.stack((1.0 - ones, ones), dim=1)

    certifier = Certifier(model, 0.5, 2, shipped, seed=1, proposal="votes")
    # Behind the rows that it is checked with, two batches of 16 and two of 1000.
    seen = -10 - 2032
    c = certifier.certify(np.zeros(3), n0=10, n=n, alpha=0.001)
    assert c.count == count
    assert c.prediction == ABSTAIN
    assert set(c.radius.values()) == {0.0}


def test_the_class_comes_from_the_selection_samples_alone(shipped: Table) -> None:
    # The model says 1 to the first 100 samples (and to the rows that it is checked with), 0 to all others: a class chosen again
    # from those would be certified.
    seen = -2032

    def model(x: torch.Tensor) -> torch.Tensor:
        nonlocal seen
        ones = (torch.arange(seen, seen + len(x)) < 100).to(x.dtype)
        seen += len(x)
        return torch.stack((1.0 - ones, ones), dim=1)

    c = Certifier(model, 0.5, 2, shipped, seed=1, proposal="votes").certify(np.zeros(3), n0=100, n=1000)
    assert (c.prediction, c.counts.tolist(), c.count) == (ABSTAIN, [0, 100], 0)


# Randomness


def test_a_seed_fixes_the_certificate_and_the_index_changes_the_noise(shipped: Table) -> None:
    x = np.full(5, 0.3)
    certifier = Certifier(_plain(), 0.5, 2, shipped, seed=4)
    first = certifier.certify(x, n=3000)
    assert _same(first, certifier.certify(x, n=3000))
    assert _same(first, certifier.certify(x, n=3000, index=0))
    assert _same(first, Certifier(_plain(), 0.5, 2, shipped, seed=4).certify(x, n=3000))
    others = [certifier.certify(x, n=3000, index=i) for i in (1, 2)]
    others += [Certifier(_plain(), 0.5, 2, shipped, seed=s).certify(x, n=3000) for s in (5, 6)]
    bounds = {c.bounds["upper l1 of all"] for c in (first, *others)}
    assert len(bounds) == 5


def test_without_a_seed_every_call_has_fresh_noise(shipped: Table) -> None:
    certifier = Certifier(_plain(), 0.5, 2, shipped)
    bounds = {certifier.certify(np.full(5, 0.3), n=2000).bounds["upper l1 of all"] for _ in range(3)}
    assert len(bounds) == 3


def test_the_batch_size_changes_votes_not_at_all_and_bounds_by_rounding_only(shipped: Table) -> None:
    certifier = Certifier(_plain(), 0.5, 2, shipped, seed=4)
    reference = certifier.certify(np.full(5, 0.3), n=3001, batch_size=3001)
    for batch_size in (7, 1000, 1024, 10**6):
        c = certifier.certify(np.full(5, 0.3), n=3001, batch_size=batch_size)
        assert (c.prediction, c.counts.tolist(), c.count) == (reference.prediction, reference.counts.tolist(), reference.count)
        assert c.bounds == pytest.approx(reference.bounds, rel=1e-9)
        assert c.radius == pytest.approx(reference.radius, rel=1e-7)


# What is refused


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n": 5}, r"n = 5: even a unanimous vote cannot reach alpha = 0.001"),
        ({"n": 0}, r"n = 0: expected a whole number, 2 or more"),
        ({"alpha": 0.0}, r"alpha = 0.0: expected 0 < alpha < 1"),
        ({"alpha": 1.0}, r"alpha = 1.0"),
        ({"alpha": math.nan}, r"alpha = nan"),
        ({"n0": 0}, r"n0 = 0: expected a whole number, 1 or more"),
        ({"n0": -3}, r"n0 = -3"),
        ({"batch_size": 0}, r"batch_size = 0: expected a whole number, 1 or more"),
        ({"x": np.array([1.0, math.nan])}, r"input 0 of shape \(2,\): expected finite real numbers"),
        ({"x": np.array([1.0, -math.inf])}, r"input 0 of shape \(2,\)"),
        ({"x": np.array([1j])}, r"input 0 holds torch.complex128"),
        ({"x": np.zeros((0, 3))}, r"input 0 of shape \(0, 3\)"),
    ],
)
def test_bad_arguments_are_refused_by_name_before_the_model_is_asked(change: dict[str, Any], message: str, shipped: Table) -> None:
    arguments = {"x": np.zeros(2), "n0": 10, "n": 1000, "alpha": 0.001, "batch_size": 100} | change
    with pytest.raises(ValueError, match=message):
        Certifier(_never, 0.5, 2, shipped).certify(**arguments)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sigma": 0.0}, r"sigma = 0.0: expected a positive number"),
        ({"sigma": -1.0}, r"sigma = -1.0"),
        ({"sigma": math.nan}, r"sigma = nan"),
        ({"sigma": math.inf}, r"sigma = inf"),
        ({"num_classes": 1}, r"num_classes = 1: expected a whole number, 2 or more"),
        ({"estimator": "best"}, r"estimator 'best': expected one of adaptive, paper"),
        ({"seed": -1}, r"seed = -1"),
        ({"seed": 2**63}, r"seed = 9223372036854775808"),
        ({"threats": ("l5",)}, r"threat 'l5'"),
        ({"threats": ("l1", "l1")}, r"every name must be there once only"),
    ],
)
def test_bad_settings_are_refused_by_name(change: dict[str, Any], message: str, shipped: Table) -> None:
    with pytest.raises(ValueError, match=message):
        Certifier(**({"model": _never, "sigma": 0.5, "num_classes": 2, "table": shipped} | change))


def test_a_threat_of_another_shape_is_refused_by_name_before_the_model_is_asked(shipped: Table) -> None:
    for threat in (Subspace(np.array([True, False, False]), 2, "red"), Direction(np.ones(3), "red")):
        with pytest.raises(ValueError, match=r"threat 'red' has shape \(3,\), the input has shape \(2, 2\)"):
            Certifier(_never, 0.5, 2, shipped, (threat,)).certify(np.zeros((2, 2)), n=1000)


def test_a_model_with_another_number_of_classes_or_nan_scores_is_refused(shipped: Table) -> None:
    with pytest.raises(ValueError, match=r"expected \(16, 3\) \(3 classes\)"):
        Certifier(_plain(), 0.5, 3, shipped).certify(np.zeros(2), n=1000, batch_size=100)
    with pytest.raises(ValueError, match="the model returned NaN scores"):
        Certifier(_plain(math.nan), 0.5, 2, shipped).certify(np.zeros(2), n=1000)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_the_smallest_n_that_reach_alpha_give_finite_radii_or_are_refused(n: int, shipped: Table) -> None:
    # Level 0.54 for q: one unanimous vote proves q > 1/2. One of the halves is then empty.
    certifier = Certifier(_plain(), 0.5, 2, shipped, seed=1)
    if n == 1:
        try:
            certifier.certify(np.full(3, 10.0), n=n, alpha=0.6)
        except ValueError as error:
            assert "n = 1" in str(error)  # noqa: PT017
            return
    c = certifier.certify(np.full(3, 10.0), n=n, alpha=0.6)
    assert c.prediction == 1
    assert all(math.isfinite(radius) and radius > 0.0 for radius in c.radius.values())


def test_a_subspace_of_every_coordinate_is_certified_like_the_whole(shipped: Table) -> None:
    every = Subspace(np.ones(4, dtype=bool), 2, "every")
    c = Certifier(_plain(), 0.5, 2, shipped, ("l2", every), seed=1).certify(np.full(4, 0.5), n=2000)
    assert c.radius["every"] == pytest.approx(c.radius["l2"], rel=0.01)


# Data sets


def _data() -> list[tuple[Array, int]]:
    rng = np.random.default_rng(23)
    inputs = rng.normal(0.3, 0.4, (6, 3))
    return [(x, int(x[0] > 0.0)) for x in inputs] + [(np.array([-1.0, 0.0, 0.0]), 1)]


def _without_time(path: Path) -> list[list[str]]:
    lines = [line.split("\t") for line in path.read_text().splitlines()]
    assert lines[0][5] == "time"
    return [line[:5] + line[6:] for line in lines]


SETTINGS: dict[str, Any] = {"n0": 20, "n": 2000, "alpha": 0.01, "batch_size": 500, "progress": False}


def test_a_data_set_has_a_row_for_every_input_equal_to_its_certificate(tmp_path: Path, shipped: Table) -> None:
    out = tmp_path / "results.tsv"
    certifier = Certifier(_plain(), 0.5, 2, shipped, seed=4)
    rows = certifier.certify_dataset(_data(), out, **SETTINGS)
    columns = read_tsv(out)
    assert list(columns)[:5] == ["idx", "label", "predict", "radius", "correct"]
    assert len(rows) == len(_data()) == len(columns["idx"])
    for i, (x, label) in enumerate(_data()):
        c = certifier.certify(x, 20, 2000, 0.01, 500, index=i)
        assert (columns["idx"][i], columns["label"][i], columns["predict"][i]) == (i, label, c.prediction)
        assert columns["correct"][i] == (c.prediction == label)
        assert (columns["count"][i], columns["n"][i]) == (c.count, 2000)
        assert c.bounds["q_lower"] - 2e-10 < columns["q_lower"][i] <= c.bounds["q_lower"]
        for name, radius in c.radius.items():
            assert radius - 2e-6 < columns[f"radius_{name}"][i] <= radius
        assert columns["radius"][i] == columns["radius_l2"][i]
    assert columns["correct"].sum() == 6.0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["results.tsv", "results.tsv.json"]


@pytest.mark.parametrize(("tail", "kept"), [("whole", 3), ("followed by a torn record", 3), ("torn", 2)])
def test_an_interrupted_data_set_goes_on_with_the_same_output(tail: str, kept: int, tmp_path: Path, shipped: Table) -> None:
    whole, out = tmp_path / "whole.tsv", tmp_path / "results.tsv"
    Certifier(_plain(), 0.5, 2, shipped, seed=4, proposal="votes").certify_dataset(_data(), whole, **SETTINGS)

    class Seen:
        calls = 0

    def stopping(x: torch.Tensor) -> torch.Tensor:
        # From the first batch of 20 on: each input takes 5, 1 of selection, 2 a half.
        Seen.calls += len(x) == 20 or Seen.calls % 100 > 0
        if Seen.calls == 18:
            raise KeyboardInterrupt
        return _plain()(x)

    with pytest.raises(KeyboardInterrupt):
        Certifier(stopping, 0.5, 2, shipped, seed=4, proposal="votes").certify_dataset(_data(), out, **SETTINGS)
    assert not out.exists()
    journal = tmp_path / "results.tsv.journal"
    # As a kill in the middle of a write leaves it.
    done = journal.read_bytes()
    if tail == "torn":
        journal.write_bytes(done[:-3])
    elif tail == "followed by a torn record":
        journal.write_bytes(done + done[-200:-190])
    Seen.calls = 100
    rows = Certifier(stopping, 0.5, 2, shipped, seed=4, proposal="votes").certify_dataset(_data(), out, **SETTINGS)
    # The inputs that were done are not sampled again, and keep their times.
    assert Seen.calls == 100 + 5 * (len(_data()) - kept)
    assert all(str(row["time"]).encode() in done for row in rows[:kept])
    assert _without_time(out) == _without_time(whole)
    assert not journal.exists()


def test_a_journal_torn_in_its_first_record_starts_again(tmp_path: Path, shipped: Table) -> None:
    out = tmp_path / "results.tsv"
    (tmp_path / "results.tsv.journal").write_bytes(b'{"inputs": 7, "sig')
    rows = Certifier(_plain(), 0.5, 2, shipped, seed=4).certify_dataset(_data(), out, **SETTINGS)
    assert len(rows) == len(_data())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["results.tsv", "results.tsv.json"]


def test_numbers_of_numpy_are_numbers(tmp_path: Path, shipped: Table) -> None:
    plain, other = tmp_path / "plain.tsv", tmp_path / "numpy.tsv"
    Certifier(_plain(), 0.5, 2, shipped, seed=4).certify_dataset(_data(), plain, **SETTINGS)
    numbers = {name: value if isinstance(value, bool) else np.asarray(value)[()] for name, value in SETTINGS.items()}
    certifier = Certifier(_plain(), np.float64(0.5), np.int64(2), shipped, seed=np.int64(4))  # type: ignore[arg-type]
    certifier.certify_dataset(_data(), other, **numbers)
    assert _without_time(other) == _without_time(plain)
    with pytest.raises(ValueError, match=r"n = 2000\.0: expected a whole number"):
        Certifier(_plain(), 0.5, 2, shipped).certify_dataset(_data(), other, n=2e3)  # type: ignore[arg-type]


RED = np.array([True, False, False])


@pytest.mark.parametrize(
    ("certifier", "arguments", "message"),
    [
        ({"sigma": 0.25}, {}, r"sigma was 0.5, is 0.25"),
        ({"seed": 5}, {}, r"seed was 4, is 5"),
        ({"threats": ("l1",)}, {}, r"(names|threats) was .*red.*, is"),
        ({}, {"n": 3000}, r"n was 2000, is 3000"),
        ({}, {"n0": 30}, r"n0 was 20, is 30"),
        ({}, {"alpha": 0.02}, r"alpha was 0.01, is 0.02"),
        ({}, {"data": _data()[:5]}, r"inputs was 7, is 5"),
        ({"threats": ("l1", "l2", "linf", Subspace(~RED, 2, "red"))}, {}, r"(red|threat|mask)"),
        ({"threats": ("l1", "l2", "linf", Subspace(RED, 1, "red"))}, {}, r"(red|threat|mask)"),
        ({"threats": ("l1", "l2", "linf", Direction(np.ones(3), "red"))}, {}, r"(red|threat|mask)"),
    ],
    ids=["sigma", "seed", "threats", "n", "n0", "alpha", "inputs", "mask", "p", "kind of threat"],
)
def test_a_data_set_begun_with_other_settings_is_refused_naming_the_difference(
    certifier: dict[str, Any], arguments: dict[str, Any], message: str, tmp_path: Path, shipped: Table
) -> None:
    out = tmp_path / "results.tsv"
    calls = 0

    def stopping(x: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += len(x) == 20
        if calls == 3:
            raise KeyboardInterrupt
        return _plain()(x)

    threats = ("l1", "l2", "linf", Subspace(RED, 2, "red"))
    common: dict[str, Any] = {"num_classes": 2, "table": shipped, "sigma": 0.5, "seed": 4, "threats": threats}
    data = {"data": _data(), "out": out} | SETTINGS
    with pytest.raises(KeyboardInterrupt):
        Certifier(stopping, **common).certify_dataset(**data)
    before = out.with_name("results.tsv.journal").read_bytes()
    with pytest.raises(ValueError, match=rf"results\.tsv\.journal: started with other settings: .*{message}.*; delete it"):
        Certifier(_asked, **(common | certifier)).certify_dataset(**(data | arguments))
    assert out.with_name("results.tsv.journal").read_bytes() == before
    assert not out.exists()


def test_a_data_set_is_refused_before_sampling_where_n_or_the_folder_will_not_do(tmp_path: Path, shipped: Table) -> None:
    certifier = Certifier(_never, 0.5, 2, shipped, seed=4)
    with pytest.raises(ValueError, match="n = 5: even a unanimous vote"):
        certifier.certify_dataset(_data(), tmp_path / "results.tsv", n=5)
    with pytest.raises(FileNotFoundError, match=r"nowhere: no such folder to write results\.tsv in"):
        certifier.certify_dataset(_data(), tmp_path / "nowhere" / "results.tsv")
    assert list(tmp_path.iterdir()) == []


def test_finished_results_of_the_same_settings_are_returned_and_nothing_is_sampled(tmp_path: Path, shipped: Table) -> None:
    out, calls = tmp_path / "results.tsv", []

    def counting(x: torch.Tensor) -> torch.Tensor:
        calls.append(len(x))
        return _plain()(x)

    first = Certifier(_plain(), 0.5, 2, shipped, seed=4).certify_dataset(_data(), out, **SETTINGS)
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.iterdir()}
    # The size of a batch is no setting where each input has its own.
    again = Certifier(counting, 0.5, 2, shipped, seed=4).certify_dataset(_data(), out, **SETTINGS | {"batch_size": 400})
    assert again == first
    # One row is differentiated.
    assert set(calls) <= {1, 16, 400}
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    ("certifier", "arguments", "message"),
    [
        ({"sigma": 0.25}, {}, r"sigma was 0\.5, is 0\.25"),
        ({"seed": 5}, {}, "seed was 4, is 5"),
        ({"estimator": "paper"}, {}, "estimator was 'adaptive', is 'paper'"),
        ({"model": _plain(-1.0)}, {}, "model scores was"),
        ({}, {"n": 3000}, "n was 2000, is 3000"),
        ({}, {"alpha": 0.02}, r"alpha was 0\.01, is 0\.02"),
        ({}, {"data": _data()[:2]}, "inputs was 7, is 2"),
    ],
)
def test_finished_results_of_other_settings_are_not_replaced(
    certifier: dict[str, Any], arguments: dict[str, Any], message: str, tmp_path: Path, shipped: Table
) -> None:
    out = tmp_path / "results.tsv"
    common: dict[str, Any] = {"model": _plain(), "num_classes": 2, "table": shipped, "sigma": 0.5, "seed": 4}
    Certifier(**common).certify_dataset(_data(), out, **SETTINGS)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ValueError, match=rf"results\.tsv: holds the results of other settings: .*{message}.*; delete it or write"):
        Certifier(**common | certifier).certify_dataset(**{"data": _data(), "out": out} | SETTINGS | arguments)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_results_that_nothing_tells_the_settings_of_are_neither_returned_nor_replaced(tmp_path: Path, shipped: Table) -> None:
    out, beside = tmp_path / "results.tsv", tmp_path / "results.tsv.json"
    certifier = Certifier(_plain(), 0.5, 2, shipped, seed=4)
    certifier.certify_dataset(_data(), out, **SETTINGS)
    text, settings = out.read_text(), beside.read_text()
    for results, told in ((text, None), (text, ""), (text, "[]"), (text, settings[:-20]), (text.replace("0.", "1.", 1), settings)):
        out.write_text(results)
        beside.unlink(missing_ok=True)
        if told is not None:
            beside.write_text(told)
        with pytest.raises(
            ValueError, match=r"results\.tsv: exists, and results\.tsv\.json does not tell how it was made; delete it"
        ):
            certifier.certify_dataset(_data(), out, **SETTINGS)
        assert out.read_text() == results
    # What is told of a file that is gone does not matter.
    out.unlink()
    assert len(certifier.certify_dataset(_data(), out, **SETTINGS)) == len(_data())


def test_rows_hold_numbers_as_they_are_printed(tmp_path: Path, shipped: Table) -> None:
    out = tmp_path / "results.tsv"
    rows = Certifier(_plain(), 0.5, 2, shipped, seed=4).certify_dataset(_data(), out, **SETTINGS)
    columns = read_tsv(out)
    for name, value in rows[3].items():
        kind = (
            int
            if name in ("idx", "label", "predict", "correct", "count", "n", "runner_up", "count_runner_up")
            else str
            if name == "time"
            else float
        )
        assert type(value) is kind, name
        assert name == "time" or value == columns[name][3]


def test_an_empty_data_set_gives_the_header_alone(tmp_path: Path, shipped: Table) -> None:
    out = tmp_path / "results.tsv"
    assert Certifier(_never, 0.5, 2, shipped, seed=4).certify_dataset([], out, **SETTINGS) == []
    assert out.read_text().split() == ["idx", "label", "predict", "radius", "correct", "time", "count", "n", "q_lower"]


def test_the_progress_bar_goes_to_stderr_alone(tmp_path: Path, shipped: Table, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = SETTINGS | {"progress": True}
    Certifier(_plain(), 0.5, 2, shipped, seed=4).certify_dataset(_data()[:1], tmp_path / "results.tsv", **arguments)
    assert capsys.readouterr().out == ""
