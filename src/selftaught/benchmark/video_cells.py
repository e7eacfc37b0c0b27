"""The video benchmark's grid: which network is trained by which pretext on which clips, for each of five factors."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from selftaught.data.source import digest
from selftaught.errors import UserError
from selftaught.evaluation._inputs import stratified_order

PRETEXTS = ("video-rotnet", "vcop", "prp", "cvrl", "tdl", "rspnet")
"""The six pretexts: spatial, temporal and spatio-temporal, each without and with contrast."""

FACTORS = ("size", "complexity", "shift", "noise", "similarity", "distillation")
"""What the benchmark varies or looks at; the last is its recipe that merges pretexts."""

COMPLEXITY: dict[str, tuple[str, tuple[int, ...]]] = {
    "video-rotnet": ("rotations", (2, 3, 4)),
    "vcop": ("clips", (3, 4, 5)),
    "prp": ("rates", (2, 3, 4)),
}
"""The option that makes a pretext harder, and its values."""

ENCODERS = ("shufflenet-3d", "squeezenet-3d", "mobilenet-3d", "resnet3d-18", "r2plus1d-18", "swin3d-t")
"""The six networks; the earlier version of the paper has c3d in place of the last."""


@dataclass(frozen=True)
class Plan:
    """What is to be run.

    Attributes:
        sources: name -> source string; the first is what networks learn from unless the factor is the shift.
        targets: name -> labelled source string to judge on.
        methods: pretexts.
        encoders: networks; the first one is the base of the factors complexity, shift and distillation.
        sizes: training clips of each subset, rising; 0 are all.
        factors: out of `FACTORS`.
        seeds: repetitions.
        preset: of the pretexts.
        options: of every run, settings included (``steps``).
        protocols: "linear", "recall", "finetune".
    """

    sources: dict[str, str]
    targets: dict[str, str]
    methods: tuple[str, ...] = PRETEXTS
    encoders: tuple[str, ...] = ENCODERS
    sizes: tuple[int, ...] = (10_000, 30_000, 50_000, 100_000)
    factors: tuple[str, ...] = FACTORS
    seeds: int = 1
    preset: str = "benchmark"
    options: dict[str, Any] = field(default_factory=dict)
    protocols: tuple[str, ...] = ("finetune", "recall")

    def __post_init__(self) -> None:
        for name, values, known in (
            ("methods", self.methods, PRETEXTS),
            ("factors", self.factors, FACTORS),
            ("protocols", self.protocols, ("linear", "recall", "finetune")),
        ):
            strange = [value for value in values if value not in known]
            if strange or not values:
                raise UserError(f"--{name} {','.join(strange)}: choose some of {', '.join(known)}")
        if not self.sources or not self.targets or not self.encoders or not self.sizes or self.seeds < 1:
            raise UserError("the video benchmark needs a source, a target, an encoder, a size and a seed")


@dataclass(frozen=True)
class VideoCell:
    """One network: what trains it on what, and which factors it belongs to."""

    method: str
    encoder: str
    source: str
    size: int
    seed: int
    options: dict[str, Any]
    factors: tuple[str, ...]

    @property
    def key(self) -> str:
        """Sixteen hexadecimal digits of what decides the weights."""
        parts = [self.method, self.encoder, self.source, self.size, self.seed, self.options]
        return digest(json.dumps(parts, sort_keys=True))[:16]

    @property
    def name(self) -> str:
        """Readable name of its folder."""
        more = "-".join(
            f"{key}{value}" for key, value in self.options.items() if key in {"rotations", "clips", "rates"}
        )
        parts = (self.method, self.encoder, self.source, str(self.size or "all"), more, f"seed{self.seed}", self.key)
        return "-".join(part for part in parts if part)


def cells_of(plan: Plan) -> list[VideoCell]:
    """Every network of a plan once, with all factors that it serves; those that students need come first."""
    found: dict[str, VideoCell] = {}

    def add(factor: str, method: str, encoder: str, source: str, size: int, seed: int, **more: Any) -> None:
        cell = VideoCell(method, encoder, source, size, seed, plan.options | more, (factor,))
        there = found.get(cell.key)
        factors = tuple(dict.fromkeys((*(there.factors if there else ()), factor)))
        found[cell.key] = VideoCell(method, encoder, source, size, seed, plan.options | more, factors)

    first, base, whole = next(iter(plan.sources)), plan.encoders[0], plan.sizes[-1]
    for seed in range(plan.seeds):
        for method in plan.methods:
            for encoder in plan.encoders:
                for factor in ("noise", "similarity"):
                    if factor in plan.factors:
                        add(factor, method, encoder, first, whole, seed)
                for size in plan.sizes if "size" in plan.factors else ():
                    add("size", method, encoder, first, size, seed)
            if "complexity" in plan.factors and method in COMPLEXITY:
                option, values = COMPLEXITY[method]
                for value in values:
                    add("complexity", method, base, first, whole, seed, **{option: value})
            for source in plan.sources if "shift" in plan.factors else ():
                add("shift", method, base, source, whole, seed)
            if "distillation" in plan.factors:
                add("distillation", method, base, first, whole, seed)
    return list(found.values())


def nested_subsets(labels: Sequence[int] | np.ndarray, sizes: Sequence[int], seed: int = 0) -> dict[int, np.ndarray]:
    """Subsets of samples that lie in each other, as many of every class: drawn once, by one order of each class.

    Classes take turns; one that has no sample left is passed over.

    Args:
        labels: (n,) class of each sample.
        sizes: samples of each subset; 0 or more than n: all.
        seed: of the order.

    Returns:
        size -> (size,) rising positions, int64.

    Raises:
        UserError: a negative size, no label.
    """
    classes = np.asarray(labels)
    if classes.ndim != 1 or not len(classes) or min(sizes, default=0) < 0:
        raise UserError("nested_subsets: give labels (n,) and sizes of 0 or more")
    orders = stratified_order(classes, np.random.default_rng(seed))
    turns = [order[k] for k in range(max(map(len, orders))) for order in orders if k < len(order)]
    return {size: np.sort(np.array(turns[: size or len(turns)], dtype=np.int64)) for size in sizes}
