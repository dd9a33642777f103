"""Tables for the terminal, a file or a pipe."""

from rich.console import Console, RenderableType

# Wider than any of them: where it does not fit, the terminal wraps it, and no number is cut.
WIDTH = 400


def show(what: RenderableType) -> None:
    """Print it on stdout, every cell whole, no blanks at the ends of lines."""
    console = Console(width=WIDTH)
    with console.capture() as printed:
        console.print(what, highlight=False)
    print("\n".join(line.rstrip() for line in printed.get().splitlines()))
