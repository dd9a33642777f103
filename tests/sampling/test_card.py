import pytest

from certlut.sampling.card import Options


def test_everything_is_off_by_default_and_said() -> None:
    assert Options().settings(0.001) == {"autocast": None, "channels_last": False, "compile": False, "early_stop": None}


def test_what_is_on_is_said_and_early_stopping_with_its_alpha() -> None:
    options = Options("bf16", True, "eager", True)
    assert options.settings(0.01) == {"autocast": "bf16", "channels_last": True, "compile": "eager", "early_stop": 0.01}


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(ValueError, match=r"autocast 'fp8': expected None or one of bf16, fp16"):
        Options("fp8")
