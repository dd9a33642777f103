import os
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from runtime import Certifier, Table
from runtime.models import load_model

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
    with pytest.raises(ZeroDivisionError):
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


# Files that will not do


def test_a_file_that_is_not_there_is_said_with_what_was_expected(tmp_path: Path) -> None:
    for name in ("none.pt2", "none.pt"):
        with pytest.raises(FileNotFoundError, match=r"none\.pt2?: no such model file \(expected a \.pt2 or TorchScript file"):
            load_model(str(tmp_path / name))


@torchscript
@pytest.mark.parametrize("name", ["model.pt2", "model.pt"])
@pytest.mark.parametrize("what", ["empty", "text", "truncated", "state dict", "the other kind", "zip", "folder"])
def test_a_file_that_is_neither_kind_is_refused_by_name(what: str, name: str, net: Net, tmp_path: Path) -> None:
    path, elsewhere = tmp_path / name, tmp_path / "saved"
    elsewhere.mkdir()
    other = next(other for other in SAVERS if other != name)
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
        case "the other kind":
            os.replace(SAVERS[other](net, elsewhere / other), path)
        case "zip":
            with zipfile.ZipFile(path, "w") as file:
                file.writestr("x.npy", b"123")
        case "folder":
            path.mkdir()
    with pytest.raises(ValueError, match=rf"{name}: not a torch\.export \(\.pt2\) or TorchScript file \(.+\)$"):
        load_model(str(path))
