import math
import sys
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pytest
from scipy.stats import beta, binom

from certlut.cli import main as cli
from certlut.runs.counts import certify_counts
from certlut.runs.logs import read_counts
from certlut.runs.results import read_tsv

HEADER = "idx\tlabel\tpredict\tcount\tn\n"


def _write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_radii_are_cohens_rounded_down_and_undecided_rows_abstain(tmp_path: Path) -> None:
    lines = ("n idx time label predict count", "1000 7 0:01 3 3 990", "1000 9 0:01 3 4 700", "100 11 x 1 1 55", "100 12 x 1 -1 100")
    text = "".join(f"{line}\n" for line in lines).replace(" ", "\t")
    out = tmp_path / "r.tsv"
    assert certify_counts(_write(tmp_path / "c.tsv", text), out, sigma=0.5, alpha=0.01, d=16) == 4
    assert out.read_text().splitlines()[0].split("\t")[:6] == ["idx", "label", "predict", "radius", "correct", "time"]
    columns = read_tsv(out)
    assert columns["idx"].tolist() == [7, 9, 11, 12]
    assert columns["predict"].tolist() == [3, 4, -1, -1]
    assert columns["correct"].tolist() == [1, 0, 0, 0]
    assert columns["radius"].tolist()[2:] == [0.0, 0.0]
    for i, (count, n) in enumerate(((990, 1000), (700, 1000))):
        # By the definition: at a probability of q_lower as many votes have probability alpha; a little lower, less.
        q = columns["q_lower"][i]
        assert binom.sf(count - 1, n, q) <= 0.01
        assert binom.sf(count - 1, n, q + 1e-8) > 0.01
        radius = 0.5 * NormalDist().inv_cdf(q)
        for name in ("radius", "radius_l1", "radius_l2", "radius_cohen"):
            assert radius - 3e-6 <= columns[name][i] <= radius + 1e-8
        assert columns["radius_linf"][i] == pytest.approx(radius / 4, abs=2e-6)


def test_without_d_no_linf_radius_is_given(tmp_path: Path) -> None:
    out = tmp_path / "r.tsv"
    certify_counts(_write(tmp_path / "c.tsv", HEADER + "0\t0\t0\t100\t100\n"), out, 1.0, 0.001)
    assert "radius_linf" not in read_tsv(out)
    # A unanimous vote: q = alpha^(1/n).
    assert read_tsv(out)["radius"][0] == pytest.approx(NormalDist().inv_cdf(0.001 ** (1 / 100)), abs=2e-6)


def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path: Path) -> None:
    path = tmp_path / "counts.tsv"
    path.write_bytes(b"\xef\xbb\xbfidx\tlabel\tpredict\tcount\tn\n4\t1\t1\t990\t1000\n")
    assert {name: values.tolist() for name, values in read_counts(path).items()} == {
        "idx": [4],
        "label": [1],
        "predict": [1],
        "count": [990],
        "n": [1000],
    }


