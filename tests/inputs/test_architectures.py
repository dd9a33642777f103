"""The networks against their public description: key names, sizes, and a forward pass written out from the weights alone."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from certlut import Certifier, Table
from certlut.inputs.architectures import Normalise, cifar_resnet, from_checkpoint, resnet50
from certlut.inputs.models import load_model

Weights = Mapping[str, torch.Tensor]

CIFAR = (torch.tensor([0.4914, 0.4822, 0.4465]), torch.tensor([0.2023, 0.1994, 0.2010]))
IMAGENET = (torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225]))


def draw(net: torch.nn.Module, seed: int = 0) -> dict[str, torch.Tensor]:
    """Weights for every key, and batch statistics that matter."""
    generator = torch.Generator().manual_seed(seed)
    out = {}
    for key, weight in net.state_dict().items():
        if key.endswith("num_batches_tracked"):
            out[key] = torch.tensor(7)
        elif weight.ndim > 1:
            out[key] = torch.randn(weight.shape, generator=generator) * (2.0 / weight[0].numel()) ** 0.5
        elif "bn" in key or "downsample" in key:
            out[key] = torch.rand(weight.shape, generator=generator) * 0.5 + 0.25
        else:
            out[key] = torch.randn(weight.shape, generator=generator)
    return out


def naive(w: Weights, x: torch.Tensor, stages: int, imagenet: bool) -> torch.Tensor:
    """The scores, read off the weights: functional calls only, blocks found by their key names."""

    def bn(x: torch.Tensor, name: str) -> torch.Tensor:
        return F.batch_norm(x, *(w[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")))

    mean, sd = IMAGENET if imagenet else CIFAR
    x = ((x.permute(0, 2, 3, 1) - mean) / sd).permute(0, 3, 1, 2)
    x = F.conv2d(x, w["conv1.weight"], stride=2 if imagenet else 1, padding=3 if imagenet else 1)
    x = F.relu(bn(x, "bn1"))
    if imagenet:
        x = F.max_pool2d(x, 3, 2, 1)
    for stage in range(1, stages + 1):
        block = 0
        while f"layer{stage}.{block}.conv1.weight" in w:
            name, stride, y = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1, x
            if imagenet:
                y = F.relu(bn(F.conv2d(y, w[f"{name}.conv1.weight"]), f"{name}.bn1"))
                y = F.relu(bn(F.conv2d(y, w[f"{name}.conv2.weight"], stride=stride, padding=1), f"{name}.bn2"))
                y = bn(F.conv2d(y, w[f"{name}.conv3.weight"]), f"{name}.bn3")
            else:
                y = F.relu(bn(F.conv2d(y, w[f"{name}.conv1.weight"], stride=stride, padding=1), f"{name}.bn1"))
                y = bn(F.conv2d(y, w[f"{name}.conv2.weight"], padding=1), f"{name}.bn2")
            if f"{name}.downsample.0.weight" in w:
                x = bn(F.conv2d(x, w[f"{name}.downsample.0.weight"], stride=stride), f"{name}.downsample.1")
            x = F.relu(x + y)
            block += 1
    x = F.avg_pool2d(x, x.shape[-1]).flatten(1)
    return F.linear(x, w["fc.weight"], w["fc.bias"])


def close(a: torch.Tensor, b: torch.Tensor) -> bool:
    return bool((a - b).abs().max() <= 1e-4 * b.abs().max())


# The numbers of weights are those published; a convolution brings one key, its normalisation five, the last layer two.
@pytest.mark.parametrize(
    ("net", "weights", "keys", "names"),
    [
        (
            cifar_resnet(20),
            272_474,
            128,
            ("layer1.2.bn2.running_var", "layer2.0.downsample.0.weight", "layer3.0.downsample.1.bias"),
        ),
        (cifar_resnet(110), 1_730_714, 668, ("layer1.17.conv2.weight", "layer3.17.bn1.num_batches_tracked")),
        (resnet50(), 25_557_032, 320, ("layer1.0.downsample.0.weight", "layer3.5.conv3.weight", "layer4.2.bn3.bias", "fc.bias")),
    ],
    ids=["cifar_resnet20", "cifar_resnet110", "resnet50"],
)
def test_sizes_and_key_names_are_the_published_ones(net: torch.nn.Module, weights: int, keys: int, names: tuple[str, ...]) -> None:
    assert sum(p.numel() for p in net.parameters()) == weights
    state = net.state_dict()
    assert len(state) == keys
    assert set(names) < state.keys()


@pytest.mark.parametrize("depth", [20, 110])
def test_a_cifar_resnet_computes_what_its_weights_say(depth: int) -> None:
    weights = draw(cifar_resnet(depth))
    x = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    expected = naive(weights, x, stages=3, imagenet=False)
    with torch.no_grad():
        scores = from_checkpoint(f"cifar_resnet{depth}", weights)(x)
    assert scores.shape == (3, 10)
    assert expected.std(dim=0).min() > 0
    assert close(scores, expected)


def test_resnet50_computes_what_its_weights_say() -> None:
    weights = draw(resnet50())
    x = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        scores = from_checkpoint("resnet50", weights)(x)
    assert scores.shape == (2, 1000)
    assert close(scores, naive(weights, x, stages=4, imagenet=True))


@pytest.mark.parametrize(
    "prefix",
    ["", "module.", "1.", "1.module.", "module.1.", "module.1.module.", "_orig_mod.", "module._orig_mod.1.", "_orig_mod.1.module."],
)
def test_every_wrapping_of_the_keys_gives_the_same_network(prefix: str) -> None:
    weights = draw(cifar_resnet(8))
    x = torch.rand(2, 3, 32, 32)
    model = from_checkpoint("cifar_resnet8", {prefix + key: weight for key, weight in weights.items()})
    assert not model.training
    with torch.no_grad():
        assert torch.equal(model(x), from_checkpoint("cifar_resnet8", weights)(x))


def test_a_stored_normalisation_is_used() -> None:
    weights = {f"1.{key}": weight for key, weight in draw(cifar_resnet(8)).items()}
    stored = {"0.means": torch.tensor([0.1, 0.2, 0.3]), "0.sds": torch.tensor([0.5, 0.6, 0.7])}
    model = from_checkpoint("cifar_resnet8", weights | stored)
    x = torch.full((1, 3, 2, 2), 0.6)
    assert torch.allclose(model[0](x)[0, :, 0, 0], torch.tensor([1.0, 4 / 6, 3 / 7]))
    assert not torch.allclose(model[0](x), from_checkpoint("cifar_resnet8", weights)[0](x))


def test_means_alone_centre_and_deviations_alone_scale() -> None:
    # Adversarially trained smoothing models are centred only.
    weights = {f"module.1.{key}": weight for key, weight in draw(cifar_resnet(8)).items()}
    means, sds = torch.tensor([0.4914, 0.4822, 0.4465]).reshape(1, 3, 1, 1), torch.tensor([0.5, 0.6, 0.7])
    x = torch.rand(2, 3, 4, 4)
    assert torch.allclose(from_checkpoint("cifar_resnet8", weights | {"module.0.means": means})[0](x), x - means)
    assert torch.allclose(from_checkpoint("cifar_resnet8", weights | {"module.0.sds": sds})[0](x), x / sds[:, None, None])
    with pytest.raises(ValueError, match=r"normalisation .*: expected finite means and positive deviations"):
        from_checkpoint("cifar_resnet8", weights | {"module.0.sds": torch.zeros(3)})


def test_normalise_is_of_each_channel() -> None:
    x = torch.tensor([1.0, 2.0, 3.0]).reshape(1, 3, 1, 1).expand(2, 3, 4, 5)
    y = Normalise((1.0, 1.0, 1.0), (1.0, 2.0, 4.0))(x)
    assert y.shape == x.shape
    assert y[1, :, 2, 3].tolist() == [0.0, 0.5, 0.5]


def test_old_files_without_batch_counters_and_half_precision_are_read() -> None:
    weights = draw(cifar_resnet(8))
    old = {key: weight for key, weight in weights.items() if not key.endswith("num_batches_tracked")}
    half = {key: weight.half() for key, weight in old.items()}
    x = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        expected = from_checkpoint("cifar_resnet8", weights)(x)
        assert torch.equal(from_checkpoint("cifar_resnet8", old)(x), expected)
        scores = from_checkpoint("cifar_resnet8", half)(x)
    assert scores.dtype == torch.float32
    assert (scores - expected).abs().max() < 0.02 * expected.abs().max()


def test_what_does_not_fit_is_named() -> None:
    weights = draw(cifar_resnet(8))
    lacking = {key: weight for key, weight in weights.items() if not key.startswith("fc.")}
    with pytest.raises(ValueError, match=r"2 missing \(fc\.weight, fc\.bias\), of 56 weights expected"):
        from_checkpoint("cifar_resnet8", lacking)
    with pytest.raises(ValueError, match=r"2 missing .* and 1 unexpected \(head\)"):
        from_checkpoint("cifar_resnet8", lacking | {"head": torch.zeros(3)})
    with pytest.raises(ValueError, match=r"fc\.bias has shape \(100,\), expected \(10,\) for cifar_resnet8"):
        from_checkpoint("cifar_resnet8", weights | {"fc.bias": torch.zeros(100)})
    with pytest.raises(ValueError, match=r"bn1\.weight holds NaN or infinity"):
        from_checkpoint("cifar_resnet8", weights | {"bn1.weight": torch.full((16,), torch.nan)})


@pytest.mark.parametrize(
    ("arch", "prefix", "side", "classes"),
    [("cifar_resnet20", "1.", 32, 10), ("cifar_resnet110", "1.", 32, 10), ("resnet50", "1.module.", 48, 1000)],
    ids=["cifar_resnet20", "cifar_resnet110", "resnet50"],
)
def test_a_checkpoint_is_loaded_and_certified(
    arch: str, prefix: str, side: int, classes: int, tmp_path: Path, shipped: Table
) -> None:
    weights = draw(resnet50() if arch == "resnet50" else cifar_resnet(int(arch[12:])))
    x = np.random.default_rng(0).random((3, side, side), dtype=np.float32)
    clean = naive(weights, torch.from_numpy(x)[None], 4 if arch == "resnet50" else 3, arch == "resnet50")[0]
    # So far ahead that noise cannot change it: the class and its radius are then known.
    weights["fc.bias"][5] += float(clean.abs().max()) * 100
    torch.save({"arch": arch, "state_dict": {prefix + k: w for k, w in weights.items()}}, tmp_path / "checkpoint.pth.tar")
    model = load_model(str(tmp_path / "checkpoint.pth.tar"))
    c = Certifier(model, 0.25, classes, shipped, seed=0).certify(x, n0=4, n=24, batch_size=12)
    assert (c.prediction, c.count) == (5, 24)
    # Cohen's radius of a unanimous vote.
    q = 0.001 ** (1 / 24)
    assert c.radius["cohen"] == pytest.approx(0.25 * float(torch.special.ndtri(torch.tensor(q, dtype=torch.float64))), rel=1e-6)
