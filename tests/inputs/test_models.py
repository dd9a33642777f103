import contextlib
import io
import json
import os
import re
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from certlut import Certifier, Table
from certlut.inputs.architectures import cifar_resnet
from certlut.inputs.models import load_model
from certlut.sampling.identity import file_digest

# torch deprecates TorchScript: it warns on saving, and on loading.
torchscript = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")


class Net(torch.nn.Module):
    """Six numbers in, three scores out; dropout shows whether it is in eval mode."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(6, 3)
        self.dropout = torch.nn.Dropout(0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.layer(self.dropout(x))
        return scores


@pytest.fixture
def net() -> Net:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Net().eval()


def _save_exported(net: Net, path: Path) -> str:
    batch = torch.export.Dim("batch")
    torch.export.save(torch.export.export(net, (torch.zeros(4, 6),), dynamic_shapes=({0: batch},)), path)
    return str(path)


def _save_torchscript(net: Net, path: Path) -> str:
    torch.jit.trace(net, torch.zeros(4, 6)).save(str(path))
    return str(path)


SAVERS = {"model.pt2": _save_exported, "model.pt": _save_torchscript}


@torchscript
@pytest.mark.parametrize("name", SAVERS)
def test_a_saved_model_gives_the_scores_of_the_model_for_any_batch_size(name: str, net: Net, tmp_path: Path) -> None:
    model = load_model(SAVERS[name](net, tmp_path / name))
    for size in (2, 7, 33):
        x = torch.randn(size, 6, generator=torch.Generator().manual_seed(size))
        with torch.no_grad():
            assert torch.allclose(model(x), net(x), atol=1e-6)


@torchscript
@pytest.mark.parametrize("name", SAVERS)
def test_a_saved_model_is_certified_like_the_model_itself(name: str, net: Net, tmp_path: Path, shipped: Table) -> None:
    x = np.linspace(-1.0, 1.0, 6, dtype=np.float32)
    expected = Certifier(net, 0.25, 3, shipped, seed=1).certify(x, n=2500, batch_size=1000)
    model = load_model(SAVERS[name](net, tmp_path / name))
    c = Certifier(model, 0.25, 3, shipped, seed=1).certify(x, n=2500, batch_size=1000)
    assert expected.prediction >= 0
    assert (c.prediction, c.count, c.counts.tolist()) == (expected.prediction, expected.count, expected.counts.tolist())
    assert c.radius == pytest.approx(expected.radius, rel=1e-4)


@torchscript
def test_a_torchscript_model_is_in_eval_mode(net: Net, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.jit.script(Net().train()).save(str(path))
    model = load_model(str(path))
    x = torch.ones(50, 6)
    with torch.no_grad():
        assert len(model(x).unique(dim=0)) == 1


# module:function


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], str]]:
    """Writes a module of the given text to a fresh current folder, and returns its name."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    names: list[str] = []

    def write(text: str) -> str:
        name = f"model_{len(names)}_of_{tmp_path.name}"
        names.append(name)
        (folder / f"{name}.py").write_text(text)
        return name

    yield write
    for name in names:
        sys.modules.pop(name, None)


NET = "import torch\n\ndef make():\n    return torch.nn.Sequential(torch.nn.Linear(6, 3), torch.nn.Dropout(0.5)).train()\n"


def test_a_function_in_the_current_folder_is_called_and_its_module_put_in_eval_mode(module: Callable[[str], str]) -> None:
    path = list(sys.path)
    model = load_model(f"{module(NET)}:make")
    assert isinstance(model, torch.nn.Module)
    assert not model.training
    assert model(torch.zeros(5, 6)).shape == (5, 3)
    assert sys.path == path


def test_a_class_serves_as_a_function(module: Callable[[str], str]) -> None:
    name = module("import torch\n\nclass Small(torch.nn.Linear):\n    def __init__(self):\n        super().__init__(6, 2)\n")
    assert load_model(f"{name}:Small")(torch.zeros(5, 6)).shape == (5, 2)


