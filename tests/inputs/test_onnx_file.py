"""Files as exporters write them, made with the package `onnx`: opened like any model, or refused in one line."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from certlut import Certifier, Table
from certlut.inputs.models import load_model
from certlut.sampling.identity import file_digest

RNG = np.random.default_rng(0)
WEIGHT, BIAS = RNG.normal(size=(3, 6)), RNG.normal(size=3)


def linear() -> torch.nn.Linear:
    net = torch.nn.Linear(6, 3)
    with torch.no_grad():
        net.weight.copy_(torch.from_numpy(WEIGHT))
        net.bias.copy_(torch.from_numpy(BIAS))
    return net.eval()


def save(path: Path, batch: str | int = "batch", kind: int = TensorProto.FLOAT, inputs: int = 1, outputs: int = 1) -> str:
    """x W^T + b as an ONNX file."""
    number = helper.tensor_dtype_to_np_dtype(kind)
    graph = helper.make_graph(
        [
            helper.make_node("Gemm", ["x0", "w", "b"], ["y0"], transB=1),
            *(helper.make_node("Relu", ["y0"], ["y1"]),) * (outputs - 1),
        ],
        "linear",
        [helper.make_tensor_value_info(f"x{i}", kind, [batch, 6]) for i in range(inputs)],
        [helper.make_tensor_value_info(f"y{i}", kind, [batch, 3]) for i in range(outputs)],
        [numpy_helper.from_array(WEIGHT.astype(number), "w"), numpy_helper.from_array(BIAS.astype(number), "b")],
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), path)
    return str(path)


@pytest.mark.parametrize(
    ("kind", "number"),
    [(TensorProto.FLOAT, torch.float32), (TensorProto.DOUBLE, torch.float64), (TensorProto.FLOAT16, torch.float16)],
)
def test_the_scores_are_the_networks_for_any_batch_and_type(kind: int, number: torch.dtype, tmp_path: Path) -> None:
    model, x = load_model(save(tmp_path / "net.onnx", kind=kind)), torch.randn(7, 6, generator=torch.Generator().manual_seed(0))
    for size in (1, 2, 7):
        with torch.no_grad():
            y = model(x[:size].to(number))
            expected = linear()(x[:size])
        assert y.dtype == number
        assert torch.allclose(y.float(), expected, atol=0.02 if number == torch.float16 else 1e-6)


def test_it_is_certified_like_the_network_itself(tmp_path: Path, shipped: Table) -> None:
    x = np.linspace(-1.0, 1.0, 6, dtype=np.float32)
    expected = Certifier(linear(), 0.25, 3, shipped, seed=1, proposal="votes").certify(x, n=2500, batch_size=1000)
    path = save(tmp_path / "net.onnx")
    # An ONNX file has no gradient to propose a direction.
    c = Certifier(load_model(path), 0.25, 3, shipped, seed=1).certify(x, n=2500, batch_size=1000)
    assert expected.prediction >= 0
    assert (c.prediction, c.count, c.counts.tolist()) == (expected.prediction, expected.count, expected.counts.tolist())
    assert c.radius == pytest.approx(expected.radius, rel=1e-4)
    assert file_digest(path)


def test_a_layer_can_stand_in_front(tmp_path: Path) -> None:
    model, x = load_model(save(tmp_path / "net.onnx"), normalise="half"), torch.rand(4, 6)
    with torch.no_grad():
        assert torch.allclose(model(x), linear()((x - 0.5) / 0.5), atol=1e-5)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda p: save(p, batch=4), r"exported for batches of 4 alone; export it with a free batch size \(dynamic_shapes\)"),
        (lambda p: save(p, inputs=2), r"takes x0 tensor\(float\), x1 tensor\(float\) and gives 1 outputs; expected one input"),
        (lambda p: save(p, outputs=2), r"gives 2 outputs; expected one input of real numbers, one output"),
        (lambda p: p.write_text("no model"), r"not an ONNX file, or damaged \("),
        (lambda p: p.write_bytes(b""), r"not an ONNX file, or damaged \("),
        (lambda p: p.write_bytes(Path(save(p)).read_bytes()[:-40]), r"not an ONNX file, or damaged \("),
    ],
    ids=["fixed batch", "two inputs", "two outputs", "text", "empty", "truncated"],
)
def test_what_it_cannot_be_is_said_in_one_line(write: Callable[[Path], object], message: str, tmp_path: Path) -> None:
    write(tmp_path / "net.onnx")
    with pytest.raises(ValueError, match=rf"net\.onnx: [^\n]*{message}[^\n]*$"):
        load_model(str(tmp_path / "net.onnx"))


def test_a_device_that_onnxruntime_lacks_is_said(tmp_path: Path) -> None:
    path = save(tmp_path / "net.onnx")
    for device in ("cuda", "mps"):
        with pytest.raises(ValueError, match=rf"does not run on device '{device}'; expected cpu \(onnxruntime-gpu"):
            load_model(path, device)


def test_without_onnxruntime_one_line_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "net.onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ImportError, match=r"net\.onnx: ONNX models need onnxruntime: pip install 'certlut\[onnx\]'$"):
        load_model(path)


def test_an_input_of_another_shape_is_told_the_shape(tmp_path: Path, shipped: Table) -> None:
    certifier = Certifier(load_model(save(tmp_path / "net.onnx")), 0.25, 3, shipped, seed=1)
    with pytest.raises(ValueError, match=r"the model takes inputs of shape \(6,\): give them flat"):
        certifier.certify(np.zeros((2, 3), dtype=np.float32), n=2500)
