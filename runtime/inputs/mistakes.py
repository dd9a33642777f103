"""The usual mistakes in front of a model, each undone: which of them makes its answers right.

A change is a layer put before the model, or one of its layers taken out. Those that look better on a few inputs are tried on more.
If one of these answers the inputs better by more than four standard deviations of chance (signs of the differences, by input),
clean ones no worse, and a good part of the errors is gone, then a mistake is named: of all changes about as good as the best the
most usual one that the scores like most, or nearly, by the labels' mean log-probability at the temperature that suits each change
best. (At one temperature for all, a change that makes a model less sure of itself would look better than the right one.)
"""

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

import torch
from torch import nn

from ..sampling.scores import Model
from .normalise import NAMES, Normalise, own_layer, put_in_front, spelt

# Standard deviations, on a few inputs and on more, and the part of the errors that must be gone.
LIKELY, SURE, MENDED = 1.0, 4.0, 0.25
# Changes whose accuracies differ by less are told apart by the scores.
CLOSE = 0.1
# Where these are apart by no more than so many standard deviations, the more usual mistake is named.
TOLD = 1.0
TEMPERATURES = 2.0 ** torch.arange(-6.0, 7.0, dtype=torch.float64)
# Layers of a Sequential that are tried without.
LAYERS = 8


class Answers(NamedTuple):
    """Of inputs without and with noise: whether the class is right, and the label's log-probability; each of shape (2, inputs)."""

    right: torch.Tensor
    told: torch.Tensor

    @classmethod
    def of(cls, scores: torch.Tensor, labels: torch.Tensor) -> "Answers":
        """From scores of shape (2, inputs, classes)."""
        finite = scores.nan_to_num(posinf=1e30, neginf=-1e30)
        unit = finite / finite.std().clamp(min=1e-30)
        told = [(t * unit).log_softmax(dim=2)[:, torch.arange(len(labels)), labels] for t in TEMPERATURES]
        return cls(scores.argmax(dim=2) == labels, max(told, key=lambda t: float(t.mean())))

    @property
    def accuracy(self) -> float:
        """Of both."""
        return float(self.right.float().mean())

    @property
    def likelihood(self) -> float:
        """The mean log-probability of the labels."""
        return float(self.told.mean())

    def tells_more(self, than: "Answers") -> bool:
        """Whether the labels' log-probability is higher by more than chance would have it, input by input."""
        more = (self.told - than.told).mean(dim=0)
        return float(more.mean()) > TOLD * float(more.std()) / math.sqrt(len(more))

    def better(self, than: "Answers") -> float:
        """How many standard deviations of chance."""
        gains = (self.right.float() - than.right.float()).sum(dim=0)
        return float(gains.sum()) / max(1.0, math.sqrt(float(gains.square().sum())))

    def mends(self, than: "Answers") -> bool:
        """Whether a good part of the errors is gone, and clean inputs are answered no worse."""
        clean = int(self.right[0].sum()) >= int(than.right[0].sum())
        return clean and self.accuracy >= than.accuracy + MENDED * (1.0 - than.accuracy)


class Asked(Protocol):
    """Inputs that a model can be asked about."""

    clean: torch.Tensor

    def ask(self, model: Model) -> Answers:
        """Its answers."""


class Change(NamedTuple):
    """What was wrong and what the user can do, and the model that results."""

    said: str
    model: Model


def find_mistake(model: Model, few: Asked, more: Callable[[], Asked], low: float, high: float) -> list[str]:
    """A warning for the change that mends the model's answers best, if one does.

    Args:
        model: as it is.
        few: some inputs.
        more: reads more of them; not called where no change looks better on the few.
        low: smallest number in the inputs.
        high: largest.
    """
    plain, likely = few.ask(model), []
    for change in changes(model, few.clean.shape[1:], low, high):
        # A layer may be one that the rest cannot do without.
        with contextlib.suppress(ValueError):
            if few.ask(change.model).better(plain) > LIKELY:
                likely.append(change)
    if not likely:
        return []
    many = more()
    plain = many.ask(model)
    tried = [(change, many.ask(change.model)) for change in likely]
    mended = [answers.accuracy for _, answers in tried if answers.better(plain) > SURE and answers.mends(plain)]
    if not mended:
        return []
    close = [(change, answers) for change, answers in tried if answers.accuracy >= max(mended) - CLOSE]
    best = max((answers for _, answers in close), key=lambda answers: answers.likelihood)
    change, answers = next(pair for pair in close if not best.tells_more(pair[1]))
    return [f"{change.said} (accuracy {plain.accuracy:.0%} as it is, {answers.accuracy:.0%} so)"]


def changes(model: Model, shape: torch.Size, low: float, high: float) -> Iterator[Change]:
    """Every change that is tried, the most usual first."""
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
    names = ["mnist", "half"]
    if len(shape) == 3 and shape[0] == 3:
        usual = "cifar10" if shape[1] <= 64 else "imagenet"
        names = [usual, "half"] if own is None else [usual, f"{usual}-centre", "half"]
    known = {name: [torch.tensor(numbers).reshape(-1, 1, 1) for numbers in NAMES[name]] for name in names}
    zero, one = torch.zeros(()), torch.ones(())
    means, sds = (zero, one) if own is None else (own.means.float().cpu(), own.sds.float().cpu())
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
