"""What a claim is made of: arms that are trained and judged side by side."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Arm:
    """One side of a comparison: a method and its options.

    ``kind`` says which of an evaluation's models is judged: the trained one, an untrained one, the raw input's
    yardstick, or the run that the method was to change.
    """

    name: str
    method: str
    options: dict[str, Any] = field(default_factory=dict)
    kind: Literal["this", "random", "raw", "original"] = "this"


@dataclass(frozen=True)
class Start:
    """The run whose encoder all arms of a claim begin with, trained once for each seed and judged by none.

    Attributes:
        method: slug.
        data: source that it learns from; its labels are not used.
        options: options of the run.
    """

    method: str
    data: str
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Claim:
    """A comparison of ``arms[0]`` (proposed) with the others (baselines).

    Attributes:
        method: slug the claim belongs to.
        says: the paper's claim in one sentence.
        data: source of all arms.
        common: options of all arms.
        conditions: name -> options that vary over the comparison (batch sizes, ...); "data" there is what the arms of
            that condition learn from, in place of ``data``.
        score: names of a protocol and of its number that decide, the larger the better.
        also: further numbers to store; ("run", "seconds") is how long an arm learnt. "tasks" in place of a protocol:
            what a stream of tasks left (`selftaught.run.tasks.numbers`).
        seeds: repetitions; each arm of a pair has the same seed.
        judged_on: source that the encoders are judged on where it isn't the training data's own.
        full: options that the longer form changes.
        start: the run that all arms begin from; None: from random weights.
        judging: options of the protocols, as ``Run.evaluate`` takes them (fine-tuning's ``recipe`` ...).
        reference: name of the arm whose run the protocols set the others beside (``--reference``); "" for none.
    """

    method: str
    says: str
    data: str
    arms: tuple[Arm, ...]
    common: dict[str, Any]
    score: tuple[str, str]
    conditions: dict[str, dict[str, Any]] = field(default_factory=lambda: {"": {}})
    also: tuple[tuple[str, str], ...] = ()
    seeds: int = 3
    judged_on: str | None = None
    full: dict[str, Any] = field(default_factory=dict)
    full_seeds: int = 5
    start: Start | None = None
    reference: str = ""
    judging: dict[str, Any] = field(default_factory=dict)


def fact_text(fact: dict[str, Any]) -> str:
    """A fact as stored beside a claim, with the numbers that it was checked by, on one line."""
    numbers = ", ".join(f"{name} {value:.3g}" for name, value in fact["numbers"].items())
    return f"{fact['says']} ({numbers})"


SMALL: dict[str, Any] = {"augment": "grey", "image_size": 32, "stem": "standard"}
"""Fashion-MNIST on two cores: a strided stem, views without colour."""

FASHION = "fashion-mnist?n=6000"
"""What most claims are trained and judged on."""

LONGER: dict[str, Any] = {"data": "fashion-mnist", "epochs": 30}
"""Their longer form."""

TINY_VIT: dict[str, Any] = {
    "encoder": "vit-micro", "image_size": 32, "augment": "grey", "crop": 0.4, "optimizer": "adamw", "lr": 1e-3,
    "lr_scaling": "none", "weight_decay": 0.05, "warmup_epochs": 1.0, "batch_size": 64, "precision": "32", "workers": 0,
}  # fmt: skip
"""A transformer of four by four patches, for comparisons of what teaches it on two cores."""

LONGER_VIT: dict[str, Any] = {"data": "fashion-mnist?n=20000", "encoder": "vit-nano", "steps": 5000}
"""Their longer form."""