def test_the_import_path_is_put_back_after_a_failure_too(module: Callable[[str], str]) -> None:
    path = list(sys.path)
    with pytest.raises(ValueError, match=r":make: importing \w+ failed \(ZeroDivisionError: division by zero\)"):
        load_model(f"{module('1 / 0')}:make")
    assert sys.path == path


def test_what_is_wrong_with_a_function_is_said_by_name(module: Callable[[str], str]) -> None:
    name = module(NET + "\nnumber = 3\n\ndef other():\n    return [1]\n")
    with pytest.raises(FileNotFoundError, match=r"no_such_module_here:make: cannot import no_such_module_here \(No module named"):
        load_model("no_such_module_here:make")
    with pytest.raises(ValueError, match=f"{name}:absent: {name} has no function 'absent'"):
        load_model(f"{name}:absent")
    with pytest.raises(ValueError, match=f"{name}:number: {name} has no function 'number'"):
        load_model(f"{name}:number")
    with pytest.raises(ValueError, match=f"{name}:other: returned list, expected a torch.nn.Module"):
        load_model(f"{name}:other")
    name = module(NET + "\ndef broken():\n    return {}['weights']\n")
    with pytest.raises(ValueError, match=rf"{name}:broken: failed \(KeyError: 'weights'\)"):
        load_model(f"{name}:broken")


def test_a_function_of_a_file_anywhere_is_called_beside_its_neighbours(tmp_path: Path) -> None:
    folder = tmp_path / "some where"
    folder.mkdir()
    (folder / "sizes_of_mine.py").write_text("WIDTH = 6\n")
    (folder / "json.py").write_text(
        "import torch\n\ndef make():\n    import sizes_of_mine\n    return torch.nn.Linear(sizes_of_mine.WIDTH, 3)\n\n"
        "class Kept(torch.nn.Linear):\n    pass\n\nNET = Kept(6, 3).train()\n"
    )
    path, names = list(sys.path), {"sizes_of_mine"}
    try:
        assert load_model(f"{folder}/json.py:make")(torch.zeros(5, 6)).shape == (5, 3)
        # The name of the file hides no module, and a Module may stand there ready.
        assert "NET" not in dir(json)
        kept = load_model(f"{folder}/json.py:NET")
        assert isinstance(kept, torch.nn.Module)
        assert not kept.training
        assert kept(torch.zeros(5, 6)).shape == (5, 3)
    finally:
        for name in names:
            sys.modules.pop(name, None)
    assert sys.path == path
    assert file_digest(f"{folder}/json.py:make") == file_digest(f"{folder}/json.py") != ""
    with pytest.raises(ValueError, match=r"json\.py:absent: .*json\.py has no function 'absent'"):
        load_model(f"{folder}/json.py:absent")
    with pytest.raises(FileNotFoundError, match=r"absent\.py:make: no such file .*absent\.py"):
        load_model(f"{folder}/absent.py:make")


def test_a_function_that_imports_a_neighbour_when_it_is_called(module: Callable[[str], str]) -> None:
    neighbour = module("import torch\n\ndef build():\n    return torch.nn.Linear(6, 3)\n")
    name = module(f"def make():\n    import {neighbour}\n    return {neighbour}.build()\n")
    assert load_model(f"{name}:make")(torch.zeros(5, 6)).shape == (5, 3)


def test_a_module_that_stands_ready_is_taken_as_it_is(module: Callable[[str], str]) -> None:
    name = module("import torch\n\nNET = torch.nn.Sequential(torch.nn.Linear(6, 3), torch.nn.Dropout(0.5)).train()\n")
    model = load_model(f"{name}:NET")
    assert isinstance(model, torch.nn.Module)
    assert not model.training


# Files that will not do


@pytest.mark.parametrize("size", [1, 4])
def test_a_program_exported_for_one_size_of_batch_is_told_how_to_be_exported(size: int, net: Net, tmp_path: Path) -> None:
    path = tmp_path / "model.pt2"
    torch.export.save(torch.export.export(net, (torch.zeros(size, 6),)), path)
    message = rf"model\.pt2: exported for batches of {size} alone; export it with a free batch size, dynamic_shapes=\(\{{0: torch"
    with pytest.raises(ValueError, match=message):
        load_model(str(path))


