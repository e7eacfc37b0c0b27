"""What a method says of one of its stages: its own settings, what it keeps, when it stops early."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from selftaught.errors import UserError


@dataclass(frozen=True)
class Stage:
    """The plan of one stage.

    Attributes:
        settings: settings of the run that this stage changes (``steps``, ``epochs``, ``batch_size``, ``clip`` ...).
        keep: "last" goes on from the last weights, "best" from those of the lowest watched loss.
        validation: share of the training samples held out to watch, in [0, 0.9]; 0 watches the training loss.
        watch: role of the stream that is watched in place of a held-out share; without such a stream the last weights
            are kept.
        patience: looks (one per epoch) without a better loss after which the stage ends early; 0 never.
        roles: streams that this stage reads; None reads all of the method's.

    Raises:
        UserError: a share or patience out of range.
    """

    settings: Mapping[str, Any] = field(default_factory=dict)
    keep: Literal["last", "best"] = "last"
    validation: float = 0.0
    patience: int = 0
    roles: tuple[str, ...] | None = None
    watch: str = ""

    def __post_init__(self) -> None:
        if not 0 <= self.validation <= 0.9:
            raise UserError(f"validation={self.validation}: the share held out must lie in [0, 0.9]")
        if self.patience < 0:
            raise UserError(f"patience={self.patience} must be 0 or more looks")
        if self.patience and self.keep != "best":
            raise UserError("patience goes with keep='best': an early stop goes back to the best weights")

    @property
    def watches(self) -> bool:
        """Whether a loss is watched to keep the best weights."""
        return self.keep == "best"
