"""What mkdocs does beside Markdown: pages that live elsewhere in the repository, and the help of every command."""

import re
from pathlib import Path
from typing import Any

import typer
from mkdocs.structure.files import File, Files

from certlut.cli.main import app

ROOT = Path(__file__).resolve().parent.parent
# Page of the site -> its file.
ELSEWHERE = {"tables.md": "tables/README.md", "contributing.md": "CONTRIBUTING.md", "changelog.md": "CHANGELOG.md"}
COMMAND = re.compile(r"<!-- help: (\w+) -->")
WIDTH = 80


def on_files(files: Files, config: Any) -> Files:
    """Adds the pages from elsewhere."""
    for page, source in ELSEWHERE.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links as they are right on the site, and help texts in place of their marks."""
    for there, source in ELSEWHERE.items():
        markdown = markdown.replace(f"](../{source}", f"]({there}")
    if page.file.src_uri in ELSEWHERE:
        markdown = re.sub(r"\]\((?:\.\./)?docs/", "](", markdown)
        markdown = re.sub(r"\]\((?:tables/)?README\.md", "](tables.md", markdown)
    return COMMAND.sub(lambda match: f"```text\n{help_of(match[1])}\n```", markdown)


def help_of(name: str) -> str:
    """`certlut NAME --help` on a terminal of 80 columns."""
    group: Any = typer.main.get_command(app)
    command = group.commands[name]
    parent = group.context_class(group, info_name="certlut", terminal_width=WIDTH, **group.context_settings)
    context = command.context_class(command, info_name=name, parent=parent, terminal_width=WIDTH, **command.context_settings)
    return str(command.get_help(context)).rstrip()
