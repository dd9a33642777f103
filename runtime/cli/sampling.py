"""The commands that draw and certify: sample, merge, certify."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from .options import Alpha, Out, Surface, Threats
from .show import show


def sample(
    out: Out,
    model: Annotated[str, typer.Option(help="TorchScript or .pt2 file, checkpoint {arch, state_dict}, or module:function.")],
    data: Annotated[
        str,
        typer.Option(help=".npz or .pt with x and y, folder with CIFAR's batches or MNIST's IDX files, or [split/]class/image."),
    ],
    sigma: Annotated[float, typer.Option(help="Noise level in the model's input units.")],
    num_classes: Annotated[int, typer.Option(help="Number of classes.")],
    n0: Annotated[int, typer.Option(help="Samples to choose the class.")] = 100,
    n: Annotated[int, typer.Option(help="Samples to certify it.")] = 100_000,
    batch_size: Annotated[int, typer.Option(help="Samples per forward pass.")] = 1000,
    alpha: Annotated[
        float, typer.Option(help="Checked against n before sampling, and what --early-stop goes by; certify may use another.")
    ] = 0.001,
    seed: Annotated[int, typer.Option(help="Seed of the noise.")] = 0,
    skip: Annotated[int, typer.Option(help="Take every skip-th input.")] = 1,
    limit: Annotated[int | None, typer.Option("--max", help="Take at most this many inputs.")] = None,
    split: Annotated[str | None, typer.Option(help="train, test or val, of a folder.")] = None,
    trust: Annotated[bool, typer.Option("--trust", help="Unpickle objects in the model's file: they can run any code.")] = False,
    normalise: Annotated[
        str | None,
        typer.Option(
            help="Layer for the model's front, in place of a checkpoint's: none, cifar10, imagenet, mnist, half, cifar10-centre, "
            "imagenet-centre, 0-255, or MEANS/DEVIATIONS as 0.5,0.5,0.5/0.2,0.2,0.2."
        ),
    ] = None,
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
    proposal: Annotated[
        str,
        typer.Option(
            help="What proposes the gradient's direction: gradient (the model's), votes, or auto: votes where there is none."
        ),
    ] = "auto",
    target: Annotated[
        list[str] | None,
        typer.Option(
            help="Repeated: THREAT=RADIUS, in input units. An input is sampled no further once all are certified, or cannot be or "
            "are not expected to be with n samples."
        ),
    ] = None,
    precision: Annotated[
        float | None, typer.Option(help="Sample no further where n samples are not expected to add this part of a radius, as 0.02.")
    ] = None,
    looks: Annotated[int, typer.Option(help="With --target or --precision: how often to look, first at 500 samples.")] = 8,
    threat: Threats = None,
    threshold: Annotated[
        list[float] | None,
        typer.Option(help="Repeated: count votes against beyond these, in units of sigma; by default 13 from 0.5 to 4."),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Cores to keep busy; by default this process's share of the machine.")
    ] = None,
    noise: Annotated[str, typer.Option(help="gaussian, or grid: whole steps of the grid that the inputs lie on.")] = "gaussian",
    grid_step: Annotated[str | None, typer.Option(help="With --noise grid: 1/255, ...; by default that of the data.")] = None,
    keep_means: Annotated[
        bool,
        typer.Option("--keep-means", help="Keep mean vectors: threats chosen without looking at them can be certified later."),
    ] = False,
) -> None:
    """Draw the votes and moments of a data set and write a statistics file, to certify from as often as you like.

    Stopped at any moment (kill -9 too), the same command goes on behind the last finished input.

    \b
    Examples:
      certlut sample --model net.pt2 --data test.npz --sigma 0.5 \\
        --num-classes 10 --out stats.h5
      certlut sample --model checkpoint.pth.tar --data cifar-10-batches-bin \\
        --skip 20 --sigma 0.25 --num-classes 10 --out stats.h5
      certlut sample ... --threat l1 --threat lp:3 \\
        --threat red=mask:red.npy --threat span=basis:q.npy,p=inf

    \b
    Certified accuracy at one radius:
      certlut sample ... --target l2=0.5 --target l1=1.0 --out stats.h5

    \b
    On 4 GPUs (mind the lone --), then join the four files:
      torchrun --standalone --nproc-per-node 4 --no-python -- \\
        certlut sample --device cuda ... --out s.h5
      certlut merge s.?-of-4.h5 --out s.h5
    """
    from ..bounds.looks import Goal
    from ..evaluate import find_tails
    from ..inputs.data import load_data
    from ..inputs.models import load_model
    from ..jobs.shards import Shard, groups, local_device
    from ..lookup.table import load
    from ..lookup.tail_format import THRESHOLDS
    from ..plan.stopping import Method
    from ..runs.sample import sample_dataset
    from ..sampling.card import Sampling
    from ..sampling.identity import file_digest
    from ..sampling.memory import keep_freed
    from ..sampling.pools import pools
    from ..sampling.sampler import Sampler
    from ..threats.specs import parse_targets, parse_threats

    part = Shard.from_environment() if shard is None else Shard.parse(shard)
    device = local_device(device)
    card = Sampling(
        n0=n0,
        n=n,
        alpha=alpha,
        batch_size=batch_size,
        seed=seed,
        autocast=autocast,
        channels_last=channels_last,
        compile=compile,
        early_stop=early_stop,
        noise=noise,
        grid_step=grid_step,
        thresholds=THRESHOLDS if threshold is None else tuple(threshold),
        keep_means=keep_means,
        proposal=proposal,
        goal=Goal(parse_targets(target or ()), precision),
        looks=looks,
    )
    keep_freed()
    with pools(threads) as shared:
        net = load_model(model, device, trust, normalise)
        sampler = Sampler(net, sigma, num_classes, parse_threats(threat or ("l1", "l2", "linf")))
        sampler.check_card(card)
        inputs = load_data(data, skip, limit, split)
        if part.index and not part.pick(groups(len(inputs), card.inputs_a_batch)):
            # Not a failure: torchrun would stop the others.
            print(f"shard {part}: nothing is left for it, {len(inputs)} inputs make fewer batches")
            return
        first = part.index == 0
        if first and not no_check:
            from ..inputs.preflight import preflight

            for warning in preflight(net, inputs, sigma, num_classes, batch_size).warnings:
                print(f"certlut: warning: {warning}", file=sys.stderr)
        sampled = sample_dataset(
            sampler,
            inputs,
            out,
            card,
            {"model": model, "normalise": normalise, "data": data, "split": split, "max": limit, "device": device},
            shard=part,
            progress=first,
            skip=skip,
            model_file=file_digest(model),
            pace=shared.keep,
            method=Method(sampler.threats, alpha, "adaptive", load(), find_tails("tails")) if card.goal else None,
        )
        if first and sampler.obstacle:
            print(f"certlut: directions are proposed from votes: the model gives no gradient ({sampler.obstacle})", file=sys.stderr)
        step = sampled.settings["grid_step"]
        about = f", noise on the grid of step {step}" if step else ""
        if card.schedule is not None:
            about += f", {100.0 * (1.0 - sampled.statistics.n.sum(axis=1).mean() / n):.1f} % of samples saved"
        print(f"{part.path(out)}: statistics of {len(sampled.idx)} inputs{about}")
        _tell_votes(part.path(out))


def merge(
    shards: Annotated[list[Path], typer.Argument(help="The files of all shards.")],
    out: Out,
) -> None:
    """Join the statistics files of all shards of one run.

    \b
    Example:
      certlut merge stats.0-of-2.h5 stats.1-of-2.h5 --out stats.h5
    """
    from ..runs.merge import merge as merge_shards

    print(f"{out}: statistics of {len(merge_shards(shards, out).idx)} inputs")


def certify(
    out: Out,
    statistics: Annotated[Path | None, typer.Argument(help="Statistics file from `certlut sample`.")] = None,
    alpha: Alpha = 0.001,
    estimator: Annotated[str, typer.Option(help="Of the gradient: adaptive or paper.")] = "adaptive",
    certificate: Annotated[str, typer.Option(help="tails, or first-order: value and gradient alone, as in the paper.")] = "tails",
    table: Surface = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Print every event that the radii rest on, its level and its users.")
    ] = False,
    threat: Threats = None,
    from_counts: Annotated[
        Path | None,
        typer.Option(help="Instead of statistics: another tool's TSV with idx, label, predict, count, n; Cohen's radii only."),
    ] = None,
    n: Annotated[
        int | None, typer.Option("--n", help="With --from-counts: samples of every input, where the file has no n.")
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(
            help="With --from-counts: names of a file without a header; counts for a column a class, as idx,label,counts."
        ),
    ] = None,
    sigma: Annotated[float | None, typer.Option(help="With --from-counts: noise level, in input units.")] = None,
    d: Annotated[int | None, typer.Option("--d", help="With --from-counts: numbers in an input, for linf radii.")] = None,
) -> None:
    """Turn statistics into certified radii (TSV), and print their summary.

    \b
    Examples:
      certlut certify stats.h5 --out results.tsv --alpha 0.001
      certlut certify stats.h5 --out paper.tsv \\
        --certificate first-order --estimator paper
      certlut certify --from-counts counts.tsv --sigma 0.5 --out results.tsv
      certlut certify --from-counts votes.txt --columns idx,label,counts \\
        --sigma 0.5 --out results.tsv
    """
    if from_counts is not None:
        from ..runs.counts import certify_counts

        if statistics is not None or sigma is None:
            raise typer.BadParameter("expected STATISTICS, or --from-counts FILE with --sigma")
        if threat or explain or table is not None or (estimator, certificate) != ("adaptive", "tails"):
            raise typer.BadParameter(
                "--from-counts gives Cohen's radii: no --threat, --estimator, --certificate, --table or --explain"
            )
        _summary(out, certify_counts(from_counts, out, sigma, alpha, d, n, None if columns is None else columns.split(",")))
        return
    if statistics is None or any(given is not None for given in (sigma, d, n, columns)):
        raise typer.BadParameter("expected STATISTICS, or --from-counts FILE with --sigma")
    from ..runs.certify import certify_statistics
    from ..threats.specs import parse_threats

    threats = parse_threats(threat or ())
    budget, rows = certify_statistics(statistics, out, alpha, estimator, table, threats, certificate=certificate)
    if explain:
        print(budget)
        _tell_votes(statistics)
    _summary(out, rows)


def _tell_votes(statistics: Path) -> None:
    """Which inputs the gradient did not serve, where there are any."""
    from ..statistics.file import by_votes

    if line := by_votes(statistics):
        print(line)


def _summary(out: Path, rows: int) -> None:
    """What was written, and what it says."""
    from ..runs.summary import read_results, table

    print(f"{out}: {rows} inputs")
    if rows:
        show(table([read_results(out)]))
