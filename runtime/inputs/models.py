"""Models that people have: TorchScript and torch.export files, the field's checkpoints, functions of a module or file."""

import contextlib
import hashlib
import importlib
import importlib.util
import os
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType

import torch
from torch.export.passes import move_to_device_pass

from ..sampling.scores import line_of
from .architectures import from_checkpoint
from .normalise import parse, put_in_front
from .onnx_file import OnnxModel
from .untrusted import load_exported, load_tensors


def load_model(
    spec: str, device: str = "cpu", trust: bool = False, normalise: str | None = None
) -> Callable[[torch.Tensor], torch.Tensor]:
    """Open `spec`: a TorchScript, torch.export or ONNX file, a checkpoint {"arch": ..., "state_dict": ...}, or a function's name.

    A file is known by its content. module:function and file.py:function are imported with the current folder, or the file's, on the
    path; the function is called without arguments and must return a torch Module, which may stand there itself, too. A checkpoint
    becomes a network for pixels in [0, 1], with the normalisation inside.

    Args:
        spec: a path, module:function or file.py:function.
        device: where the model is put.
        trust: read pickled objects too (a whole pickled Module, a checkpoint with other objects in it): that can run any code.
        normalise: a layer for the model's front, by name or numbers (`normalise.parse`); it replaces a checkpoint's.

    Raises:
        FileNotFoundError: no such file or module.
        ImportError: an ONNX file without onnxruntime.
        ValueError: a file that is none of these, or holds pickled objects without `trust`; a checkpoint that does not fit its
            architecture; a name that is not in the module, a function that returns something else; another `normalise`.
    """
    layer = None if normalise is None else parse(normalise)
    model = _from_file(spec, trust, device) if os.path.exists(spec) else _from_function(spec)
    try:
        # Noise is float64 and made there; mps, for one, has no float64.
        torch.zeros(1, dtype=torch.float64, device=device).cpu()
        placed = (model if isinstance(model, torch.nn.Module) else model()).to(device)
    except (AssertionError, RuntimeError, TypeError, ImportError) as error:
        raise ValueError(f"{spec}: cannot be put on device {device!r} ({line_of(error)})") from None
    return placed if layer is None else put_in_front(placed, layer)


def _from_file(path: str, trust: bool, device: str) -> torch.nn.Module | Callable[[], torch.nn.Module]:
    """The model; or for a program, whose constants Module.to does not move, a function that opens it on the device."""
    if path.endswith(".onnx"):
        return OnnxModel(path, device)
    kind = _kind(path)
    if path.endswith(".safetensors"):
        raise ValueError(
            f"{path}: weights alone do not say their network: write a function that loads them (safetensors.torch.load_model) and "
            f"returns it, and pass module:function"
        )
    try:
        if kind == "TorchScript":
            model = _torchscript(path, "cpu")
            return lambda: model if device == "cpu" else _torchscript(path, device)
        content = load_exported(path, trust) if kind == "torch.export" else load_tensors(path, trust)
    except ValueError as error:
        # What needs trust is said as it is; else what could have been here.
        if "--trust" in str(error):
            raise
        reason = str(error).removeprefix(f"{path}: ")
        raise ValueError(f"{path}: not a torch.export (.pt2), TorchScript or checkpoint file: {reason}") from None
    if isinstance(content, torch.export.ExportedProgram):
        _check_batch(path, content)
        return lambda: move_to_device_pass(content, device).module()
    if isinstance(content, torch.nn.Module):
        return content.eval()
    if not isinstance(content, Mapping) or not {"arch", "state_dict"} <= content.keys():
        held = f"keys {', '.join(map(str, list(content)[:4]))}" if isinstance(content, Mapping) else f"a {type(content).__name__}"
        raise ValueError(
            f"{path}: not a torch.export (.pt2), TorchScript or checkpoint file: holds {held}, expected a dictionary with arch and "
            f"state_dict (weights alone do not say their network: use module:function)"
        )
    try:
        return from_checkpoint(content["arch"], content["state_dict"])
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _check_batch(path: str, program: torch.export.ExportedProgram) -> None:
    """ValueError where the first input was exported with a batch of one size only."""
    first = next(iter(program.graph_signature.user_inputs), None)
    shape = next((getattr(node.meta.get("val"), "shape", ()) for node in program.graph.nodes if node.name == first), ())
    if shape and isinstance(shape[0], int):
        raise ValueError(
            f"{path}: exported for batches of {shape[0]} alone; export it with a free batch size, "
            f"dynamic_shapes=({{0: torch.export.Dim('batch')}},)"
        )


def _kind(path: str) -> str:
    """By the names in the zip file: what torch.save wrote has neither a program nor constants."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = {name.rpartition("/")[2] for name in archive.namelist()}
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError):
        return "torch.export" if path.endswith(".pt2") else "torch.save"
    if names & {"archive_format", "serialized_exported_program.json"}:
        return "torch.export"
    return "TorchScript" if "constants.pkl" in names else "torch.save"


def _torchscript(path: str, device: str) -> torch.nn.Module:
    try:
        model: torch.nn.Module = torch.jit.load(path, map_location=device).eval()
    except (RuntimeError, OSError, ValueError, KeyError) as error:
        raise ValueError(f"{path}: {line_of(error)}") from None
    return model


def _line(error: Exception) -> str:
    """Its type and the line that says what happened."""
    return f"{type(error).__name__}: {line_of(error)}"


def _from_function(spec: str) -> torch.nn.Module:
    where, colon, name = spec.rpartition(":")
    if not colon:
        raise FileNotFoundError(
            f"{spec}: no such model file (expected a .pt2, TorchScript or .onnx file, a checkpoint, module:function or "
            f"file.py:function)"
        )
    is_file = where.endswith(".py")
    if is_file and not os.path.isfile(where):
        raise FileNotFoundError(f"{spec}: no such file {where}")
    with _first_on_path(os.path.dirname(os.path.abspath(where)) if is_file else os.getcwd()):
        try:
            module = _import_file(where) if is_file else importlib.import_module(where)
        except ModuleNotFoundError as error:
            raise FileNotFoundError(f"{spec}: cannot import {where} ({error})") from None
        except Exception as error:
            raise ValueError(f"{spec}: importing {where} failed ({_line(error)})") from error
        model = getattr(module, name, None)
        if not callable(model):
            raise ValueError(f"{spec}: {where} has no function {name!r}")
        if not isinstance(model, torch.nn.Module):
            try:
                model = model()
            except Exception as error:
                raise ValueError(f"{spec}: failed ({_line(error)})") from error
    if not isinstance(model, torch.nn.Module):
        raise ValueError(f"{spec}: returned {type(model).__name__}, expected a torch.nn.Module")
    return model.eval()


@contextlib.contextmanager
def _first_on_path(folder: str) -> Iterator[None]:
    """Imports look in `folder` first, also those that a function makes when it is called."""
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)


def _import_file(path: str) -> ModuleType:
    """A module by its file, under a name that hides no other."""
    name = f"certlut_model_{hashlib.sha256(os.path.abspath(path).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
