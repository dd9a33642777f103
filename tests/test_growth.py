import numpy as np
import torch

from runtime import Certifier, Table
from runtime.config import Config, Growth
from runtime.growth import DIMENSIONS, QS, constructed_curves, network_curve


def test_constructed_curves_grow_with_n_towards_the_exact_gain(shipped: Table) -> None:
    curves = constructed_curves(shipped, 0.001, ("paper",), seed=1, sizes=(3000, 100_000))
    assert [c.label for c in curves] == [f"corner, q = {q:g}, d = {d}" for d in DIMENSIONS for q in QS]
    for curve in curves:
        assert set(curve.gain) == set(curve.limit) == {"l1", "l2", "linf"}
        for threat, by in curve.gain.items():
            assert by["paper"][0] <= by["paper"][1] + 0.1
            assert by["paper"][1] < curve.limit[threat]
    large = curves[DIMENSIONS.index(3072) * len(QS)]
    assert large.gain["l1"]["paper"][1] > 20.0
    assert large.limit["l1"] > 45.0


def test_one_seed_gives_one_curve(shipped: Table) -> None:
    a, b = (constructed_curves(shipped, 0.01, ("paper",), seed, (2000,)) for seed in (1, 1))
    assert a == b
    assert a != constructed_curves(shipped, 0.01, ("paper",), 2, (2000,))


def test_a_networks_curve_samples_each_n_from_one_growing_sample(shipped: Table) -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(6, 2))
    certifier = Certifier(model, 0.5, 2, shipped, seed=4)
    data = [(np.full((2, 3), 0.2 * i, dtype=np.float32), 0) for i in range(3)]
    card = Config("t", "own", 3, n0=50, growth=Growth(0.5, 2, (1000, 4000)))
    curve = network_curve(certifier, card, data, ("paper",))
    assert curve.label == "network, d = 6, first 2 inputs"
    assert (curve.n, curve.limit) == ((1000, 4000), {})
    assert all(len(by["paper"]) == 2 for by in curve.gain.values())
    # The same noise: at n = 1000 it is what a run that stops there finds.
    card = Config("t", "own", 3, n0=50, growth=Growth(0.5, 2, (1000,)))
    first = network_curve(certifier, card, data, ("paper",))
    assert all(by["paper"][:1] == curve.gain[threat]["paper"][:1] for threat, by in first.gain.items())
