"""certlut.threats.specs: threats as the command line names them, and statistics that serve threats thought of later."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from certlut.runs.certify import certify_statistics
from certlut.runs.results import read_tsv
from certlut.runs.sample import sample_dataset
from certlut.sampling.card import Sampling
from certlut.sampling.sampler import Sampler
from certlut.statistics.file import read_statistics
from certlut.threats.lines import Line, Ray
from certlut.threats.sets import Ball
from certlut.threats.sparse import Sparse
from certlut.threats.specs import parse_threats

N0, N, ALPHA = 50, 4000, 0.01


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    np.save(tmp_path / "red.npy", np.array([[True, False], [False, True]]))
    np.save(tmp_path / "q.npy", np.eye(4)[:2].reshape(2, 2, 2))
    np.save(tmp_path / "v.npy", np.array([[3.0, 0.0], [0.0, 4.0]]))
    return tmp_path


def test_every_form_gives_its_threat(folder: Path) -> None:
    texts = ["l1", "linf", "lp:3", "lp:inf", "red=mask:{}/red.npy", "r1=mask:{}/red.npy,p=1", "span=basis:{}/q.npy,p=inf"]
    texts += ["axis=direction:{}/v.npy", "both=line:{}/v.npy", "sparse:3", "any-word"]
    l1, linf, lp, same, red, r1, span, axis, both, few, word = parse_threats([text.format(folder) for text in texts])
    assert (l1, linf, word) == ("l1", "linf", "any-word")
    assert isinstance(lp, Ball)
    assert (lp.name, lp.p, lp.mask, lp.basis) == ("l3", 3.0, None, None)
    assert isinstance(same, Ball)
    assert (same.name, same.p) == ("linf", math.inf)
    for threat, name, p in ((red, "red", 2.0), (r1, "r1", 1.0)):
        assert isinstance(threat, Ball)
        assert (threat.name, threat.p, threat.coordinates(4)) == (name, p, 2)
    assert isinstance(span, Ball)
    assert (span.name, span.p, span.basis.shape) == ("span", math.inf, (2, 2, 2))
    assert isinstance(axis, Ray)
    assert axis.v.tolist() == [[0.6, 0.0], [0.0, 0.8]]
    assert isinstance(both, Line)
    assert (both.name, both.v.tolist()) == ("both", axis.v.tolist())
    assert isinstance(few, Sparse)
    assert (few.name, few.k) == ("sparse3", 3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lp:x", "threat 'lp:x': p = 'x', expected a number or inf"),
        ("sparse:1.5", r"threat 'sparse:1.5': k = '1.5', expected a whole number"),
        ("sparse:0", r"Sparse\(0\): k = 0, expected a whole number of coordinates, 1 or more"),
        ("v=line:{}/v.npy,p=2", "expected NAME=mask:FILE"),
        ("lp:0.5", "p = 0.5, expected 1 <= p <= inf"),
        ("red=mask", "threat 'red=mask': expected NAME=mask:FILE"),
        ("red=other:{}/red.npy", "expected NAME=mask:FILE"),
        ("v=direction:{}/v.npy,p=2", "expected NAME=mask:FILE"),
        ("red=mask:{}/red.npy,p=two", "p = 'two', expected a number or inf"),
        ("red=mask:{}/v.npy", "subspace 'red': mask has dtype float64, expected bool"),
        ("span=basis:{}/v.npy", "subspace 'span': the basis is not orthonormal"),
        ("l1=mask:{}/red.npy", "threat name 'l1'"),
        ("red=mask:{}/text.npy", r"text\.npy: not a \.npy array"),
        ("red=mask:{}/both.npz", r"both\.npz: an \.npz archive, expected one array"),
    ],
)
def test_another_form_is_refused_by_name(text: str, message: str, folder: Path) -> None:
    (folder / "text.npy").write_text("no array")
    np.savez(folder / "both.npz", a=np.zeros(2))
    with pytest.raises(ValueError, match=message):
        parse_threats([text.format(folder)])
    with pytest.raises(FileNotFoundError, match=r"none\.npy: no such \.npy file"):
        parse_threats(["red=mask:none.npy"])


# Threats thought of later


def _model(x: torch.Tensor) -> torch.Tensor:
    plane = x.flatten(1) @ torch.tensor([0.9, -0.3, 0.2, 0.1], dtype=x.dtype)
    return torch.stack((-plane, plane), dim=1)


def _sample(folder: Path, name: str, threats: list[str], keep: bool) -> Path:
    data = [(np.full((2, 2), 0.5), 1), (np.array([[0.7, -0.2], [0.1, 0.3]]), 1)]
    card = Sampling(N0, N, ALPHA, seed=3, keep_means=keep)
    sample_dataset(Sampler(_model, 0.5, 2, parse_threats(threats)), data, folder / name, card, progress=False)
    return folder / name


def test_kept_means_serve_a_threat_thought_of_later(folder: Path) -> None:
    red = f"red=mask:{folder}/red.npy"
    later = _sample(folder, "later.h5", ["l1"], True)
    at_once = _sample(folder, "once.h5", ["l1", red], False)
    assert read_statistics(later).statistics.sums.shape == (2, 2, 2, 4)
    assert read_statistics(at_once).statistics.sums.shape == (2, 0)
    for estimator in ("paper", "adaptive"):
        for path in (later, at_once):
            certify_statistics(path, path.with_suffix(".tsv"), ALPHA, estimator, None, parse_threats(["l1", red]), progress=False)
        ours, theirs = (read_tsv(path.with_suffix(".tsv")) for path in (later, at_once))
        assert list(ours) == list(theirs)
        assert (ours["radius_red"] >= ours["radius_l2"]).all()
        if estimator == "paper":
            assert ours["radius_red"].tolist() == theirs["radius_red"].tolist()
        else:
            # Nothing was bet on a part that was not asked for: sound, and a little less.
            assert (ours["radius_red"] <= theirs["radius_red"]).all()
            assert (ours["radius_red"] > 0.8 * theirs["radius_red"]).all()


def test_the_events_of_a_threat_without_bets_are_named_as_what_they_are(folder: Path) -> None:
    kept = _sample(folder, "kept.h5", ["l1"], True)
    threats = parse_threats(["l1", f"red=mask:{folder}/red.npy,p=1", f"axis=direction:{folder}/v.npy"])
    budget, _ = certify_statistics(kept, folder / "r.tsv", ALPHA, "adaptive", None, threats, progress=False)
    whats = [(event.bound, event.what) for event in budget.events]
    assert ("lower l2 of all", "bets on the length") in whats
    assert ("upper linf of all", "bets on the coordinates") in whats
    assert ("upper linf of red", "the means along the vector that the norm is attained at") in whats
    assert ("lower dot of axis", "the mean along the direction") in whats
    assert not [what for bound, what in whats if "bets" in what and not bound.endswith("of all")]
    assert budget.total <= ALPHA


def test_without_kept_means_a_new_threat_is_refused_by_name_and_a_stored_one_is_found_by_name(folder: Path) -> None:
    red = f"red=mask:{folder}/red.npy"
    few = _sample(folder, "few.h5", ["l1"], False)
    with pytest.raises(ValueError, match="nothing was kept for 'red'"):
        certify_statistics(few, folder / "r.tsv", ALPHA, "adaptive", None, parse_threats([red]), progress=False)
    stored = _sample(folder, "stored.h5", [red, f"axis=direction:{folder}/v.npy", "lp:3"], False)
    certify_statistics(stored, folder / "r.tsv", ALPHA, "adaptive", None, ["red", "l3"], progress=False)
    assert [name for name in read_tsv(folder / "r.tsv") if name.startswith("radius_")] == [
        "radius_red",
        "radius_l3",
        "radius_l2",
        "radius_cohen",
    ]
    certify_statistics(stored, folder / "r.tsv", ALPHA, "adaptive", None, progress=False)
    assert "radius_axis" in read_tsv(folder / "r.tsv")
