"""What models and data sets are known by when a run goes on or shards are merged: digests of all that can be seen of them."""

import contextlib
import functools
import hashlib
import inspect
import re
import sys
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

PLAIN = (bool, int, float, complex, str, bytes, type(None), torch.dtype)
# What every Module has: switches and hooks that torch turns itself.
BASE = set(vars(torch.nn.Module()))
# In the text of a scripted program: where it was traced from, and numbers that torch tells classes of one name apart by.
ACCIDENTAL = re.compile(r" # \S+:\d+:\d+$|\.?___torch_mangle_\d+", re.MULTILINE)
# The same model on another device is the same model.
DEVICE = re.compile(r"(cpu|cuda|mps|xpu)(:\d+)?")
PARALLEL = (torch.nn.DataParallel, torch.nn.parallel.DistributedDataParallel)
ITEMS = " items"
ATTRIBUTE = re.compile(r'GetAttr\[name="([^"]+)"\]')


def digest(x: Any) -> str:
    """Identifies an input, or any tensor: its type, shape and bytes."""
    tensor = torch.as_tensor(x).detach().cpu().contiguous()
    head = f"{tensor.dtype} {tuple(tensor.shape)} ".encode()
    return hashlib.sha256(head + tensor.view(-1).view(torch.uint8).numpy().tobytes()).hexdigest()[:32]


