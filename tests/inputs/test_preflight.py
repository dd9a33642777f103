"""A classifier that is right on its prototypes, and every usual mistake around it."""

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from certlut.cli import main as cli
from certlut.inputs.architectures import CIFAR10, Normalise
from certlut.inputs.data import Arrays
from certlut.inputs.preflight import Report, preflight

CLASSES, SHAPE, SIGMA = 10, (3, 8, 8), 0.05


class Scale(torch.nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.factor


class Waves(torch.nn.Module):
    """Nearest prototype in cos(2.5 x), x normalised: wrong on any other scale."""

    def __init__(self, prototypes: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("prototypes", torch.cos(2.5 * prototypes).flatten(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return -torch.cdist(torch.cos(2.5 * x).flatten(1), self.prototypes)


def _pixels() -> tuple[Any, Any]:
    """200 inputs in [0, 1] sorted by class, as a tree of folders gives them."""
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(CLASSES), 20)
    x = rng.random((CLASSES, *SHAPE))[y] + 0.02 * rng.normal(size=(len(y), *SHAPE))
    return np.clip(x, 0.0, 1.0).astype(np.float32), y


X, Y = _pixels()
NORMALISE = Normalise(*CIFAR10)
with torch.no_grad():
    NORMALISED = NORMALISE(torch.from_numpy(X)).numpy()
    NET = Waves(NORMALISE(torch.from_numpy(X[::20])))
MODEL = torch.nn.Sequential(NORMALISE, NET).eval()


def check(model: Any = MODEL, x: Any = X, y: Any = Y, sigma: float = SIGMA, classes: int = CLASSES) -> Report:
    return preflight(model, Arrays(x, y), sigma, classes, batch_size=32)


def test_a_sound_setting_has_no_warning_and_is_reported() -> None:
    report = check()
    assert report.warnings == ()
    assert (report.inputs, report.sigma) == (50, SIGMA)
    assert (report.low, report.high) == (0.0, 1.0)
    assert report.clean == 1.0
    assert 0.8 < report.noisy <= 1.0
    assert "50 inputs in [0, 1], sigma 0.05: accuracy 100% clean" in str(report)


def test_the_report_is_the_same_for_every_batch_size_and_time() -> None:
    state = torch.get_rng_state()
    reports = [preflight(MODEL, Arrays(X, Y), SIGMA, CLASSES, batch_size) for batch_size in (1, 7, 1000, 7)]
    assert all(report == reports[0] for report in reports)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("model", "x", "sigma", "expected"),
    [
        (NET, X, SIGMA, [r"normalisation \(cifar10\) is missing \(--normalise=cifar10, or Normalise in front"]),
        (
            torch.nn.Sequential(NORMALISE, MODEL),
            X,
            SIGMA,
            [r"normalisation is one layer too many \(--normalise=none, "],
        ),
        (
            MODEL,
            NORMALISED,
            5 * SIGMA,
            [
                "as if normalised: sigma and radii",
                r"normalisation is done twice: the inputs are normalised and .* \(--normalise=none",
            ],
        ),
        (NET, NORMALISED, 5 * SIGMA, ["as if normalised: sigma and radii are then in normalised units"]),
        (MODEL, 255 * X, 255 * SIGMA, ["as if in 0 to 255: sigma", r"the model expects \[0, 1\]: divide the inputs by 255"]),
        (torch.nn.Sequential(Scale(1 / 255), MODEL), X, SIGMA, [r"layer 0 \(Scale\) of the model is one too many: take it out"]),
        (lambda x: MODEL(x / 255.0), X, SIGMA, [r"the model expects 0 to 255 \(--normalise=0-255, "]),
        (torch.nn.Sequential(Scale(1 / 255), MODEL), 255 * X, 255 * SIGMA, ["as if in 0 to 255: sigma and radii are then in grey"]),
    ],
    ids=[
        "missing",
        "twice inside",
        "twice",
        "normalised outside",
        "grey levels",
        "scaled twice",
        "a function for grey levels",
        "grey levels meant",
    ],
)
def test_every_mistake_of_normalisation_and_scale_is_named(model: Any, x: Any, sigma: float, expected: list[str]) -> None:
    warnings = check(model.eval() if isinstance(model, torch.nn.Module) else model, x, sigma=sigma).warnings
    assert len(warnings) == len(expected), warnings
    for warning, text in zip(warnings, expected, strict=True):
        assert re.search(text, warning), warning
        assert "\n" not in warning


def test_noise_that_the_model_was_not_trained_for_is_said() -> None:
    (warning,) = check(sigma=0.6).warnings
    assert warning.startswith("accuracy falls from 100% to ")
    assert "train the model with noise of this sigma" in warning


def test_a_sigma_in_other_units_than_the_inputs_is_said() -> None:
    above = check(sigma=64.0).warnings
    assert above[0] == "sigma 64 is larger than the range of the inputs (1): it must be in their units " + (
        "(a sigma in grey levels is 0.251 for inputs in [0, 1])"
    )
    below = check(sigma=0.001).warnings
    assert [w.startswith("sigma 0.001 is below 1/255 of the range") for w in below] == [True]


def test_accuracy_near_chance_is_said() -> None:
    (warning,) = check(y=np.random.default_rng(1).permutation(Y)).warnings
    assert "is near chance (10%): check the weights, the order of the classes" in warning


def test_another_range_is_said() -> None:
    shifted = torch.nn.Sequential(Scale(1 / 3), MODEL).eval()
    (warning,) = check(shifted, 3 * X, sigma=3 * SIGMA).warnings
    assert warning == "inputs lie in [0, 3], not in [0, 1]: make sure that sigma 0.15 is in these units"


def test_few_inputs_are_not_judged_by_accuracy() -> None:
    assert check(x=X[:5], y=np.array([9, 8, 7, 6, 5])).warnings == ()


def test_a_label_that_is_no_class_is_refused_wherever_it_is() -> None:
    y = Y.copy()
    # Not among the 50 that are looked at.
    y[1] = 10
    with pytest.raises(ValueError, match=r"input 1 has label 10, expected 0 to 9 \(10 classes\): give --num-classes"):
        check(y=y)
    pairs = [(X[0], 3), (X[1], -1)]
    with pytest.raises(ValueError, match="input 1 has label -1"):
        preflight(MODEL, pairs, SIGMA, CLASSES, 10)


def test_a_tree_with_fewer_folders_than_classes_is_said() -> None:
    data = Arrays(X, Y)
    data.classes = [f"n{i}" for i in range(4)]  # type: ignore[attr-defined]
    (warning,) = preflight(MODEL, data, SIGMA, CLASSES, 10).warnings
    assert "the tree has 4 class folders, the model 10 classes" in warning


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (lambda: check(x=X[:0], y=Y[:0]), "the data set is empty"),
        (lambda: check(classes=12), r"scores of shape \(25, 10\), expected \(25, 12\) \(12 classes\)"),
        (lambda: check(x=np.where(np.arange(len(X)) == 0, np.nan, X.T).T), "input 0 has NaN or infinity"),
        (lambda: check(lambda x: torch.full((len(x), 10), torch.nan)), "the model returned NaN scores"),
        (lambda: preflight(MODEL, [(X[0], 0), (X[0, :2], 1)], SIGMA, 10, 5), r"input 1 has shape \(2, 8, 8\), input 0 \(3, 8, 8\)"),
    ],
    ids=["empty", "classes", "NaN input", "NaN scores", "shapes"],
)
def test_what_cannot_be_sampled_is_refused(run: Callable[[], Report], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run()


def test_the_command_warns_and_can_be_told_not_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(NET, tmp_path / "net.pt")
    np.savez(tmp_path / "data.npz", x=X[:40:2], y=Y[:40:2])
    common = [
        "--data",
        str(tmp_path / "data.npz"),
        "--sigma",
        "0.05",
        "--num-classes",
        "10",
        "--n",
        "50",
        "--out",
        str(tmp_path / "s.h5"),
    ]

    def command(*more: str) -> tuple[int, list[str]]:
        monkeypatch.setattr(sys, "argv", ["certlut", "sample", "--model", str(tmp_path / "net.pt"), *common, *more])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return int(stop.value.code or 0), capsys.readouterr().err.strip().splitlines()

    code, lines = command()
    assert (code, len(lines)) == (1, 1)
    assert "holds a pickled" in lines[0]
    assert not (tmp_path / "s.h5").exists()
    code, lines = command("--trust")
    assert code == 0
    assert [line for line in lines if line.startswith("certlut: warning: normalisation (cifar10) is missing (--norm")]
    # What it says to do, done.
    (tmp_path / "s.h5").unlink()
    code, lines = command("--trust", "--normalise=cifar10")
    assert code == 0
    assert not [line for line in lines if "warning" in line]
    (tmp_path / "s.h5").unlink()
    code, lines = command("--trust", "--no-check")
    assert code == 0
    assert not [line for line in lines if "warning" in line]
