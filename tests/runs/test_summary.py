"""`certlut summary` against plain pandas, on our files, Cohen et al.'s and another tool's."""

import io
import math
import re
import sys
from pathlib import Path

import numpy as np
import pandas
import pytest

from certlut.cli import main as cli
from certlut.runs.results import row, write_tsv
from certlut.runs.summary import averages, comma_separated, curves, levels, read_results, table

COHEN = "idx\tlabel\tpredict\tradius\tcorrect\ttime\n"


def ours(path: Path, seed: int, cohen: float = 1.0) -> Path:
    """A results file as `certlut certify` writes it: 40 inputs, some wrong, some abstaining."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(40):
        label, predict = int(rng.integers(3)), int(rng.integers(-1, 3))
        z = 0.0 if predict < 0 else float(rng.exponential(0.4))
        radius = {"l1": 1.5 * z, "l2": 1.02 * z, "linf": 0.3 * z, "red": 1.2 * z, "cohen": cohen * z}
        about = {"seconds": 1.0, "count": 9, "n": 10, "q_lower": 0.6, "gradient": (0.1, 0.2)}
        rows.append(row(idx=i, label=label, predict=predict, radius=radius, cohen={"linf": 0.25 * cohen * z}, **about))  # type: ignore[arg-type]
    write_tsv(path, rows)
    return path


def run(*arguments: object) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["certlut", "summary", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
    return int(stopped.value.code or 0)


def test_averages_gains_and_accuracies_are_those_of_pandas(tmp_path: Path) -> None:
    path = ours(tmp_path / "results.tsv", 1)
    df = pandas.read_csv(path, delimiter="\t")
    assert 0 < (df.predict == -1).sum() < 20 < (df.predict != df.label).sum() < 40
    found = {one.threat: one for one in averages([read_results(path)])}
    assert list(found) == ["l1", "l2", "linf", "red"]
    for threat, one in found.items():
        own = (df.correct * df[f"radius_{threat}"]).mean()
        his = (df.correct * df["cohen_linf" if threat == "linf" else "radius_cohen"]).mean()
        assert (one.ours, one.cohen) == (pytest.approx(own, rel=1e-12), pytest.approx(his, rel=1e-12))
        assert one.gain == pytest.approx(100 * (own / his - 1), rel=1e-9)
    csv = pandas.read_csv(io.StringIO(comma_separated([read_results(path)], [0.0, 0.1, 0.35])))
    assert len(csv) == 4 * 2 * 3
    for line in csv.itertuples():
        column = f"radius_{line.threat}" if line.method == "ours" else "cohen_linf" if line.threat == "linf" else "radius_cohen"
        assert line.certified_accuracy == ((df.correct == 1) & (df[column] >= line.radius)).mean()
        assert line.average == pytest.approx((df.correct * df[column]).mean(), rel=1e-12)
    assert read_results(path).abstained == (df.predict == -1).sum()


def test_a_file_of_cohens_format_gives_what_his_script_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "cohen.tsv"
    path.write_text(f"{COHEN}0\t3\t3\t0.81\t1\t0:00:01\n20\t1\t2\t0.3\t0\t0:00:01\n40\t5\t-1\t0.0\t0\t0:00:01\n")
    df = pandas.read_csv(path, delimiter="\t")
    (one,) = averages([read_results(path)])
    assert (one.threat, one.ours) == ("l2", (df["correct"] * df["radius"]).mean())
    assert math.isnan(one.cohen)
    assert math.isnan(one.gain)
    assert run(path, "--radii", "0,0.5,0.81,1") == 0
    said = capsys.readouterr().out
    assert "3 inputs, 1 certified right, 1 wrong, 1 abstain" in said
    accuracy = [f"{(df['correct'] & (df['radius'] >= r)).mean():.3f}" for r in (0.0, 0.5, 0.81, 1.0)]
    assert accuracy == ["0.333", "0.333", "0.333", "0.000"]
    assert next(line.split()[1:] for line in said.splitlines() if line.strip().startswith("ours")) == accuracy


def test_another_tools_file_without_l1_and_with_columns_of_text(tmp_path: Path) -> None:
    path = tmp_path / "other.tsv"
    path.write_text("name\tcorrect\tradius\tradius_linf\tradius_cohen\na.png\t1\t0.5\t0.01\t0.4\nb.png\t0\t0.7\t0.02\t0.7\n")
    found = {one.threat: one for one in averages([read_results(path)])}
    assert [(t, one.ours, one.cohen) for t, one in found.items() if t == "l2"] == [("l2", 0.25, 0.2)]
    # His l2 radius is not his linf radius, which this file does not tell.
    assert found["linf"].ours == 0.005
    assert math.isnan(found["linf"].cohen)
    assert read_results(path).abstained == 0


def test_files_stand_beside_each_other_and_cohen_once_where_they_share_him(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, again, other = ours(tmp_path / "a.tsv", 1), ours(tmp_path / "b.tsv", 1), ours(tmp_path / "c.tsv", 2)
    results = [read_results(path) for path in (first, again, other)]
    assert [name for name, _ in curves(results)["l1"]] == ["Cohen", "a", "b", "Cohen, c", "c"]
    assert run(f"one={first}", other, "--csv", tmp_path / "s.csv", "--plot", tmp_path / "s.png") == 0
    said = capsys.readouterr().out
    assert re.search(r"l1 +one .*\n +l1 +c ", said)
    assert (tmp_path / "s.png").read_bytes().startswith(b"\x89PNG")
    assert set(pandas.read_csv(tmp_path / "s.csv").file) == {"one", "c"}
    (tmp_path / "sub").mkdir()
    twin = ours(tmp_path / "sub" / "a.tsv", 3)
    assert run(first, twin, "--csv", tmp_path / "t.csv") == 0
    assert set(pandas.read_csv(tmp_path / "t.csv").file) == {str(first), str(twin)}


def test_the_radii_of_accuracy_are_round_and_reach_the_largest(tmp_path: Path) -> None:
    for largest, expected in (
        (1.55, [0, 0.25, 0.5, 0.75, 1, 1.25, 1.5]),
        (1.0, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (0.0137, [0, 0.0025, 0.005, 0.0075, 0.01, 0.0125]),
        (0.0, [0]),
        (math.inf, [0]),
    ):
        path = tmp_path / "r.tsv"
        path.write_text(f"{COHEN}0\t3\t3\t{largest}\t1\t0:01\n1\t3\t2\t9\t0\t0:01\n")
        assert levels([read_results(path)], "l2") == expected
    for largest in np.random.default_rng(4).lognormal(0.0, 3.0, 200):
        path.write_text(f"{COHEN}0\t3\t3\t{largest}\t1\t0:01\n")
        found = levels([read_results(path)], "l2")
        assert 3 <= len(found) <= 7
        assert found[-1] <= largest < found[-1] + found[1]


def test_what_is_no_results_file_is_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, good = tmp_path / "r.tsv", ours(tmp_path / "good.tsv", 5)
    for text, message in (
        ("a\tb\n1\t2\n", "no column radius, correct; expected a TSV with idx, label, predict, radius, correct, time"),
        (COHEN, "holds no inputs"),
        (f"{COHEN}0\t3\t3\tmuch\t1\t0\n", "line 2: radius is 'much', expected a number"),
    ):
        path.write_text(text)
        assert run(path) == 1
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
    assert run(tmp_path / "absent.tsv") == 1
    assert "absent.tsv: no such results file" in capsys.readouterr().err
    assert run(good, "--radii", "0.1,far") == 1
    assert "--radii '0.1,far': expected numbers from 0" in capsys.readouterr().err
    before = good.read_bytes()
    assert run(good, "--csv", good) == 1
    assert "is read as well" in capsys.readouterr().err
    assert good.read_bytes() == before
    assert run() == 2


def test_the_table_fits_80_columns_for_four_threats(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(ours(tmp_path / "results.tsv", 6)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines == [line.rstrip() for line in lines]
    assert table([read_results(tmp_path / "results.tsv")]).renderables
