import os
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from certlut.jobs.atomic import replacing
from certlut.runs.results import FIRST, LAST, read_tsv, row, write_tsv

RADIUS = {"l1": 0.75, "l2": 0.5, "linf": 0.25, "cohen": 0.45}


def _row(**changes: Any) -> dict[str, str]:
    fields = {"idx": 0, "label": 1, "predict": 1, "seconds": 1.0, "count": 8, "n": 1000, "q_lower": 0.7, "radius": RADIUS}
    return row(**fields | changes)


def _rows() -> list[dict[str, str]]:
    def times(factor: float) -> dict[str, float]:
        return {name: factor * value for name, value in RADIUS.items()}

    return [
        _row(idx=0, label=3, predict=3, seconds=1.5, count=990, q_lower=0.98),
        _row(idx=20, label=1, predict=2, seconds=0.25, count=800, q_lower=0.77, radius=times(0.1)),
        _row(idx=40, label=5, predict=-1, seconds=0.5, count=500, q_lower=0.46, radius=times(0.0)),
        _row(idx=60, label=7, predict=7, seconds=61.0, count=900, q_lower=0.87, radius=times(0.8)),
    ]


# Rows


def test_a_row_by_hand() -> None:
    assert _row(idx=20, predict=2, seconds=61.25, count=800, q_lower=0.77, radius={"l2": 0.1234567, "red": 2.0}) == {
        "idx": "20",
        "label": "1",
        "predict": "2",
        "radius": "0.123456",
        "correct": "0",
        "time": "0:01:01.250000",
        "count": "800",
        "n": "1000",
        "q_lower": "0.7700000000",
        "radius_l2": "0.123456",
        "radius_red": "2.000000",
        "runner_up": "-1",
        "count_runner_up": "-1",
        "gradient_lower": "0.000000",
        "gradient_upper": "0.398943",
    }
    counted = _row(runner_up=4, count_runner_up=7)
    assert (counted["runner_up"], counted["count_runner_up"]) == ("4", "7")
    assert list(_row()) == [
        *FIRST,
        "radius_l1",
        "radius_l2",
        "radius_linf",
        "radius_cohen",
        *LAST,
    ]


def test_what_is_not_l2_and_the_gradient_stand_at_the_end() -> None:
    line = _row(cohen={"linf": 0.1234567}, gradient=(0.0123456, 0.0234561))
    assert list(line)[-7:] == ["radius_linf", "radius_cohen", "cohen_linf", *LAST]
    # Bounds: down from below, up from above.
    assert (line["cohen_linf"], line["gradient_lower"], line["gradient_upper"]) == ("0.123456", "0.012345", "0.023457")


@settings(deadline=None, derandomize=True, max_examples=500)
@given(st.one_of(st.floats(0.0, 0.4), st.integers(0, 10**6).map(lambda k: np.nextafter(k / 1e6, 1.0))))
def test_a_printed_upper_bound_is_the_one_just_above(bound: float) -> None:
    text = _row(gradient=(0.0, bound))["gradient_upper"]
    assert float(text) >= bound >= float(Decimal(text) - Decimal("0.000001"))
    assert len(text.split(".")[1]) == 6


def test_what_is_no_number_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "r.tsv"
    path.write_text("idx\tradius\ttime\n0\t0.5\t0:01\n1\tmuch\t0:01\n")
    with pytest.raises(ValueError, match=r"r\.tsv, line 3: radius is 'much', expected a number"):
        read_tsv(path)
    path.write_text("idx\tradius\n0\t0.5\n1\n")
    with pytest.raises(ValueError, match=r"line 3: radius is None"):
        read_tsv(path)
    with pytest.raises(FileNotFoundError, match="no such results file"):
        read_tsv(tmp_path / "absent.tsv")


@settings(deadline=None, derandomize=True, max_examples=1000)
@given(st.one_of(st.floats(0.0, 10.0), st.floats(0.0, 1e9), st.integers(0, 10**10).map(lambda k: np.nextafter(k / 1e6, 0.0))))
def test_a_printed_radius_is_the_one_just_below(radius: float) -> None:
    printed = _row(radius={"l2": radius, "red": radius})
    for text in (printed["radius"], printed["radius_l2"], printed["radius_red"]):
        assert float(text) <= radius
        assert Decimal(text) >= 0
        assert float(Decimal(text) + Decimal("0.000001")) >= radius
        assert len(text.split(".")[1]) == 6


