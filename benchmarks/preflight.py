"""The look before a run on small trained networks spoilt in eight ways: right diagnoses, wrong ones, silence.

Networks of several kinds are trained on patches of scikit-learn's photographs, with and without noise, and looked at on others of
the same places. Each is spoilt in each way twice: as an opaque function, and behind a layer of certlut's, as a checkpoint is
opened. Silence counts as harmless where the way costs less than a tenth of the accuracy, clean and noisy together.

Run: python benchmarks/preflight.py [--models N] [--first I]
"""

import argparse
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from certlut.inputs.data import Arrays
from certlut.inputs.normalise import NAMES, Normalise
from certlut.inputs.preflight import preflight
from certlut.report.bundled import fit, one_thread, patches

SIGMAS = (0.0, 0.06, 0.12, 0.25)
TEST = 600


class Way(NamedTuple):
    """Normalisation at work, the one trained with, the one that the inputs already have; what is said of a function, of a layer."""

    what: str
    given: str
    trained: str
    inputs: str
    said: str
    said_behind: str


MISSING, CENTRED = "normalisation (cifar10) is missing", "another normalisation (cifar10-centre)"
OTHER, TWICE = "another normalisation (cifar10)", "normalisation is done twice: the inputs are normalised"
WAYS = (
    Way("normalisation missing", "none", "cifar10", "none", MISSING, OTHER),
    Way("normalised, trained without", "cifar10", "none", "none", "done twice: leave it to one", "one layer too many"),
    Way("inputs and model normalise", "cifar10", "cifar10", "cifar10", TWICE, TWICE),
    Way("inputs 0 to 255", "cifar10", "cifar10", "0-255", "the model expects [0, 1]", "the model expects [0, 1]"),
    Way("trained on 0 to 255", "none", "0-255", "none", "the model expects 0 to 255", "the model expects 0 to 255"),
    Way(
        "normalised, trained centred",
        "cifar10",
        "cifar10-centre",
        "none",
        "and was trained on centred inputs",
        "the model was trained on centred inputs",
    ),
    Way("centred, trained normalised", "cifar10-centre", "cifar10", "none", "trained with deviations", OTHER),
    Way("centring missing", "none", "cifar10-centre", "none", "centring (cifar10) is missing", CENTRED),
    Way("nothing wrong", "cifar10", "cifar10", "none", "", ""),
)


class Opaque(nn.Module):
    """A function behind which nothing is seen."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x)


def smaller(data: Arrays) -> Arrays:
    """The patches at half their resolution, shape (3, 16, 16)."""
    return Arrays(nn.functional.avg_pool2d(torch.from_numpy(data.x), 2).numpy(), data.y)


def network(kind: int) -> nn.Module:
    """Convolutions, without and with batch normalisation, a perceptron, or group normalisation."""
    head = (nn.Flatten(), nn.Linear(512, 6))
    match kind:
        case 0:
            return nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU(), *head)
        case 1:
            first = (nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU())
            return nn.Sequential(*first, nn.Conv2d(16, 32, 3, 2, 1), nn.BatchNorm2d(32), nn.ReLU(), *head)
        case 2:
            return nn.Sequential(nn.Flatten(), nn.Linear(768, 128), nn.Tanh(), nn.Linear(128, 6))
    first = (nn.Conv2d(3, 16, 3, 2, 1), nn.GroupNorm(4, 16), nn.ReLU())
    return nn.Sequential(*first, nn.Conv2d(16, 32, 3, 2, 1), nn.GELU(), *head)


def trained(number: int, data: Arrays) -> tuple[nn.Module, float]:
    """A network that normalises, with the noise that it is looked at with: that of its training, if there was any."""
    sigma = SIGMAS[number // 4 % len(SIGMAS)]
    with torch.random.fork_rng():
        torch.manual_seed(number)
        model = nn.Sequential(Normalise(*NAMES["cifar10"]), network(number % 4))
    return fit(model, data, sigma, 3 + number % 3), sigma or SIGMAS[1]


def change(name: str, x: torch.Tensor) -> torch.Tensor:
    """Inputs as they are after a normalisation."""
    return Normalise(*NAMES[name])(x)


def undo(name: str, x: torch.Tensor) -> torch.Tensor:
    layer = Normalise(*NAMES[name])
    return x * layer.sds + layer.means


def spoilt(model: nn.Module, way: Way, behind: bool) -> nn.Module:
    """What a net that was trained with one normalisation does behind another."""
    if behind:
        return nn.Sequential(Normalise(*NAMES[way.given]), Opaque(lambda x: model(undo(way.trained, x)))).eval()
    return Opaque(lambda x: model(undo(way.trained, change(way.given, x)))).eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=int, default=50)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--verbose", action="store_true")
    arguments = parser.parse_args()
    data = patches()
    train, test = smaller(data.train[TEST:]), smaller(data.train[:TEST])
    columns = ("right", "wrong", "silent, costly", "silent, harmless")
    counts = {(way.what, behind): dict.fromkeys(columns, 0) for way in WAYS for behind in (False, True)}
    for number in range(arguments.first, arguments.first + arguments.models):
        model, sigma = trained(number, train)
        truth = preflight(model, test, sigma, data.num_classes, 256)
        for way in WAYS:
            x = change(way.inputs, torch.from_numpy(test.x)).numpy()
            scale = float(np.std(x) / np.std(test.x))
            for behind in (False, True):
                report = preflight(spoilt(model, way, behind), Arrays(x, test.y), scale * sigma, data.num_classes, 256)
                named = [warning for warning in report.warnings if "as it is" in warning]
                said = way.said_behind if behind else way.said
                harmless = report.clean + report.noisy > truth.clean + truth.noisy - 0.2
                right = bool(named and said and said in named[0]) or (not said and not named)
                column = "right" if right else "wrong" if named else f"silent, {'harmless' if harmless else 'costly'}"
                counts[way.what, behind][column] += 1
                if arguments.verbose and not right:
                    print(number, sigma, way.what, behind, f"{truth.clean:.0%} {truth.noisy:.0%}", report, named)
        if arguments.verbose:
            print(number, {" behind a layer" * behind + what: list(n.values()) for (what, behind), n in counts.items()}, flush=True)
    title = f"{arguments.models} networks from number {arguments.first}"
    out = Table("spoilt by", *(f"{as_}: {column}" for as_ in ("function", "layer") for column in columns), title=title)
    for way in WAYS:
        out.add_row(way.what, *(str(counts[way.what, behind][column]) for behind in (False, True) for column in columns))
    Console(width=160).print(out)


if __name__ == "__main__":
    with one_thread():
        main()
