"""The report's page: one HTML file that needs no network: pictures inline, sortable tables, the explorer of the certified region.

The words are in templates/page.html, the code that runs in the reader's browser in templates/page.js; here the numbers are put in.
"""

import math
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined

from ..attacks import gap as search
from ..attacks import network as descent
from ..attacks.closed_forms import ALPHA, LEVEL_OF_ROUNDING, N, Outcome, summary
from . import gap
from .averages import COVERAGE, HEADINGS, Row, cells, resampled
from .card import Config
from .figures import COLOUR, THREAT_COLOURS, Panel, threat_title
from .gains import METHODS, NAME, OURS

DASH = {"cohen": "4 2", "paper": "6 2 1 2", "first order": "1.5 1.5", "tails": "none", "limit": "6 3"}


class Line(NamedTuple):
    """An entry of a legend."""

    name: str
    colour: str
    dash: str


class Cell(NamedTuple):
    """Of a table that can be sorted."""

    text: str
    number: float | None = None
    """To sort by; None for text."""
    loss: bool = False


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What the page shows."""

    config: Config
    shape: tuple[int, ...]
    inputs: int
    regions: int
    """How many parts the test inputs come from; as many as inputs where each stands for itself."""
    threats: Sequence[str]
    digest: str
    version: str
    methods: Sequence[str]
    accuracy: Sequence[Panel]
    rows: Sequence[Row]
    growth: Sequence[Panel]
    samples: Panel
    slices: Sequence[Panel]
    closed: Outcome
    gap: Sequence[gap.Row]
    alarms: Sequence[str]
    """What refutes a certificate; none is what must be."""
    explorer: Mapping[str, Any]
    right: Mapping[float, float]
    """sigma -> share of the inputs that are right and certified."""


@cache
def templates() -> Environment:
    """Every value is escaped where its template does not say otherwise; a name that is not there is an error."""
    loader = PackageLoader(__package__)
    made = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    made.filters["themed"] = themed
    made.policies["json.dumps_kwargs"] = {"separators": (",", ":")}
    return made


def render(c: Contents) -> str:
    """The page as text."""
    made = {
        "finding": _finding(c),
        "lead": _lead(c),
        "facts": _facts(c),
        "right": ", ".join(f"{100 * share:.0f} % at {sigma:g}" for sigma, share in c.right.items()),
        "methods": _method_lines(c),
        "sigmas": ", ".join(f"{sigma:g}" for sigma in c.config.sigma),
        "provenance": provenance(c),
        "coverage": f"{100 * COVERAGE:.0f} %",
        "resampled": resampled(c.inputs, c.regions),
        "headings": HEADINGS,
        "averages": list(_averages(c)),
        "threats": _threat_lines(c),
        "growth_lines": _growth_lines(c),
        "growth_provenance": provenance(c, "n as on the axis"),
        "samples_provenance": provenance(c, "n as a ceiling"),
        "samples_words": SAMPLES,
        "rounding": f"{LEVEL_OF_ROUNDING:g}",
        "sampled": f"{N:,}",
        "sampled_alpha": f"{ALPHA:g}",
        "closed": list(_closed(c)),
        "tight_count": len(c.closed.tightness),
        "tight": f"{max(c.closed.tightness, default=math.nan):.1e}",
        "steps": descent.STEPS,
        "gradient_samples": descent.GRADIENT_SAMPLES,
        "votes": f"{search.STAGES[-1]:,}",
        "confidence": f"{search.LEVEL:g}",
        "reach": f"{search.REACH:g}",
        "gap_headings": gap.HEADINGS,
        "gap": list(_gap(c)),
        "gap_provenance": gap_origin(c),
        "digest": c.digest[:16],
    }
    return templates().get_template("page.html").render(made, c=c)


def themed(drawing: str) -> str:
    """The colours of a drawing by matplotlib as the page's variables, which are others in the dark."""
    return re.sub(r"(?<=: )#([0-9a-f]{6})\b", r"var(--c\1, #\1)", drawing)


def _finding(c: Contents) -> str:
    """The page in one sentence."""
    parts = []
    for threat in ("l1", "linf", "l2"):
        ours = (row.gain.value for row in c.rows if (row.method, row.threat) == (OURS, threat))
        percents = [value for value in ours if not math.isnan(value)]
        if percents:
            ends = sorted({f"{percent:+.1f}" for percent in (min(percents), max(percents))}, key=float)
            parts.append(f"{threat} {' to '.join(ends)} %")
    sigmas = " to ".join(f"{sigma:g}" for sigma in sorted({min(c.config.sigma), max(c.config.sigma)}))
    text = (
        f"Gain in average certified radius over Cohen’s, from the same votes, sigma {sigmas}: {', '.join(parts) or 'he has none'}"
    )
    if not c.gap:
        return f"{text}."
    first, refuted = c.gap[0], sum(row.refuted for row in c.gap)
    share = f"at least {100 * first.shares[OURS].value:.0f} % of the true {first.threat} radius"
    attacked = f"{refuted or 'none'} of {sum(row.inputs for row in c.gap)} certified radii broken by attacks"
    return f"{text}; at sigma = {c.config.attack.sigma:g} {share}, {attacked}."


