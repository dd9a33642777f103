"""The demo, quick: it is the README's first command."""

from pathlib import Path

import numpy as np
import pytest

from certlut.report import demo
from certlut.runs.results import read_tsv


def test_quick_demo_writes_both_results_and_the_figure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    demo.run(tmp_path, quick=True)
    results = [f"{name}{end}" for name in ("results.tsv", "results_0.25.tsv") for end in ("", ".json")]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["curves.png", *results]
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    printed = capsys.readouterr().out
    assert "average certified radius" in printed
    assert "left" in printed
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


def test_digits_are_split_without_overlap_and_the_same_way_every_time() -> None:
    train, test = demo.digits()
    again = demo.digits()[1]
    assert (len(train), len(test)) == (1697, 100)
    assert np.array_equal(test.x, again.x)
    assert test.x.shape[1:] == demo.SHAPE
    assert 0.0 <= train.x.min() <= train.x.max() <= 1.0
