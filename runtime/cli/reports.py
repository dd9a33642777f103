"""The commands that forecast and show: plan, demo, report."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from .show import show

# What the extras `demo` and `report` bring.
EXTRAS = ("jinja2", "matplotlib", "pydantic", "sklearn", "torch")


def plan(
    d: Annotated[int, typer.Option("--d", help="Numbers in an input: 3072 for 3 x 32 x 32.")],
    q: Annotated[float, typer.Option("--q", help="Probability of the class under noise.")],
    rho: Annotated[float, typer.Option(help="The gradient's length over the largest that q allows, 0 to 1.")],
    alpha: Annotated[float, typer.Option(help="Probability that any radius of an input is wrong.")] = 0.001,
    threat: Annotated[
        list[str] | None,
        typer.Option(help="Repeated, as for certify: l1, l2, linf, NAME=mask:FILE.npy (then ,p=P if not 2); all three without it."),
    ] = None,
    coordinates: Annotated[int | None, typer.Option(help="Also l2 within a mask of this many coordinates.")] = None,
    shape: Annotated[
        str,
        typer.Option(help="The gradient's: normal (a random direction), flat (all of one size), sparse (normal in 1 % of them)."),
    ] = "normal",
    n: Annotated[int | None, typer.Option("--n", help="Also the gain at this many samples.")] = None,
    n0: Annotated[int, typer.Option(help="Samples that choose the class.")] = 100,
    cosine: Annotated[
        float, typer.Option(help="Between the model's gradient, which proposes a direction, and the vote's; 0: votes propose.")
    ] = 0.97,
    target: Annotated[
        list[str] | None,
        typer.Option(help="Repeated: THREAT=RADIUS in units of sigma. Instead: how many of n samples (100,000) it takes."),
    ] = None,
    table: Annotated[Path | None, typer.Option(help="Table file; by default the shipped one.")] = None,
) -> None:
    """Forecast how many samples it takes to beat Cohen's radius by 1, 5 and 10 %, with either estimator.
    A forecast for a half-space seen through noise (docs/plan.md), not a bound.

    \b
    Examples:
      certlut plan --d 3072 --q 0.99 --rho 0.8 --threat linf --n 1250000
      certlut plan --d 192 --q 0.9 --rho 0.8 --threat red=mask:red.npy
      certlut plan --d 784 --q 0.9 --rho 0.8 --target l2=1.0 --target l1=1.0
    """
    from ..bounds.looks import Looks
    from ..evaluate import find_tails
    from ..lookup.table import load
    from ..plan.plan import masked
    from ..plan.plan import plan as make_plan
    from ..plan.stopping import Method, targeted
    from ..threats.declare import resolve
    from ..threats.specs import parse_targets, parse_threats

    known = resolve(parse_threats(threat or ("l1", "l2", "linf")))
    everything = known if coordinates is None else (*known, masked(d, coordinates))
    if target:
        method = Method(everything, alpha, "adaptive", load(table), find_tails("tails"))
        print(targeted(parse_targets(target), Looks.geometric(n or 100_000), method, d, q, rho, n0, cosine or None))
        return
    made = make_plan(d, q, rho, alpha, everything, load(table), n, n0, shape, cosine=cosine or None)
    print(f"A forecast, not a bound: d = {d}, q = {q:g}, gradient {rho:g} of the largest\n({shape}), alpha = {alpha:g}")
    show(made.table())
    print(f"expected to abstain below n = {made.least:,}")


def summary(
    results: Annotated[list[str], typer.Argument(help="Results files (TSV), each as FILE or NAME=FILE; NAME stands for it.")],
    radii: Annotated[
        str | None, typer.Option(help="Comma-separated: radii of certified accuracy, for every threat; else round ones.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Also draw certified accuracy against radius to this .png, .svg or .pdf (needs matplotlib).")
    ] = None,
    csv: Annotated[Path | None, typer.Option("--csv", help="Also write all of it to this file.")] = None,
) -> None:
    """Average radii, gains over Cohen's and certified accuracy of results files, beside each other where there are several.

    A wrong or abstaining input counts as 0. Files of Cohen et al.'s format (idx label predict radius correct time) serve too.

    \b
    Examples:
      certlut summary results.tsv
      certlut summary demo/first_order.tsv demo/results.tsv --plot curves.png
      certlut summary ours=results.tsv theirs=cohen.tsv --radii 0.25,0.5,1
    """
    from ..jobs.atomic import check_out
    from ..runs.summary import comma_separated, curves, read_results, table

    at = _radii(radii)
    names = [_named(text) for text in results]
    doubled = len({name for name, _ in names}) < len(names)
    read = [read_results(path, str(path) if doubled else name) for name, path in names]
    for out in filter(None, (plot, csv)):
        check_out(out, *(path for _, path in names))
    show(table(read, at))
    if csv is not None:
        csv.write_text(comma_separated(read, at), encoding="utf-8")
    if plot is not None:
        with _extra("report"):
            from ..report.figures import plot_methods
        plot_methods(plot, curves(read))


def _named(text: str) -> tuple[str, Path]:
    """NAME=FILE, or a file that is called by its name without its end."""
    name, given, file = text.partition("=")
    return (name, Path(file)) if given and not Path(text).exists() else (Path(text).stem, Path(text))


def _radii(text: str | None) -> list[float]:
    try:
        at = [float(x) for x in (text or "").split(",") if x.strip()]
    except ValueError:
        at = [-1.0]
    if any(not 0.0 <= level < math.inf for level in at):
        raise ValueError(f"--radii {text!r}: expected numbers from 0, with commas between them")
    return at


def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder to write.")] = Path("demo"),
    quick: Annotated[bool, typer.Option("--quick", help="20 digits, n = 10,000.")] = False,
) -> None:
    """Train a small network on handwritten digits, certify 100 held-out ones, plot and tabulate the gain over Cohen's radii.

    Its files go into `certlut summary` too.

    \b
    Example:
      certlut demo --out demo --quick
    """
    with _extra("demo"):
        from ..report.demo import run_demo
    run_demo(out, quick)


def report(
    out: Annotated[Path, typer.Option("--out", help="Folder to write.")],
    config: Annotated[str, typer.Option(help="digits, patches, mnist, fashion-mnist, cifar10, or a TOML file of your own.")],
    data: Annotated[str | None, typer.Option(help="Folder of the files of mnist, fashion-mnist or cifar10.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="A few inputs, few samples, two noise levels.")] = False,
    inputs: Annotated[int | None, typer.Option(help="Certify this many inputs instead of the configuration's.")] = None,
    n: Annotated[int | None, typer.Option("--n", help="Samples an input instead of the configuration's.")] = None,
    table: Annotated[Path | None, typer.Option(help="Table file; by default the shipped one.")] = None,
) -> None:
    """Run every experiment on one data set and write a page of figures, tables and attacks; --out is used again.

    \b
    Examples:
      certlut report --config digits --out report-digits
      certlut report --config mnist --data mnist-files --out report-mnist
      certlut report --config mine.toml --out report-mine --inputs 500
    """
    from certlut.tablegen.solve import solve

    with _extra("report"):
        from ..report.report import run_report

    def exact(q: float, m1: float, m2: float) -> tuple[float, tuple[float, float, float]]:
        solution = solve(q, m1, m2)
        if not solution.converged:
            raise ArithmeticError(f"no convergence at q = {q!r}, m1 = {m1!r}, m2 = {m2!r}")
        return solution.radius, solution.multipliers

    page = run_report(config, out, exact, quick, inputs, table, n, data)
    print(f"{page}: open it in a browser; tables and figures are beside it")


@contextmanager
def _extra(name: str) -> Iterator[None]:
    """Says which extra brings a package that is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in EXTRAS:
            raise
        raise ImportError(f"{error}; pip install 'certlut[{name}]' brings it") from None