def test_many_rows_are_read_fast_and_an_empty_file_gives_none(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 1001, 2000)
    text = HEADER + "".join(f"{i}\t0\t0\t{count}\t1000.0\n" for i, count in enumerate(counts))
    out = tmp_path / "r.tsv"
    assert certify_counts(_write(tmp_path / "c.tsv", text), out, 0.25, 0.001) == 2000
    radius = read_tsv(out)["radius"]
    order = np.argsort(counts)
    assert (np.diff(radius[order]) >= 0).all()
    assert (radius[counts <= 500] == 0).all()
    assert certify_counts(_write(tmp_path / "none.tsv", HEADER), out, 0.25, 0.001) == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"no column idx, label, predict, count, n; expected a TSV"),
        ("idx\tlabel\tpredict\tradius\tcorrect\ttime\n", r"no column count, n; .* has \['idx', 'label', 'predict', 'radius'"),
        (HEADER.replace("\t", ";") + "0;0;0;1;2\n", r"no column idx, label"),
        (HEADER + "0\t0\t0\tmany\t100\n", r"line 2: count is 'many', expected a whole number"),
        (HEADER + "0\t0\t0\t10\t100\n1\t0\t0\t10.5\t100\n", r"line 3: count is '10\.5'"),
        (HEADER + "0\t0\t0\t10\n", r"line 2: n is None"),
        (HEADER + "0\t0\t0\tnan\t100\n", r"count is 'nan'"),
        (HEADER + "0\t0\t0\t1e300\t1e300\n", r"count is '1e300'"),
        (HEADER + "0\t0\t0\t101\t100\n", r"line 2: predict 0, count 101, n 100; expected 0 <= count <= n"),
        (HEADER + "0\t0\t0\t0\t0\n", r"count 0, n 0"),
        (HEADER + "0\t0\t-2\t1\t2\n", r"predict -2"),
        (HEADER + "0\t0\t0\t1\t9007199254740993\n", r"n is '9007199254740993', expected a whole number"),
        ("count\t" + HEADER, r"column count is there 2 times"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_with_the_line(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"c\.tsv.*{message}"):
        read_counts(_write(tmp_path / "c.tsv", text))


PAPER = "idx label count predict radiusR radius_L1 radius_L2 radius_cohen correct time"


@pytest.mark.parametrize("between", ["\t", ",", "  "])
def test_the_papers_log_is_read_where_n_is_given(between: str, tmp_path: Path) -> None:
    lines = (PAPER, "0 3 194186.0 3 0.8 0.7 0.8 0.8 1 0:00:14.01", "20 7 0.0 -1 0.0 0.0 0.0 0.0 0 0:00:15.5", "")
    path = _write(tmp_path / "log", "".join(f"{line}\n" for line in lines).replace(" ", between))
    with pytest.raises(ValueError, match=r"log: no column n; expected a TSV .* \(--n N says n, --columns the names of a file"):
        read_counts(path)
    out = tmp_path / "r.tsv"
    assert certify_counts(path, out, 0.5, 0.001, n=200_000) == 2
    columns = read_tsv(out)
    assert columns["predict"].tolist() == [3, -1]
    assert columns["n"].tolist() == [200_000, 200_000]
    q = columns["q_lower"][0]
    assert binom.sf(194_185, 200_000, q) <= 0.001
    assert binom.sf(194_185, 200_000, q + 1e-8) > 0.001
    assert columns["radius"][0] == pytest.approx(0.5 * NormalDist().inv_cdf(q), abs=2e-6)
    with pytest.raises(ValueError, match=r"line 2: predict 3, count 194186, n 194185; expected 0 <= count <= n"):
        read_counts(path, n=194_185)
    with pytest.raises(ValueError, match=r"counts: has a column n; leave out n = 5"):
        read_counts(_write(tmp_path / "counts", HEADER + "0\t0\t0\t1\t2\n"), n=5)


VOTES = [[0, 1, 990, 9], [600, 200, 100, 100], [0, 0, 0, 1000]]


def _votes(path: Path, *first: list[int]) -> Path:
    columns = [*map(list, zip(*first, strict=True))] if first else [[] for _ in VOTES]
    return _write(path, "".join(" ".join(f"{x}.0" for x in (*a, *b)) + "\n" for a, b in zip(columns, VOTES, strict=True)))


def test_counts_of_all_classes_need_no_header(tmp_path: Path) -> None:
    out = tmp_path / "r.tsv"
    certify_counts(
        _votes(tmp_path / "v", [5, 6, 7], [2, 0, 1], [2, 0, 3]), out, 1.0, 0.001, columns=["idx", "label", "predict", "counts"]
    )
    chosen = read_tsv(out)
    assert chosen["idx"].tolist() == [5, 6, 7]
    assert chosen["correct"].tolist() == [1, 1, 0]
    assert chosen["count"].tolist() == [990, 600, 1000]
    assert chosen["radius"][2] == pytest.approx(NormalDist().inv_cdf(0.00075 ** (1 / 1000)), abs=2e-6)
    # At the full level.
    assert chosen["radius_cohen"][2] == pytest.approx(NormalDist().inv_cdf(0.001 ** (1 / 1000)), abs=2e-6)
    # The second class has a third of the first one's votes.
    assert chosen["radius"][1] > 1.5 * chosen["radius_cohen"][1] > 0.0
    assert chosen["runner_up"].tolist() == [3, 1, 0]
    assert chosen["count_runner_up"].tolist() == [9, 200, 0]
    # The class that the same votes chose: the bounds of all four hold together.
    certify_counts(_votes(tmp_path / "v"), out, 1.0, 0.001, n=1000, columns=["counts"])
    found = read_tsv(out)
    assert (found["idx"].tolist(), found["label"].tolist(), found["predict"].tolist()) == ([0, 1, 2], [-1] * 3, [2, 0, 3])
    assert found["radius"][2] == pytest.approx(NormalDist().inv_cdf((0.75 * 0.00025) ** (1 / 1000)), abs=2e-6)
    assert (found["radius"] < chosen["radius"]).all()
    assert (found["radius"] > 0.85 * chosen["radius"]).all()


def test_fewer_than_half_of_the_votes_certify_where_all_classes_were_counted(tmp_path: Path) -> None:
    path, out = tmp_path / "v", tmp_path / "r.tsv"
    _write(path, "0 4000 3000 3000\n1 4000 3000 3000\n0 3400 3300 3300\n-1 4000 3000 3000\n")
    certify_counts(path, out, 2.0, 0.001, d=4, columns=["predict", "counts"])
    found = read_tsv(out)
    assert found["predict"].tolist() == [0, -1, -1, -1]
    assert found["radius_cohen"].tolist() == [0.0] * 4
    low, high = (float(ppf) for ppf in (beta.ppf(0.00075, 4000, 6001), beta.isf(0.00025, 3001, 7000)))
    expected = NormalDist().inv_cdf(low) - NormalDist().inv_cdf(high)
    assert found["radius"][0] == pytest.approx(expected, abs=2e-6)
    assert found["radius_linf"][0] == pytest.approx(0.5 * expected, abs=2e-6)
    assert found["radius"][1:].tolist() == [0.0] * 3


@pytest.mark.parametrize("chosen", [False, True])
def test_of_even_classes_few_are_certified(chosen: bool, tmp_path: Path) -> None:
    # Every certificate is wrong: the classes tie. Chosen from other votes, a class is the first; else the luckiest.
    rng, alpha, runs = np.random.default_rng(2), 0.1, 4000
    votes = rng.multinomial(300, [0.25] * 4, runs)
    path = tmp_path / "v"
    np.savetxt(path, np.column_stack((np.zeros(runs), votes)) if chosen else votes, fmt="%d")
    certify_counts(path, tmp_path / "r.tsv", 1.0, alpha, columns=["predict", "counts"] if chosen else ["counts"])
    wrong = float((read_tsv(tmp_path / "r.tsv")["radius"] > 0.0).mean())
    assert wrong <= alpha + 4.0 * (alpha / runs) ** 0.5


def test_a_class_that_its_own_votes_chose_is_too_good_at_alpha_and_not_at_a_share_of_it(tmp_path: Path) -> None:
    # Of two even classes the luckier passes 1/2 twice as often as alpha says.
    rng, alpha, n = np.random.default_rng(0), 0.05, 200
    votes = rng.binomial(n, 0.5, (3000, 1))
    both = np.column_stack((votes, n - votes))
    path = tmp_path / "v"
    np.savetxt(path, both, fmt="%d")
    certify_counts(path, tmp_path / "r.tsv", 1.0, alpha, columns=["counts"])
    wrong = int((read_tsv(tmp_path / "r.tsv")["radius"] > 0.0).sum())
    # 3000 times at most alpha, with five deviations.
    assert wrong <= 3000 * alpha + 5 * (3000 * alpha) ** 0.5
    given = np.column_stack((both.argmax(axis=1), both))
    np.savetxt(path, given, fmt="%d")
    certify_counts(path, tmp_path / "r.tsv", 1.0, alpha, columns=["predict", "counts"])
    assert int((read_tsv(tmp_path / "r.tsv")["radius"] > 0.0).sum()) > 1.5 * wrong


@pytest.mark.parametrize(
    ("text", "n", "columns", "message"),
    [
        ("1 2 3\n4 5\n", None, "counts", "line 2: 2 fields, expected 3 as in the first line"),
        ("1 2 3\n4 5 6\n", 6, "counts", r"line 2: counts \[4, 5, 6\]; expected none below 0, 6 in all"),
        ("1 -2 3\n", None, "counts", r"line 1: counts \[1, -2, 3\]; expected none below 0"),
        ("1 x\n", None, "counts", "line 1: class 1 is 'x', expected a whole number"),
        ("1 2\n", None, "idx,counts", "2 fields in a line, expected idx, counts with 2 classes or more"),
        ("2 1 2\n", None, "predict,counts", "line 1: predict 2, expected one of 2 classes"),
        ("0 0\n", None, "counts", "line 1: predict 0, count 0, n 0"),
        ("0 1 2\n", None, "idx,label,count", "no column predict, n; expected"),
        ("0 1\n", 5, "predict,count,extra,label", "line 1: label is None"),
    ],
)
def test_what_is_wrong_without_a_header_is_said(text: str, n: int | None, columns: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"v.*{message}"):
        read_counts(_write(tmp_path / "v", text), n, columns.split(","))


def test_bad_arguments_and_files_are_refused(tmp_path: Path) -> None:
    path, out = _write(tmp_path / "c.tsv", HEADER + "0\t0\t0\t9\t10\n"), tmp_path / "r.tsv"
    for sigma, alpha, d in ((0.0, 0.1, None), (math.inf, 0.1, None), (1.0, 0.0, None), (1.0, 1.0, None), (1.0, 0.1, 0)):
        with pytest.raises(ValueError, match="expected sigma > 0, 0 < alpha < 1 and d >= 1"):
            certify_counts(path, out, sigma, alpha, d)
    with pytest.raises(FileNotFoundError, match="no such file of counts"):
        read_counts(tmp_path / "absent.tsv")
    with pytest.raises(FileNotFoundError, match="no such folder"):
        certify_counts(path, tmp_path / "none" / "r.tsv", 1.0, 0.1)
    (tmp_path / "bytes.tsv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"bytes\.tsv: not a TSV"):
        read_counts(tmp_path / "bytes.tsv")
    assert not out.exists()


def test_the_command_writes_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def command(*arguments: object) -> int:
        monkeypatch.setattr(sys, "argv", ["certlut", "certify", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return int(stop.value.code or 0)

    path, out = _write(tmp_path / "c.tsv", HEADER + "0\t2\t2\t100\t100\n"), tmp_path / "r.tsv"
    assert command("--from-counts", path, "--sigma", 0.5, "--d", 4, "--out", out) == 0
    assert "r.tsv: 1 inputs" in capsys.readouterr().out
    columns = read_tsv(out)
    assert columns["radius_linf"][0] == pytest.approx(columns["radius_l2"][0] / 2, abs=1e-6)
    assert command("--from-counts", path, "--out", out) == 2
    assert command("--out", out) == 2
    assert command(path, "--from-counts", path, "--sigma", 1, "--out", out) == 2
    votes = _votes(tmp_path / "votes")
    assert command("--from-counts", votes, "--columns", "counts", "--n", 1000, "--sigma", 1, "--out", out) == 0
    assert read_tsv(out)["predict"].tolist() == [2, 0, 3]
    assert command(path, "--n", 5, "--out", out) == 2
    for extra in (["--estimator", "paper"], ["--table", path], ["--threat", "l1"], ["--explain"]):
        assert command("--from-counts", path, "--sigma", 1, "--out", out, *extra) == 2
    capsys.readouterr()
    assert command("--from-counts", tmp_path / "absent", "--sigma", 1, "--out", out) == 1
    assert capsys.readouterr().err.strip().endswith("absent: no such file of counts")