def test_weights_alone_are_told_to_need_a_function(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"\x08\0\0\0\0\0\0\0{}      ")
    with pytest.raises(ValueError, match=r"model\.safetensors: weights alone do not say their network: write a function"):
        load_model(str(path))


def test_a_file_that_is_not_there_is_said_with_what_was_expected(tmp_path: Path) -> None:
    for name in ("none.pt2", "none.pt"):
        with pytest.raises(
            FileNotFoundError, match=r"none\.pt2?: no such model file \(expected a \.pt2, TorchScript or \.onnx file"
        ):
            load_model(str(tmp_path / name))


@torchscript
@pytest.mark.parametrize("name", ["model.pt2", "model.pt"])
@pytest.mark.parametrize("what", ["empty", "text", "truncated", "state dict", "tensor", "zip", "folder"])
def test_a_file_that_is_neither_kind_is_refused_by_name(what: str, name: str, net: Net, tmp_path: Path) -> None:
    path, elsewhere = tmp_path / name, tmp_path / "saved"
    elsewhere.mkdir()
    match what:
        case "empty":
            path.write_bytes(b"")
        case "text":
            path.write_text("not a model\n" * 100)
        case "truncated":
            whole = Path(SAVERS[name](net, elsewhere / name)).read_bytes()
            path.write_bytes(whole[: len(whole) // 2])
        case "state dict":
            torch.save(net.state_dict(), path)
        case "tensor":
            torch.save(torch.zeros(3), path)
        case "zip":
            with zipfile.ZipFile(path, "w") as file:
                file.writestr("x.npy", b"123")
        case "folder":
            path.mkdir()
    with pytest.raises(ValueError, match=rf"{name}: not a torch\.export \(\.pt2\), TorchScript or checkpoint file: [^\n]+$"):
        load_model(str(path))


@torchscript
def test_a_file_is_known_by_its_content_not_its_name(net: Net, tmp_path: Path) -> None:
    x = torch.ones(3, 6)
    for name, other in zip(SAVERS, reversed(SAVERS), strict=True):
        os.replace(SAVERS[name](net, tmp_path / name), tmp_path / f"other-{other}")
        model = load_model(str(tmp_path / f"other-{other}"))
        with torch.no_grad():
            assert torch.allclose(model(x), net(x), atol=1e-6)


def test_a_device_that_is_not_there_is_said_in_one_line(net: Net, tmp_path: Path) -> None:
    path = _save_exported(net, tmp_path / "model.pt2")
    for device in ("nowhere", "cuda:99"):
        with pytest.raises(ValueError, match=rf"model\.pt2: cannot be put on device '{device}' \([^\n]+\)$"):
            load_model(path, device)


class Constants(torch.nn.Module):
    """Normalises with tensors that are neither parameters nor buffers."""

    def __init__(self) -> None:
        super().__init__()
        self.mean, self.scale = torch.full((6,), 0.5), torch.tensor([2.0, 1.0, 1.0, 1.0, 1.0, 4.0])
        self.layer = torch.nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.layer((x - self.mean) / self.scale)
        return out


@torchscript
@pytest.mark.parametrize("name", SAVERS)
def test_the_constants_of_a_program_go_to_the_device_too(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Constants().eval()
    path = SAVERS[name](model, tmp_path / name)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="cannot be put on device 'meta'"):
        load_model(path, "meta")
    if name == "model.pt":
        loaded, plain = [], torch.jit.load

        def load(file: str, map_location: str) -> torch.nn.Module:
            loaded.append(map_location)
            return plain(file, "cpu")

        monkeypatch.setattr(torch.jit, "load", load)
        load_model(path, "cpu:0")
        assert loaded[-1] == "cpu:0"
        return
    # "meta" holds no numbers, but tells which tensors were left behind.
    monkeypatch.setattr(torch, "zeros", lambda *_, **__: torch.ones(1))
    with torch.no_grad():
        assert load_model(path, "meta")(torch.empty(4, 6, device="meta")).shape == (4, 3)


def test_a_device_without_float64_is_refused_in_one_line(net: Net, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def zeros(*_: object, **__: object) -> None:
        raise TypeError("Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64.")

    path = _save_exported(net, tmp_path / "model.pt2")
    monkeypatch.setattr(torch, "zeros", zeros)
    with pytest.raises(ValueError, match=r"cannot be put on device 'mps' \(Cannot convert a MPS Tensor to float64"):
        load_model(path, "mps")


# Checkpoints


def _save_checkpoint(path: Path, **changes: Any) -> str:
    """As the field's training script writes it."""
    weights = {f"1.{key}": weight for key, weight in cifar_resnet(8).state_dict().items()}
    content = {
        "epoch": 90,
        "arch": "cifar_resnet8",
        "state_dict": weights,
        "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]},
    }
    torch.save(content | changes, path)
    return str(path)


@pytest.mark.parametrize("new", [True, False], ids=["zip", "before torch 1.6"])
def test_a_checkpoint_gives_the_network_in_eval_mode(new: bool, tmp_path: Path) -> None:
    content = torch.load(_save_checkpoint(tmp_path / "new.tar"), weights_only=True)
    torch.save(content, tmp_path / "checkpoint.pth.tar", _use_new_zipfile_serialization=new)
    model = load_model(str(tmp_path / "checkpoint.pth.tar"))
    assert isinstance(model, torch.nn.Module)
    assert not model.training
    assert torch.equal(model.state_dict()["1.fc.weight"], content["state_dict"]["1.fc.weight"])
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arch": "vgg16"}, r"unknown arch 'vgg16', expected one of cifar_resnet20, .*resnet50"),
        ({"arch": None}, "unknown arch None"),
        ({"arch": "cifar_resnet9"}, r"cifar_resnet9: expected a depth 6n \+ 2"),
        ({"arch": "resnet50"}, r"state_dict does not fit resnet50: \d+ missing \(.*\), of 320 weights"),
        ({"state_dict": {}}, r"state_dict does not fit cifar_resnet8: \d+ missing \(conv1\.weight, bn1\.weight, \.\.\.\)"),
        ({"state_dict": [1]}, "state_dict is not a dictionary of tensors"),
    ],
    ids=["unknown", "none", "depth", "another", "empty", "list"],
)
def test_a_checkpoint_that_does_not_fit_is_refused_by_name(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = _save_checkpoint(tmp_path / "c.pth", **changes)
    with pytest.raises(ValueError, match=rf"c\.pth: {message}[^\n]*$"):
        load_model(path)


def test_a_dictionary_without_an_architecture_says_what_it_holds(tmp_path: Path) -> None:
    torch.save({"net": {}, "acc": 0.9}, tmp_path / "c.pth")
    with pytest.raises(ValueError, match=r"holds keys net, acc, expected a dictionary with arch and state_dict"):
        load_model(str(tmp_path / "c.pth"))


# Files that would run code


class Bomb:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("new", [True, False], ids=["zip", "before torch 1.6"])
def test_pickled_objects_in_a_checkpoint_run_only_with_trust(new: bool, tmp_path: Path) -> None:
    content = torch.load(_save_checkpoint(tmp_path / "c.pth"), weights_only=True) | {"args": Bomb(tmp_path / "run")}
    torch.save(content, tmp_path / "bomb.pth", _use_new_zipfile_serialization=new)
    with pytest.raises(ValueError, match=r"bomb\.pth: holds a pickled posix\.system, .* pass --trust \(trust=True\)[^\n]*$"):
        load_model(str(tmp_path / "bomb.pth"))
    assert not (tmp_path / "run").exists()
    load_model(str(tmp_path / "bomb.pth"), trust=True)
    assert (tmp_path / "run").exists()


def test_a_pickled_module_is_read_with_trust_only(net: Net, tmp_path: Path) -> None:
    path = str(tmp_path / "whole.pt")
    torch.save(net, path)
    with pytest.raises(ValueError, match=r"whole\.pt: holds a pickled \S+Net, .*--trust"):
        load_model(path)
    model = load_model(path, trust=True)
    assert torch.equal(model(torch.ones(2, 6)), net(torch.ones(2, 6)))


def _rewrite(path: Path, changes: dict[str, Callable[[bytes], bytes]]) -> None:
    """Change members of a zip file, by the end of their names."""
    with zipfile.ZipFile(path) as old:
        members = {name: old.read(name) for name in old.namelist()}
    with zipfile.ZipFile(path, "w") as new:
        for name, content in members.items():
            change = next((change for end, change in changes.items() if name.endswith(end)), bytes)
            new.writestr(name, change(content))


@pytest.mark.parametrize("what", ["inputs", "weights", "operator", "size", "guard", "guard of names"])
def test_code_in_an_exported_program_runs_only_with_trust(what: str, net: Net, tmp_path: Path) -> None:
    path = tmp_path / "model.pt2"
    _save_exported(net, path)
    bomb = io.BytesIO()
    torch.save(Bomb(tmp_path / "run"), bomb)
    match what:
        case "inputs":
            _rewrite(path, {"sample_inputs/model.pt": lambda _: bomb.getvalue()})
        case "weights":
            pickled = (b'"use_pickle": false', b'"use_pickle": true')
            _rewrite(path, {"weights_config.json": lambda c: c.replace(*pickled), "weight_0": lambda _: bomb.getvalue()})
        case "operator":
            _rewrite(path, {"models/model.json": lambda c: c.replace(b"torch.ops.aten.linear.default", b"torch.os.system")})
        case "size":
            code = f"__import__('os').system('touch {tmp_path}/run') or Integer(1)".encode()
            size = re.compile(rb'(?<="expr_str": ")[^"]*')
            _rewrite(path, {"models/model.json": lambda c: size.sub(code, c)})
        case "guard" | "guard of names":
            code = f"__import__('os').system('touch {tmp_path}/run') == 0" if what == "guard" else "L['x'].requires_grad_()"
            _rewrite(path, {"models/model.json": lambda c: c.replace(b'"guards_code": []', f'"guards_code": ["{code}"]'.encode())})
    with pytest.raises(ValueError, match=r"model\.pt2: [^\n]+$"):
        load_model(str(path))
    assert not (tmp_path / "run").exists()
    if what in ("inputs", "weights", "size"):
        with contextlib.suppress(ValueError):
            load_model(str(path), trust=True)
        assert (tmp_path / "run").exists()


class OnlyMany(torch.nn.Module):
    """Looks at the batch size: torch.export keeps the condition as Python."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2 if x.shape[0] > 3 else x


def test_a_condition_on_sizes_in_an_exported_program_needs_no_trust(tmp_path: Path) -> None:
    path = tmp_path / "many.pt2"
    torch.export.save(torch.export.export(OnlyMany(), (torch.zeros(5, 2),), dynamic_shapes=({0: torch.export.Dim.AUTO},)), path)
    assert b".size()[0] > 3" in zipfile.ZipFile(path).read("many/models/model.json")
    assert torch.equal(load_model(str(path))(torch.ones(7, 2)), torch.full((7, 2), 2.0))


def test_an_exported_convolution_with_two_free_sizes_needs_no_trust(tmp_path: Path) -> None:
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3, 2, 1), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(4, 2)
    )
    free = ({0: torch.export.Dim("batch"), 2: torch.export.Dim("height", min=4)},)
    torch.export.save(torch.export.export(net.eval(), (torch.zeros(4, 3, 8, 8),), dynamic_shapes=free), tmp_path / "conv.pt2")
    x = torch.ones(3, 3, 12, 8)
    with torch.no_grad():
        assert torch.allclose(load_model(str(tmp_path / "conv.pt2"))(x), net(x), atol=1e-6)
