"""The documentation: no page without a link, every public name and command in the reference, every example true."""

import doctest
import functools
import importlib
import importlib.metadata
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import griffe
import numpy as np
import pytest
import torch
import typer
import yaml

import certlut
import certlut.tablegen
from certlut.cli.main import app
from certlut.runs.certify import certify_statistics
from certlut.runs.sample import sample_dataset
from certlut.sampling.card import Sampling
from certlut.sampling.sampler import Sampler

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
NAMES = [f"{package.__name__}.{name}" for package in (certlut, certlut.tablegen) for name in package.__all__]
LINK = re.compile(r"\]\(([\w./-]+\.(?:md|html))")


def contents(nav: Any) -> Iterator[str]:
    """Pages of a `nav` of mkdocs.yml."""
    for entry in nav if isinstance(nav, list) else nav.values():
        if isinstance(entry, str):
            yield entry
        else:
            yield from contents(entry)


def elsewhere() -> set[str]:
    """Pages that docs/hooks.py takes from other folders."""
    text = (DOCS / "hooks.py").read_text(encoding="utf-8")
    return set(re.findall(r'"(\w+\.md)":', text))


def test_every_page_is_in_the_contents_and_linked_from_the_index() -> None:
    pages = {path.name for path in DOCS.iterdir() if path.suffix in (".md", ".html")} | elsewhere()
    nav = list(contents(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]))
    assert sorted(nav) == sorted(pages)
    linked = set(LINK.findall((DOCS / "index.md").read_text(encoding="utf-8")))
    assert linked == pages - {"index.md"}


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stderr
    assert "WARNING" not in result.stderr
    python = (tmp_path / "site" / "api" / "index.html").read_text(encoding="utf-8")
    assert all(f'id="{name}"' in python for name in NAMES)
    commands = (tmp_path / "site" / "commands" / "index.html").read_text(encoding="utf-8")
    group: Any = typer.main.get_command(app)
    for name in group.commands:
        assert f"Usage: certlut {name} [OPTIONS]" in commands, name


def test_the_reference_names_everything_public() -> None:
    assert sorted(re.findall(r"^::: (\S+)$", (DOCS / "api.md").read_text(encoding="utf-8"), re.MULTILINE)) == sorted(NAMES)
    group: Any = typer.main.get_command(app)
    shown = re.findall(r"^<!-- help: (\w+) -->$", (DOCS / "commands.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(shown) == sorted(group.commands)


@functools.cache
def read(package: str) -> Any:
    """As the site reads it: a constant has no docstring at run time."""
    return griffe.load(package, search_paths=[str(Path(certlut.__file__).parents[1])])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With stats.h5 and results.tsv, which some examples read."""
    path = tmp_path_factory.mktemp("examples")
    sampler = Sampler(torch.nn.Linear(8, 2), 0.5, 2, ("l1", "l2", "linf"))
    data = [(x, 0) for x in np.random.default_rng(0).normal(size=(6, 8)).astype(np.float32)]
    sample_dataset(sampler, data, path / "stats.h5", Sampling(n=1000, seed=0), progress=False)
    certify_statistics(path / "stats.h5", path / "results.tsv", 0.001, "adaptive", None, progress=False)
    return path


@pytest.mark.parametrize("name", NAMES)
def test_every_public_name_has_an_example_that_is_true(
    name: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package, _, short = name.rpartition(".")
    found = read(package)[short]
    # A function of the name of its module.
    found = found[short] if found.is_module else found
    text = found.final_target.docstring if found.is_alias else found.docstring
    assert text is not None
    test = doctest.DocTestParser().get_doctest(text.value, {}, name, None, None)
    assert test.examples, "no example"
    assert any(short.lower() in example.source.lower() for example in test.examples)
    for file in folder.iterdir():
        (tmp_path / file.name).symlink_to(file)
    monkeypatch.chdir(tmp_path)
    said: list[str] = []
    # Doctest's own capture of stdout would be pytest's.
    assert doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test, out=said.append).failed == 0, "".join(said)
    assert getattr(importlib.import_module(package), short) is not None


def test_the_readme_is_short_and_says_how_to_cite() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 120
    card = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert card["title"] == "certlut"
    assert card["version"] == importlib.metadata.version("certlut")
    assert {reference["title"] for reference in card["references"]} >= {"Higher-Order Certification for Randomized Smoothing"}
    # Links of the README lead somewhere.
    for target in LINK.findall("\n".join(lines)):
        assert (ROOT / target).is_file(), target
