"""The networks of the field's checkpoints: CIFAR ResNets of depth 6n + 2 and ImageNet's ResNet-50, normalisation inside.

He et al., Deep residual learning for image recognition (2016), sections 4.1 and 4.2; names of the weights as in torchvision and in
Cohen et al.'s repository, whose checkpoints are dictionaries {"arch": ..., "state_dict": ...}.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from .normalise import CIFAR10, IMAGENET, Normalise

KNOWN = "cifar_resnet20, cifar_resnet110 (or another depth 6n + 2), resnet50"


class Block(nn.Module):
    """Convolutions conv1, conv2, ... of (channels, kernel, stride), each normalised, around which the input is added."""

    def __init__(self, inside: int, convolutions: Sequence[tuple[int, int, int]]) -> None:
        super().__init__()
        self.depth = len(convolutions)
        before, stride = inside, 1
        for i, (width, kernel, step) in enumerate(convolutions, 1):
            self.add_module(f"conv{i}", nn.Conv2d(before, width, kernel, step, kernel // 2, bias=False))
            self.add_module(f"bn{i}", nn.BatchNorm2d(width))
            before, stride = width, stride * step
        same = stride == 1 and before == inside
        shortcut = (nn.Conv2d(inside, before, 1, stride, bias=False), nn.BatchNorm2d(before))
        self.downsample = None if same else nn.Sequential(*shortcut)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Shape (B, inside, h, w) to (B, width, h / stride, w / stride)."""
        y = x
        for i in range(1, self.depth + 1):
            y = self.get_submodule(f"bn{i}")(self.get_submodule(f"conv{i}")(y))
            if i < self.depth:
                y = y.relu()
        return (y + (x if self.downsample is None else self.downsample(x))).relu()


class ResNet(nn.Module):
    """A stem, stages `layer1`, `layer2`, ... of blocks, the mean over pixels, and a linear layer."""

    def __init__(self, stem: nn.Conv2d, pool: nn.Module, stages: Sequence[Sequence[Block]], width: int, classes: int) -> None:
        super().__init__()
        self.conv1, self.bn1, self.pool = stem, nn.BatchNorm2d(stem.out_channels), pool
        self.stages = len(stages)
        for i, blocks in enumerate(stages, 1):
            self.add_module(f"layer{i}", nn.Sequential(*blocks))
        self.fc = nn.Linear(width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Shape (B, 3, h, w) to (B, classes)."""
        x = self.pool(self.bn1(self.conv1(x)).relu())
        for i in range(1, self.stages + 1):
            x = self.get_submodule(f"layer{i}")(x)
        scores: torch.Tensor = self.fc(x.mean(dim=(2, 3)))
        return scores


def cifar_resnet(depth: int) -> ResNet:
    """For 3x32x32 inputs and 10 classes: three stages of (depth - 2) / 6 blocks of two 3x3 convolutions."""
    if depth < 8 or (depth - 2) % 6:
        raise ValueError(f"cifar_resnet{depth}: expected a depth 6n + 2, as 20 or 110")
    stages, inside = [], 16
    for width in (16, 32, 64):
        blocks = []
        for i in range((depth - 2) // 6):
            blocks.append(Block(inside, ((width, 3, 2 if i == 0 and width > 16 else 1), (width, 3, 1))))
            inside = width
        stages.append(blocks)
    return ResNet(nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.Identity(), stages, 64, 10)


def resnet50() -> ResNet:
    """For 3x224x224 inputs and 1000 classes: 3, 4, 6, 3 bottleneck blocks, which stride in the 3x3 convolution."""
    stages, inside = [], 64
    for width, count in ((64, 3), (128, 4), (256, 6), (512, 3)):
        blocks = []
        for i in range(count):
            stride = 2 if i == 0 and width > 64 else 1
            blocks.append(Block(inside, ((width, 1, 1), (width, 3, stride), (4 * width, 1, 1))))
            inside = 4 * width
        stages.append(blocks)
    return ResNet(nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.MaxPool2d(3, 2, 1), stages, 2048, 1000)


def from_checkpoint(arch: Any, state_dict: Any) -> nn.Sequential:
    """The network in eval mode, for pixels in [0, 1]: (normalisation, ResNet).

    The keys may be those of the network alone or of Sequential(normalisation, network), each wrapped in DataParallel or
    torch.compile or not; a normalisation that is stored ("0.means", "0.sds") replaces the usual one of the data set: means alone
    centre, and deviations alone scale.

    Raises:
        ValueError: an unknown architecture, weights that are missing, unexpected, of another shape or not finite.
    """
    depth = re.fullmatch(r"cifar_resnet(\d{1,4})", arch) if isinstance(arch, str) else None
    if depth is None and arch != "resnet50":
        raise ValueError(f"unknown arch {arch!r}, expected one of {KNOWN}; for any other network pass module:function")
    if not isinstance(state_dict, Mapping) or not all(isinstance(w, torch.Tensor) for w in state_dict.values()):
        raise ValueError("state_dict is not a dictionary of tensors")
    # Weights come from the file: none are drawn.
    with torch.device("meta"):
        net = resnet50() if depth is None else cifar_resnet(int(depth[1]))
    usual = IMAGENET if depth is None else CIFAR10
    weights, stored = {}, dict[str, torch.Tensor]()
    for key, weight in state_dict.items():
        name = re.sub(r"\b(module|_orig_mod)\.", "", str(key))
        if name in ("0.means", "0.sds") and weight.numel() == 3:
            stored[name[2:]] = weight.flatten()
        else:
            weights[name.removeprefix("1.")] = weight
    check_weights(net, weights, str(arch))
    net.load_state_dict(
        {key: weight.float() if weight.is_floating_point() else weight for key, weight in weights.items()}, assign=True
    )
    # Of a normalisation that is partly stored the rest is not the data set's.
    means, sds = (stored.get("means", torch.zeros(3)), stored.get("sds", torch.ones(3))) if stored else usual
    model = nn.Sequential(Normalise(means, sds), net)
    return model.requires_grad_(False).eval()


def check_weights(net: nn.Module, weights: dict[str, torch.Tensor], arch: str) -> None:
    """ValueError unless `weights` are those of `net`; adds the batch counters that older files lack."""
    expected = net.state_dict()
    for key in expected:
        if key.endswith("num_batches_tracked"):
            weights.setdefault(key, torch.zeros((), dtype=torch.int64))
    missing, unexpected = [k for k in expected if k not in weights], [k for k in weights if k not in expected]
    if missing or unexpected:
        said = [f"{len(keys)} {what} ({', '.join(keys[:2])}{', ...' if len(keys) > 2 else ''})"
                for keys, what in ((missing, "missing"), (unexpected, "unexpected")) if keys]  # fmt: skip
        raise ValueError(f"state_dict does not fit {arch}: {' and '.join(said)}, of {len(expected)} weights expected")
    for key, weight in weights.items():
        if weight.shape != expected[key].shape:
            raise ValueError(f"{key} has shape {tuple(weight.shape)}, expected {tuple(expected[key].shape)} for {arch}")
        if not torch.isfinite(weight).all():
            raise ValueError(f"{key} holds NaN or infinity")
