"""The networks that the benchmarks time, with random weights: their speed does not depend on them."""

import torch
from torch import nn


class Block(nn.Module):
    """A residual block: two 3x3 convolutions, or 1x1, 3x3, 1x1 with `bottleneck`."""

    def __init__(self, inputs: int, width: int, stride: int, bottleneck: bool) -> None:
        super().__init__()
        outputs = 4 * width if bottleneck else width
        sizes = [(inputs, width, 1, 1), (width, width, 3, stride), (width, outputs, 1, 1)]
        layers: list[nn.Module] = []
        for a, b, kernel, step in sizes if bottleneck else [(inputs, width, 3, stride), (width, width, 3, 1)]:
            layers += [nn.Conv2d(a, b, kernel, step, kernel // 2, bias=False), nn.BatchNorm2d(b), nn.ReLU()]
        self.body = nn.Sequential(*layers[:-1])
        short = [nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)]
        self.short = nn.Sequential(*short) if stride > 1 or inputs != outputs else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.body(x) + self.short(x))


def resnet(blocks: tuple[int, ...], bottleneck: bool, large: bool, num_classes: int) -> nn.Module:
    """ResNet-18 is (2, 2, 2, 2), ResNet-50 (3, 4, 6, 3) with bottlenecks; `large`: the stem for 224x224, else for 32x32."""
    stem = [nn.Conv2d(3, 64, 7, 2, 3, bias=False)] if large else [nn.Conv2d(3, 64, 3, 1, 1, bias=False)]
    layers: list[nn.Module] = [*stem, nn.BatchNorm2d(64), nn.ReLU(), *([nn.MaxPool2d(3, 2, 1)] if large else [])]
    inputs = 64
    for stage, count in enumerate(blocks):
        width = 64 * 2**stage
        for place in range(count):
            layers.append(Block(inputs, width, 2 if stage > 0 and place == 0 else 1, bottleneck))
            inputs = 4 * width if bottleneck else width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, num_classes)).eval()


def small(num_classes: int = 10) -> nn.Module:
    """For 3x32x32: three 3x3 convolutions of stride 2 to 16, 32 and 32 channels, then linear; 0.56 million multiplications."""
    layers: list[nn.Module] = []
    for a, b in ((3, 16), (16, 32), (32, 32)):
        layers += [nn.Conv2d(a, b, 3, 2, 1), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(512, num_classes))
