"""The layer in front of a model: by name and by numbers, in place of a checkpoint's."""

from pathlib import Path

import pytest
import torch
from torch import nn

from certlut.inputs.architectures import cifar_resnet
from certlut.inputs.models import load_model
from certlut.inputs.normalise import NAMES, Normalise, own_layer, parse, put_in_front, spelt
from certlut.sampling.card import Sampling
from certlut.sampling.sampler import Sampler

X = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def test_names_are_what_they_say() -> None:
    assert torch.equal(parse("none")(X), X)
    assert torch.allclose(parse("0-255")(X), 255.0 * X)
    assert torch.allclose(parse("half")(X), 2.0 * X - 1.0, atol=1e-6)
    means, sds = torch.tensor([0.4914, 0.4822, 0.4465])[:, None, None], torch.tensor([0.2023, 0.1994, 0.2010])[:, None, None]
    assert torch.allclose(parse("cifar10")(X), (X - means) / sds)
    assert torch.allclose(parse("cifar10-centre")(X), X - means)
    assert torch.allclose(parse("0.1,0.2,0.3/2")(X), (X - torch.tensor([0.1, 0.2, 0.3])[:, None, None]) / 2.0)
    # One number for inputs of any shape.
    assert torch.allclose(parse("mnist")(X[0, 0]), (X[0, 0] - 0.1307) / 0.3081)


def test_a_layer_is_spelt_as_it_can_be_given() -> None:
    for name in NAMES:
        assert spelt(*parse(name).buffers()) == name
    layer = parse("-2.4291,-2.4183,-2.2214/4.9432,5.015,4.9751")
    text = spelt(layer.means, layer.sds)
    assert torch.allclose(parse(text)(X), layer(X), rtol=1e-4)
    assert text not in NAMES


@pytest.mark.parametrize("spec", ["", "cifar", "1", "a/b", "1/2/3", "1,2/1,2,3", "1,2,3/1,2"])
def test_what_is_no_layer_is_refused_with_what_is(spec: str) -> None:
    with pytest.raises(ValueError, match=rf"normalise = '{spec}': expected one of none, cifar10, .* or MEANS/DEVIATIONS as"):
        parse(spec)


@pytest.mark.parametrize("spec", ["0/0", "0/-1", "nan/1", "0,0,inf/1", "0/1,1,nan"])
def test_deviations_are_positive_and_all_is_finite(spec: str) -> None:
    with pytest.raises(ValueError, match="expected finite means and positive deviations"):
        parse(spec)


def test_it_replaces_ours_alone_and_keeps_the_models_numbers() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(192, 3)).double()
    with torch.no_grad():
        ours = put_in_front(net, parse("cifar10"))
        assert own_layer(ours) is ours[0]
        assert own_layer(net) is None
        x = X.double()
        assert ours(x).dtype == torch.float64
        assert torch.allclose(put_in_front(ours, parse("none"))(x), net(x))
        # Another's layer is not known, and stays.
        foreign = nn.Sequential(nn.Identity(), *net)
        assert torch.allclose(put_in_front(foreign, parse("half"))(x), net(2.0 * x - 1.0))


@pytest.mark.parametrize("name", ["net.pt2", "net.ts"])
@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_it_stands_in_front_of_programs_too(name: str, tmp_path: Path) -> None:
    net, path = nn.Sequential(nn.Flatten(), nn.Linear(192, 3)).eval(), tmp_path / name
    if name == "net.pt2":
        torch.export.save(torch.export.export(net, (X,), dynamic_shapes=({0: torch.export.Dim("batch")},)), path)
    else:
        torch.jit.trace(net, X).save(str(path))
    model = load_model(str(path), normalise="half")
    with torch.no_grad():
        assert torch.allclose(model(X), net(2.0 * X - 1.0), atol=1e-5)
    drawn = Sampler(model, 0.25, 3).sample(X[0], Sampling(n0=10, n=40, batch_size=20, seed=0))
    assert drawn.votes.sum() == 10


def test_a_checkpoint_is_opened_with_the_normalisation_that_the_user_chooses(tmp_path: Path) -> None:
    path, x = str(tmp_path / "c.pth"), torch.rand(2, 3, 32, 32)
    torch.save({"arch": "cifar_resnet8", "state_dict": cifar_resnet(8).state_dict()}, path)
    with torch.no_grad():
        net = load_model(path, normalise="none")
        assert torch.allclose(load_model(path)(x), net(Normalise(*NAMES["cifar10"])(x)), atol=1e-5)
        assert torch.allclose(load_model(path, normalise="cifar10-centre")(x), net(parse("cifar10-centre")(x)), atol=1e-5)
    with pytest.raises(ValueError, match="normalise = 'imagenet2': expected one of none"):
        load_model(path, normalise="imagenet2")
