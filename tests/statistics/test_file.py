import csv
import dataclasses
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from certlut import Table
from certlut.runs.certify import certify_statistics
from certlut.statistics.file import Sampled, read_statistics, write_statistics
from certlut.statistics.summary import summarise
from certlut.statistics.votes import Tail, kept_classes
from certlut.threats.declare import Direction, Line, Lp, Sparse, Subspace
from certlut.threats.sets import L1, L2, LINF, Threat
from reference.fields import flat
from reference.naive_statistics import half_space

DATA = Path(__file__).resolve().parent.parent / "data"


def _sampled(name: str = "red") -> Sampled:
    threats = (L2, Subspace(np.arange(4) < 2, 2, name), Direction(np.ones(4), "along"))
    w = np.array([0.5, -0.5, 0.5, 0.5])
    statistics = summarise(half_space(w, 0.7).moments(np.random.default_rng(8), 3, 101), threats, 0.25)
    column = np.arange(3)
    return Sampled(statistics, column * 20, column + 1, column - 1, column * 0.5, {"n0": 100, "model": "net.pt2", "seed": None})


def _counted() -> Sampled:
    """With all that may be kept besides."""
    sampled = _sampled()
    s = sampled.statistics
    against = (s.n - s.count).sum(axis=1)
    kept = [kept_classes(np.array([101 - k, k, 0]), 0) for k in against]
    classes, counts = (np.stack(columns) for columns in zip(*kept, strict=True))
    largest = np.stack([against // 2, against // 5, against * 0], axis=1)
    coordinates = Tail("axes of 4", np.array([0.5, 1.0, 3.5]), largest)
    tails = {"coordinates": coordinates, "along": Tail("v", np.array([2.0]), largest[:, 1:2])}
    about = {"proposal": {"by": "gradient", "copies": 1000, "temperature": 0.3}, "noise": {"kind": "grid", "step": 1 / 255}}
    counted = dataclasses.replace(
        s,
        classes=classes,
        class_count=counts,
        looks=np.array([1, 8, 3]),
        selection=np.array([[9, 10], [5, 10], [0, 10]]),
        tails=tails,
        **about,
    )
    return dataclasses.replace(sampled, statistics=counted)


def _assert_equal(a: Sampled, b: Sampled) -> None:
    for name in ("idx", "label", "predict", "seconds"):
        assert getattr(a, name).tolist() == getattr(b, name).tolist()
    assert a.settings == b.settings
    assert flat(a.statistics) == flat(b.statistics)


@pytest.mark.parametrize("sampled", [_sampled(), _counted()], ids=["plain", "counted"])
def test_statistics_survive_the_file_bit_for_bit(sampled: Sampled, tmp_path: Path) -> None:
    sampled.statistics.check((L2,))
    write_statistics(tmp_path / "stats.h5", sampled)
    _assert_equal(read_statistics(tmp_path / "stats.h5"), sampled)
    assert [path.name for path in tmp_path.iterdir()] == ["stats.h5"]


@pytest.mark.parametrize("name", ["a/b", ".", "..", "/", "läng.e", "a.b"])
def test_statistics_of_a_subspace_of_any_name_survive_the_file_or_the_name_is_refused(name: str, tmp_path: Path) -> None:
    try:
        sampled = _sampled(name)
    except ValueError as error:
        assert repr(name) in str(error)  # noqa: PT017
        return
    write_statistics(tmp_path / "stats.h5", sampled)
    _assert_equal(read_statistics(tmp_path / "stats.h5"), sampled)


def test_a_file_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.h5: no such statistics file"):
        read_statistics(tmp_path / "none.h5")


@pytest.mark.parametrize("keep", [0, 10, 500, 0.5, 0.99])
def test_a_truncated_statistics_file_is_refused_by_name(keep: float, tmp_path: Path) -> None:
    path = tmp_path / "stats.h5"
    write_statistics(path, _sampled())
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep * len(whole)) if keep < 1 else int(keep)])
    with pytest.raises(ValueError, match=r"stats\.h5: not a readable statistics file, truncated or damaged"):
        read_statistics(path)


def test_text_in_place_of_statistics_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "stats.h5"
    path.write_text("idx\tlabel\n" * 1000)
    with pytest.raises(ValueError, match=r"stats\.h5: not a readable statistics file"):
        read_statistics(path)


@pytest.mark.parametrize(
    ("attribute", "value", "message"),
    [
        ("filetype", "certlut-table", "filetype 'certlut-table' version 3, expected 'certlut-statistics' version 2 or 3"),
        ("format_version", 1, "filetype 'certlut-statistics' version 1, expected 'certlut-statistics' version 2 or 3"),
        ("format_version", 4, "filetype 'certlut-statistics' version 4, expected"),
        ("noise", None, "not a readable statistics file"),
        ("filetype", None, "filetype None version 3"),
        ("sigma", None, "not a readable statistics file"),
        ("settings", None, "not a readable statistics file"),
    ],
)
def test_another_kind_or_version_of_file_is_refused_by_name(attribute: str, value: Any, message: str, tmp_path: Path) -> None:
    path = tmp_path / "stats.h5"
    write_statistics(path, _sampled())
    with h5py.File(path, "r+") as file:
        if value is None:
            del file.attrs[attribute]
        else:
            file.attrs[attribute] = value
    with pytest.raises(ValueError, match=rf"stats\.h5: .*{message}"):
        read_statistics(path)


