"""What the layout promises: thin imports, one direction between the halves, a table that is found."""

import ast
import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from runtime.table import find

ROOT = Path(__file__).resolve().parent.parent


def imported(code: str) -> set[str]:
    code = f"import sys\n{code}\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout.split())


def test_importing_runtime_imports_neither_torch_nor_the_other_half() -> None:
    names = imported("import runtime")
    assert "numba" in names
    assert names.isdisjoint({"torch", "tablegen", "flint", "matplotlib", "sklearn", "dask", "distributed"})


def test_importing_tablegen_needs_no_torch_and_no_flint() -> None:
    assert imported("import tablegen").isdisjoint({"torch", "flint", "matplotlib", "dask", "distributed"})


def test_only_the_command_line_reaches_from_runtime_into_tablegen() -> None:
    for path in (ROOT / "runtime").glob("*.py"):
        tree = ast.parse(path.read_text())
        top = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
        everywhere = [node for node in ast.walk(tree) if isinstance(node, (ast.Import, ast.ImportFrom))]
        for node in top if path.name == "cli.py" else everywhere:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            assert not any(name.split(".")[0] == "tablegen" for name in names), path.name


def test_modules_stay_short() -> None:
    for folder in ("runtime", "tablegen"):
        for path in (ROOT / folder).glob("*.py"):
            assert len(path.read_text().splitlines()) <= 300, path.name


def test_a_table_is_found_by_path_then_variable_then_beside_the_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CERTLUT_TABLE", "elsewhere.h5")
    assert find("mine.h5") == Path("mine.h5")
    assert find() == Path("elsewhere.h5")
    monkeypatch.delenv("CERTLUT_TABLE")
    assert find() == ROOT / "tables" / "default.h5"


def test_the_shipped_table_has_the_committed_checksum() -> None:
    checksum, name = (ROOT / "tables" / "SHA256SUMS").read_text().split()
    assert hashlib.sha256((ROOT / "tables" / name).read_bytes()).hexdigest() == checksum
