"""The command `certlut`. Exit status: 0 done, 1 failed with one line on stderr, 2 wrong usage, 130 stopped by Ctrl-C."""

import sys
from importlib.metadata import version
from typing import Annotated

import typer

from .reports import demo, plan, report, summary
from .sampling import certify, merge, sample
from .slices import slice_
from .tables import build, info, prove, radius, stamp

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (build, prove, stamp, info, radius, sample, merge, certify, summary, plan, report, demo):
    app.command()(command)
app.command("slice")(slice_)

# torch's, which is not imported here: what a GPU reports, out of memory where no smaller batch helps among it.
DEVICE_ERRORS = ("OutOfMemoryError", "AcceleratorError")


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"certlut {version('certlut')}")
        raise typer.Exit


@app.callback()
def options(
    _version: Annotated[bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)] = False,
) -> None:
    """Robustness certificates for Gaussian-smoothed classifiers, from look-up tables."""


def main() -> None:
    """Entry point: turns expected failures into one line on stderr and exit status 1."""
    try:
        app(prog_name="certlut")
    except (ValueError, ArithmeticError, ImportError, OSError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and type(error).__name__ not in DEVICE_ERRORS:
            raise
        missing = isinstance(error, ModuleNotFoundError) and error.name in ("torch", "sklearn", "matplotlib")
        hint = "; pip install 'certlut[demo]' brings it" if missing else ""
        print(f"certlut: {' '.join(str(error).split())}{hint}", file=sys.stderr)
        sys.exit(1)
