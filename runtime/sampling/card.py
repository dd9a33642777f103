"""How the model is run while sampling. Whatever is on changes the base classifier, and is written beside the results."""

from dataclasses import dataclass
from typing import Any

PRECISIONS = ("bf16", "fp16")


@dataclass(frozen=True)
class Options:
    """All off by default: the model as it is, in its own precision. ValueError for a precision that is not known."""

    autocast: str | None = None
    """"bf16" or "fp16": torch.autocast. Another precision is another classifier: certify what you will deploy."""
    channels_last: bool = False
    """Images in channels-last order: the same function up to kernel rounding."""
    compile: bool | str = False
    """True, or a backend's name, for torch.compile: the same function up to kernel rounding."""
    early_stop: bool = False
    """Stop an input whose abstention is certain (`certlut.bounds.early_stop`)."""

    def __post_init__(self) -> None:
        if self.autocast is not None and self.autocast not in PRECISIONS:
            raise ValueError(f"autocast {self.autocast!r}: expected None or one of {', '.join(PRECISIONS)}")

    def settings(self, alpha: float) -> dict[str, Any]:
        """What the results depend on; early stopping depends on alpha."""
        return {
            "autocast": self.autocast,
            "channels_last": self.channels_last,
            "compile": self.compile,
            "early_stop": alpha if self.early_stop else None,
        }
