"""The command as a user meets it: exit statuses, one line on stderr; its work in separate processes, refusals in this one."""

import contextlib
import importlib.metadata
import io
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from certlut.cli.main import main
from certlut.lookup.format import read_table, write_table
from certlut.runs.results import read_tsv
from certlut.tablegen import radius

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = ("build", "prove", "stamp", "info", "radius", "sample", "merge", "certify", "summary", "plan", "demo", "report", "slice")


def run(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "certlut", *map(str, arguments)]
    environment = os.environ | {"COLUMNS": "100"}
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment, timeout=300, check=False)


def here(*arguments: object, cwd: Path | None = None) -> tuple[int, str, str]:
    """(exit status, stdout, stderr) of the command, in this process."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        patch.chdir(cwd or Path.cwd())
        patch.setattr(sys, "argv", ["certlut", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            main()
    return int(stopped.value.code or 0), out.getvalue(), err.getvalue()


def fails(*arguments: object, match: str, cwd: Path | None = None) -> None:
    status, stdout, stderr = here(*arguments, cwd=cwd)
    assert (status, stdout) == (1, ""), stderr
    lines = stderr.strip().splitlines()
    assert len(lines) == 1, stderr
    assert lines[0].startswith("certlut: ")
    assert match in lines[0]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with net.pt2 (two classes of 1x2x2 inputs), data.npz and make.py."""
    folder = tmp_path_factory.mktemp("inputs")
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2)).eval()
    batch = torch.export.Dim("batch", min=1)
    program = torch.export.export(net, (torch.zeros(5, 1, 2, 2),), dynamic_shapes=({0: batch},))
    torch.export.save(program, folder / "net.pt2")
    rng = np.random.default_rng(0)
    np.savez(folder / "data.npz", x=rng.normal(size=(3, 1, 2, 2)).astype(np.float32), y=np.array([0, 1, 0]))
    (folder / "make.py").write_text(
        "import torch\ndef net():\n    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2))\n"
    )
    return folder


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_every_command_has_an_example(command: str) -> None:
    status, stdout, _ = here(command, "--help")
    assert status == 0
    assert f"certlut {command}" in stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_help_fits_80_columns_and_breaks_no_option_of_an_example(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = here(command, "--help")[1].splitlines()
    assert max(map(len, lines)) <= 80
    start, stop = (next(i for i, line in enumerate(lines) if line.strip().startswith(word)) for word in ("Example", "Options:"))
    examples = "\n".join(lines[start:stop]).replace("\\\n", " ")
    assert f"    certlut {command} " in examples
    for line in examples.splitlines():
        # Each line is a heading or a whole command: every option has its value beside it.
        if line.startswith("    ") and "certlut" in line:
            assert not re.search(r" --(?!quick|explain|standalone|no-python|nproc)[a-z][\w-]*(?= --|$)", line), line


@pytest.mark.parametrize("command", [(), *((name,) for name in COMMANDS)])
def test_a_short_h_is_help_too(command: tuple[str, ...]) -> None:
    assert here(*command, "-h") == here(*command, "--help")
    assert here(*command, "-h")[0] == 0


def test_the_version_is_the_packages() -> None:
    result = run("--version")
    assert (result.returncode, result.stdout) == (0, f"certlut {importlib.metadata.version('certlut')}\n")
    # `python -m certlut` is the same command: its usage does not name a file.
    assert run("-h").stdout.startswith("Usage: certlut [OPTIONS] COMMAND")


def test_radius_prints_the_exact_radius_and_refuses_what_is_outside() -> None:
    result = run("radius", "--q", 0.9, "--m1", -0.1, "--m2", 0.05)
    assert float(result.stdout) == radius(0.9, -0.1, 0.05)
    fails("radius", "--q", 0.5, "--m1", 0, "--m2", 0, match="q = 0.5: expected 1/2 < q < 1")
    fails("radius", "--q", "nan", "--m1", 0, "--m2", 0, match="q = nan")
    fails("radius", "--q", 0.9, "--m1", -0.3, "--m2", 0.3, match="(m1, m2) = (-0.3, 0.3)")
    assert here("radius", "--q", 0.9)[0] == 2


def test_info_prints_the_table_and_where_the_packages_are() -> None:
    result = run("info", ROOT / "tables" / "default.h5")
    assert result.returncode == 0
    for text in ("digest", "data_version", "240 knots", str(ROOT)):
        assert text in result.stdout


def test_build_then_again_does_nothing_then_prove_a_sample(tmp_path: Path, small_path: Path) -> None:
    out = tmp_path / "small.h5"
    first = run("build", "--out", out, "--grid", "small", "--jobs", 2)
    assert first.returncode == 0, first.stderr
    assert out.read_bytes() == small_path.read_bytes()
    stamp = out.stat().st_mtime_ns
    assert run("build", "--out", out, "--grid", "small").stdout == first.stdout
    assert out.stat().st_mtime_ns == stamp
    assert sorted(path.name for path in tmp_path.iterdir()) == ["small.h5"]
    proof = run("prove", out, "--nodes", 20, "--seed", 3)
    assert proof.returncode == 0, proof.stderr
    assert "20 nodes, all proven" in proof.stdout
    assert out.stat().st_mtime_ns == stamp


def test_build_refuses_bad_arguments_and_writes_nothing(tmp_path: Path) -> None:
    fails("build", "--out", tmp_path / "t.h5", "--grid", "huge", match="grid 'huge': expected one of small, default, dense")
    fails("build", "--out", tmp_path / "t.h5", "--grid", "small", "--sigma", -1, match="sigma = -1.0")
    fails("build", "--out", tmp_path / "none" / "t.h5", "--grid", "small", match="no such folder")
    fails("build", "--out", tmp_path / "t.h5", "--grid", "small", "--jobs", 0, match="jobs = 0")
    assert list(tmp_path.iterdir()) == []


def test_prove_reports_a_raised_radius(tmp_path: Path, small_path: Path) -> None:
    data = read_table(small_path)
    radii = data.datasets["radius"].copy()
    radii *= 1.0 + 3e-7
    bad = tmp_path / "bad.h5"
    write_table(bad, type(data)(**{**data.__dict__, "datasets": data.datasets | {"radius": radii}}))
    fails("prove", bad, "--nodes", 3, match="not all hold as stored")


def test_damaged_tables_are_refused_in_one_line(tmp_path: Path, small_path: Path) -> None:
    bad = tmp_path / "bad.h5"
    shutil.copy(small_path, bad)
    os.truncate(bad, bad.stat().st_size // 2)
    fails("info", bad, match="truncated or damaged")
    bad.write_bytes(b"not a table")
    fails("info", bad, match="not a readable HDF5 file")
    fails("info", tmp_path / "absent.h5", match="no such table file")


def test_sample_then_certify_gives_the_fields_tsv(tmp_path: Path, inputs: Path) -> None:
    out = tmp_path / "stats.h5"
    common = ("--data", inputs / "data.npz", "--sigma", 0.5, "--num-classes", 2, "--n", 2000, "--seed", 1)
    sampled = run("sample", "--model", inputs / "net.pt2", *common, "--out", out)
    assert sampled.returncode == 0, sampled.stderr
    certified = run("certify", out, "--out", tmp_path / "r.tsv", "--explain")
    assert certified.returncode == 0, certified.stderr
    assert "lower bound of q" in certified.stdout
    columns = read_tsv(tmp_path / "r.tsv")
    assert columns["idx"].tolist() == [0, 1, 2]
    assert (columns["n"] == 2000).all()
    assert (columns["radius_l1"] >= columns["radius_l2"]).all()
    again = run("sample", "--model", inputs / "net.pt2", *common, "--out", tmp_path / "again.h5")
    assert again.returncode == 0
    run("certify", tmp_path / "again.h5", "--out", tmp_path / "again.tsv")
    same = read_tsv(tmp_path / "again.tsv")
    assert all(np.array_equal(columns[name], same[name]) for name in columns)


def test_sample_from_a_function_in_the_current_folder(tmp_path: Path, inputs: Path) -> None:
    arguments = ("--data", "data.npz", "--sigma", 0.5, "--num-classes", 2, "--n", 200, "--max", 1)
    result = run("sample", "--model", "make:net", *arguments, "--out", tmp_path / "s.h5", cwd=inputs)
    assert result.returncode == 0, result.stderr


def test_sample_opens_no_table(tmp_path: Path, inputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CERTLUT_TABLE", str(tmp_path / "absent.h5"))
    arguments = ("--data", inputs / "data.npz", "--sigma", 0.5, "--num-classes", 2, "--n", 200, "--no-check")
    status, _, stderr = here("sample", "--model", inputs / "net.pt2", *arguments, "--out", tmp_path / "s.h5")
    assert status == 0, stderr
    fails("certify", tmp_path / "s.h5", "--out", tmp_path / "r.tsv", match="absent.h5: no such table file")


def test_a_model_without_a_gradient_is_said_in_a_line_and_refused_where_one_is_insisted_on(tmp_path: Path, inputs: Path) -> None:
    lines = ("import torch", "class Hard(torch.nn.Linear):", "    @torch.no_grad()")
    lines += ("    def forward(self, x):", "        return super().forward(x.flatten(1))", "def net():", "    return Hard(4, 2)")
    (tmp_path / "hard.py").write_text("\n".join(lines) + "\n")
    common = (
        "--data",
        inputs / "data.npz",
        "--sigma",
        0.5,
        "--num-classes",
        2,
        "--n",
        200,
        "--no-check",
        "--out",
        tmp_path / "s.h5",
    )
    fails("sample", "--model", "hard:net", *common, "--proposal", "gradient", match="its scores carry no gradient", cwd=tmp_path)
    fails(
        "sample",
        "--model",
        "hard:net",
        *common,
        "--proposal",
        "best",
        match="proposal = 'best': expected one of auto",
        cwd=tmp_path,
    )
    said = "certlut: directions are proposed from votes: the model gives no gradient (its scores carry no gradient)"
    for proposal, expected in (("auto", said), ("votes", "")):
        (tmp_path / "s.h5").unlink(missing_ok=True)
        status, _, stderr = here("sample", "--model", "hard:net", *common, "--proposal", proposal, cwd=tmp_path)
        assert status == 0, stderr
        assert [line for line in stderr.splitlines() if line.startswith("certlut: ")] == [expected] * bool(expected)


def test_targets_save_samples_and_what_the_looks_spend_is_explained(tmp_path: Path, inputs: Path) -> None:
    common = ("--data", inputs / "data.npz", "--model", inputs / "net.pt2", "--sigma", 0.5, "--num-classes", 2, "--no-check")
    stats, out = tmp_path / "stats.h5", tmp_path / "out.tsv"
    status, stdout, stderr = here("sample", *common, "--n", 4000, "--target", "l2=0.1", "--target", "l1=0.1", "--out", stats)
    assert status == 0, stderr
    assert float(re.search(r"inputs, (\S+) % of samples saved", stdout)[1]) > 30.0  # type: ignore[index]
    status, stdout, _ = here("certify", stats, "--out", out, "--explain")
    assert status == 0
    assert stdout.splitlines()[0] == "2.86e-05  look 1, at 500 samples"
    assert stdout.splitlines()[7] == "0.0008    look 8, at 4000 samples"
    fails("certify", stats, "--out", out, "--alpha", 1e-160, match="look 1 of 8 has 500 samples")
    for target, message in (
        ("l9=1", "target l9: expected one of the threats"),
        ("l2", "expected THREAT=RADIUS"),
        ("l2=-1", "positive"),
    ):
        fails("sample", *common, "--target", target, "--out", tmp_path / "no.h5", match=message)
    assert not (tmp_path / "no.h5").exists()


def test_plan_says_how_many_samples_a_target_needs() -> None:
    status, stdout, _ = here("plan", "--d", 16, "--q", 0.99, "--rho", 0.8, "--n", 5000, "--target", "l2=1.0")
    assert status == 0
    assert "l2=1 at up to 5,000 samples, 8 looks" in stdout
    assert "500 on average, median 500; certified: 100 %" in stdout


def test_sample_and_certify_refuse_bad_input_and_leave_nothing(tmp_path: Path, inputs: Path) -> None:
    def sample(model: object = "net.pt2", data: str = "data.npz", n: int = 200, classes: int = 2) -> tuple[object, ...]:
        files = ("--model", model, "--data", data, "--out", tmp_path / "s.h5")
        return ("sample", *files, "--sigma", 0.5, "--num-classes", classes, "--n", n)

    fails(*sample(model="absent.pt2"), match="absent.pt2: no such model file", cwd=inputs)
    fails(*sample(model="data.npz"), match="data.npz: not a torch.export", cwd=inputs)
    fails(*sample(model="make:other"), match="make has no function 'other'", cwd=inputs)
    fails(*sample(data="absent.npz"), match="absent.npz: no such data file", cwd=inputs)
    fails(*sample(n=5), match="n = 5: even a unanimous vote cannot reach alpha", cwd=inputs)
    fails(*sample(classes=3), match="3 classes", cwd=inputs)
    np.savez(inputs / "other.npz", x=np.zeros((2, 7), dtype=np.float32), y=np.zeros(2, dtype=np.int64))
    fails(*sample(data="other.npz"), match="the model failed on a torch.float32 batch of shape (4, 7): ", cwd=inputs)
    fails("certify", tmp_path / "absent.h5", "--out", tmp_path / "r.tsv", match="no such statistics file")
    fails("certify", ROOT / "tables" / "default.h5", "--out", tmp_path / "r.tsv", match="filetype 'certlut-table'")
    assert list(tmp_path.iterdir()) == []


def test_certify_never_writes_over_what_it_reads(tmp_path: Path, inputs: Path) -> None:
    out = tmp_path / "stats.h5"
    status, _, stderr = here(
        *("sample", "--model", inputs / "net.pt2", "--data", inputs / "data.npz", "--sigma", 0.5, "--num-classes", 2),
        *("--n", 200, "--out", out, "--no-check"),
    )
    assert status == 0, stderr
    table = tmp_path / "table.h5"
    shutil.copy(ROOT / "tables" / "default.h5", table)
    counts = tmp_path / "counts.tsv"
    counts.write_text("idx\tlabel\tpredict\tcount\tn\n0\t1\t1\t90\t100\n")
    before = {path: path.read_bytes() for path in (out, table, counts)}
    fails("certify", out, "--out", out, match="stats.h5: is read as well")
    fails("certify", out, "--table", table, "--out", tmp_path / "." / "table.h5", match="table.h5: is read as well")
    fails("certify", "--from-counts", counts, "--sigma", 0.5, "--out", counts, match="counts.tsv: is read as well")
    fails("certify", out, "--out", tmp_path, match="is not a regular file")
    fails("stamp", table, "--sigma", 0.5, "--out", table, match="table.h5: is read as well")
    assert {path: path.read_bytes() for path in before} == before


def test_a_shard_without_inputs_is_no_failure_and_merge_needs_only_the_others(tmp_path: Path, inputs: Path) -> None:
    for k in range(5):
        status, said, stderr = here(
            *("sample", "--model", inputs / "net.pt2", "--data", inputs / "data.npz", "--sigma", 0.5, "--num-classes", 2),
            *("--n", 200, "--batch-size", 200, "--seed", 1, "--shard", f"{k}/5", "--out", tmp_path / "s.h5", "--no-check"),
        )
        assert status == 0, stderr
        assert ("nothing is left for it" in said) == (k > 2)
    files = sorted(tmp_path.iterdir())
    assert [path.name for path in files] == [f"s.{k}-of-5.h5" for k in range(3)]
    status, said, _ = here("merge", *files, "--out", tmp_path / "whole.h5")
    assert (status, "3 inputs" in said) == (0, True)
    fails("merge", *files[:2], "--out", tmp_path / "part.h5", match="missing of 5 shards: 2/5, 3/5, 4/5")


@pytest.mark.parametrize("kind", [torch.OutOfMemoryError, torch.AcceleratorError])
def test_what_a_gpu_reports_is_one_line_and_a_bug_is_not_hidden(
    kind: type[RuntimeError], tmp_path: Path, inputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = (
        *("sample", "--model", inputs / "net.pt2", "--data", inputs / "data.npz", "--sigma", 0.5, "--num-classes", 2),
        *("--n", 200, "--out", tmp_path / "s.h5", "--no-check"),
    )

    def broken(error: RuntimeError) -> None:
        def add(*_: object) -> None:
            raise error

        monkeypatch.setattr("certlut.sampling.bets.Tally.add", add)

    broken(kind("CUDA error: device-side assert"))
    fails(*arguments, match="CUDA error: device-side assert")
    broken(RuntimeError("a bug"))
    with pytest.raises(RuntimeError, match="a bug"):
        here(*arguments)


def test_report_refuses_a_card_it_does_not_know(tmp_path: Path) -> None:
    fails("report", "--config", "nowhere", "--out", tmp_path / "r", match="nowhere: no such configuration file")
    (tmp_path / "card.toml").write_text('title = "t"\ndata = "digits"\ninputs = 3\nsigmas = [0.5]\n')
    fails("report", "--config", tmp_path / "card.toml", "--out", tmp_path / "r", match="unknown key sigmas, expected one of title")
    assert here("report", "--config", "digits")[0] == 2
    assert not (tmp_path / "r").exists()
