"""Reading files without running them: torch.save files, torch.export archives and plain pickles of arrays.

A pickle may call any function while it is read. Here tensors are unpickled by torch's weights-only reader; a torch.export archive,
which torch reads with pickle and eval, is admitted only where it calls nothing but tensor operators; and a plain pickle sees
stand-ins for a few NumPy names, which record what they are called with. Anything else is refused by name, unless it is trusted.
"""

import ast
import io
import json
import logging
import os
import pickle
import re
import zipfile
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

# Node targets of an exported program: operators in a namespace, arithmetic on sizes. Not torch.os.system.
ARITHMETIC = "getitem|neg|pos|pow|add|sub|mul|mod|floordiv|truediv|lt|le|gt|ge|eq|ne|and_|or_|not_"
TARGET = re.compile(rf"torch\.ops\.\w+\.\w+(\.\w+)?|torch\.sym_\w+|_operator\.({ARITHMETIC})|math\.\w+")
# A condition on the sizes of inputs, such as L['x'].size()[0] > 3: no other names.
GUARD = re.compile(r"(L\['\w+'\]|\[\d+\]|\.(size|stride|storage_offset)\(\)|and|or|not|[-+*/%<>=!()\s\d])*")
SIZES = (ast.Expression, ast.Call, ast.keyword, ast.Name, ast.Constant, ast.BinOp, ast.UnaryOp, ast.Compare, ast.BoolOp)
LEAVES = (ast.operator, ast.unaryop, ast.cmpop, ast.boolop, ast.expr_context)


def load_tensors(path: str, trust: bool | None) -> Any:
    """What torch.save wrote to `path`, on the CPU; anything but tensors and plain containers needs `trust` (None: never read)."""
    import torch

    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    # A damaged pickle raises nearly anything.
    except Exception as error:
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        if found is None:
            raise ValueError(f"{path}: not a file of torch.save, or damaged ({_reason(error)})") from None
        if trust is None:
            raise ValueError(
                f"{path}: holds a pickled {found[1]}; expected tensors only (data files are never unpickled)"
            ) from None
        if not trust:
            raise ValueError(
                f"{path}: holds a pickled {found[1]}, and reading it can run code: pass --trust (trust=True) if you trust its maker"
            ) from None
    try:
        return torch.load(path, map_location="cpu", weights_only=False)
    except Exception as error:
        raise ValueError(f"{path}: cannot be unpickled ({_reason(error)})") from None


def _reason(error: Exception) -> str:
    """The line of torch's long messages that says what was found."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    line = next((line for line in lines if line.startswith("Unsupported")), lines[0] if lines else type(error).__name__)
    return line.split(". ")[0][:200]


def load_exported(path: str, trust: bool) -> Any:
    """The torch.export.ExportedProgram of an archive. ValueError: code in it without `trust`, or not such an archive."""
    import torch

    if not trust:
        _check_exported(path)
    forced, level = os.environ.get("TORCH_FORCE_WEIGHTS_ONLY_LOAD"), logging.root.manager.disable
    # torch logs the traceback of a file that it refuses.
    logging.disable(logging.CRITICAL)
    if not trust:
        os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = "1"
    try:
        with open(path, "rb") as file:
            return torch.export.load(file)
    except Exception as error:
        raise ValueError(f"{path}: not a torch.export (.pt2) file, or damaged ({_reason(error)})") from None
    finally:
        logging.disable(level)
        os.environ.pop("TORCH_FORCE_WEIGHTS_ONLY_LOAD", None)
        if forced is not None:
            os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = forced


def _check_exported(path: str) -> None:
    """ValueError where an exported program holds more than operators on tensors, sizes and weights."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            programs = [
                json.loads(archive.read(name)) for name in names if re.search(r"(^|/)models/.*\.json$|program\.json$", name)
            ]
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile, RuntimeError, EOFError) as error:
        raise ValueError(f"{path}: not a torch.export (.pt2) file, or damaged ({error})") from None
    # One name twice: this check could read one, torch the other.
    found = next((name for name in names if re.search(r"(opaque|custom)_obj|\.\.", name) or names.count(name) > 1), None)
    found = found or next((str(value) for key, value in _pairs(programs) if not _admitted(key, value)), None)
    if found is not None:
        raise ValueError(f"{path}: holds {found[:60]!r}, which can run code: pass --trust (trust=True) if you trust its maker")


