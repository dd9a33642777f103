"""The report's page: one HTML file that needs no network, pictures inline, tables sortable, and the explorer of the certified region."""

import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from string import Template
from typing import Any

from .acr import COVERAGE, HEADINGS, Row, cells
from .attack import LEVEL_OF_ROUNDING, Outcome, summary
from .config import Config
from .figures import COLOUR, NAME, Panel, threat_title
from .pgd import GRADIENT_SAMPLES, LEVEL, STEPS, VOTES, Attempt

DASH = {"cohen": "4 2", "paper": "1.5 1.5", "adaptive": "none"}


@dataclass(frozen=True)
class Contents:
    """What the page shows."""

    config: Config
    shape: tuple[int, ...]
    inputs: int
    digest: str
    version: str
    estimators: Sequence[str]
    accuracy: Sequence[Panel]
    rows: Sequence[Row]
    growth: Sequence[Panel]
    slices: Sequence[Panel]
    closed: Outcome
    network: Sequence[Attempt]
    explorer: Mapping[str, Any]
    clean: Mapping[float, float]
    """sigma -> share of the inputs whose smoothed class is right."""


def render(c: Contents) -> str:
    """The page as text."""
    folder = files(__package__)
    best = max(
        (r for r in c.rows if r.estimator == c.estimators[-1] and r.gain[0] == r.gain[0]), key=lambda r: r.gain[0], default=None
    )
    lead = (
        f"{c.inputs} inputs of shape {'×'.join(map(str, c.shape))}, certified against four threats at once by the vote and its gradient, "
        "beside Cohen’s radii, from the same votes."
    )
    if best is not None:
        lead += (
            f" Largest gain in average certified radius: {best.gain[0]:+.1f} % ({threat_title(best.threat)}, sigma = {best.sigma:g}); "
            f"{_losses(c)}"
        )
    return Template((folder / "page.html").read_text()).substitute(
        title=html.escape(c.config.title),
        lead=html.escape(lead),
        facts="\n".join(f"<li>{html.escape(name)}<strong>{html.escape(value)}</strong></li>" for name, value in _facts(c)),
        sections="\n".join((_accuracy(c), _averages(c), _growth(c), _slices(c), _attacks(c))),
        limits=LIMITS,
        digest=c.digest[:16],
        explorer=json.dumps(c.explorer, separators=(",", ":")),
        script=(folder / "page.js").read_text(),
    )


def _losses(c: Contents) -> str:
    ours = [r for r in c.rows if r.estimator == c.estimators[-1]]
    losses = [r for r in ours if r.gain[0] < 0]
    return f"below Cohen’s in {len(losses)} of {len(ours)} rows of the table" + ("." if losses else ": nowhere.")


def _facts(c: Contents) -> list[tuple[str, str]]:
    return [
        ("inputs", f"{c.inputs}"),
        ("samples n0, n", f"{c.config.n0:,}, {c.config.n:,}"),
        ("alpha", f"{c.config.alpha:g} per input"),
        ("sigma", ", ".join(f"{s:g}" for s in c.config.sigma)),
        ("estimators", ", ".join(c.estimators)),
        ("table digest", c.digest[:16]),
        ("seed", str(c.config.seed)),
        ("certlut", c.version),
    ]


def _label(c: Contents, n: str | None = None, estimator: str | None = None) -> str:
    """What every figure says about where its numbers come from."""
    n = n or f"n = {c.config.n:,}"
    return f"{n}, alpha = {c.config.alpha:g}, estimator {estimator or ' and '.join(c.estimators)}, table {c.digest[:16]}."


def _key(c: Contents) -> str:
    items = []
    for method in ("cohen", *c.estimators):
        dash = "" if DASH[method] == "none" else f' stroke-dasharray="{DASH[method]}"'
        line = (
            f'<svg viewBox="0 0 22 8" aria-hidden="true"><path d="M0 4h22" stroke="{COLOUR[method]}" stroke-width="2"{dash}/></svg>'
        )
        items.append(f"<li>{line}{html.escape(NAME[method])}</li>")
    return f'<ul class="key">{"".join(items)}</ul>'


