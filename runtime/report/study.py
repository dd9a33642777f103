"""The sampling part of a report: data, networks, statistics (kept and used again), radii by every method from the same ones."""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import numpy.typing as npt
import torch

from ..bounds.looks import Goal
from ..evaluate import find_tails
from ..gains import Radii
from ..inputs.data import load_data
from ..inputs.models import load_model
from ..jobs.atomic import replacing
from ..jobs.progress import progress_bar
from ..lookup.table import Table
from ..plan.stopping import Method
from ..runs.sample import sample_dataset
from ..sampling.card import Sampling
from ..sampling.identity import data_digest, digest, state_digest
from ..sampling.sampler import Sampler
from ..sampling.scores import Model
from ..statistics.file import STATISTICS_VERSION, Sampled
from ..statistics.summary import Statistics
from ..threats.declare import Line, Sparse
from ..threats.sets import L1, L2, LINF, Threat
from .card import Config, subspace
from .gains import METHODS, certified, counted

NO_GOAL = Goal()


@dataclass(frozen=True)
class Study:
    """Everything that was certified."""

    config: Config
    table: Table
    threats: tuple[Threat, ...]
    shape: tuple[int, ...]
    classes: tuple[str, ...]
    test: Sequence[tuple[Any, int]]
    regions: npt.NDArray[np.int64]
    """Of each test input: those of one region hang together."""
    models: dict[float, Callable[[], Model]]
    """sigma -> its network, opened on use."""
    predict: dict[float, npt.NDArray[np.int64]]
    results: dict[tuple[float, str], Radii]
    """(sigma, method) -> radii, 0 where wrong or abstaining; without threats that the method has no bound for."""

    @property
    def d(self) -> int:
        """Coordinates of an input."""
        return int(np.prod(self.shape))

    def sampler(self, sigma: float) -> Sampler:
        """A sampler of the network for `sigma`."""
        return Sampler(self.models[sigma](), sigma, self.config.num_classes or len(self.classes), self.threats)


