"""The commands that make, prove and show tables: build, prove, stamp, info, radius."""

from pathlib import Path
from typing import Annotated, Any

import typer

TableOut = Annotated[Path, typer.Option("--out", help="Table file to write.")]
TableFile = Annotated[Path, typer.Argument(help="Table file.")]


def build(
    out: TableOut,
    grid: Annotated[str, typer.Option(help="Preset: small, default or dense; tails for a tail table.")] = "default",
    sigma: Annotated[
        float | None, typer.Option(help="Bind the table to this noise level; without it, it serves every one.")
    ] = None,
    jobs: Annotated[int, typer.Option(help="Worker processes; -1 for all cores.")] = -1,
    scheduler: Annotated[str | None, typer.Option(help="Address of a Dask scheduler to run on.")] = None,
) -> None:
    """Solve a grid and write a table. Stopped at any moment, the same command goes on where it was.

    It is not proven then: `certlut prove` is next.

    \b
    Examples:
      certlut build --out tables/default.h5 --jobs 2
      certlut build --out dense.h5 --grid dense --scheduler tcp://head:8786
    """
    if grid == "tails":
        from certlut.tablegen.tail_table import build_tails

        if sigma is not None:
            raise typer.BadParameter("a tail table serves every sigma: expected no --sigma")
        made = build_tails(out, jobs=jobs, scheduler=scheduler)
        print(f"{out}: {made.datasets['excess'].size} entries, digest {made.digest[:16]}; {_proof(made.data_version, out)}")
        return
    from certlut.tablegen.build import build as build_table

    data = build_table(out, sigma, grid, jobs, scheduler)
    print(f"{out}: {data.datasets['radius'].size} nodes, digest {data.digest[:16]}; {_proof(data.data_version, out)}")


def _proof(data_version: int, out: Path) -> str:
    return "proven" if data_version else f"not proven yet: certlut prove {out}"


def prove(
    file: TableFile,
    nodes: Annotated[int | None, typer.Option(help="Check this many random nodes only; the file is not written.")] = None,
    jobs: Annotated[int, typer.Option(help="Worker processes; -1 for all cores.")] = -1,
    seed: Annotated[int | None, typer.Option(help="Seed of the random choice of nodes.")] = None,
    scheduler: Annotated[str | None, typer.Option(help="Address of a Dask scheduler to run on.")] = None,
) -> None:
    """Prove a table's cuts in ball arithmetic, and record a whole proof in the file.

    \b
    Example:
      certlut prove tables/default.h5 --nodes 500
    """
    from ..lookup.tail_format import is_tails

    if is_tails(file):
        _prove_tails(file, nodes, jobs, seed, scheduler)
        return
    from certlut.tablegen.prove import prove as prove_table

    proof = prove_table(file, nodes, jobs, seed, scheduler)
    if proof.failed:
        z, rho, theta = proof.failed[0]
        raise ValueError(
            f"{file}: {len(proof.failed)} of {proof.nodes} nodes cannot be proven, the first at z = {z:.6g}, rho = {rho:.6g}, "
            f"theta = {theta:.6g}; the file is unchanged: build it again"
        )
    changes = f"{proof.lowered} radii lowered"
    if proof.lowered:
        changes += f", by at most {proof.largest:.1e} of themselves"
    changes += f", {proof.raised} bounds c raised"
    if proof.changed and not proof.whole:
        raise ValueError(f"{file}: of {proof.nodes} nodes tried, not all hold as stored ({changes}); prove the whole table")
    print(f"{file}: {proof.nodes} nodes, all proven; " + (changes if proof.whole else "a sample, the file is unchanged"))


def _prove_tails(file: Path, nodes: int | None, jobs: int, seed: int | None, scheduler: str | None) -> None:
    from certlut.tablegen.tail_prove import prove_tails

    proof = prove_tails(file, nodes, jobs, seed, scheduler)
    if proof.failed:
        theta, r = proof.failed[0]
        raise ValueError(
            f"{file}: {len(proof.failed)} of {proof.nodes} nodes cannot be proven, the first at theta = {theta:g}, r = {r:g}"
        )
    if proof.raised and not proof.whole:
        raise ValueError(f"{file}: of {proof.entries} entries tried, {proof.raised} do not hold as stored; prove the whole table")
    outcome = f"{proof.raised} raised" if proof.whole else "a sample, the file is unchanged"
    print(f"{file}: {proof.entries} entries at {proof.nodes} nodes, all proven; {outcome}")


def stamp(
    file: TableFile,
    sigma: Annotated[float, typer.Option(help="Noise level to bind the table to, in input units.")],
    out: TableOut,
) -> None:
    """Re-issue a table for one sigma, without solving; a proof stays valid.

    \b
    Example:
      certlut stamp tables/default.h5 --sigma 0.5 --out model-table.h5
    """
    from certlut.tablegen.build import stamp as stamp_table

    from ..jobs.atomic import check_out

    check_out(out, file)
    print(f"{out}: sigma {sigma:g}, digest {stamp_table(file, sigma, out).digest[:16]}")


def info(file: Annotated[Path | None, typer.Argument(help="A table; without it, the one that would be used.")] = None) -> None:
    """Print what a table holds, and where these packages came from.

    \b
    Example:
      certlut info tables/default.h5
    """
    import certlut

    from ..lookup.format import AXES, read_table
    from ..lookup.table import find
    from ..lookup.tail_format import is_tails, read_tails

    path = find(file)
    if is_tails(path):
        tails = read_tails(path)
        print(f"{'file':15}{path}\n{'digest':15}{tails.digest}")
        for name, value in [*tails.attributes().items(), *((name, array.shape) for name, array in tails.datasets.items())]:
            print(f"{name:15}{value}")
        return
    data = read_table(path)
    lines: dict[str, Any] = {"file": path, "digest": data.digest}
    lines |= {name: value for name, value in data.attributes().items() if name not in ("grid", "filetype")}
    for name in AXES:
        knots = data.datasets[name]
        lines[name] = f"{len(knots)} knots, {knots[0]:g} to {knots[-1]:g}"
    lines["nodes"] = data.datasets["radius"].size
    lines["packages"] = Path(certlut.__file__).parent
    for name, value in lines.items():
        print(f"{name:15}{value}")


def radius(
    q: Annotated[float, typer.Option("--q", help="Lower bound of the class's probability.")],
    m1: Annotated[float, typer.Option("--m1", help="Lower bound of the gradient along the perturbation, sigma = 1 units.")],
    m2: Annotated[float, typer.Option("--m2", help="Lower bound of the gradient across it.")],
) -> None:
    """Print the exact radius (sigma = 1), solved afresh, without a table.

    \b
    Example:
      certlut radius --q 0.9 --m1 -0.1 --m2 0.05
    """
    from certlut.tablegen.solve import radius as exact

    print(repr(exact(q, m1, m2)))
