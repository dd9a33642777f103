"""A look at model, data and sigma before hours of sampling: units, labels, accuracy, and normalisation done twice or not at all.

On a few inputs the model's accuracy is measured as they are and with one draw of noise each. Where it is poor, the usual mistakes
are undone one by one (mistakes.py), and the one is named whose undoing mends the answers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from ..sampling.scores import Model, in_parts, placement, scores_of, set_to_eval
from .mistakes import Answers, find_mistake

# Inputs that are looked at, and more of them where a mistake is looked for.
INPUTS, MORE = 50, 200
SEED = 0
# Accuracies say little about fewer inputs; above GOOD, with and without noise, nothing can be much wrong.
ENOUGH = 20
GOOD = 0.9


@dataclass(frozen=True)
class Report:
    """What was seen on `inputs` inputs."""

    inputs: int
    low: float
    """Smallest and largest number in the inputs."""
    high: float
    sigma: float
    clean: float
    """Accuracy on the inputs as they are, and with noise of level sigma."""
    noisy: float
    warnings: tuple[str, ...]
    """What looks wrong and what to do, one line each."""

    def __str__(self) -> str:
        return (
            f"{self.inputs} inputs in [{self.low:.4g}, {self.high:.4g}], sigma {self.sigma:g}: "
            f"accuracy {self.clean:.0%} clean, {self.noisy:.0%} noisy"
        )


def preflight(model: Model, data: Sequence[tuple[Any, int]], sigma: float, num_classes: int, batch_size: int) -> Report:
    """Check model, data and sigma on 50 inputs spread over the data; the same report every time.

    Args:
        model: as for `Certifier`: a batch (B, *shape) to scores (B, num_classes).
        data: (input, label) pairs; all labels are checked where `data` has them as an array `y`.
        sigma: noise level, in the inputs' units.
        num_classes: number of classes.
        batch_size: inputs per forward pass.

    Raises:
        ValueError: no inputs, inputs of several shapes or with NaN, a label that is not one of 0 to num_classes - 1, scores of
            another shape or with NaN.
    """
    if not len(data):
        raise ValueError("the data set is empty: nothing to check")
    _check_labels(range(len(data)), getattr(data, "y", ()), num_classes)
    set_to_eval(model)
    look = Look(data, INPUTS, sigma, num_classes, batch_size)
    plain, inputs = look.ask(model), len(look.labels)
    low, high = float(look.clean.min()), float(look.clean.max())
    accuracy = plain.right.float().mean(dim=1).tolist()
    warnings = [*_units(low, high, sigma), *_classes_of_folders(data, num_classes)]
    if inputs >= ENOUGH:
        more = (lambda: look) if len(data) <= INPUTS else partial(Look, data, MORE, sigma, num_classes, batch_size)
        found = find_mistake(model, look, more, low, high) if min(accuracy) < GOOD else []
        warnings += found or _accuracies(plain.right, num_classes)
    return Report(inputs, low, high, sigma, accuracy[0], accuracy[1], tuple(warnings))


class Look:
    """Some inputs of a data set, without and with one draw of noise each."""

    def __init__(self, data: Sequence[tuple[Any, int]], count: int, sigma: float, num_classes: int, batch_size: int) -> None:
        """Read them; ValueError as `preflight`."""
        # Spread: data sorted by class would show one class only.
        chosen = np.unique(np.linspace(0, len(data) - 1, count).round().astype(int)).tolist()
        pairs = [data[i] for i in chosen]
        _check_labels(chosen, [label for _, label in pairs], num_classes)
        inputs = [np.asarray(x, dtype=np.float32) for x, _ in pairs]
        for i, x in zip(chosen, inputs, strict=True):
            if x.shape != inputs[0].shape or not np.isfinite(x).all():
                what = f"shape {x.shape}, input 0 {inputs[0].shape}" if x.shape != inputs[0].shape else "NaN or infinity"
                raise ValueError(f"input {i} has {what}; expected finite inputs of one shape")
        self.clean = torch.from_numpy(np.stack(inputs))
        self.labels = torch.tensor([label for _, label in pairs])
        noise = torch.from_numpy(np.random.default_rng(SEED).standard_normal(self.clean.shape, dtype=np.float32))
        self._batch = torch.cat((self.clean, self.clean + sigma * noise))
        self._num_classes, self._batch_size = num_classes, batch_size

    def ask(self, model: Model) -> Answers:
        """A model's answers; ValueError as `preflight`."""
        scores = _scores(model, self._batch, self._num_classes, self._batch_size).reshape(2, len(self.labels), -1)
        return Answers.of(scores, self.labels)


