"""Models that people have on disk: a TorchScript or torch.export file, or `module:function` that returns a Module."""

import importlib
import os
import sys
import zipfile
from collections.abc import Callable

import torch


def load_model(spec: str, device: str = "cpu") -> Callable[[torch.Tensor], torch.Tensor]:
    """Open `spec`: a .pt2 file (torch.export), another existing file (TorchScript), or module:function.

    A function is imported with the current folder on the path, called without arguments and must return a torch Module.

    Raises:
        FileNotFoundError: no such file or module.
        ValueError: a file that is neither, a name that is not in the module, a function that returns something else.
    """
    model: torch.nn.Module
    if os.path.exists(spec):
        try:
            if spec.endswith(".pt2"):
                model = torch.export.load(spec).module()
            else:
                model = torch.jit.load(spec, map_location=device).eval()
        except (RuntimeError, OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            line = str(error).strip().splitlines()[0]
            raise ValueError(f"{spec}: not a torch.export (.pt2) or TorchScript file ({line})") from None
        return model.to(device)
    module_name, colon, name = spec.partition(":")
    if not colon:
        raise FileNotFoundError(f"{spec}: no such model file (expected a .pt2 or TorchScript file, or module:function)")
    sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise FileNotFoundError(f"{spec}: cannot import {module_name} ({error})") from None
    finally:
        sys.path.pop(0)
    if not callable(make := getattr(module, name, None)):
        raise ValueError(f"{spec}: {module_name} has no function {name!r}")
    model = make()
    if not isinstance(model, torch.nn.Module):
        raise ValueError(f"{spec}: returned {type(model).__name__}, expected a torch.nn.Module")
    return model.to(device).eval()
