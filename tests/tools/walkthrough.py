"""Run every command block of README, tutorial and how-to as a new user would paste it: `tests/tools/walkthrough.py [--quick]`.

Each document gets an empty folder (README.md: a copy of the repository's files, for it installs from there); its `sh` and `python`
blocks run from top to bottom. A comment line before a block changes that: `<!-- quick: COMMAND -->` is what runs instead with
--quick, `<!-- not run: WHY -->` leaves it out. With --quick, `certlut` and `python` are this interpreter's, nothing is installed.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = ("README.md", "docs/tutorial.md", "docs/howto.md")
BLOCK = re.compile(r"(?P<comments>(?:^<!--[^\n]*-->\n)*)^```(?P<language>sh|python)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
COMMENT = re.compile(r"<!-- (quick|not run): (.*) -->")


@dataclass(frozen=True)
class Block:
    """One fenced block."""

    line: int
    language: str
    code: str
    quick: str | None
    """Shell command that stands for it with --quick."""
    left_out: str | None
    """Why it is never run."""


def blocks(text: str) -> list[Block]:
    """The sh and python blocks of a document, in order."""
    out = []
    for match in BLOCK.finditer(text):
        said = dict(COMMENT.findall(match["comments"]))
        line = text.count("\n", 0, match.start("code"))
        out.append(Block(line, match["language"], match["code"], said.get("quick"), said.get("not run")))
    return out


def script(block: Block, quick: bool) -> str:
    """What bash is given for a block."""
    if quick and block.quick is not None:
        return block.quick
    if block.language == "sh":
        return block.code
    return f"python - <<'END_OF_BLOCK'\n{block.code}END_OF_BLOCK\n"


def walk(document: str, text: str, folder: Path, quick: bool) -> int:
    """Run a document's blocks in `folder`; returns how many. SystemExit where one fails."""
    environment = dict(os.environ)
    # A README that makes a virtual environment means its blocks to run there.
    path = [str(folder / ".venv" / "bin")]
    if quick:
        (tools := folder / ".tools").mkdir()
        for name, command in (("certlut", "-m certlut"), ("python", "")):
            tool = tools / name
            tool.write_text(f'#!/bin/sh\nexec "{sys.executable}" {command} "$@"\n')
            tool.chmod(0o755)
        path = [str(tools)]
    environment["PATH"] = os.pathsep.join([*path, environment["PATH"]])
    count = 0
    for block in blocks(text):
        where = f"{document}:{block.line}"
        if block.left_out is not None:
            print(f"{where}: not run, {block.left_out}")
            continue
        start = time.perf_counter()
        result = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script(block, quick)],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if result.returncode:
            raise SystemExit(f"{where}: exit status {result.returncode}\n{script(block, quick)}\n{result.stdout[-3000:]}")
        print(f"{where}: {time.perf_counter() - start:.1f} s", flush=True)
        count += 1
    return count


def main() -> None:
    """Walk through every document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the short form of long commands, without installing")
    parser.add_argument("documents", nargs="*", default=DOCUMENTS)
    options = parser.parse_args()
    for document in options.documents:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name) / "work"
            if document == "README.md":
                tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
                for file in tracked.rstrip("\0").split("\0"):
                    (folder / file).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy2(ROOT / file, folder / file)
            else:
                folder.mkdir()
            walk(document, (ROOT / document).read_text(encoding="utf-8"), folder, options.quick)


if __name__ == "__main__":
    main()