@pytest.mark.parametrize("name", ["count", "idx", "looks", "class_count", "tails", "parts", "parts/all/inner", "parts/along"])
def test_a_missing_dataset_is_refused_by_name(name: str, tmp_path: Path) -> None:
    path = tmp_path / "stats.h5"
    write_statistics(path, _sampled())
    with h5py.File(path, "r+") as file:
        del file[name]
    if name == "parts/along":
        # A part is what a threat needs; that it is not there is the reader's business only when it is asked for.
        assert "along" not in read_statistics(path).statistics.parts
        return
    with pytest.raises(ValueError, match=r"stats\.h5: not a readable statistics file"):
        read_statistics(path)


def test_a_slice_of_the_inputs_is_read_with_their_tails_and_classes(tmp_path: Path) -> None:
    sampled = _counted()
    write_statistics(tmp_path / "stats.h5", sampled)
    part = read_statistics(tmp_path / "stats.h5", slice(1, 3)).statistics
    whole = sampled.statistics
    assert part.class_count.tolist() == whole.class_count[1:].tolist()
    assert part.looks.tolist() == [8, 3]
    assert part.selection.tolist() == [[5, 10], [0, 10]]
    for name, tail in whole.tails.items():
        assert part.tails[name].thresholds.tolist() == tail.thresholds.tolist()
        assert part.tails[name].largest.tolist() == tail.largest[1:].tolist()


@pytest.mark.parametrize("estimator", ["adaptive", "paper"])
def test_a_file_of_format_2_gives_the_radii_that_the_version_before_gave(
    estimator: str, tmp_path: Path, shipped: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The file and both results were written by that version.
    # Radii between Cohen's and the rim have since moved with the table, by its loss (up by 6e-5 to down by 4e-4).
    monkeypatch.setattr("certlut.runs.certify.load", lambda path: shipped)
    old = read_statistics(DATA / "statistics_2.h5")
    threats = [threat for threat in old.threats if estimator == "adaptive" or threat.name != "l3"]
    again = tmp_path / "statistics_3.h5"
    write_statistics(again, old)
    for path in (DATA / "statistics_2.h5", again):
        certify_statistics(path, tmp_path / "results.tsv", 0.01, estimator, None, threats, progress=False)
        before, after = (
            list(csv.DictReader(file.read_text().splitlines(), delimiter="\t"))
            for file in (DATA / f"statistics_2_{estimator}.tsv", tmp_path / "results.tsv")
        )
        # Later columns are at the end; classes were not counted.
        assert [{name: row[name] for name in old_row} for row, old_row in zip(after, before, strict=True)] == before
        assert list(after[0])[: len(before[0])] == list(before[0])
        assert {(row["runner_up"], row["count_runner_up"]) for row in after} == {("-1", "-1")}


def test_what_format_2_did_not_keep_is_said_to_be_missing() -> None:
    s = read_statistics(DATA / "statistics_2.h5").statistics
    assert s.classes.shape == s.class_count.shape == (3, 0)
    assert s.looks.tolist() == [0, 0, 0]
    assert (s.tails, s.noise, s.proposal) == ({}, {"kind": "gaussian"}, {"by": "votes"})
    assert all(np.isnan(part.along_high).all() for part in s.parts.values())


def test_every_kind_of_threat_is_read_as_it_was_declared(tmp_path: Path) -> None:
    mask, v = np.array([True, False, False, True]), np.array([1.0, -2.0, 0.5, 0.1])
    threats: list[Threat] = [
        L2,
        L1,
        LINF,
        Lp(1.5),
        Lp(40.0),
        Subspace(mask, np.inf, "red"),
        Subspace(basis=np.eye(4)[:2], name="span"),
    ]
    threats += [Direction(v, "along"), Line(v, "line"), Sparse(1), Sparse(3)]
    sampled = dataclasses.replace(_sampled(), threats=tuple(threats))
    write_statistics(tmp_path / "stats.h5", sampled)
    again = read_statistics(tmp_path / "stats.h5").threats
    assert len(again) == len(threats)
    for ours, theirs in zip(again, threats, strict=True):
        assert type(ours) is type(theirs)
        assert (ours.name, ours.settings(), ours.needs()) == (theirs.name, theirs.settings(), theirs.needs())
        found, wanted = ours.describe(), theirs.describe()
        assert found.keys() == wanted.keys()
        for name, value in wanted.items():
            assert np.array_equal(found[name], value)
            assert type(found[name]) is type(value)
        assert {name: by.key for name, by in ours.parts().items()} == {name: by.key for name, by in theirs.parts().items()}


def test_a_kind_of_threat_that_is_not_known_is_refused(tmp_path: Path) -> None:
    write_statistics(tmp_path / "stats.h5", dataclasses.replace(_sampled(), threats=(L2,)))
    with h5py.File(tmp_path / "stats.h5", "r+") as file:
        file["threats/l2"].attrs["kind"] = "cube"
    with pytest.raises(ValueError, match=r"stats\.h5: not a readable statistics file.*cube"):
        read_statistics(tmp_path / "stats.h5")
