"""What a cell is trained on: one source, a share of its labels, or several sources in equal shares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from selftaught.data import Source, open_source, require_labels
from selftaught.engine.loader import training_part
from selftaught.errors import UserError
from selftaught.evaluation import subset


class Union(Source):
    """The samples of several sources, each source as often as the largest one; no labels.

    Small sources are repeated whole as often as they go, the rest is drawn by the seed, so that no image is left out
    and every domain makes up the same share of an epoch.

    Args:
        parts: name -> source, all of images of as many channels.
        name: what to call the union.
        seed: draws what is left of a repeated source.

    Raises:
        UserError: no parts, other channels, or images that are not uint8 (their value ranges would differ).
    """

    def __init__(self, parts: Mapping[str, Source], name: str, seed: int = 0) -> None:
        if not parts:
            raise UserError(f"{name}: a union needs at least one source")
        self.name, self.parts = name, list(parts.values())
        channels = {key: part.channels for key, part in parts.items()}
        if len(set(channels.values())) > 1 or None in channels.values():
            told = ", ".join(f"{key} {count}" for key, count in channels.items())
            raise UserError(f"{name}: its sources differ in channels ({told}); write SOURCE?channels=3 for each")
        scaled = [key for key, part in parts.items() if part.value_range is not None or part.modality != "image"]
        if scaled:
            raise UserError(f"{name}: {scaled[0]} does not hold 8-bit images; a union takes only those")
        self.channels, self.bands = self.parts[0].channels, any(part.bands for part in self.parts)
        largest = max(len(part) for part in self.parts)
        rng = np.random.default_rng([seed, 3])
        rows = []
        for number, part in enumerate(self.parts):
            whole, rest = divmod(largest, len(part))
            order = np.concatenate([np.tile(np.arange(len(part)), whole), np.sort(rng.permutation(len(part))[:rest])])
            rows.append(np.stack([np.full(largest, number), order], 1))
        self.rows = np.concatenate(rows)
        names = [f"{key}/{part.names[i]}" for key, part in parts.items() for i in range(len(part))]
        starts = np.cumsum([0] + [len(part) for part in self.parts])
        self.names = [names[starts[number] + i] for number, i in self.rows.tolist()]
        self.generated = any(part.generated for part in self.parts)

    def read(self, i: int, min_side: int | None = None) -> np.ndarray:
        """One image of one of the sources."""
        number, inner = self.rows[i].tolist()
        return self.parts[number].read(inner, min_side)

    def fingerprint(self) -> str:
        """Of the parts and of the order."""
        from selftaught.data.source import digest

        return digest("union", [part.fingerprint() for part in self.parts], self.rows)


def training_data(sources: Mapping[str, str], domain: str, *, fraction: float = 1.0, seed: int = 0) -> Any:
    """What to hand to ``selftaught.train`` for one cell: a source string where that will do, else a source.

    Args:
        sources: name -> source string; of a union several.
        domain: what to call it.
        fraction: share of the labelled training samples of each class, drawn as ``evaluation.subset`` does.
        seed: of the split and of the draw.
    """
    if len(sources) > 1:
        parts = {name: training_part(spec, "image", seed=seed) for name, spec in sources.items()}
        return Union(parts, domain, seed)
    spec = next(iter(sources.values()))
    if fraction >= 1:
        return spec
    part = open_source(spec, split="train", seed=seed)
    chosen = part.subset(subset(require_labels(part), fraction=fraction, seed=seed), f"{fraction:.0%} of the labels")
    chosen.given = np.zeros(len(chosen), dtype=np.int8)  # all of it is for training, whatever the source's own split
    return chosen


def limited(source: Source, limit: int) -> Source:
    """At most ``limit`` samples, drawn the same way every time; 0 is no limit."""
    if not limit or len(source) <= limit:
        return source
    return source.subset(np.sort(np.random.default_rng(0).permutation(len(source))[:limit]))


def names_of(value: Any) -> Sequence[str]:
    """A string as a list of one."""
    return [value] if isinstance(value, str) else list(value)