def _panels(panels: Sequence[Panel], kind: str = "") -> str:
    return f'<div class="panels{kind}">' + "\n".join(f"<div>{panel.svg}</div>" for panel in panels) + "</div>"


def _section(name: str, title: str, body: str) -> str:
    return f'<section aria-labelledby="{name}">\n<h2 id="{name}">{title}</h2>\n{body}\n</section>'


def _figure(body: str, caption: str) -> str:
    return f"<figure>{body}<figcaption>{html.escape(caption)}</figcaption></figure>"


def table(headings: Sequence[str], body: Sequence[Sequence[tuple[str, float | None]]], loss: int | None = None) -> str:
    """A sortable table of (text, number to sort by); a negative number in column `loss` is marked."""
    lines = []
    for row in body:
        line = []
        for column, (text, number) in enumerate(row):
            mark = ' class="loss"' if column == loss and number is not None and number < 0 else ""
            value = "" if number is None or number != number else f' data-value="{number!r}"'
            # The interval behind a number steps back.
            head, bracket, tail = html.escape(text).partition(" [")
            line.append(f"<td{mark}{value}>{head}" + (f" <small>[{tail}</small>" if bracket else "") + "</td>")
        lines.append(f"<tr>{''.join(line)}</tr>")
    head = "".join(f'<th scope="col">{html.escape(heading)}</th>' for heading in headings)
    newline = "\n"
    return f'<div class="scroll"><table class="sortable"><thead><tr>{head}</tr></thead>\n<tbody>\n{newline.join(lines)}\n</tbody></table></div>'


def _accuracy(c: Contents) -> str:
    clean = ", ".join(f"{share:.0%} at {sigma:g}" for sigma, share in c.clean.items())
    text = (
        "<p>The share of test inputs whose class is right and certified at a radius or more; at each radius the best of the noise levels "
        "(upper envelope), as such curves are usually drawn. Each input’s guarantee is for one sigma; choosing the best afterwards is a "
        f"comparison of methods, not a certificate. Right and not abstaining, by sigma: {clean}.</p>"
    )
    caption = f"Certified accuracy, upper envelope over sigma = {', '.join(f'{s:g}' for s in c.config.sigma)}; " + _label(c)
    return _section("accuracy", "Certified accuracy against radius", text + _figure(_key(c) + _panels(c.accuracy), caption))


def _averages(c: Contents) -> str:
    text = (
        "<p>Average certified radius (ACR): wrong or abstained inputs count 0. Cohen’s column is the largest ball of the threat inside his l2 "
        "ball at the full alpha; ours are one joint guarantee within alpha, so where the gradient says nothing they are a little below his. "
        f"In brackets: {COVERAGE:.0%} bootstrap intervals over the test inputs (percentiles, paired). Click a heading to sort.</p>"
    )
    body = []
    for row in c.rows:
        numbers = (row.sigma, None, None, row.cohen[0], row.ours[0], row.gain[0])
        texts = list(cells(row))
        texts[1] = threat_title(row.threat)
        body.append(list(zip(texts, numbers, strict=True)))
    caption = f'<p class="note">{html.escape(_label(c))} The same as acr.md, acr.tex and acr.csv beside this page.</p>'
    return _section("acr", "Average certified radius, and the gain over Cohen’s", text + table(HEADINGS, body, loss=5) + caption)


def _growth(c: Contents) -> str:
    text = (
        "<p>The first panel: this network, the first inputs of the test set, fresh evaluations of the same growing sample. The others: a "
        "constructed classifier, f = {w₁·u &gt; −z and w₂·u &gt; −z} for two random orthonormal directions in d dimensions, whose moments at any "
        "n are drawn exactly; there the dashed line is the gain with exact moments, which no n can exceed. "
        f"{'Dotted: the paper’s estimator; solid: adaptive.' if len(c.estimators) > 1 else ''}</p>"
    )
    return _section(
        "growth",
        "How the gain grows with n",
        text + _figure(_panels(c.growth), "Gain in ACR over Cohen’s; " + _label(c, "n as on the axis")),
    )


