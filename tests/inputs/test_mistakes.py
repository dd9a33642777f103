"""Every usual mistake, in front of a function and of a layer of ours: named, with a remedy that mends it; nothing else is."""

import re
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from certlut.inputs.data import Arrays
from certlut.inputs.mistakes import Answers, changes
from certlut.inputs.normalise import parse, put_in_front
from certlut.inputs.preflight import Look, preflight

CLASSES, SIGMA = 10, 0.15
Image = torch.Tensor


def pixels() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ten prototypes, and 20 noisy copies of each with their labels."""
    rng = np.random.default_rng(0)
    prototypes = rng.random((CLASSES, 3, 3, 3))
    y = np.repeat(np.arange(CLASSES), 20)
    x = prototypes[y] + 0.25 * rng.normal(size=(len(y), 3, 3, 3))
    return prototypes.astype(np.float32), np.clip(x, 0.0, 1.0).astype(np.float32), y


PROTOTYPES, X, Y = pixels()


class Near(nn.Module):
    """The prototype that most numbers lie near, at one scale and offset: that of `trained` inputs."""

    def __init__(self, trained: str) -> None:
        super().__init__()
        self.undo, self.normalise = parse(trained), parse("cifar10")
        self.register_buffer("prototypes", self.normalise(torch.from_numpy(PROTOTYPES)))

    def forward(self, x: Image) -> Image:
        z = self.normalise(x * self.undo.sds + self.undo.means)
        return (-0.5 * (z[:, None] - self.prototypes).square()).exp().flatten(2).sum(dim=2)


TWICE = "normalisation is done twice: the inputs are normalised and the model normalises again: give inputs in"
# What stands in front, what was trained with, what the inputs have been through; what is said of a function and of a layer of ours.
WAYS = {
    "missing": ("none", "cifar10", "none", r"normalisation \(cifar10\) is missing", r"another normalisation \(cifar10\)"),
    "trained without": ("cifar10", "none", "none", "done twice: leave it to one layer", "is one layer too many"),
    "twice": ("cifar10", "cifar10", "cifar10", TWICE, TWICE),
    "0 to 255": ("cifar10", "cifar10", "0-255", r"the model expects \[0, 1\]: divide", r"the model expects \[0, 1\]: divide"),
    "trained on 0 to 255": ("none", "0-255", "none", "the model expects 0 to 255", "the model expects 0 to 255"),
    "trained centred": ("cifar10", "cifar10-centre", "none", "and was trained on centred inputs", "was trained on centred inputs"),
    "only centred": ("cifar10-centre", "cifar10", "none", "was trained with deviations, too", r"another normalisation \(cifar10\)"),
    "not centred": ("none", "cifar10-centre", "none", r"centring \(cifar10\) is missing", r"another .* \(cifar10-centre\)"),
    "half": ("none", "half", "none", r"normalisation \(half\) is missing", r"another normalisation \(half\)"),
    "nothing": ("cifar10", "cifar10", "none", "", ""),
}


@pytest.mark.parametrize("behind", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_a_mistake_is_named_with_a_remedy_that_mends_it(way: str, behind: bool) -> None:
    given, trained, inputs, said, said_behind = WAYS[way]
    front = put_in_front(Near(trained), parse(given))
    # A function hides the layer.
    model: nn.Module | Callable[[Image], Image] = front if behind else front.forward
    x = parse(inputs)(torch.from_numpy(X)).numpy()
    data, sigma = Arrays(x, Y), SIGMA * float(np.std(x) / np.std(X))
    named = [warning for warning in preflight(model, data, sigma, CLASSES, 64).warnings if "as it is" in warning]
    if not said:
        assert named == []
        return
    (warning,) = named
    assert re.search(said_behind if behind else said, warning), warning
    remedy = re.search(r"\(--normalise=(\S+), or", warning)
    assert remedy
    mended = put_in_front(front, parse(remedy[1])) if behind else nn.Sequential(parse(remedy[1]), front)
    assert preflight(mended, data, sigma, CLASSES, 64).clean >= 0.95


def test_a_layer_too_many_is_named_and_channels_in_another_order_are() -> None:
    class Half(nn.Module):
        def forward(self, x: Image) -> Image:
            return 0.5 * x

    model = nn.Sequential(nn.Identity(), Half(), Near("none"))
    (warning,) = preflight(model, Arrays(X, Y), SIGMA, CLASSES, 64).warnings
    assert warning.startswith("layer 1 (Half) of the model is one too many: take it out (accuracy ")
    (warning,) = preflight(Near("none"), Arrays(X[:, ::-1].copy(), Y), SIGMA, CLASSES, 64).warnings
    assert warning.startswith("the channels are in another order than the model's, blue first: give inputs x[::-1] (accuracy ")


@pytest.mark.parametrize("seed", range(12))
def test_of_a_model_that_knows_nothing_no_mistake_is_named(seed: int) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, CLASSES))
    warnings = preflight(model, Arrays(X, Y), SIGMA, CLASSES, 64).warnings
    assert not any("as it is" in warning for warning in warnings), warnings


def test_the_temperature_of_the_scores_does_not_matter() -> None:
    scores = torch.randn(2, 30, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = torch.arange(30) % 4
    one, other = (Answers.of(t * scores, labels) for t in (1.0, 100.0))
    assert one.likelihood == pytest.approx(other.likelihood)
    # Better than a guess where the labels are in them.
    told = Answers.of(scores + 2.0 * nn.functional.one_hot(labels, 4), labels)
    assert told.likelihood > one.likelihood >= -np.log(4.0) - 1e-3
    infinite = scores.clone()
    infinite[0, 0, 1] = -torch.inf
    assert np.isfinite(Answers.of(infinite, labels).likelihood)


def test_a_model_in_half_precision_is_told_the_same() -> None:
    model = put_in_front(Near("cifar10-centre").bfloat16(), parse("cifar10"))
    assert model[0].means.dtype == torch.bfloat16
    (warning,) = [w for w in preflight(model, Arrays(X, Y), SIGMA, CLASSES, 64).warnings if "as it is" in w]
    assert "--normalise=cifar10-centre" in warning


def test_every_change_can_be_asked_and_grey_images_have_theirs() -> None:
    grey = Look(Arrays(X.reshape(-1, 3, 9), Y), 30, SIGMA, CLASSES, 64)
    found = list(changes(lambda x: x.flatten(1)[:, :CLASSES], grey.clean.shape[1:], 0.0, 1.0))
    assert any("normalisation (mnist) is missing (--normalise=mnist" in change.said for change in found)
    assert not any("channels" in change.said for change in found)
    for change in found:
        assert grey.ask(change.model).right.shape == (2, 30)
