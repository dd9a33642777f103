"""The usual mistakes in front of a model, each undone: which of them makes its answers right.

A change is a layer put before the model, or one of its layers taken out. It is named if the same inputs are answered better by more
than four standard deviations of chance (signs of the differences, input by input), clean ones no worse, and a good part of the
errors is gone; of several that are about as good, the one that the scores like best (mean log-probability of the labels).
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import nn

from ..sampling.scores import Model
from .normalise import NAMES, Normalise, own_layer, put_in_front, spelt

# Standard deviations, and the part of the errors that must be gone.
SURE, MENDED = 4.0, 1.0 / 3.0
# Changes whose accuracies differ by less are told apart by the scores.
CLOSE = 0.1
# Layers of a Sequential that are tried without.
LAYERS = 8


class Answers(NamedTuple):
    """Of inputs without and with noise: whether the class is right, shape (2, inputs), and the labels' mean log-probability."""

    right: torch.Tensor
    likelihood: float

    @property
    def accuracy(self) -> float:
        """Of both."""
        return float(self.right.float().mean())


class Change(NamedTuple):
    """What was wrong and what the user can do, and the model that results."""

    said: str
    model: Model


def find_mistake(
    model: Model, shape: torch.Size, low: float, high: float, plain: Answers, ask: Callable[[Model], Answers]
) -> list[str]:
    """A warning for the change that mends the model's answers best, if one does.

    Args:
        model: as it is.
        shape: of an input.
        low: smallest number in the inputs.
        high: largest.
        plain: its answers.
        ask: the answers of a model.
    """
    mended: list[tuple[Change, Answers]] = []
    for change in changes(model, shape, low, high):
        # A layer may be one that the rest cannot do without.
        with contextlib.suppress(ValueError):
            answers = ask(change.model)
            gains = (answers.right.float() - plain.right.float()).sum(dim=0)
            sure = float(gains.sum()) > SURE * float(gains.square().sum()) ** 0.5
            if sure and gains_enough(plain, answers):
                mended.append((change, answers))
    if not mended:
        return []
    best = max(answers.accuracy for _, answers in mended)
    change, answers = max((pair for pair in mended if pair[1].accuracy >= best - CLOSE), key=lambda pair: pair[1].likelihood)
    return [f"{change.said} (accuracy {plain.accuracy:.0%} as it is, {answers.accuracy:.0%} so)"]


def gains_enough(plain: Answers, changed: Answers) -> bool:
    """Whether a third of the errors is gone, and clean inputs are answered no worse."""
    clean = int(changed.right[0].sum()) >= int(plain.right[0].sum())
    return clean and changed.accuracy >= plain.accuracy + MENDED * (1.0 - plain.accuracy)


def changes(model: Model, shape: torch.Size, low: float, high: float) -> Iterator[Change]:
    """Every change that is tried, those first that are preferred among equals."""
    own = own_layer(model)
    if isinstance(model, nn.Sequential):
        # What stands in front and is ours goes by --normalise.
        for place in range(1 if own is not None else 0, min(LAYERS, len(model))):
            rest = nn.Sequential(*(layer for i, layer in enumerate(model) if i != place))
            yield Change(f"layer {place} ({type(model[place]).__name__}) of the model is one too many: take it out", rest)
    for said, layer in layers(shape, low, high, own):
        front = spelt(layer.means, layer.sds)
        yield Change(f"{said} (--normalise={front}, or Normalise in front of the model)", _behind(model, layer))
    if len(shape) == 3 and shape[0] == 3:
        yield Change(
            "the channels are in another order than the model's, blue first: give inputs x[::-1]", lambda x: model(x.flip(1))
        )


def _behind(model: Model, layer: Normalise) -> Model:
    return put_in_front(model, layer) if isinstance(model, nn.Module) else lambda x: model(layer(x))


def layers(shape: torch.Size, low: float, high: float, own: Normalise | None) -> Iterator[tuple[str, Normalise]]:
    """Layers for the model's front, each with the mistake that it undoes; in place of its own where it has one of ours."""
    names = ("cifar10" if shape[1] <= 64 else "imagenet", "half") if len(shape) == 3 and shape[0] == 3 else ("mnist", "half")
    known = {name: [torch.tensor(numbers).reshape(-1, 1, 1) for numbers in NAMES[name]] for name in names}
    zero, one = torch.zeros(()), torch.ones(())
    means, sds = (zero, one) if own is None else (own.means, own.sds)
    if own is None:
        for name, (m, s) in known.items():
            yield f"normalisation ({name}) is missing", Normalise(m, s)
            yield f"centring ({name}) is missing", Normalise(m, one)
            where = "the inputs are normalised and the model normalises again: give inputs in [0, 1]"
            yield f"normalisation is done twice: {where if low < 0.0 else 'leave it to one layer'}", Normalise(-m / s, 1.0 / s)
            yield "the model divides by deviations, and was trained on centred inputs", Normalise(m - m / s, 1.0 / s)
            yield "the model centres its inputs, and was trained with deviations, too", Normalise(m - m * s, s)
            yield "the model centres its inputs, and was trained without", Normalise(-m, one)
    else:
        twice = "the inputs are normalised and the model normalises again: give inputs in [0, 1]"
        yield f"normalisation is {f'done twice: {twice}' if low < 0.0 else 'one layer too many'}", Normalise(zero, one)
        yield "the model was trained on centred inputs", Normalise(means, one)
        for name, (m, s) in known.items():
            yield f"the model was trained with another normalisation ({name})", Normalise(m, s)
    if high <= 20.0:
        yield "the model expects 0 to 255", Normalise(means / 255.0, sds / 255.0)
    else:
        yield "the model expects [0, 1]: divide the inputs by 255", Normalise(means * 255.0, sds * 255.0)
