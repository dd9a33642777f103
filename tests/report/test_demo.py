"""The demo, quick: it is the README's first command."""

from pathlib import Path

import numpy as np
import pytest
import torch

from certlut.report import bundled, demo
from certlut.report.demo import run_demo
from certlut.runs.results import read_tsv
from certlut.sampling.sampler import Sampler
from certlut.statistics.file import Sampled
from certlut.statistics.summary import Moments, summarise


def test_quick_demo_writes_both_results_and_the_figure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_demo(tmp_path, quick=True)
    kept = ["statistics_0.25_quick.h5", "statistics_0.5_quick.h5"]
    written = ["curves.png", "first_order.tsv", "first_order_0.25.tsv", "results.tsv", "results_0.25.tsv", *kept]
    assert sorted(path.name for path in tmp_path.iterdir()) == written
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    printed = capsys.readouterr().out
    assert "average certified radius" in printed
    assert "left" in printed
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in printed.splitlines() if line.startswith("│")]
    for _, threat, cohen, first, tails, _ in rows:
        # Tails change no l2 radius but by their share of alpha, and add much to l1.
        if threat == "l1":
            assert float(tails) > 1.05 * float(first) > 1.05 * float(cohen)
        elif threat == "l2":
            assert 0.99 * float(first) < float(tails) <= float(first)
    for name in ("results.tsv", "results_0.25.tsv"):
        columns = read_tsv(tmp_path / name)
        assert len(columns["idx"]) == 20
        assert columns["correct"].mean() > 0.8
        sure = columns["predict"] >= 0
        # First order beats zeroth order on average for l1, although it spends part of alpha on the gradient.
        assert (columns["radius_l1"] - columns["radius_cohen"])[sure].mean() > 0
        assert np.all(columns["radius_left"] >= columns["radius_l2"])
        assert np.all(columns["radius_l1"] >= columns["radius_l2"])
        assert np.all(columns["radius_linf"] >= columns["radius_l2"] / 8 - 1e-6)


def test_cohens_average_counts_digits_where_ours_abstains(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # 13 votes of 14 prove a majority at level 0.001, and not at 0.0009. One digit of two is right.
    def drawn(sampler: Sampler, *_: object, **__: object) -> Sampled:
        moments = Moments(np.array([7, 7]), np.array([6, 7]), np.zeros((2, 64)), np.zeros((2, 64)))
        statistics = summarise([moments] * 2, sampler.threats, sampler.sigma)
        return Sampled(statistics, np.arange(2), np.array([3, 4]), np.array([3, 3]), np.zeros(2), {})

    monkeypatch.setattr(demo, "sample_dataset", drawn)
    monkeypatch.setattr(bundled, "train", lambda *_, **__: torch.nn.Identity())
    run_demo(tmp_path, quick=True)
    assert read_tsv(tmp_path / "results.tsv")["predict"].tolist() == [-1, -1]
    rows = [line.strip("│").replace("│", " ").split() for line in capsys.readouterr().out.splitlines() if line.startswith("│")]
    # sigma z / 2, Phi(z) = 0.50365 the lower bound of 13 in 14.
    assert [row[1:] for row in rows if row[0] == "0.5" and row[1] in ("l2", "linf")] == [
        ["l2", "0.0023", "0.0000", "0.0000", "-100.0", "%"],
        ["linf", "0.0003", "0.0000", "0.0000", "-100.0", "%"],
    ]