def data_digest(data: Sequence[tuple[Any, int]]) -> str:
    """Identifies a data set: all inputs and labels up to half a GiB of numbers, else 64 evenly spread ones; empty for none."""
    if not len(data):
        return ""
    first = torch.as_tensor(data[0][0])
    many = len(data) * first.numel() * first.element_size() > 2**29
    places = sorted({i * (len(data) - 1) // 63 for i in range(64)}) if many else range(len(data))
    hashed = hashlib.sha256()
    for place in places:
        x, label = data[place]
        hashed.update(f"{digest(x)} {int(label)}\n".encode())
    return hashed.hexdigest()[:32]


def file_digest(spec: str) -> str:
    """Identifies what a model was loaded from: the file's bytes, or for module:function those of the imported module's source."""
    path = Path(spec)
    if not path.exists():
        module = sys.modules.get(spec.partition(":")[0])
        path = Path(getattr(module, "__file__", None) or "")
    return hashlib.sha256(path.read_bytes()).hexdigest()[:32] if path.is_file() else ""


def fingerprint(model: Callable[..., Any], call: Callable[[], object] | None = None) -> str:
    """Identifies a model by what can be seen of it, but for what `call`, a forward pass, changes: counters, clocks, lists.

    Of a Module: for every submodule its class and the source of that, its plain attributes, parameters and buffers, and the program
    of a scripted or exported one. Of a function: its source, and the plain values, tensors, functions and Modules that it closes
    over, has as defaults or uses by a global name. What these reach further is not seen.
    """
    if call is not None:
        # What is made at the first call stays, and counts.
        call()
    lines = list(_lines("", model, set()))
    if call is not None:
        call()
        after = set(_lines("", model, set()))
        grown = tuple(f"{line.rpartition(': ')[0]}[" for line in lines if line.endswith(ITEMS) and line not in after)
        lines = [line for line in lines if line in after and not line.startswith(grown)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:32]


def _lines(name: str, value: Any, seen: set[int]) -> Iterator[str]:
    """One line for everything in `value` that counts, each with where it is."""
    value = _inner(value)
    if isinstance(value, str) and DEVICE.fullmatch(value):
        yield f"{name}: device"
    elif isinstance(value, PLAIN):
        yield f"{name} = {value!r}"
    elif isinstance(value, (torch.Tensor, np.ndarray, np.generic)):
        yield f"{name} = {digest(value)}" if isinstance(value, torch.Tensor) or value.dtype.kind in "biufc" else f"{name}: array"
    elif id(value) in seen:
        return
    elif isinstance(value, torch.nn.Module):
        seen.add(id(value))
        yield from _module(name, value, seen)
    elif isinstance(value, Mapping):
        yield f"{name}: {len(value)}{ITEMS}"
        for key in sorted(value, key=str):
            yield from _lines(f"{name}[{key!r}]", value[key], seen)
    elif isinstance(value, (list, tuple, set, frozenset)):
        yield f"{name}: {len(value)}{ITEMS}"
        items = sorted(value, key=str) if isinstance(value, (set, frozenset)) else value
        for place, item in enumerate(items):
            yield from _lines(f"{name}[{place}]", item, seen)
    elif isinstance(value, functools.partial):
        seen.add(id(value))
        yield from _lines(f"{name}.partial", (value.func, value.args, value.keywords), seen)
    elif isinstance(value, types.MethodType):
        yield from _lines(f"{name}.self", value.__self__, seen)
        yield from _lines(name, value.__func__, seen)
    elif isinstance(value, types.FunctionType) and _library(value):
        yield f"{name}: {value.__module__}.{value.__qualname__}"
    elif isinstance(value, types.FunctionType):
        seen.add(id(value))
        yield f"{name}: {value.__qualname__} {_source(value)}"
        yield from _lines(f"{name}.defaults", (value.__defaults__, value.__kwdefaults__), seen)
        # A cell may be empty still.
        with contextlib.suppress(ValueError):
            cells = inspect.getclosurevars(value)
            used = {key: x for key, x in cells.globals.items() if not isinstance(x, (type, types.ModuleType))}
            yield from _lines(f"{name}.uses", {**used, **cells.nonlocals}, seen)
    elif isinstance(value, (type, types.ModuleType, types.BuiltinFunctionType)):
        yield f"{name}: {getattr(value, '__qualname__', value.__name__)}"
    else:
        seen.add(id(value))
        yield f"{name}: {_class(type(value))}"
        yield from _attributes(name, getattr(value, "__dict__", {}), seen)


def _attributes(name: str, values: Mapping[str, Any], seen: set[int]) -> Iterator[str]:
    for key in sorted(values):
        yield from _lines(f"{name}.{key}", values[key], seen)


def _inner(value: Any) -> Any:
    """What torch.compile or a wrapper for several devices was put around."""
    if isinstance(value, PARALLEL):
        return _inner(value.module)
    compiled = None
    if isinstance(value, torch.nn.Module):
        compiled = getattr(value, "_orig_mod", None)
    elif isinstance(value, types.FunctionType):
        compiled = getattr(value, "_torchdynamo_orig_callable", None)
    return value if compiled is None else _inner(compiled)


def _module(name: str, module: torch.nn.Module, seen: set[int]) -> Iterator[str]:
    yield f"{name}: {_class(type(module))}"
    for key, tensor in sorted([*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]):
        yield f"{name}.{key} = {digest(tensor)}"
    if isinstance(module, torch.jit.ScriptModule):
        yield from _script(name, module, seen)
    else:
        if isinstance(module, torch.fx.GraphModule):
            yield f"{name}: {module.code}"
        yield from _attributes(name, {key: value for key, value in vars(module).items() if key not in BASE}, seen)
    for key, child in module.named_children():
        yield from _lines(f"{name}.{key}", child, seen)


def _script(name: str, module: torch.jit.ScriptModule, seen: set[int]) -> Iterator[str]:
    """Its program with all that it calls, and the numbers that this reads, from whichever submodule."""
    if not hasattr(module, "forward"):
        return
    code, constants = module.code_with_constants
    graph = str(module.inlined_graph)
    yield f"{name}: {ACCIDENTAL.sub('', f'{graph} {code}')}"
    for attribute in sorted(set(ATTRIBUTE.findall(graph))):
        for place, part in module.named_modules():
            value = getattr(part, attribute, None)
            if value is not None and not isinstance(value, torch.nn.Module):
                yield from _lines(f"{name}.{place}.{attribute}", value, seen)
    for key, tensor in sorted(constants.const_mapping.items()):
        yield f"{name}.{key} = {digest(tensor) if isinstance(tensor, torch.Tensor) else repr(tensor)}"


def _class(cls: type) -> str:
    """Its name, and its source and that of its bases where they are not torch's or Python's own."""
    return f"{cls.__qualname__} {' '.join(_source(base) for base in cls.__mro__ if not _library(base))}"


def _library(of: Any) -> bool:
    """Whether a class or function is part of a library, which is known by its name."""
    return (of.__module__ or "").partition(".")[0] in ("torch", "numpy", "builtins", "typing", "abc", "functools", "collections")


def _source(of: Any) -> str:
    """A digest of the source of a class or function, or of its compiled code: a lambda's source is its whole line."""
    text = ""
    if getattr(of, "__name__", "") != "<lambda>":
        with contextlib.suppress(OSError, TypeError):
            text = inspect.getsource(of)
    if not text:
        functions = [of, *vars(of).values()] if isinstance(of, type) else [of]
        text = "".join(_code(f.__code__) for f in functions if isinstance(f, types.FunctionType))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _code(code: types.CodeType) -> str:
    constants = [_code(value) if isinstance(value, types.CodeType) else repr(value) for value in code.co_consts]
    return f"{code.co_code!r} {code.co_names} {constants}"
