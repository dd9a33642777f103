"""The command `certlut report`: study, figures, tables, attacks, and the page that shows them."""

import dataclasses
import json
import math
import os
from contextlib import nullcontext
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from ..attacks.closed_forms import Outcome, Solve, attack_closed_forms
from ..attacks.gap import Found
from ..bounds.budget import check_n
from ..jobs.atomic import replacing
from ..lookup.table import load
from ..threats.sets import L1, L2, LINF
from . import gap
from .averages import averages, comma_separated, latex, markdown, resampled
from .card import Config, read_config
from .figures import accuracy_panels, growth_panels, samples_panel, slice_panels
from .gains import METHODS, OURS
from .growth import SIZES, Curve, constructed_curves, network_curve
from .known import FOLDERS
from .page import Contents, figure_files, gap_origin, provenance, render
from .samples import Spent, spent
from .slices import exact_slices, explorer
from .study import Study, growing_samples, run_study

FIRST_ORDER = tuple(method for method, (_, certificate) in METHODS.items() if certificate == "first-order")


def run_report(
    config: str | os.PathLike[str],
    out: str | os.PathLike[str],
    solve: Solve,
    quick: bool = False,
    inputs: int | None = None,
    table: Path | None = None,
    n: int | None = None,
    folder: str | None = None,
) -> Path:
    """Write report.html, acr.md, acr.tex, acr.csv, growth.csv, gap.md, attack.json and figures to `out`; returns the page's path.

    Args:
        config: a shipped card's name, or a TOML file.
        out: a folder, made where it is not there. Networks and statistics are kept in it and used again.
        solve: the exact solver, (q, m1, m2) -> (radius, multipliers).
        quick: the card in small.
        inputs: another number of test inputs than the card's.
        table: a table file; by default the shipped one.
        n: another number of samples.
        folder: where the card's data are.

    Raises:
        ArithmeticError: an attack refutes a certificate; everything is written by then, and the page says it in red.
        ValueError, FileNotFoundError: from the card, the data and the models.
    """
    card = _card(config, quick, inputs, n, folder)
    radii = load(table)
    for sigma in card.sigma:
        radii.check_sigma(sigma)
    out = Path(out)
    (out / "figures").mkdir(parents=True, exist_ok=True)
    console = Console(stderr=True)

    def say(line: str) -> None:
        console.print(line, highlight=False)

    with _threads(card):
        study = run_study(card, out, radii, say)
        grown = dict(zip(card.growth.n, growing_samples(study, out, say), strict=True))
        curves = [network_curve(grown, study.threats, card.alpha, tuple(METHODS), radii)]
        found = gap.search_all(study, out)
        saved = spent(study, out, say)
    curves += constructed_curves(radii, card.alpha, FIRST_ORDER, card.seed, SIZES[:2] if quick else SIZES)
    closed = attack_closed_forms(radii, solve, card.attack.classifiers, card.seed)
    contents = gather(study, curves, found, closed, saved, solve)
    for name, picture in figure_files(contents).items():
        _write(out / "figures" / f"{name}.svg", picture)
    origin = f"{provenance(contents)} Intervals over {resampled(contents.inputs, contents.regions)}."
    _write(out / "acr.md", markdown(contents.rows, origin))
    _write(out / "acr.tex", latex(contents.rows, origin))
    _write(out / "acr.csv", comma_separated(contents.rows))
    _write(out / "growth.csv", growth_csv(curves))
    _write(out / "gap.md", gap.markdown(contents.gap, gap_origin(contents)))
    _write(out / "attack.json", json.dumps(attack_counts(closed, found), indent=1) + "\n")
    page = out / "report.html"
    _write(page, render(contents))
    if contents.alarms:
        raise ArithmeticError(f"ALARM: {len(contents.alarms)} certificates refuted, see {page}: {'; '.join(contents.alarms[:3])}")
    return page


def _card(config: str | os.PathLike[str], quick: bool, inputs: int | None, n: int | None, folder: str | None) -> Config:
    given = {"inputs": inputs, "n": n, "folder": folder}
    changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    for name in ("inputs", "n"):
        if changes.get(name, 1) < 1:
            raise ValueError(f"{name} = {changes[name]}: expected 1 or more")
    card = dataclasses.replace(read_config(config), **changes)
    if card.data in FOLDERS and not card.folder:
        raise ValueError(f"{config}: data = {card.data!r} needs the folder of its files: --data FOLDER")
    if card.folder and card.data not in FOLDERS:
        raise ValueError(f"{config}: data = {card.data!r} is no folder of files: leave out --data (it is for {', '.join(FOLDERS)})")
    if quick:
        card = card.quick()
    for size in (card.n, *card.growth.n):
        check_n(size, card.alpha, (L1, L2, LINF))
    return card


def gather(study: Study, curves: list[Curve], found: list[Found], closed: Outcome, saved: Spent, solve: Solve) -> Contents:
    """What the page shows, its pictures drawn."""
    return Contents(
        config=study.config,
        shape=study.shape,
        inputs=len(study.test),
        regions=len(np.unique(study.regions)),
        threats=[threat.name for threat in study.threats],
        digest=study.table.digest,
        version=_version(),
        methods=tuple(METHODS),
        accuracy=accuracy_panels(study),
        rows=averages(study),
        growth=growth_panels(curves),
        samples=samples_panel(saved),
        slices=slice_panels(exact_slices(lambda q, m1, m2: solve(q, m1, m2)[0])),
        closed=closed,
        gap=gap.rows_of(study, found),
        alarms=gap.alarms(found, closed.total.violations),
        explorer=explorer(study.table),
        right={sigma: float(np.mean(study.results[sigma, OURS]["l2"] > 0.0)) for sigma in study.config.sigma},
    )


def attack_counts(closed: Outcome, found: list[Found]) -> dict[str, Any]:
    """The attacks in numbers, for attack.json; null where no break was found."""
    return {
        "closed_forms": {kind: dataclasses.asdict(tally) for kind, tally in closed.tallies.items()},
        "total": dataclasses.asdict(closed.total),
        "tightness": {"radii": len(closed.tightness), "largest_deviation": max(closed.tightness, default=None)},
        "network": [
            {**dataclasses.asdict(one), "broken": one.broken if math.isfinite(one.broken) else None, "refuted": one.refuted}
            for one in found
        ],
    }


def growth_csv(curves: list[Curve]) -> str:
    """Every point of the growth figure; the last column is the gain with exact moments, where known."""
    lines = ["curve,threat,method,n,gain_percent,limit_percent"]
    for curve in curves:
        for threat, gains in curve.gain.items():
            for method, values in gains.items():
                limit = curve.limit.get(threat, "")
                lines += [f'"{curve.label}",{threat},{method},{n},{v},{limit}' for n, v in zip(curve.n, values, strict=True)]
    return "\n".join(lines) + "\n"


def _threads(card: Config) -> Any:
    if not card.trained:
        return nullcontext()
    from .bundled import one_thread

    return one_thread()


def _version() -> str:
    try:
        return version("certlut")
    except PackageNotFoundError:
        return "from source"


def _write(path: Path, text: str) -> None:
    with replacing(path) as file:
        file.write(text.encode())
