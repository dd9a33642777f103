"""The first half of a long job: draw a data set's statistics to a file, from which runs/certify.py makes results."""

import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from ..bounds.binomial import lower_probability
from ..bounds.looks import Verdict
from ..inputs.pairs import as_pairs
from ..jobs.atomic import check_out
from ..jobs.groups import Record, resuming
from ..jobs.journal import check_same
from ..jobs.shards import Shard, groups
from ..plan.stopping import Method, rules_of
from ..sampling.card import Sampling
from ..sampling.sampler import Labelled, Sampler
from ..statistics.file import STATISTICS_VERSION, Sampled, read_statistics, write_statistics
from ..statistics.records import join, layout, pack, unpack
from ..statistics.summary import Statistics
from ..threats.sets import Threat

# Records joined at a time: a million single ones as objects would fill the memory.
CHUNK = 1000


def _at_once() -> None:
    """Goes on with the next group as it is."""


def sample_dataset(
    sampler: Sampler,
    data: Any,
    out: str | os.PathLike[str],
    card: Sampling,
    information: Mapping[str, Any] | None = None,
    *,
    shard: Shard | None = None,
    progress: bool = True,
    skip: int = 1,
    model_file: str = "",
    method: Method | None = None,
    pace: Callable[[], object] = _at_once,
) -> Sampled:
    """Sample every (input, label), or a shard of them, and write the statistics file `out`; returns what it holds.

    Each finished input goes to a journal beside the file: stopped at any moment, the same call goes on. A file that is complete and
    has the same settings is left as it is.

    Args:
        sampler: model, noise and threats.
        data: (input, label) pairs, in any form that `inputs.pairs.as_pairs` takes.
        out: the statistics file.
        card: what is drawn of each input.
        information: written with the settings, but not compared with those of a stopped run or of another shard.
        shard: written to a file of its own, `shard.path(out)`.
        progress: show a bar.
        skip: `data` holds every skip-th input of a data set: its input i is the set's input i * skip, in `idx` and in its noise.
        pace: called before every group of inputs (sampling/pools.py).
        model_file: digest of what the model was loaded from (`identity.file_digest`), a setting like the others.
        method: what decides that the card's goal is reached; needed with a goal.

    Raises:
        ValueError: as `Sampler.sample`; a journal or a complete file of other settings, with the difference named; another
            process at work on the file; an empty data set or shard; a label that is no class.
    """
    shard, data = shard or Shard(), as_pairs(data, sampler.num_classes)
    out, card = shard.path(check_out(out)), sampler.fit(data, card)
    settings = sampler.settings(data, card) | {"skip": skip, "model file": model_file}
    if not len(data):
        raise ValueError("the data set is empty: nothing to sample")
    rules = rules_of(card, method, sampler.sigma)
    settings |= {} if method is None else {"decided by": method.settings()}
    pieces = shard.pick(groups(len(data), card.inputs_a_batch))
    if not pieces:
        raise ValueError(f"shard {shard}: nothing is left for it, {len(data)} inputs make fewer batches; use fewer shards")
    if shard.count > 1:
        settings["shard"] = str(shard)
    described = settings | {"information": {**(information or {}), "alpha": card.alpha, "batch_size": card.batch_size}}
    with resuming(out, settings | {"format": journal_format()}, pieces, "sampling", progress) as job:
        if out.exists() and not job.started:
            check_same(out, "statistics", read_statistics(out).settings, settings)
        else:
            for group in job.remaining():
                pace()
                for done in sampler.draw(data, group, card, skip, rules):
                    job.add(_record(done, card))
            write_statistics(out, gather(job.records(), described, sampler.threats))
    return read_statistics(out)


def journal_format() -> str:
    """Of the journal's records: a run that another version began goes on only with the same."""
    return f"statistics {STATISTICS_VERSION}, fields {layout()}"


def _record(done: Labelled, card: Sampling) -> Record:
    statistics = done.drawn.statistics
    votes, n = int(statistics.count.sum()), int(statistics.n.sum())
    certified = (
        done.drawn.verdict is Verdict.CERTIFIED if card.goal.targets else bool(lower_probability(votes, n, card.alpha) > 0.5)
    )
    return {
        "idx": done.idx,
        "label": done.label,
        "predict": done.drawn.predict,
        "seconds": done.seconds,
        "certified": done.drawn.predict == done.label and certified,
        "saved": 1.0 - n / card.n,
        "statistics": pack(statistics),
    }


def gather(records: Iterator[Record], settings: Mapping[str, Any], threats: tuple[Threat, ...]) -> Sampled:
    """The records of inputs of one shape, joined."""
    columns: dict[str, list[Any]] = {"idx": [], "label": [], "predict": [], "seconds": []}
    joined: list[Statistics] = []
    waiting: list[Statistics] = []
    for record in records:
        for name, values in columns.items():
            values.append(record[name])
        waiting.append(unpack(record["statistics"]))
        if len(waiting) == CHUNK:
            joined.append(join(waiting))
            waiting.clear()
    found = {name: np.array(values) for name, values in columns.items()}
    found["idx"] *= settings["skip"]
    return Sampled(join(joined + waiting), **found, settings=dict(settings), threats=threats)
