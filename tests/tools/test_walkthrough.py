from pathlib import Path

import pytest

from tools.walkthrough import DOCUMENTS, ROOT, blocks, script, walk

TEXT = """# Title

```sh
echo one > file
```

<!-- other remark -->
<!-- quick: echo short >> file -->
```sh
echo long >> file
```

```python
print(open("file").read())
open("seen", "w").write("python")
```

<!-- not run: another machine -->
```sh
exit 3
```

```toml
[not] = a command
```
"""


def test_blocks_are_found_with_their_marks_and_lines() -> None:
    found = blocks(TEXT)
    assert [block.language for block in found] == ["sh", "sh", "python", "sh"]
    assert [block.quick for block in found] == [None, "echo short >> file", None, None]
    assert [block.left_out for block in found] == [None, None, None, "another machine"]
    assert all(TEXT.splitlines()[block.line - 1].startswith("```") for block in found)
    assert script(found[1], quick=False) == "echo long >> file\n"
    assert script(found[1], quick=True) == "echo short >> file"


@pytest.mark.parametrize(("quick", "second"), [(True, "short"), (False, "long")])
def test_blocks_run_in_one_folder_from_top_to_bottom(tmp_path: Path, quick: bool, second: str) -> None:
    assert walk("doc", TEXT, tmp_path, quick) == 3
    assert (tmp_path / "file").read_text() == f"one\n{second}\n"
    assert (tmp_path / "seen").read_text() == "python"


@pytest.mark.parametrize(
    "code", ["```sh\nfalse\necho on\n```\n", "```sh\nfalse | cat\n```\n", "```python\nraise ValueError('no')\n```\n"]
)
def test_a_failing_block_is_named(tmp_path: Path, code: str) -> None:
    with pytest.raises(SystemExit, match=r"doc:3: exit status"):
        walk("doc", "# Title\n\n" + code, tmp_path, quick=True)


def test_certlut_is_this_interpreters_when_quick(tmp_path: Path) -> None:
    assert walk("doc", "```sh\ncertlut radius --q 0.9 --m1 -0.1 --m2 0.05 > out\n```\n", tmp_path, quick=True) == 1
    assert 1.28 < float((tmp_path / "out").read_text()) < 2.0


def test_the_documents_have_blocks_and_the_long_ones_a_short_form() -> None:
    for document in DOCUMENTS:
        found = blocks((ROOT / document).read_text(encoding="utf-8"))
        assert len(found) >= 3, document
        for block in found:
            if any(word in block.code for word in ("certlut demo", "certlut report", "pip install")):
                assert block.quick or block.left_out, f"{document}:{block.line}"
