"""The report's page: one HTML file that needs no network: pictures inline, sortable tables, the explorer of the certified region.

The words are in page.html, the code that runs in the reader's browser in page.js; here the numbers are put in.
"""

import html
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from string import Template
from typing import Any

from ..attacks import network as pgd
from ..attacks.closed_forms import ALPHA, LEVEL_OF_ROUNDING, N, Outcome, summary
from .averages import COVERAGE, HEADINGS, Row, cells, resampled
from .card import Config
from .figures import COLOUR, NAME, THREAT_COLOURS, Panel, standalone, threat_title

DASH = {"cohen": "4 2", "paper": "1.5 1.5", "adaptive": "none", "limit": "6 3"}
# (text, number to sort by; None for text)
Cell = tuple[str, float | None]


@dataclass(frozen=True)
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
    estimators: Sequence[str]
    """The last one is shown as ours."""
    accuracy: Sequence[Panel]
    rows: Sequence[Row]
    growth: Sequence[Panel]
    slices: Sequence[Panel]
    closed: Outcome
    network: Sequence[pgd.Attempt]
    explorer: Mapping[str, Any]
    right: Mapping[float, float]
    """sigma -> share of the inputs that are right and certified."""


def render(c: Contents) -> str:
    """The page as text."""
    folder = files(__package__)
    ours = c.estimators[-1]
    made = {
        "title": html.escape(c.config.title),
        "lead": html.escape(_lead(c)),
        "facts": "\n".join(f"<li>{html.escape(name)}<strong>{html.escape(value)}</strong></li>" for name, value in _facts(c)),
        "right": ", ".join(f"{100 * share:.0f} % at {sigma:g}" for sigma, share in c.right.items()),
        "methods": _key(_method_keys(c)),
        "accuracy": _panels(c.accuracy),
        "sigmas": ", ".join(f"{sigma:g}" for sigma in c.config.sigma),
        "provenance": html.escape(provenance(c)),
        "coverage": f"{100 * COVERAGE:.0f} %",
        "resampled": resampled(c.inputs, c.regions),
        "averages": _averages(c),
        "threats": _key(_threat_keys(c)),
        "growth": _panels(c.growth),
        "growth_lines": _growth_lines(c),
        "growth_provenance": html.escape(provenance(c, "n as on the axis")),
        "slices": _panels(c.slices),
        "rounding": f"{LEVEL_OF_ROUNDING:g}",
        "sampled": f"{N:,}",
        "sampled_alpha": f"{ALPHA:g}",
        "closed": _closed(c),
        "tight_count": f"{len(c.closed.tightness)}",
        "tight": f"{max(c.closed.tightness, default=float('nan')):.1e}",
        "attack_sigma": f"{c.config.attack.sigma:g}",
        "steps": f"{pgd.STEPS}",
        "gradient_samples": f"{pgd.GRADIENT_SAMPLES}",
        "votes": f"{pgd.VOTES:,}",
        "confidence": f"{pgd.LEVEL:g}",
        "network": _network(c),
        "network_provenance": html.escape(provenance(c, f"radii at n = {c.config.n:,}", ours)),
        "digest": c.digest[:16],
        "explorer": json.dumps(c.explorer, separators=(",", ":")),
        "script": (folder / "page.js").read_text(encoding="utf-8"),
    }
    return Template((folder / "page.html").read_text(encoding="utf-8")).substitute(made)


def _lead(c: Contents) -> str:
    ours = [row for row in c.rows if row.estimator == c.estimators[-1] and not math.isnan(row.gain.value)]
    shape = "×".join(map(str, c.shape))
    threats = f"{len(c.threats)} threats at once"
    text = f"{c.inputs} inputs of shape {shape}, certified against {threats}, beside Cohen’s radii from the same votes."
    if not ours:
        return text
    best = max(ours, key=lambda row: row.gain.value)
    losses = sum(row.gain.value < 0 for row in ours)
    where = f"{threat_title(best.threat)}, sigma = {best.sigma:g}"
    return (
        f"{text} Largest gain in average certified radius: {best.gain.value:+.1f} % ({where}); "
        f"below Cohen’s in {losses} of {len(ours)} combinations of threat and sigma."
    )


def _facts(c: Contents) -> list[tuple[str, str]]:
    return [
        ("inputs", f"{c.inputs}"),
        ("samples n0 + n", f"{c.config.n0:,} + {c.config.n:,}"),
        ("alpha, per input", f"{c.config.alpha:g}"),
        ("sigma", ", ".join(f"{s:g}" for s in c.config.sigma)),
        ("estimators", ", ".join(c.estimators)),
        ("table digest", c.digest[:16]),
        ("seed", str(c.config.seed)),
        ("certlut", c.version),
    ]


def provenance(c: Contents, n: str = "", estimator: str = "") -> str:
    """What every figure and table says about where its numbers come from."""
    said = f"{n or f'n = {c.config.n:,}'}, alpha = {c.config.alpha:g}, estimator {estimator or ' and '.join(c.estimators)}"
    return f"{said}, table {c.digest[:16]}."