@settings(deadline=None, derandomize=True, max_examples=500)
@given(st.one_of(st.floats(0.0, 1.0), st.integers(1, 10**10).map(lambda k: np.nextafter(k / 1e10, 0.0))))
def test_a_printed_bound_of_q_is_the_one_just_below(q: float) -> None:
    text = _row(q_lower=q)["q_lower"]
    assert float(text) <= q <= float(Decimal(text) + Decimal("0.0000000001"))


# The results file


def test_the_fields_scripts_read_the_results(tmp_path: Path) -> None:
    write_tsv(tmp_path / "results.tsv", _rows())
    df = pandas.read_csv(tmp_path / "results.tsv", delimiter="\t")
    assert list(df.columns[:6]) == ["idx", "label", "predict", "radius", "correct", "time"]
    assert df["idx"].tolist() == [0, 20, 40, 60]
    assert df["predict"].tolist() == [3, 2, -1, 7]
    accuracy = [(df["correct"] & (df["radius"] >= r)).mean() for r in (0.0, 0.3, 0.4, 0.45, 0.6)]
    assert accuracy == [0.5, 0.5, 0.5, 0.25, 0.0]
    assert (df["correct"] * df["radius"]).mean() == pytest.approx((0.5 + 0.4) / 4, abs=1e-6)
    assert (df["predict"] == -1).mean() == 0.25
    assert pandas.to_timedelta(df["time"]).dt.total_seconds().tolist() == [1.5, 0.25, 0.5, 61.0]


def test_reading_back_gives_numbers_by_column(tmp_path: Path) -> None:
    write_tsv(tmp_path / "results.tsv", _rows())
    columns = read_tsv(tmp_path / "results.tsv")
    assert set(columns) == {*FIRST, *(f"radius_{name}" for name in RADIUS), *LAST} - {"time"}
    assert columns["radius_l1"].tolist() == pytest.approx([0.75, 0.075, 0.0, 0.6], abs=1e-6)
    assert columns["correct"].tolist() == [1.0, 0.0, 0.0, 1.0]
    assert all(values.dtype == np.float64 for values in columns.values())
    # As an editor may have saved it.
    (tmp_path / "marked.tsv").write_bytes(b"\xef\xbb\xbf" + (tmp_path / "results.tsv").read_bytes())
    marked = read_tsv(tmp_path / "marked.tsv")
    assert {name: values.tolist() for name, values in marked.items()} == {name: values.tolist() for name, values in columns.items()}


def test_no_rows_are_a_header_and_empty_columns(tmp_path: Path) -> None:
    write_tsv(tmp_path / "results.tsv", [])
    assert (tmp_path / "results.tsv").read_text() == "\t".join(FIRST) + "\n"
    assert {name: values.size for name, values in read_tsv(tmp_path / "results.tsv").items()} == dict.fromkeys(
        set(FIRST) - {"time"}, 0
    )


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    out = tmp_path / "results.tsv"
    write_tsv(out, _rows())
    before = out.read_bytes()
    with pytest.raises(ValueError, match="fields not in fieldnames"):
        write_tsv(out, [*_rows(), {"another": "1"}])
    assert out.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["results.tsv"]


def test_a_file_is_replaced_through_a_link_and_nothing_but_a_file(tmp_path: Path) -> None:
    out, link = tmp_path / "results.tsv", tmp_path / "link"
    out.write_text("old")
    link.symlink_to(out)
    write_tsv(link, _rows())
    assert link.is_symlink()
    assert out.read_text() != "old"
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(ValueError, match=f"{path}: exists and is not a regular file"):
            write_tsv(path, _rows())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "pipe", "results.tsv"]


def test_two_processes_that_write_one_file_do_not_mix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "results.tsv"
    with replacing(out) as first:
        first.write(b"the first")
        with monkeypatch.context() as patch:
            patch.setattr(os, "getpid", lambda: 1)
            with replacing(out) as second:
                second.write(b"the second, longer")
        assert out.read_bytes() == b"the second, longer"
    assert out.read_bytes() == b"the first"
    assert list(tmp_path.iterdir()) == [out]