def _lead(c: Contents) -> str:
    ours = [row for row in c.rows if row.method == OURS and not math.isnan(row.gain.value)]
    shape = "×".join(map(str, c.shape))
    text = f"{c.inputs} inputs of shape {shape}, certified against {len(c.threats)} threats at once."
    if not ours:
        return text
    best = max(ours, key=lambda row: row.gain.value)
    losses = sum(row.gain.value < 0 for row in ours)
    where = f"{threat_title(best.threat)}, sigma = {best.sigma:g}"
    return f"{text} Largest gain: {best.gain.value:+.1f} % ({where}); below Cohen’s in {losses} of {len(ours)} combinations."


def _facts(c: Contents) -> list[tuple[str, str]]:
    return [
        ("inputs", f"{c.inputs}"),
        ("samples n0 + n", f"{c.config.n0:,} + {c.config.n:,}"),
        ("alpha, per input", f"{c.config.alpha:g}"),
        ("sigma", ", ".join(f"{s:g}" for s in c.config.sigma)),
        ("methods", ", ".join(c.methods)),
        ("table digest", c.digest[:16]),
        ("seed", str(c.config.seed)),
        ("certlut", c.version),
    ]


def provenance(c: Contents, n: str = "", methods: Sequence[str] = ()) -> str:
    """What every figure and table says about where its numbers come from."""
    made = "; ".join(f"{method}: estimator {METHODS[method][0]}" for method in methods or c.methods)
    return f"{n or f'n = {c.config.n:,}'}, alpha = {c.config.alpha:g}, {made}; table {c.digest[:16]}."


def gap_origin(c: Contents) -> str:
    """Of the gap table."""
    return provenance(c, f"sigma = {c.config.attack.sigma:g}, radii at n = {c.config.n:,}", gap.SHOWN[1:])


def figure_files(c: Contents) -> dict[str, str]:
    """Every picture as a file of its own, with its legend and origin: name -> SVG."""
    regions = [
        Line("zeroth order", COLOUR["cohen"], "none"),
        Line("first order", COLOUR["first order"], "none"),
        Line("half-space with this q", "#333333", DASH["limit"]),
    ]
    kinds: tuple[tuple[Sequence[Panel], Sequence[Line], str], ...] = (
        (c.accuracy, _method_lines(c), f"Upper envelope over sigma; {provenance(c)}"),
        (c.growth, _threat_lines(c), f"{_growth_lines(c)} {provenance(c, 'n as on the axis')}"),
        ([c.samples], [], f"{SAMPLES} {provenance(c, 'n as a ceiling')}"),
        (c.slices, regions, "In units of sigma; exact solver, exact moments: no n, alpha, estimator or table."),
    )
    return {panel.name: standalone(panel, lines, caption) for panels, lines, caption in kinds for panel in panels}


def standalone(panel: Panel, lines: Sequence[Line], caption: str) -> str:
    """The picture as a file of its own: below it what its lines mean, and where its numbers come from."""
    template = templates().get_template("figure.svg")
    # In its font 3.7 units hold a letter.
    return template.render(panel=panel, lines=lines, caption=textwrap.wrap(caption, int(panel.width / 3.7)))


SAMPLES = "Right and certified in l2 and l1 together, of all inputs; the last points have the card's n, fixed or as a ceiling."


def _growth_lines(c: Contents) -> str:
    return (
        "Dash-dotted: first order by the paper’s estimator; dotted: by the adaptive one; solid: with tails, "
        "of the network only: the constructed classifier’s are first-order certificates."
    )


def _method_lines(c: Contents) -> list[Line]:
    return [Line(NAME[m], COLOUR[m], DASH[m]) for m in ("cohen", *c.methods)]


def _threat_lines(c: Contents) -> list[Line]:
    threats = [Line(threat_title(name), colour, "none") for name, colour in zip(c.threats, THREAT_COLOURS, strict=False)]
    return [*threats, Line("gain with exact moments", "#555555", DASH["limit"])]


def _averages(c: Contents) -> Iterator[list[Cell]]:
    for row in c.rows:
        sigma, _, method, gain, cohen, ours = cells(row)
        percent = None if math.isnan(row.gain.value) else row.gain.value
        yield [
            Cell(sigma, row.sigma),
            Cell(threat_title(row.threat)),
            Cell(method),
            Cell(gain, percent, loss=percent is not None and percent < 0.0),
            Cell(cohen, row.cohen.value),
            Cell(ours, row.ours.value),
        ]


def _closed(c: Contents) -> Iterator[list[Cell]]:
    for kind, tally in summary(c.closed):
        counts = [Cell(f"{count:,}", count) for count in (tally.balls, tally.points, tally.violations)]
        yield [Cell(kind), *counts, Cell(f"{tally.lowest:.9f}", tally.lowest)]


def _gap(c: Contents) -> Iterator[list[Cell]]:
    for row in c.gap:
        threat, *texts = gap.cells(row)
        numbers = [row.inputs, row.refuted, row.open, row.vote, *(row.shares[method].value for method in gap.SHOWN)]
        made = (Cell(text, number) for text, number in zip(texts, numbers, strict=True))
        yield [Cell(threat_title(threat)), *(cell._replace(loss=i == 1 and row.refuted > 0) for i, cell in enumerate(made))]
