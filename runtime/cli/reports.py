"""The commands that forecast and show: plan, demo, report."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

# What the extras `demo` and `report` bring.
EXTRAS = ("jinja2", "matplotlib", "pydantic", "sklearn", "torch")


def plan(
    d: Annotated[int, typer.Option("--d", help="Numbers in an input: 3072 for 3 x 32 x 32.")],
    q: Annotated[float, typer.Option("--q", help="Probability of the class under noise.")],
    rho: Annotated[float, typer.Option(help="The gradient's length over the largest that q allows, 0 to 1.")],
    alpha: Annotated[float, typer.Option(help="Probability that any radius of an input is wrong.")] = 0.001,
    threats: Annotated[str, typer.Option(help="Comma-separated: l1, l2, linf.")] = "l1,l2,linf",
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
        typer.Option(
            help="Repeated: THREAT=RADIUS in units of sigma. Instead: how many of n samples (100,000) inputs like it need."
        ),
    ] = None,
    table: Annotated[Path | None, typer.Option(help="Table file; by default the shipped one.")] = None,
) -> None:
    """Forecast how many samples it takes to beat Cohen's radius by 1, 5 and 10 %, with either estimator.

    It is a forecast for a half-space seen through noise, not a bound: docs/plan.md says what goes into it.

    Examples: certlut plan --d 3072 --q 0.99 --rho 0.8 --alpha 0.001

    certlut plan --d 150528 --q 0.99 --rho 0.8 --threats linf --n 1250000

    certlut plan --d 784 --q 0.9 --rho 0.8 --target l2=1.0 --target l1=1.0
    """
    from rich.console import Console

    from ..bounds.looks import Looks
    from ..evaluate import find_tails
    from ..lookup.table import load
    from ..plan.plan import masked
    from ..plan.plan import plan as make_plan
    from ..plan.stopping import Method, targeted
    from ..threats.declare import resolve
    from ..threats.specs import parse_targets

    known = resolve([name.strip() for name in threats.split(",") if name.strip()])
    everything = known if coordinates is None else (*known, masked(d, coordinates))
    if target:
        method = Method(everything, alpha, "adaptive", load(table), find_tails("tails"))
        print(targeted(parse_targets(target), Looks.geometric(n or 100_000), method, d, q, rho, n0, cosine or None))
        return
    made = make_plan(d, q, rho, alpha, everything, load(table), n, n0, shape, cosine=cosine or None)
    print(f"d = {d}, q = {q:g}, gradient {rho:g} of the largest ({shape}), alpha = {alpha:g}; a forecast, not a bound")
    Console().print(made.table())
    print(f"expected to abstain below n = {made.least:,}")


def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder to write.")] = Path("demo"),
    quick: Annotated[bool, typer.Option("--quick", help="20 digits, n = 10,000.")] = False,
) -> None:
    """Train a small network on handwritten digits, certify 100 held-out ones, plot and tabulate the gain over Cohen's radii.

    Example: certlut demo --out demo --quick
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

    Examples: certlut report --config digits --out report-digits

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