def _slices(c: Contents) -> str:
    text = (
        "<p>All shifts certified by an exact vote q and gradient, in the plane of the gradient (the arrow) and any direction across it: "
        "zeroth order in green, first order in blue, both from the exact solver. Dashed: the half-space with this q, the limit as the gradient "
        "grows to the largest that q allows. The first-order region holds the disc, and grows most where the gradient is small.</p>"
    )
    caption = (
        "Certified regions in units of sigma; exact moments (n and alpha do not enter), exact solver, no estimator and no table."
    )
    return _section("slices", "Slices of the certified region", text + _figure(_panels(c.slices, " small"), caption))


def _attacks(c: Contents) -> str:
    counts = [[(value, _number(value)) for value in row.values()] for row in summary(c.closed)]
    tight = max(c.closed.tightness, default=float("nan"))
    closed = (
        "<h3>Classifiers whose vote is known in closed form</h3><p>Random half-spaces, slabs, corners and unions of half-spaces, balls and "
        "their outsides in 2 to 3,072 dimensions, with exact moments; balls of l1, l2, linf and random subspaces, as large as the table and as "
        "the exact solver allow. Points are random, vertices, and found by descent. A violation is a vote below "
        f"1/2 − {LEVEL_OF_ROUNDING:g}.</p>"
        + table(("classifier", "balls", "points", "violations", "lowest vote"), counts)
        + f"<p>Tightness: at the exact radius the dual’s own worst classifier must vote exactly 1/2. Over {c.closed.tight_radii} random (q, m1, m2) "
        f"the largest deviation is <strong>{tight:.1e}</strong>: no radius can be larger than these.</p>"
    )
    groups: dict[tuple[str, float], list[Attempt]] = {}
    for attempt in c.network:
        groups.setdefault((attempt.threat, attempt.factor), []).append(attempt)
    body = []
    for (threat, factor), attempts in groups.items():
        broken, lowest = sum(a.broken for a in attempts), min(a.vote for a in attempts)
        row: list[tuple[str, float | None]] = [
            (threat_title(threat), None),
            (f"{factor:g} R", factor),
            (str(len(attempts)), float(len(attempts))),
        ]
        body.append([*row, (str(broken), float(broken)), (f"{lowest:.3f}", lowest)])
    network = (
        f"<h3>This network</h3><p>Projected gradient descent on the smoothed vote at sigma = {c.config.attack.sigma:g}: {STEPS} steps of "
        f"{GRADIENT_SAMPLES} samples, then {VOTES:,} fresh votes at the point reached. Inside the certified radius R every attack must fail; the "
        f"same attack in larger balls shows that it can succeed. A ball counts as broken where the vote is below 1/2 at confidence 1 − {LEVEL:g}.</p>"
        + table(("threat", "ball", "attacks", "broken", "lowest vote"), body)
        + f'<p class="note">{html.escape(_label(c, estimator=c.estimators[-1]))}</p>'
    )
    return _section("attacks", "Attacks inside the certified balls", closed + network)


def _number(text: str) -> float | None:
    try:
        return float(text.replace(",", ""))
    except ValueError:
        return None


LIMITS = """<ul>
<li>The guarantee: with probability at least 1 − alpha over the noise drawn, for one input, all its radii but Cohen’s hold together. It is per
input, not for the data set: among N inputs, alpha N may be wrong.</li>
<li>It is about the smoothed classifier, the majority vote under Gaussian noise, not about one forward pass; and about a binary reduction,
the class against all others together.</li>
<li>It is about ideal Gaussian noise; the sampler draws pseudo-random floating-point numbers.</li>
<li>Radii are open: a shift shorter than R is certified; at R the vote may tie.</li>
<li>The first order only. No curvature of the vote is used; a framework for higher orders is not built.</li>
<li>The networks here are small and the data sets too: the numbers compare methods, they are no records.</li>
</ul>"""
