import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch

from certlut.sampling.card import SHARPNESS
from certlut.sampling.memory import BatchSize
from certlut.sampling.proposal import PILOT, PROPOSAL, VOTES, Source, batch_rows, propose
from certlut.sampling.scores import Model
from certlut.sampling.streams import FIRST, SECOND, SELECTION
from reference.naive_noise import naive_noise

CPU = torch.device("cpu")
SIGMA, D = 0.5, 12
X = torch.linspace(-0.3, 0.4, D).reshape(3, 4)


class Network(torch.nn.Module):
    """Curved, with three classes; X is in class 0 nine times of ten."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.first = torch.nn.Linear(D, 16)
        self.second = torch.nn.Linear(16, 3)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) / math.sqrt(parameter.shape[-1]))
            self.second.bias.copy_(torch.tensor([0.8, 0.0, -0.2]))
        self.to(dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.second(torch.tanh(2.0 * self.first(x.flatten(1))))
        return out


def source(model: Model, dtype: torch.dtype = torch.float32, classes: int = 3, seed: int = 5) -> Source:
    return Source(model, classes, SIGMA, seed, CPU, dtype)


def proposed(model: Model, mode: str = "gradient", **changed: Any) -> Any:
    own = {"index": 2, "n": 400, "rows": 100, "dtype": torch.float32, "label": 0, "seed": 5, "x": X} | changed
    size = BatchSize(own["rows"])
    return propose(source(model, own["dtype"], seed=own["seed"]), own["x"], own["label"], own["index"], size, mode, own["n"])


def copies(n: int, seed: int = 5, index: int = 2) -> torch.Tensor:
    """x + sigma u."""
    return X.double() + SIGMA * torch.from_numpy(naive_noise(seed, index, PROPOSAL, n, D)).reshape(n, 3, 4)


def test_w_is_the_normalised_gradient_of_the_softened_vote() -> None:
    model = Network(torch.float64)
    margins, gradients = [], []
    for row in copies(400):
        leaf = row.clone().requires_grad_()
        scores = model(leaf[None])[0]
        margin = scores[1] - max(scores[0], scores[2])
        margins.append(margin.item())
        gradients.append(torch.autograd.grad(margin, leaf)[0].reshape(-1).numpy())
    temperature = 0.3 * np.std(margins[:100])
    weights = 1.0 / (2.0 + 2.0 * np.cosh(np.array(margins) / temperature))
    w = weights @ np.array(gradients)
    # The copies are rounded to float32.
    one = proposed(model, dtype=torch.float64, label=1)
    assert one.w.numpy() == pytest.approx(w / np.linalg.norm(w), abs=1e-6)
    assert one.temperature == pytest.approx(temperature, rel=1e-6)
    assert (one.how, one.n, one.against) == ("gradient", 400, sum(m <= 0.0 for m in margins))
    assert (PILOT, SHARPNESS) == (100, 0.3)


def test_w_is_of_unit_length_in_float64() -> None:
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        w = proposed(Network(dtype), dtype=dtype).w
        assert w.dtype == torch.float64
        assert w.shape == (D,)
        assert abs(float(w.norm()) - 1.0) < 1e-15


def test_two_linear_classes_are_told_apart_by_their_plane() -> None:
    a = torch.arange(1.0, D + 1.0)
    w = proposed(lambda x: torch.stack((x.flatten(1) @ a, 0.5 * x.flatten(1) @ a + 1.0, torch.full((len(x),), -9.0)), dim=1)).w
    assert w.numpy() == pytest.approx((a / a.norm()).numpy(), abs=1e-6)


def test_w_points_along_the_gradient_of_the_votes() -> None:
    model, rng = Network(), np.random.default_rng(0)
    u = torch.from_numpy(rng.standard_normal((200_000, D)))
    with torch.inference_mode():
        f = (model((X.reshape(1, D) + SIGMA * u).float()).argmax(dim=1) == 0).double()
    y = (u * (f - f.mean())[:, None]).mean(dim=0)
    assert 0.8 < float(f.mean()) < 0.97
    assert float(proposed(model, n=1000).w @ y) > 0.98 * float(y.norm())


def test_the_same_key_proposes_the_same_whatever_the_batches_are() -> None:
    model = Network()
    one = proposed(model)
    assert torch.equal(one.w, proposed(model).w)
    for rows in (1, 7, 400):
        assert torch.allclose(one.w, proposed(model, rows=rows).w, atol=1e-6)
    for other in ({"index": 3}, {"seed": 6}, {"label": 1}):
        assert not torch.allclose(one.w, proposed(model, **other).w, atol=1e-3)
    assert PROPOSAL not in (SELECTION, FIRST, SECOND)
    assert [batch_rows(d) for d in (64, 3072, 150_528, 10**8)] == [256, 256, 27, 1]


def test_the_model_is_left_as_it_was() -> None:
    model = torch.nn.Sequential(Network(), torch.nn.BatchNorm1d(3), torch.nn.Dropout(0.5)).eval()
    parameters = list(model.parameters())
    parameters[0].requires_grad_(False)
    parameters[1].grad = torch.ones_like(parameters[1])
    before = [x.clone() for x in (*parameters, *model.buffers())]
    modes = [module.training for module in model.modules()]
    state = torch.random.get_rng_state()
    proposed(model)
    assert [module.training for module in model.modules()] == modes
    assert [p.requires_grad for p in parameters] == [False, *[True] * (len(parameters) - 1)]
    assert [p.grad is None for p in parameters] == [True, False, *[True] * (len(parameters) - 2)]
    assert torch.equal(parameters[1].grad, torch.ones_like(parameters[1]))
    assert all(torch.equal(a, b) for a, b in zip(before, (*parameters, *model.buffers()), strict=True))
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_every_kind_of_model_proposes_the_same() -> None:
    model = Network().eval()
    example = torch.zeros(5, 3, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exported = torch.export.export(model, (example,), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},)).module()
        kinds = [torch.jit.trace(model, example), torch.jit.script(model), exported, lambda x: model(x)]
        for kind in kinds:
            assert torch.allclose(proposed(kind).w, proposed(model).w, atol=1e-5)


def test_what_surrounds_the_call_does_not_matter() -> None:
    model = Network()
    expected = proposed(model).w
    for context in (torch.inference_mode, torch.no_grad):
        with context():
            w = proposed(model, x=X * 1.0).w
            assert torch.is_grad_enabled() is False
        assert torch.equal(w, expected)


def test_a_model_that_changes_its_input_in_place_has_a_gradient() -> None:
    model = Network()
    assert torch.allclose(proposed(lambda x: model(x.sub_(0.1).mul_(2.0))).w, proposed(lambda x: model((x - 0.1) * 2.0)).w)


# Models without a gradient.


def _no_grad(x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return Network()(x)


def _inference(x: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return Network()(x)


def _numpy(x: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(np.asarray(x.numpy()).reshape(len(x), -1)[:, :3] * 1.0)


def _in_place(x: torch.Tensor) -> torch.Tensor:
    out = torch.sigmoid(Network()(x))
    out.mul_(2.0)
    return out


def _onehot(x: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.one_hot(Network()(x).argmax(dim=1), 3).float()


def _constant(x: torch.Tensor) -> torch.Tensor:
    return 0.0 * Network()(x)


def _nan_gradient(x: torch.Tensor) -> torch.Tensor:
    out = Network()(x)
    return out + torch.sqrt(0.0 * out)


def _forgetful(x: torch.Tensor) -> torch.Tensor:
    return Network()(x.detach())


def _overflow(x: torch.Tensor) -> torch.Tensor:
    """In half precision the gradient is infinite on its way back."""
    return Network()(1e6 * (1e-6 * x.half()).float())


class Stubborn(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError("no way\nback")


def _stubborn(x: torch.Tensor) -> torch.Tensor:
    return Stubborn.apply(Network()(x))  # type: ignore[no-any-return, no-untyped-call]


NONE = {
    _no_grad: "carry no gradient",
    _inference: "carry no gradient",
    _numpy: "Can't call numpy",
    _in_place: "modified by an inplace operation",
    _onehot: "carry no gradient",
    _constant: "deviation 0",
    _nan_gradient: "length is nan",
    _overflow: "length is (inf|nan)",
    _forgetful: "do not depend on the input",
    _stubborn: "no way",
}


@pytest.mark.parametrize("model", NONE, ids=lambda model: model.__name__)
def test_a_model_without_a_gradient_falls_back_or_says_so_in_a_line(model: Model) -> None:
    assert proposed(model, "auto") is VOTES
    with pytest.raises(ValueError, match=NONE[model]) as caught:
        proposed(model, "gradient")
    message = str(caught.value)
    assert message.startswith("proposal = 'gradient': the model gives none (")
    assert "\n" not in message


def test_half_precision_proposes_where_hardly_a_copy_votes_against() -> None:
    plain, half = Network(), Network(torch.float16)
    with torch.no_grad():
        for model in (plain, half):
            model.second.bias[0] = 6.0
    one = proposed(half, dtype=torch.float16)
    assert one.against == 0
    assert float(one.w @ proposed(plain).w) > 0.99


def test_a_vote_that_is_unanimous_by_far_has_a_gradient_too() -> None:
    plain, far = Network(torch.float64), Network(torch.float64)
    with torch.no_grad():
        far.second.bias[0] = 1e4
    one = proposed(far, dtype=torch.float64)
    assert (one.how, one.against) == ("gradient", 0)
    assert float(one.w @ proposed(plain, dtype=torch.float64).w) > 0.3


def test_a_model_whose_gradient_lies_proposes_what_it_says() -> None:
    net = Network()

    def straight_through(x: torch.Tensor) -> torch.Tensor:
        said = x.flatten(1)[:, :3]
        return net(x).detach() + said - said.detach()

    one = proposed(straight_through)
    assert one.how == "gradient"
    assert one.against == proposed(net).against
    assert float(one.w[3:].norm()) == 0.0


def test_votes_and_one_copy() -> None:
    def never(x: torch.Tensor) -> torch.Tensor:
        raise AssertionError("called")

    assert proposed(never, "votes") is VOTES
    one = proposed(Network(), n=1)
    assert (one.how, one.n, one.temperature) == ("gradient", 1, 1.0)


def test_arguments_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="proposal = 'best': expected one of auto, gradient, votes"):
        proposed(Network(), "best")
    with pytest.raises(ValueError, match="n = 0 copies: expected 1 or more"):
        proposed(Network(), n=0)


class Cramped(Network):
    """Out of memory for more rows than `room`, or for any with a gradient."""

    def __init__(self, room: int, forward_only: bool = False) -> None:
        super().__init__()
        self.room, self.forward_only, self.sizes = room, forward_only, list[int]()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if len(x) > self.room or (self.forward_only and torch.is_grad_enabled()):
            raise torch.OutOfMemoryError("out of memory")
        self.sizes.append(len(x))
        return super().forward(x)


def test_batches_are_halved_where_memory_runs_out_and_stay_so() -> None:
    model, size = Cramped(30), BatchSize(200)
    with pytest.warns(RuntimeWarning, match="out of memory: batches of"):
        one = propose(source(model), X, 0, 2, size, "gradient", 400)
    assert size.rows == 25
    assert torch.allclose(one.w, proposed(Network()).w, atol=1e-6)
    assert sum(model.sizes) == PILOT + 400
    model.sizes.clear()
    propose(source(model), X, 0, 3, size, "gradient", 400)
    assert set(model.sizes) == {25}


@pytest.mark.filterwarnings("ignore:out of memory:RuntimeWarning")
def test_votes_serve_where_not_even_one_copy_fits() -> None:
    assert proposed(Cramped(1, forward_only=True), "auto") is VOTES
    with pytest.raises(ValueError, match="out of memory with a single copy"):
        proposed(Cramped(1, forward_only=True), "gradient")
