"""The affine layer in front of a model, (x - mean) / deviation of each channel, under the names and numbers that users give it."""

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from ..sampling.scores import placement

Numbers = tuple[float, ...]
# Channel means and deviations of pixels in [0, 1].
CIFAR10 = ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
# What a user can put in front of a model by name. Adversarially trained smoothing models, for one, are centred only.
NAMES: Mapping[str, tuple[Numbers, Numbers]] = {
    "none": ((0.0,), (1.0,)),
    "cifar10": CIFAR10,
    "imagenet": IMAGENET,
    "mnist": ((0.1307,), (0.3081,)),
    "half": ((0.5,), (0.5,)),
    "cifar10-centre": (CIFAR10[0], (1.0, 1.0, 1.0)),
    "imagenet-centre": (IMAGENET[0], (1.0, 1.0, 1.0)),
    "0-255": ((0.0,), (1.0 / 255.0,)),
}
EXPECTED = f"one of {', '.join(NAMES)}, or MEANS/DEVIATIONS as 0.5,0.5,0.5/0.25,0.25,0.25"


class Normalise(nn.Module):
    """(x - mean) / deviation of each channel, as the first layer: sigma and radii stay in the units of x. One number serves all."""

    means: torch.Tensor
    sds: torch.Tensor

    def __init__(self, means: Sequence[float] | torch.Tensor, sds: Sequence[float] | torch.Tensor) -> None:
        super().__init__()
        for name, values in (("means", means), ("sds", sds)):
            numbers = torch.as_tensor(values, dtype=torch.float32)
            # A single number without axes: it fits inputs of any shape.
            self.register_buffer(name, numbers.reshape(() if numbers.numel() == 1 else (-1, 1, 1)))
        if not (self.means.isfinite().all() and self.sds.isfinite().all() and (self.sds > 0).all()):
            raise ValueError(f"normalisation {spelt(self.means, self.sds)}: expected finite means and positive deviations")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Shape (B, channels, h, w) in and out; any shape where there is one number."""
        return (x - self.means) / self.sds


def parse(spec: str) -> Normalise:
    """The layer of a name in NAMES, or of means and deviations with commas and a "/" between them. ValueError for another text."""
    if spec in NAMES:
        return Normalise(*NAMES[spec])
    try:
        means, sds = (tuple(float(number) for number in part.split(",")) for part in spec.split("/"))
        if len({1, len(means), len(sds)}) > 2:
            raise ValueError
    except ValueError:
        raise ValueError(f"normalise = {spec!r}: expected {EXPECTED}") from None
    return Normalise(means, sds)


def spelt(means: torch.Tensor, sds: torch.Tensor) -> str:
    """What `parse` makes (about) this layer of: the name where it has one, else its numbers."""
    for name, known in NAMES.items():
        known_means, known_sds = (torch.tensor(numbers) for numbers in known)
        # Means weigh by the deviations.
        if bool(
            ((known_sds / sds.flatten() - 1.0).abs() < 1e-3).all()
            and ((known_means - means.flatten()).abs() < 1e-3 * known_sds).all()
        ):
            return name
    return "/".join(",".join(f"{x:.5g}" for x in numbers.flatten().tolist()) for numbers in (means, sds))


def own_layer(model: object) -> Normalise | None:
    """The layer that stands in front of a model, if it is one of ours."""
    return model[0] if isinstance(model, nn.Sequential) and len(model) > 1 and isinstance(model[0], Normalise) else None


def put_in_front(model: nn.Module, layer: Normalise) -> nn.Sequential:
    """The model behind `layer`, in the type and place of its numbers; it replaces one of ours that stands there."""
    rest = list(model)[1:] if isinstance(model, nn.Sequential) and own_layer(model) is not None else [model]
    return nn.Sequential(layer.to(*placement(model, layer.means)), *rest)