def figure_files(c: Contents) -> dict[str, str]:
    """Every picture as a file of its own, with its legend and origin: name -> SVG."""
    blue, green = COLOUR["adaptive"], COLOUR["cohen"]
    regions = [("zeroth order", green, "none"), ("first order", blue, "none"), ("half-space with this q", "#333", DASH["limit"])]
    kinds = (
        (c.accuracy, _method_keys(c), f"Upper envelope over sigma; {provenance(c)}"),
        (c.growth, _threat_keys(c), f"{_growth_lines(c)} {provenance(c, 'n as on the axis')}"),
        (c.slices, regions, "In units of sigma; exact solver, exact moments: no n, alpha, estimator or table."),
    )
    return {panel.name: standalone(panel, key, caption) for panels, key, caption in kinds for panel in panels}


def _growth_lines(c: Contents) -> str:
    return "Dotted: the paper’s estimator; solid: the adaptive one." if len(c.estimators) > 1 else ""


def _key(lines: Sequence[tuple[str, str, str]]) -> str:
    """A legend: (name, colour, dashes) of each line."""
    items = []
    for name, colour, dash in lines:
        path = f'<path d="M0 4h22" stroke="{colour}" stroke-width="2" stroke-dasharray="{dash}"/>'
        items.append(f'<li><svg viewBox="0 0 22 8" aria-hidden="true">{path}</svg>{html.escape(name)}</li>')
    return f'<ul class="key">{"".join(items)}</ul>'


def _method_keys(c: Contents) -> list[tuple[str, str, str]]:
    return [(NAME[m], COLOUR[m], DASH[m]) for m in ("cohen", *c.estimators)]


def _threat_keys(c: Contents) -> list[tuple[str, str, str]]:
    threats = [(threat_title(name), colour, "none") for name, colour in zip(c.threats, THREAT_COLOURS, strict=False)]
    return [*threats, ("gain with exact moments", "#555", DASH["limit"])]


def _panels(panels: Sequence[Panel]) -> str:
    return "\n".join(f"<div>{panel.svg}</div>" for panel in panels)


def table(headings: Sequence[str], body: Sequence[Sequence[Cell]], loss: int | None = None) -> str:
    """A sortable table; a negative number in column `loss` is marked, the interval behind a number steps back."""
    lines = []
    text = [column == 0 or all(row[column][1] is None for row in body) for column in range(len(headings))]
    for row in body:
        line = []
        for column, (shown, number) in enumerate(row):
            names = ["text"] * text[column] + ["loss"] * (column == loss and number is not None and number < 0)
            attributes = f' class="{" ".join(names)}"' if names else ""
            attributes += "" if number is None or number != number else f' data-value="{number!r}"'
            value, bracket, interval = html.escape(shown).partition(" [")
            line.append(f"<td{attributes}>{value}" + (f" <small>[{interval}</small>" if bracket else "") + "</td>")
        lines.append(f"<tr>{''.join(line)}</tr>")
    kinds = [' class="text"' if kind else "" for kind in text]
    head = "".join(f'<th scope="col"{kind}>{html.escape(name)}</th>' for name, kind in zip(headings, kinds, strict=True))
    rows = "\n".join(lines)
    # A region that scrolls must be reachable by keyboard.
    opening = '<div class="scroll" tabindex="0" role="region" aria-label="table"><table class="sortable">'
    return f"{opening}<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody></table></div>"


def _averages(c: Contents) -> str:
    body = []
    for row in c.rows:
        texts = list(cells(row))
        texts[1] = threat_title(row.threat)
        numbers = (row.sigma, None, None, row.gain.value, row.cohen.value, row.ours.value)
        body.append(list(zip(texts, numbers, strict=True)))
    return table(HEADINGS, body, loss=3)


def _closed(c: Contents) -> str:
    body: list[list[Cell]] = []
    for kind, tally in summary(c.closed):
        counts = [(f"{count:,}", float(count)) for count in (tally.balls, tally.points, tally.violations)]
        body.append([(kind, None), *counts, (f"{tally.lowest:.9f}", tally.lowest)])
    return table(("classifier", "balls", "points", "violations", "lowest vote"), body)


def _network(c: Contents) -> str:
    if not c.network:
        return "<p>No input is right and certified at this sigma: nothing was attacked.</p>"
    groups: dict[tuple[str, float], list[pgd.Attempt]] = {}
    for attempt in c.network:
        groups.setdefault((attempt.threat, attempt.factor), []).append(attempt)
    body: list[list[Cell]] = []
    for (threat, factor), attempts in groups.items():
        broken, lowest = sum(a.broken for a in attempts), min(a.vote for a in attempts)
        numbers = [(str(count), float(count)) for count in (len(attempts), broken)]
        body.append([(threat_title(threat), None), (f"{factor:g} R", factor), *numbers, (f"{lowest:.3f}", lowest)])
    return table(("threat", "ball", "attacks", "broken", "lowest vote"), body)