def run_study(config: Config, out: Path, table: Table, say: Callable[[str], None]) -> Study:
    """Train or open the networks, sample what is not on disk yet, and certify by every method.

    Statistics go to `out`/statistics_<sigma>_<key>.h5 as each sigma is done, the key standing for all settings; a file that is
    there already is used again.

    Raises:
        ValueError, FileNotFoundError: from opening data and models, and from sampling.
    """
    if config.trained:
        from . import bundled

        data = bundled.load(config.data, config.folder)
        if config.folder:
            config = dataclasses.replace(config, skip=max(1, len(data.test) // config.inputs))
        test: Sequence[tuple[Any, int]] = data.test[:: config.skip][: config.inputs]
        classes, regions = data.classes, data.regions[: len(test)]
        models = {sigma: _trained(config, out, sigma) for sigma in config.sigma}
    else:
        test = _own_data(config)
        classes, regions = tuple(str(label) for label in range(config.num_classes)), np.arange(len(test))
        models = {sigma: _opened(config.model.replace("{sigma}", f"{sigma:g}"), config) for sigma in config.sigma}
    if not len(test):
        raise ValueError(f"{config.data}: no input to certify")
    shape = tuple(np.shape(test[0][0]))
    brightness = Line(np.ones(shape), name="brightness")
    threats = (L1, L2, LINF, subspace(config.subspace, shape), Sparse(1), Sparse(3), brightness)
    predict: dict[float, npt.NDArray[np.int64]] = {}
    results: dict[tuple[float, str], Radii] = {}
    study = Study(config, table, threats, shape, classes, test, regions, models, predict, results)
    for sigma, sampled in zip(config.sigma, _sample_all(study, out, say), strict=True):
        predict[sigma] = sampled.predict
        for method, radii in certified(sampled.statistics, threats, config.alpha, tuple(METHODS), table):
            results[sigma, method] = counted(radii, sampled.predict == sampled.label)
    return study


def _own_data(config: Config) -> Sequence[tuple[Any, int]]:
    # A file holds one split, which needs no name; only folders have several.
    split = None if config.split == "test" and Path(config.data).is_file() else config.split
    data: Sequence[tuple[Any, int]] = load_data(config.data, config.skip, config.inputs, split)
    return data


def _opened(spec: str, config: Config) -> Callable[[], Model]:
    return lambda: load_model(spec, config.device, normalise=config.normalise or None)


def _trained(config: Config, out: Path, sigma: float) -> Callable[[], Model]:
    """Trains on first use and keeps the weights in `out`."""
    path = out / f"network_{sigma:g}.pt"

    def make() -> Model:
        from . import bundled

        train_set = bundled.load(config.data, config.folder).train
        recipe = {"data": config.data, "sigma": sigma, "epochs": config.epochs}
        if config.folder:
            recipe |= {"images": digest(torch.tensor(train_set.x)), "labels": digest(train_set.y)}
        model = bundled.network(config.data)
        if path.is_file():
            kept = torch.load(path, weights_only=True)
            if kept.get("recipe") == json.dumps(recipe):
                model.load_state_dict(kept["weights"])
                return model.eval()
        model = bundled.train(config.data, train_set, sigma, config.epochs)
        with replacing(path) as file:
            torch.save({"recipe": json.dumps(recipe), "weights": model.state_dict()}, file)
        return model

    return make


def _sample_all(study: Study, out: Path, say: Callable[[str], None]) -> Iterator[Sampled]:
    """The statistics of every sigma, in order. Our own networks are small: what is missing is drawn in a process a sigma."""
    config = study.config
    missing = [sigma for sigma in config.sigma if not kept(study, out, sigma)[0].is_file()] if config.trained else []
    if len(missing) > 1:
        jobs = min(len(missing), joblib.cpu_count())
        with joblib.parallel_config(backend="loky", n_jobs=jobs, inner_max_num_threads=1), progress_bar("noise levels") as bar:
            calls = (joblib.delayed(_sampled)(study, out, sigma, False) for sigma in missing)
            for _ in bar.track(joblib.Parallel(return_as="generator_unordered")(calls), total=len(missing)):
                pass
    for sigma in config.sigma:
        say(f"sigma = {sigma:g}")
        yield _sampled(study, out, sigma)


def growing_samples(study: Study, out: Path, say: Callable[[str], None]) -> Iterator[Statistics]:
    """Of the first inputs, at each n of the card's growth; a smaller n is the beginning of a larger one. Kept like the others."""
    growth = study.config.growth
    first = dataclasses.replace(study, test=study.test[: growth.inputs])
    for n in growth.n:
        say(f"gain against n: n = {n:,}")
        card = dataclasses.replace(study.config, n=n)
        yield _sampled(dataclasses.replace(first, config=card), out, growth.sigma, name="growth").statistics


def sampled_at(study: Study, out: Path, sigma: float, n: int, goal: Goal) -> Sampled:
    """All inputs at one sigma, with n samples or as many as the goal takes. Kept; those of the card's n are there already."""
    there = n == study.config.n and not goal
    at_n = dataclasses.replace(study, config=dataclasses.replace(study.config, n=n))
    return _sampled(at_n, out, sigma, name="statistics" if there else "samples", goal=goal)


def kept(study: Study, out: Path, sigma: float, name: str = "statistics", goal: Goal = NO_GOAL) -> tuple[Path, dict[str, Any]]:
    """Where the statistics of one sigma are kept, named by all their settings, and these."""
    config = study.config
    settings: dict[str, Any] = {
        "report": config.data,
        "model": state_digest(study.sampler(sigma).model),
        "data digest": data_digest(study.test),
        "num_classes": study.config.num_classes,
        "inputs": len(study.test),
        "threats": [threat.name for threat in study.threats],
        "skip": config.skip,
        "split": config.split,
    }
    # What another version draws otherwise has another name.
    drawn = {"sigma": sigma, "alpha": config.alpha, "format": STATISTICS_VERSION} | _card(config, goal).settings()
    key = hashlib.sha256(json.dumps(settings | drawn, sort_keys=True).encode()).hexdigest()[:8]
    return out / f"{name}_{sigma:g}_{key}.h5", settings


def _sampled(
    study: Study, out: Path, sigma: float, progress: bool = True, name: str = "statistics", goal: Goal = NO_GOAL
) -> Sampled:
    """The statistics of one sigma, from the file that an earlier run left, where it had the same settings."""
    c, (path, settings) = study.config, kept(study, out, sigma, name, goal)
    method = Method(study.threats, c.alpha, "adaptive", study.table, find_tails("tails")) if goal else None
    card = _card(c, goal)
    return sample_dataset(study.sampler(sigma), study.test, path, card, settings, progress=progress, skip=c.skip, method=method)


def _card(config: Config, goal: Goal) -> Sampling:
    return Sampling(n0=config.n0, n=config.n, alpha=config.alpha, batch_size=config.batch_size, seed=config.seed, goal=goal)
