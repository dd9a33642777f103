"""What the layout promises: thin imports, one direction between the folders, all of them installed, a table that is found."""

import ast
import hashlib
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import certlut
from certlut.lookup.table import find

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = {"certlut": ROOT / "runtime", "certlut.tablegen": ROOT / "tablegen"}
# From the leaves up; folders of one level do not import each other.
LEVELS = (
    {"kernels"},
    {"jobs", "threats"},
    {"lookup", "statistics"},
    {"bounds"},
    # The bets' schedule, which a forecast and the attacks share with the sampler; the rest of sampling needs torch.
    {"sampling.stakes"},
    {"beyond"},
    {"evaluate", "gains"},
    {"sampling"},
    {"inputs", "plan", "attacks"},
    {"runs"},
    {"certify"},
    {"smooth"},
    {"report"},
    {"cli"},
    {"__main__"},
)


def modules() -> Iterator[tuple[str, ast.Module]]:
    """(dotted name, syntax tree) of every module."""
    for package, folder in FOLDERS.items():
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            yield ".".join((package, *(part for part in parts if part != "__init__"))), ast.parse(path.read_text(encoding="utf-8"))


def imports(name: str, nodes: list[ast.stmt] | ast.Module) -> Iterator[str]:
    """Dotted names of the certlut modules that the statements import, absolute."""
    is_package = (ROOT / "runtime" / Path(*name.split(".")[1:]) / "__init__.py").is_file() or name in FOLDERS
    for node in ast.walk(nodes) if isinstance(nodes, ast.Module) else nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "certlut")
        elif isinstance(node, ast.ImportFrom):
            up = node.level - is_package
            base = name.split(".")[: len(name.split(".")) - up] if node.level else []
            full = ".".join([*base, *([node.module] if node.module else [])])
            if full.split(".")[0] == "certlut":
                # `from . import x` may name a module.
                yield from (f"{full}.{alias.name}" for alias in node.names) if node.module is None else (full,)


def imported(code: str) -> set[str]:
    code = f"import sys\n{code}\nprint(*sys.modules)"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


def test_importing_certlut_imports_neither_torch_nor_the_other_half() -> None:
    names = imported("import certlut; certlut.load")
    assert "numba" in names
    assert names.isdisjoint({"torch", "certlut.tablegen", "flint", "matplotlib", "sklearn", "dask", "distributed"})


@pytest.mark.parametrize("module", ["certlut.plan.plan", "certlut.tablegen", "certlut.runs.counts", "certlut.runs.merge"])
def test_what_needs_no_torch_does_not_import_it(module: str) -> None:
    assert imported(f"import {module}").isdisjoint({"torch", "flint", "matplotlib", "dask", "distributed"})


def test_every_public_name_is_there() -> None:
    for name in certlut.__all__:
        assert getattr(certlut, name) is not None
    assert set(certlut.__all__) <= set(dir(certlut))
    with pytest.raises(AttributeError, match="nothing"):
        _ = certlut.nothing


def test_no_import_runs_up() -> None:
    place = {name: level for level, names in enumerate(LEVELS) for name in names}

    def level(parts: list[str]) -> int:
        return place.get(".".join(parts[1:3]), place[parts[1]])

    for name, tree in modules():
        parts = name.split(".")
        if len(parts) == 1 or parts[1] == "tablegen":
            continue
        for target in imports(name, tree):
            other = target.split(".")
            if len(other) > 1 and other[1] not in (parts[1], "tablegen"):
                assert level(other) < level(parts), (name, target)


def test_only_the_command_line_reaches_from_the_online_half_into_tablegen_and_only_inside_commands() -> None:
    for name, tree in modules():
        if name.startswith("certlut.tablegen"):
            # Shared leaves only: the file, the kernels, the jobs.
            used = {target.split(".")[1] for target in imports(name, tree) if not target.startswith("certlut.tablegen")}
            assert used <= {"lookup", "kernels", "jobs"}, (name, used)
        elif name.startswith("certlut.cli"):
            assert not any(target.startswith("certlut.tablegen") for target in imports(name, tree.body)), name
        else:
            assert not any(target.startswith("certlut.tablegen") for target in imports(name, tree)), name


def test_every_folder_is_installed() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    there = {
        ".".join((package, *path.parent.relative_to(folder).parts))
        for package, folder in FOLDERS.items()
        for path in folder.rglob("__init__.py")
    }
    assert set(settings["packages"]) == there
    # A folder with code and no __init__.py would be left out.
    assert all((path.parent / "__init__.py").is_file() for folder in FOLDERS.values() for path in folder.rglob("*.py"))


def test_two_packages_import_nothing_so_that_their_light_modules_stay_light() -> None:
    for folder in ("sampling", "report"):
        tree = ast.parse((ROOT / "runtime" / folder / "__init__.py").read_text(encoding="utf-8"))
        assert not [node for node in ast.walk(tree) if isinstance(node, (ast.Import, ast.ImportFrom))]


def test_functions_stay_short() -> None:
    # Excused: these two are one option a line, read as a list.
    excused = {"sample", "slice_"}
    for name, tree in modules():
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name not in excused:
                assert (node.end_lineno or 0) - node.lineno + 1 <= 60, f"{name}.{node.name}"


def test_a_table_is_found_by_path_then_variable_then_the_shipped_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CERTLUT_TABLE", "elsewhere.h5")
    assert find("mine.h5") == Path("mine.h5")
    assert find() == Path("elsewhere.h5")
    monkeypatch.delenv("CERTLUT_TABLE")
    assert find().read_bytes() == (ROOT / "tables" / "default.h5").read_bytes()


def test_the_shipped_tables_have_the_committed_checksums() -> None:
    lines = (ROOT / "tables" / "SHA256SUMS").read_text().splitlines()
    assert [line.split()[1] for line in lines] == ["default.h5", "tails.h5"]
    for checksum, name in (line.split() for line in lines):
        assert hashlib.sha256((ROOT / "tables" / name).read_bytes()).hexdigest() == checksum
