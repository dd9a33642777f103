import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    ("missing", "command"),
    [("jinja2", ["report", "--config", "digits"]), ("matplotlib", ["report", "--config", "digits"]), ("matplotlib", ["demo"])],
)
def test_a_missing_extra_is_said_in_one_line_before_any_work(missing: str, command: list[str], tmp_path: Path) -> None:
    arguments = ["certlut", *command, "--out", str(tmp_path / "out")]
    code = f"import sys; sys.modules[{missing!r}] = None; sys.argv = {arguments!r}; from certlut.cli.main import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("certlut: ")
    assert line.endswith(f"pip install 'certlut[{command[0]}]' brings it")
    assert missing in line
    assert not (tmp_path / "out").exists()
