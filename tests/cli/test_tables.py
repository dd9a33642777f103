"""What the commands on tables say."""

from dataclasses import replace
from pathlib import Path

import pytest

from certlut.cli import tables
from certlut.lookup.format import read_table, write_table


def change(path: Path, out: Path, name: str, factor: float) -> Path:
    data = read_table(path)
    write_table(out, replace(data, datasets=data.datasets | {name: data.datasets[name] * factor}))
    return out


def test_a_sample_says_which_bounds_were_too_small(small_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = change(small_path, tmp_path / "bad.h5", "c", 1.0 - 1e-9)
    with pytest.raises(ValueError, match=r"of 3 nodes tried, not all hold as stored \(0 radii lowered, 3 bounds c raised\)"):
        tables.prove(bad, nodes=3, jobs=1, seed=4)
    bad = change(small_path, tmp_path / "bad.h5", "radius", 1.0 + 3e-7)
    with pytest.raises(ValueError, match=r"\(3 radii lowered, by at most [34]\.\de-07 of themselves, 0 bounds c raised\)"):
        tables.prove(bad, nodes=3, jobs=1, seed=4)
    tables.prove(small_path, nodes=3, jobs=1, seed=4)
    assert capsys.readouterr().out == f"{small_path}: 3 nodes, all proven; a sample, the file is unchanged\n"
