"""Options that several commands have, each said once."""

from pathlib import Path
from typing import Annotated

import typer

Out = Annotated[Path, typer.Option("--out", help="File to write.")]
Alpha = Annotated[float, typer.Option(help="Probability that any radius of an input is wrong.")]
Surface = Annotated[Path | None, typer.Option(help="Table file; by default the shipped one.")]
Threats = Annotated[
    list[str] | None,
    typer.Option(
        "--threat",
        help="Repeated: l1, l2, linf, lp:P, sparse:K, NAME=mask:FILE.npy or NAME=basis:FILE.npy (then ,p=P if not 2), "
        "NAME=direction:FILE.npy, NAME=line:FILE.npy; certify also takes names that the file was sampled for.",
    ),
]
