"""Certificates for Gaussian-smoothed classifiers. Names are imported when they are first used (PEP 562): no torch, no waiting."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .certify import Certificate, Certifier
    from .evaluate import radii
    from .lookup.table import Table, UnprovenTable, load
    from .runs.results import ABSTAIN, read_tsv
    from .smooth import Smooth
    from .statistics.file import read_statistics
    from .threats.declare import Direction, Line, Lp, Sparse, Subspace

_MODULES = {
    "ABSTAIN": "runs.results",
    "Certificate": "certify",
    "Certifier": "certify",
    "Direction": "threats.declare",
    "Line": "threats.declare",
    "Lp": "threats.declare",
    "Smooth": "smooth",
    "Sparse": "threats.declare",
    "Subspace": "threats.declare",
    "Table": "lookup.table",
    "UnprovenTable": "lookup.table",
    "load": "lookup.table",
    "radii": "evaluate",
    "read_statistics": "statistics.file",
    "read_tsv": "runs.results",
}

__all__ = [  # noqa: RUF022  (one name a line, in the order of use)
    "Certifier",
    "Certificate",
    "ABSTAIN",
    "Smooth",
    "Lp",
    "Subspace",
    "Direction",
    "Line",
    "Sparse",
    "Table",
    "UnprovenTable",
    "load",
    "radii",
    "read_tsv",
    "read_statistics",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