def _pairs(node: Any) -> Iterator[tuple[str, Any]]:
    """Every (key, value) of nested JSON."""
    if isinstance(node, list):
        for value in node:
            yield from _pairs(value)
    elif isinstance(node, dict):
        for key, value in node.items():
            yield key, value
            yield from _pairs(value)


def _admitted(key: str, value: Any) -> bool:
    match key:
        case "target":
            return TARGET.fullmatch(str(value)) is not None
        case "expr_str":
            return _is_size(str(value))
        case "guards_code":
            return isinstance(value, list) and all(GUARD.fullmatch(str(guard)) for guard in value)
    return True


def _is_size(text: str) -> bool:
    """Whether an expression is arithmetic on symbols: torch evaluates it as Python."""
    try:
        nodes = list(ast.walk(ast.parse(text, mode="eval")))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    for node in nodes:
        if isinstance(node, ast.Call) and not (isinstance(node.func, ast.Name) and re.fullmatch(r"[A-Z]\w+", node.func.id)):
            return False
        # sympy evaluates the text of a constant again, but for a symbol's name.
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and not re.fullmatch(r"\w+", node.value):
            return False
        if not isinstance(node, SIZES + LEAVES):
            return False
    return True


class Recorded:
    """Stand-in for a NumPy name in a pickle: keeps what it is called with and what is stored in it, and runs nothing."""

    def __init__(self, *args: Any) -> None:
        self.args = args
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def uint8(self) -> npt.NDArray[np.uint8]:
        """The array of bytes that was pickled; ValueError for any other."""
        if isinstance(self, Buffer):
            buffer, kind, shape, order = self.args
        else:
            _, shape, kind, fortran, buffer = self.state
            order = "F" if fortran else "C"
        if not isinstance(kind, Type) or kind.args[0] not in ("u1", b"u1", "uint8", b"uint8"):
            raise ValueError("an array of another type than uint8")
        return np.frombuffer(bytes(buffer), dtype=np.uint8).reshape(shape, order=order)


class Type(Recorded):
    """Stand-in for numpy.dtype."""


class Buffer(Recorded):
    """Stand-in for NumPy's reader of protocol 5: (buffer, dtype, shape, order)."""


def _encode(text: str, encoding: str) -> bytes:
    """How Python 3 writes bytes in the old protocols."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"holds text in {encoding!r}, expected 'latin1'")
    return text.encode("latin1")


class _Reader(pickle.Unpickler):
    admitted: dict[tuple[str, str], Any] = {  # noqa: RUF012
        ("numpy", "ndarray"): Recorded,
        ("numpy", "dtype"): Type,
        ("numpy._core.multiarray", "_reconstruct"): Recorded,
        ("numpy._core.numeric", "_frombuffer"): Buffer,
        ("_codecs", "encode"): _encode,
    }

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self.admitted[module.replace("numpy.core.", "numpy._core."), name]
        except KeyError:
            raise pickle.UnpicklingError(f"holds a pickled {module}.{name}, expected plain data: it is not read") from None


def load_plain(path: str | os.PathLike[str]) -> Any:
    """A pickle of containers, numbers, text and byte arrays (as `Recorded`); Python 2's text comes as bytes. ValueError."""
    with open(path, "rb") as file:
        content = file.read()
    try:
        return _Reader(io.BytesIO(content), encoding="bytes").load()
    except Exception as error:
        raise ValueError(f"{path}: not a readable pickle of plain data ({str(error) or type(error).__name__})") from None
