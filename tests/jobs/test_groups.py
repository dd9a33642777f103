import contextlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

from certlut.jobs.atomic import check_out
from certlut.jobs.groups import resuming
from certlut.jobs.journal import Journal
from certlut.jobs.progress import Lines, progress_bar

GROUPS = [range(0, 3), range(3, 6), range(6, 7)]


class Job:
    """Squares of the input numbers, written as JSON; stops in the middle of the inputs of `stop`."""

    def __init__(self, out: Path, stop: int | None = None) -> None:
        self.out, self.stop, self.worked = out, stop, list[int]()

    def run(self, **changes: Any) -> list[dict[str, Any]]:
        arguments = {"settings": {"n": 1}, "progress": False, "verb": ""} | changes
        with resuming(self.out, groups=GROUPS, **arguments) as job:
            self.started = job.started
            for index in (index for group in job.remaining() for index in group):
                if index == self.stop:
                    raise KeyboardInterrupt
                self.worked.append(index)
                job.add({"idx": index, "square": index**2, "certified": index % 2 == 0})
            self.out.write_text(json.dumps(list(job.records())))
        records: list[dict[str, Any]] = json.loads(self.out.read_text())
        return records


def test_every_input_is_worked_on_once_and_written_in_order(tmp_path: Path) -> None:
    job = Job(tmp_path / "out")
    assert [record["square"] for record in job.run()] == [i**2 for i in range(7)]
    assert job.worked == list(range(7))
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("stop", range(1, 7))
def test_a_stopped_job_goes_on_with_the_group_that_was_cut(stop: int, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        Job(tmp_path / "out", stop).run()
    assert not (tmp_path / "out").exists()
    with Journal(tmp_path / "out", {"n": 1}) as journal:
        assert [json.loads(record)["idx"] for record in journal.records] == list(range(stop))
    job = Job(tmp_path / "out")
    assert [record["square"] for record in job.run()] == [i**2 for i in range(7)]
    # Whole groups: the batches of a group hold all its inputs.
    assert job.worked == list(range(stop - stop % 3, 7))


def test_a_job_that_stopped_before_its_first_input_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        Job(tmp_path / "out", 0).run()
    assert list(tmp_path.iterdir()) == []


def test_other_settings_are_refused_and_the_journal_kept(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        Job(tmp_path / "out", 4).run()
    before = (tmp_path / "out.journal").read_bytes()
    with pytest.raises(ValueError, match=r"n was 1, is 2"):
        Job(tmp_path / "out").run(settings={"n": 2})
    assert (tmp_path / "out.journal").read_bytes() == before


def test_only_a_job_that_left_records_has_started(tmp_path: Path) -> None:
    for stop, started in ((0, False), (2, False), (2, True), (None, True), (None, False)):
        job = Job(tmp_path / "out", stop)
        with contextlib.suppress(KeyboardInterrupt):
            job.run()
        assert job.started is started


def test_a_block_that_does_nothing_leaves_no_journal(tmp_path: Path) -> None:
    with resuming(tmp_path / "out", {}, GROUPS, "", progress=False) as job:
        assert not job.started
    assert list(tmp_path.iterdir()) == []


def test_a_record_that_is_there_stays(tmp_path: Path) -> None:
    with resuming(tmp_path / "out", {}, GROUPS, "", progress=False) as job:
        assert next(job.remaining()) == range(0, 3)
        for value in (1, 2):
            for index in range(7):
                job.add({"idx": index, "value": value, "certified": True})
        assert [record["value"] for record in job.records()] == [1] * 7


def test_a_write_that_fails_keeps_the_work(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(IsADirectoryError):
        Job(tmp_path / "out").run()
    (tmp_path / "out").rmdir()
    job = Job(tmp_path / "out")
    assert len(job.run()) == 7
    assert job.worked == []


def test_the_bar_shows_the_certified_accuracy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notes: list[str] = []
    monkeypatch.setattr("rich.progress.Progress.update", lambda *_, description, **__: notes.append(description))
    Job(tmp_path / "out").run(progress=True)
    assert notes == [f"certified accuracy {share}" for share in ("1.000", "0.500", "0.667", "0.500", "0.600", "0.500", "0.571")]


def test_a_log_file_gets_lines_now_and_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Job(tmp_path / "out").run(progress=True)
    assert "certified accuracy 0.6" not in capsys.readouterr().err
    monkeypatch.setattr("certlut.jobs.progress.QUIET", 0.0)
    Job(tmp_path / "out").run(progress=False)
    assert capsys.readouterr().err == ""
    Job(tmp_path / "out").run(progress=True, verb="squaring")
    lines = [line for line in capsys.readouterr().err.splitlines() if line]
    assert len(lines) >= 7
    assert re.fullmatch(r"squaring: 5 of 7, (less than a minute left, )?certified accuracy 0\.600", lines[4])


def test_a_stop_says_what_is_kept_and_the_next_run_where_it_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    for stop, said in (
        (0, "stopped; nothing was finished"),
        (4, "stopped; 4 of 7 inputs are kept: the same again goes on behind them"),
        (5, "4 of 7 inputs are done, going on behind them"),
        (None, "5 of 7 inputs are done, going on behind them"),
    ):
        with contextlib.suppress(KeyboardInterrupt):
            Job(out, stop).run(progress=True)
        assert f"{out}.journal: {said}\n" in capsys.readouterr().err
    with contextlib.suppress(KeyboardInterrupt):
        Job(tmp_path / "quiet", 3).run()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("seconds", "said"), [(None, ""), (20.0, ", less than a minute left"), (60.0, ", 1 min left"), (3600.0, ", 60 min left")]
)
def test_the_time_left_is_told_where_it_is_known(
    seconds: float | None, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("certlut.jobs.progress.QUIET", -1.0)
    monkeypatch.setattr("rich.progress.Task.time_remaining", property(lambda _: seconds))
    with progress_bar("squaring") as bar:
        Lines(bar, "squaring").say(bar.add_task("", total=7, completed=2))
    assert f"squaring: 2 of 7{said}\n" in capsys.readouterr().err


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    assert check_out(str(tmp_path / "out")) == tmp_path / "out"
    with pytest.raises(FileNotFoundError, match=r"nowhere: no such folder to write out\.h5 in"):
        check_out(tmp_path / "nowhere" / "out.h5")


def test_what_is_no_file_or_is_read_as_well_is_not_written_to(tmp_path: Path) -> None:
    data, link = tmp_path / "data", tmp_path / "link"
    data.write_text("hours of work")
    link.symlink_to(data)
    (tmp_path / "sub").mkdir()
    for out in (data, link, tmp_path / "sub" / ".." / "data"):
        with pytest.raises(ValueError, match="is read as well; expected another file to write"):
            check_out(out, tmp_path / "none", None, data)
    assert check_out(data, tmp_path / "other") == data
    for out in (tmp_path / "sub", Path("/dev/null")):
        with pytest.raises(ValueError, match=f"{out}: exists and is not a regular file"):
            check_out(out)