def _check_labels(indices: Sequence[int], labels: Any, num_classes: int) -> None:
    values = np.asarray(labels)
    bad = np.flatnonzero((values < 0) | (values >= num_classes)) if values.size else values
    if bad.size:
        raise ValueError(
            f"input {indices[int(bad[0])]} has label {values[bad[0]]}, expected 0 to {num_classes - 1} "
            f"({num_classes} classes): give --num-classes of the data set, and labels from 0"
        )


@torch.inference_mode()
def _scores(model: Model, batch: torch.Tensor, num_classes: int, batch_size: int) -> torch.Tensor:
    """Scores, float64, shape (B, num_classes); ValueError as the sampler's."""
    place, found = placement(model, batch), []
    # Of nearly equal size: an exported program may refuse a batch of one.
    for part in batch.tensor_split(-(-len(batch) // max(1, batch_size))):
        scores = in_parts(lambda rows: scores_of(model, rows.to(*place), num_classes), part)
        if np.isnan(scores).any():
            raise ValueError("the model returned NaN scores")
        found.append(torch.from_numpy(scores))
    return torch.cat(found)


def _units(low: float, high: float, sigma: float) -> list[str]:
    """Warnings about the range of the inputs and the size of sigma."""
    warnings = []
    if low < 0.0 and high <= 20.0:
        warnings.append(
            f"inputs lie in [{low:.4g}, {high:.4g}], as if normalised: sigma and radii are then in normalised units; "
            f"to certify in pixels give inputs in [0, 1] and a model that normalises inside"
        )
    elif high > 20.0 and low >= 0.0 and high <= 255.0:
        warnings.append(
            f"inputs lie in [{low:.4g}, {high:.4g}], as if in 0 to 255: sigma and radii are then in grey levels; "
            f"divide the inputs by 255 unless the model expects that"
        )
    elif low < 0.0 or high > 1.0:
        warnings.append(f"inputs lie in [{low:.4g}, {high:.4g}], not in [0, 1]: make sure that sigma {sigma:g} is in these units")
    if sigma > high - low:
        warnings.append(
            f"sigma {sigma:g} is larger than the range of the inputs ({high - low:.4g}): it must be in their units "
            f"(a sigma in grey levels is {sigma / 255:.4g} for inputs in [0, 1])"
        )
    elif sigma * 255 < high - low:
        warnings.append(f"sigma {sigma:g} is below 1/255 of the range of the inputs ({high - low:.4g}): it must be in their units")
    return warnings


def _classes_of_folders(data: Any, num_classes: int) -> list[str]:
    classes, warnings = getattr(data, "classes", None), []
    if classes is None:
        return []
    if classes != sorted(classes):
        warnings.append(
            f"the class folders are numbers and labelled in their order ({', '.join(classes[:3])}, ...); torchvision's ImageFolder "
            f"sorts them as text: rename them if the model was trained so"
        )
    if len(classes) != num_classes:
        warnings.append(
            f"the tree has {len(classes)} class folders, the model {num_classes} classes: labels number the folders that are there "
            f"({classes[0]} is 0), which is the model's numbering only if the missing ones come last"
        )
    return warnings


def _accuracies(plain: torch.Tensor, num_classes: int) -> list[str]:
    """Warnings about an accuracy near chance, or far lower with noise than without."""
    n, chance = plain.shape[1], 1.0 / num_classes
    clean, noisy = plain.float().mean(dim=1).tolist()
    limit = chance + 2.0 * (chance * (1.0 - chance) / n) ** 0.5
    if max(clean, noisy) <= limit:
        return [
            f"accuracy {clean:.0%} clean, {noisy:.0%} noisy on {n} inputs is near chance ({chance:.0%}): check the weights, the "
            f"order of the classes and the normalisation"
        ]
    lost, answers = int(plain[0].sum()) - int(plain[1].sum()), int((plain[0] != plain[1]).sum())
    if noisy <= 0.5 * clean and lost > 3.0 * answers**0.5:
        return [
            f"accuracy falls from {clean:.0%} to {noisy:.0%} with noise: train the model with noise of this sigma, or check that "
            f"sigma is in the inputs' units"
        ]
    return []
