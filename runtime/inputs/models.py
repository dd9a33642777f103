"""Models that people have: TorchScript and torch.export files, the field's checkpoints, `module:function` that returns a Module."""

import importlib
import os
import sys
import zipfile
from collections.abc import Callable, Mapping

import torch
from torch.export.passes import move_to_device_pass

from .architectures import from_checkpoint
from .untrusted import load_exported, load_tensors


def load_model(spec: str, device: str = "cpu", trust: bool = False) -> Callable[[torch.Tensor], torch.Tensor]:
    """Open `spec`: a TorchScript or torch.export file, a checkpoint {"arch": ..., "state_dict": ...}, or module:function.

    A file is known by its content. A function is imported with the current folder on the path, called without arguments and must
    return a torch Module. A checkpoint becomes a network for pixels in [0, 1], with the normalisation inside.

    Args:
        spec: a path, or module:function.
        device: where the model is put.
        trust: read pickled objects too (a whole pickled Module, a checkpoint with other objects in it): that can run any code.

    Raises:
        FileNotFoundError: no such file or module.
        ValueError: a file that is none of these, or holds pickled objects without `trust`; a checkpoint that does not fit its
            architecture; a name that is not in the module, a function that returns something else.
    """
    model = _from_file(spec, trust, device) if os.path.exists(spec) else _from_function(spec)
    try:
        # Noise is float64 and made there; mps, for one, has no float64.
        torch.zeros(1, dtype=torch.float64, device=device).cpu()
        return (model if isinstance(model, torch.nn.Module) else model()).to(device)
    except (AssertionError, RuntimeError, TypeError, ImportError) as error:
        raise ValueError(f"{spec}: cannot be put on device {device!r} ({str(error).strip().splitlines()[0]})") from None


def _from_file(path: str, trust: bool, device: str) -> torch.nn.Module | Callable[[], torch.nn.Module]:
    """The model; or for a program, whose constants Module.to does not move, a function that opens it on the device."""
    kind = _kind(path)
    try:
        if kind == "torch.export":
            program = load_exported(path, trust)
            return lambda: move_to_device_pass(program, device).module()
        if kind == "TorchScript":
            model = _torchscript(path, "cpu")
            return lambda: model if device == "cpu" else _torchscript(path, device)
        content = load_tensors(path, trust)
    except ValueError as error:
        # What needs trust is said as it is; else what could have been here.
        if "--trust" in str(error):
            raise
        reason = str(error).removeprefix(f"{path}: ")
        raise ValueError(f"{path}: not a torch.export (.pt2), TorchScript or checkpoint file: {reason}") from None
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
        raise ValueError(f"{path}: {str(error).strip().splitlines()[0]}") from None
    return model


def _line(error: Exception) -> str:
    """Its type and first line."""
    return f"{type(error).__name__}: {str(error).strip()}".splitlines()[0]


def _from_function(spec: str) -> torch.nn.Module:
    module_name, colon, name = spec.partition(":")
    if not colon:
        raise FileNotFoundError(
            f"{spec}: no such model file (expected a .pt2 or TorchScript file, a checkpoint, or module:function)"
        )
    sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise FileNotFoundError(f"{spec}: cannot import {module_name} ({error})") from None
    except Exception as error:
        raise ValueError(f"{spec}: importing {module_name} failed ({_line(error)})") from error
    finally:
        sys.path.pop(0)
    if not callable(make := getattr(module, name, None)):
        raise ValueError(f"{spec}: {module_name} has no function {name!r}")
    try:
        model = make()
    except Exception as error:
        raise ValueError(f"{spec}: failed ({_line(error)})") from error
    if not isinstance(model, torch.nn.Module):
        raise ValueError(f"{spec}: returned {type(model).__name__}, expected a torch.nn.Module")
    return model.eval()
