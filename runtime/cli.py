"""The command `certlut`. Exit status: 0 done, 1 failed with one line on stderr, 2 wrong usage, 130 stopped by Ctrl-C."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from .cli_plan import demo, plan

app = typer.Typer(
    help="First-order robustness certificates for Gaussian-smoothed classifiers, from look-up tables.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Out = Annotated[Path, typer.Option("--out", help="File or folder to write.")]


@app.command()
def build(
    out: Out,
    grid: Annotated[str, typer.Option(help="Preset: small, default or dense.")] = "default",
    sigma: Annotated[
        float | None, typer.Option(help="Bind the table to this noise level; without it, it serves every one.")
    ] = None,
    jobs: Annotated[int, typer.Option(help="Worker processes; -1 for all cores.")] = -1,
    backend: Annotated[str, typer.Option(help="loky (processes on this machine) or dask.")] = "loky",
    scheduler: Annotated[str | None, typer.Option(help="Address of the Dask scheduler, with --backend dask.")] = None,
) -> None:
    """Solve a grid and write a table. Stopped at any moment, the same command goes on where it was.

    Examples: certlut build --out tables/default.h5 --jobs 2

    certlut build --out dense.h5 --grid dense --backend dask --scheduler tcp://head:8786
    """
    from tablegen.build import build as build_table

    if backend not in ("loky", "dask") or (backend == "dask") != (scheduler is not None):
        raise typer.BadParameter("expected --backend loky, or --backend dask with --scheduler ADDRESS")
    data = build_table(out, sigma, grid, jobs, scheduler)
    print(f"{out}: {data.datasets['radius'].size} nodes, digest {data.digest[:16]}")


@app.command()
def prove(
    file: Path,
    nodes: Annotated[int | None, typer.Option(help="Check this many random nodes only; the file is not written.")] = None,
    jobs: Annotated[int, typer.Option(help="Worker processes; -1 for all cores.")] = -1,
    seed: Annotated[int | None, typer.Option(help="Seed of the random choice of nodes.")] = None,
    scheduler: Annotated[str | None, typer.Option(help="Address of a Dask scheduler to run on.")] = None,
) -> None:
    """Prove a table's cuts in ball arithmetic, and record a whole proof in the file.

    Example: certlut prove tables/default.h5 --nodes 500
    """
    from tablegen.prove import prove as prove_table

    proof = prove_table(file, nodes, jobs, seed, scheduler)
    if proof.failed:
        z, rho, theta = proof.failed[0]
        raise ValueError(
            f"{file}: {len(proof.failed)} of {proof.nodes} nodes cannot be proven, the first at z = {z:.6g}, rho = {rho:.6g}, "
            f"theta = {theta:.6g}; the file is unchanged: build it again"
        )
    changes = f"{proof.lowered} nodes lowered, by at most {proof.largest:.1e} relative"
    if proof.lowered and not proof.whole:
        raise ValueError(f"{file}: of {proof.nodes} nodes tried, not all hold as stored ({changes}); prove the whole table")
    print(f"{file}: {proof.nodes} nodes, all proven; " + (changes if proof.whole else "a sample, the file is unchanged"))


@app.command()
def stamp(
    file: Path,
    sigma: Annotated[float, typer.Option(help="Noise level to bind the table to, in input units.")],
    out: Out,
) -> None:
    """Re-issue a table for one sigma, without solving; a proof stays valid.

    Example: certlut stamp tables/default.h5 --sigma 0.5 --out model-table.h5
    """
    from tablegen.build import stamp as stamp_table

    print(f"{out}: sigma {sigma:g}, digest {stamp_table(file, sigma, out).digest[:16]}")


@app.command()
def info(file: Annotated[Path | None, typer.Argument(help="A table; without it, the one that would be used.")] = None) -> None:
    """Print what a table holds, and where these packages came from.

    Example: certlut info tables/default.h5
    """
    import runtime

    from .format import AXES, read_table
    from .table import find

    path = find(file)
    data = read_table(path)
    lines: dict[str, Any] = {"file": path, "digest": data.digest}
    lines |= {name: value for name, value in data.attributes().items() if name not in ("grid", "filetype")}
    for name in AXES:
        knots = data.datasets[name]
        lines[name] = f"{len(knots)} knots, {knots[0]:g} to {knots[-1]:g}"
    lines["nodes"] = data.datasets["radius"].size
    lines["packages"] = Path(runtime.__file__).parent.parent
    for name, value in lines.items():
        print(f"{name:15}{value}")


@app.command()
def radius(
    q: Annotated[float, typer.Option("--q", help="Lower bound of the class's probability.")],
    m1: Annotated[float, typer.Option("--m1", help="Lower bound of the gradient along the perturbation, sigma = 1 units.")],
    m2: Annotated[float, typer.Option("--m2", help="Lower bound of the gradient across it.")],
) -> None:
    """Print the exact radius (sigma = 1), solved afresh, without a table.

    Example: certlut radius --q 0.9 --m1 -0.1 --m2 0.05
    """
    from tablegen.solve import radius as exact

    print(repr(exact(q, m1, m2)))


@app.command()
def sample(
    out: Out,
    model: Annotated[str, typer.Option(help="TorchScript or .pt2 file, checkpoint {arch, state_dict}, or module:function.")],
    data: Annotated[
        str, typer.Option(help=".npz or .pt with x and y, folder with CIFAR-10's batches, or folder [split/]class/image.")
    ],
    sigma: Annotated[float, typer.Option(help="Noise level in the model's input units.")],
    num_classes: Annotated[int, typer.Option(help="Number of classes.")],
    n0: Annotated[int, typer.Option(help="Samples to choose the class.")] = 100,
    n: Annotated[int, typer.Option(help="Samples to certify it.")] = 100_000,
    batch_size: Annotated[int, typer.Option(help="Samples per forward pass.")] = 1000,
    alpha: Annotated[float, typer.Option(help="Checked against n before sampling; certify may use another.")] = 0.001,
    seed: Annotated[int, typer.Option(help="Seed of the noise.")] = 0,
    skip: Annotated[int, typer.Option(help="Take every skip-th input.")] = 1,
    limit: Annotated[int | None, typer.Option("--max", help="Take at most this many inputs.")] = None,
    split: Annotated[str | None, typer.Option(help="train, test or val, of a folder.")] = None,
    trust: Annotated[bool, typer.Option("--trust", help="Unpickle objects in the model's file: they can run any code.")] = False,
    no_check: Annotated[
        bool, typer.Option("--no-check", help="Skip the look at 50 inputs for wrong units and normalisation.")
    ] = False,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...; under torchrun cuda is each process's own GPU.")] = "cpu",
    shard: Annotated[
        str | None, typer.Option(help="K/N, K from 0: sample one part of N, to its own file. Under torchrun: RANK/WORLD_SIZE.")
    ] = None,
    autocast: Annotated[
        str | None, typer.Option(help="bf16 or fp16: run the model in lower precision. This changes the base classifier.")
    ] = None,
    channels_last: Annotated[bool, typer.Option("--channels-last", help="Images in channels-last memory order.")] = False,
    compile: Annotated[bool, typer.Option("--compile", help="Run the model through torch.compile.")] = False,
    early_stop: Annotated[bool, typer.Option("--early-stop", help="Stop inputs that are certain to abstain at alpha.")] = False,
) -> None:
    """Draw the votes and moments of a data set and write a statistics file, to certify from as often as you like.

    Stopped at any moment (kill -9 too), the same command goes on behind the last finished input.

    Examples: certlut sample --model net.pt2 --data test.npz --sigma 0.5 --num-classes 10 --out stats.h5

    certlut sample --model checkpoint.pth.tar --data cifar-10-batches-bin --skip 20 --sigma 0.25 --num-classes 10 --out stats.h5

    On 4 GPUs, mind the lone --: torchrun --standalone --nproc-per-node 4 --no-python -- certlut sample --device cuda ... --out s.h5

    then: certlut merge s.?-of-4.h5 --out s.h5
    """
    from .certify import Certifier
    from .data import load_data
    from .evaluate import check_n
    from .models import load_model
    from .run import sample_dataset
    from .shards import Shard, local_device

    part = Shard.from_environment() if shard is None else Shard.parse(shard)
    device = local_device(device)
    certifier = Certifier(
        load_model(model, device, trust),
        sigma,
        num_classes,
        seed=seed,
        autocast=autocast,
        channels_last=channels_last,
        compile=compile,
        early_stop=early_stop,
    )
    information = {"model": model, "data": data, "split": split, "skip": skip, "max": limit, "device": device}
    inputs = load_data(data, skip, limit, split)
    check_n(n, alpha, certifier.threats, certifier.estimator)
    first = part.index == 0
    if first and not no_check:
        from .preflight import preflight

        for warning in preflight(certifier.model, inputs, sigma, num_classes, batch_size).warnings:
            print(f"certlut: warning: {warning}", file=sys.stderr)
    sampled = sample_dataset(certifier, inputs, out, n0, n, alpha, batch_size, information, part, first)
    print(f"{part.path(out)}: statistics of {len(sampled.idx)} inputs")


@app.command()
def merge(
    shards: Annotated[list[Path], typer.Argument(help="The files of all shards.")],
    out: Out,
) -> None:
    """Join the statistics files of all shards of one run.

    Example: certlut merge stats.0-of-2.h5 stats.1-of-2.h5 --out stats.h5
    """
    from .merge import merge as merge_shards

    print(f"{out}: statistics of {len(merge_shards(shards, out).idx)} inputs")


@app.command()
def certify(
    out: Out,
    statistics: Annotated[Path | None, typer.Argument(help="Statistics file from `certlut sample`.")] = None,
    alpha: Annotated[float, typer.Option(help="Probability that any radius of an input is wrong.")] = 0.001,
    estimator: Annotated[str, typer.Option(help="Of the gradient: adaptive or paper.")] = "adaptive",
    table: Annotated[Path | None, typer.Option(help="Table file; by default the shipped one.")] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Print every event that the radii rest on, its level and its users.")
    ] = False,
    from_counts: Annotated[
        Path | None,
        typer.Option(help="Instead of statistics: another tool's TSV with idx, label, predict, count, n; Cohen's radii only."),
    ] = None,
    sigma: Annotated[float | None, typer.Option(help="With --from-counts: noise level, in input units.")] = None,
    d: Annotated[int | None, typer.Option("--d", help="With --from-counts: numbers in an input, for linf radii.")] = None,
) -> None:
    """Turn statistics into certified radii (TSV).

    Examples: certlut certify stats.h5 --out results.tsv --alpha 0.001

    certlut certify --from-counts counts.tsv --sigma 0.5 --d 3072 --out results.tsv
    """
    if from_counts is not None:
        from .counts import certify_counts

        if statistics is not None or sigma is None:
            raise typer.BadParameter("expected STATISTICS, or --from-counts FILE with --sigma")
        print(f"{out}: {certify_counts(from_counts, out, sigma, alpha, d)} inputs")
        return
    if statistics is None or sigma is not None or d is not None:
        raise typer.BadParameter("expected STATISTICS, or --from-counts FILE with --sigma")
    from .run import certify_statistics

    budget, rows = certify_statistics(statistics, out, alpha, estimator, table)
    if explain:
        print(budget)
    print(f"{out}: {rows} inputs")


app.command()(plan)
app.command()(demo)


@app.command()
def report(
    out: Out,
    config: Annotated[str, typer.Option(help="digits, patches, or a TOML file of your own.")],
    quick: Annotated[bool, typer.Option("--quick", help="A few inputs, few samples, two noise levels.")] = False,
    inputs: Annotated[int | None, typer.Option(help="Certify this many inputs instead of the card's.")] = None,
    table: Annotated[Path | None, typer.Option(help="Table file; by default the shipped one.")] = None,
) -> None:
    """Run every experiment on one data set and write a page of figures, tables and attacks; --out is used again.

    Examples: certlut report --config digits --out report-digits

    certlut report --config mine.toml --out report-mine --inputs 500
    """
    from tablegen.solve import solve

    from .evidence import run_report

    def exact(q: float, m1: float, m2: float) -> tuple[float, tuple[float, float, float]]:
        solution = solve(q, m1, m2)
        if not solution.converged:
            raise ArithmeticError(f"no convergence at q = {q!r}, m1 = {m1!r}, m2 = {m2!r}")
        return solution.radius, solution.multipliers

    page = run_report(config, out, exact, quick, inputs, table)
    print(f"{page}: open it in a browser; tables and figures are beside it")


def main() -> None:
    """Entry point: turns expected failures into one line on stderr and exit status 1."""
    try:
        app()
    except (ValueError, ArithmeticError, ImportError, OSError) as error:
        print(f"certlut: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
