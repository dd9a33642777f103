"""The gap to the truth: every certified input attacked under every threat, and the share of the true radius that is certified.

A true radius is at most the size of the smallest break found, so the shares are lower bounds; where none was found it counts 0.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import joblib
import numpy as np

from ..attacks import gap as search
from ..attacks.gap import Found, find_break
from ..attacks.network import Vote
from ..gains import pair
from ..jobs.atomic import replacing
from ..jobs.journal import Journal
from ..jobs.progress import progress_bar
from .averages import Interval, intervals
from .gains import METHODS, OURS
from .study import Study, kept


@dataclass(frozen=True, kw_only=True)
class Row:
    """One threat at the sigma that is attacked."""

    threat: str
    inputs: int
    refuted: int
    """Certified radii inside which a break was found: there must be none."""
    open: int
    """Inputs without a break in reach."""
    vote: float
    """The lowest of the shares at the certified radii."""
    shares: Mapping[str, Interval]
    """Method, "cohen" among them -> average of its radius over the smallest break, 0 where none was found."""


def search_all(study: Study, out: Path) -> list[Found]:
    """Attack the right and certified inputs at the card's sigma; kept in `out`, and gone on with where it was stopped."""
    card, sigma = study.config.attack, study.config.attack.sigma
    radii = study.results[sigma, OURS]
    # An input may be certified by one threat's bound and abstain by another's.
    places = np.flatnonzero(np.any([radii[threat.name] > 0.0 for threat in study.threats], axis=0))[: card.inputs]
    statistics, settings = kept(study, out, sigma)
    constants = {
        name: getattr(search, name) for name in ("LEVEL", "STAGES", "TARGET", "REACH", "ROUNDS", "PROBE", "COARSE", "FINE")
    }
    radii_of = {str(i): {threat.name: float(radii[threat.name][i]) for threat in study.threats} for i in places}
    settings = settings | {"statistics": statistics.name, "search": constants, "radii": radii_of}
    key = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]
    path = out / f"gap_{sigma:g}_{key}.json"
    if path.is_file():
        return [Found(**found) for found in json.loads(path.read_text())]
    done: dict[int, list[Found]] = {}
    with Journal(path, settings) as journal, progress_bar("attacking the network") as bar:
        for record in journal.records:
            found = [Found(**fields) for fields in json.loads(record)]
            done[found[0].input] = found
        # Small networks leave a core idle. Threads: PyTorch lets go of the interpreter.
        jobs = joblib.cpu_count() if study.config.trained else 1
        model = study.models[sigma]()
        calls = (joblib.delayed(_search)(study, model, sigma, int(i)) for i in places if i not in done)
        work = joblib.Parallel(n_jobs=jobs, backend="threading", return_as="generator_unordered")(calls)
        for found in bar.track(work, total=len(places) - len(done)):
            journal.append(json.dumps([asdict(one) for one in found]).encode())
            done[found[0].input] = found
        everything = [one for place in sorted(done) for one in done[place]]
        with replacing(path) as file:
            file.write(json.dumps([asdict(one) for one in everything]).encode())
        journal.finish()
    return everything


def _search(study: Study, model: Any, sigma: float, place: int) -> list[Found]:
    """Every threat of one input, each with noise of its own."""
    x, label = study.test[place][0], int(study.predict[sigma][place])
    found = []
    for number, threat in enumerate(study.threats):
        radius = float(study.results[sigma, OURS][threat.name][place])
        if radius > 0.0:
            seed = int(np.random.default_rng([study.config.seed, 13, place, number]).integers(2**63))
            found.append(find_break(Vote(model, x, label, sigma, seed), threat, radius, place))
    return found


def rows_of(study: Study, found: Sequence[Found]) -> list[Row]:
    """A row a threat, in the study's order; without those of which nothing is certified."""
    sigma, out = study.config.attack.sigma, []
    for threat in study.threats:
        mine = [one for one in found if one.threat == threat.name]
        if not mine:
            continue
        places = np.array([one.input for one in mine])
        broken = np.array([one.broken for one in mine])
        _, cohen = pair(study.results[sigma, OURS], threat, study.d)
        radii = {"cohen": cohen}
        radii |= {m: study.results[sigma, m][threat.name] for m in METHODS if threat.name in study.results[sigma, m]}
        shares = {}
        for method, radius in radii.items():
            share = radius[places] / broken
            shares[method] = intervals(share, share, study.regions[places], study.config.seed)["ours"]
        out.append(
            Row(
                threat=threat.name,
                inputs=len(mine),
                refuted=sum(one.refuted for one in mine),
                open=int(np.isinf(broken).sum()),
                vote=min(one.vote for one in mine),
                shares=shares,
            )
        )
    return out


HEADINGS = ("threat", "inputs", "refuted", "no break found", "lowest share at R", "Cohen", "first order", "with tails")
SHOWN = ("cohen", "first order", "tails")


def cells(row: Row) -> tuple[str, ...]:
    """A row as text; shares in percent, their interval behind each."""
    shares = [Interval(*(100.0 * x for x in row.shares[method])).text(0) + " %" for method in SHOWN]
    return (row.threat, f"{row.inputs}", f"{row.refuted}", f"{row.open}", f"{row.vote:.3f}", *shares)


def markdown(rows: Sequence[Row], origin: str) -> str:
    """A pipe table, and below it where its numbers come from."""
    lines = ["| " + " | ".join(HEADINGS) + " |", "|---" * len(HEADINGS) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(cells(row)) + " |" for row in rows), "", origin]) + "\n"


def alarms(found: Sequence[Found], violations: int) -> list[str]:
    """What refutes a certificate, in words; [] is what must be."""
    lines = [
        f"input {one.input}, {one.threat}: certified {one.radius:.6g}, broken at {one.broken:.6g}" for one in found if one.refuted
    ]
    return [*lines, f"{violations} votes below 1/2 in balls of classifiers of known votes"] if violations else lines
