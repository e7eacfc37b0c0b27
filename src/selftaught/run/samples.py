"""The samples of a run: which part of a source, its pixel statistics, noise added for demonstrations."""

from __future__ import annotations

from typing import Any

import numpy as np

from selftaught.data import EmptyPartError, Modality, Scale, Source, open_source, split_source, to_unit
from selftaught.data.kinds import kind_of
from selftaught.engine.loader import training_part
from selftaught.engine.method import Method
from selftaught.engine.pairing import check_pairs
from selftaught.errors import SampleError, UserError
from selftaught.run_settings import Settings
from selftaught.views import noise

_STATISTICS = 256
_FRAMES = 4
_KEPT_BYTES = 1 << 29


def training_source(data: Any, modality: Modality | None, settings: Settings) -> Source:
    """Open the part of a source to train on: all of it where it has no labels, groups or given parts."""
    options: dict[str, Any] = {"split": settings.split, "by": settings.by, "seed": settings.seed}
    return degraded(training_part(data, modality, **options), settings.noise)


def labelled_parts(data: Any, modality: Modality, settings: Settings) -> tuple[Source, Source] | None:
    """(train, test) of a source with labels, None where it has none.

    Raises:
        UserError: the source can't be opened, or not be split as asked.
    """
    try:
        parts = [
            open_source(data, modality=modality, split=split, by=settings.by, seed=settings.seed)
            for split in ("train", "test")
        ]
    except EmptyPartError:  # too few samples to test on; a wrong --by or a missing list is the user's to mend
        return None
    if any(part.labels is None or len(part) == 0 for part in parts) or len(np.unique(parts[0].labels)) < 2:  # type: ignore[arg-type]
        return None
    return parts[0], parts[1]


class Degraded(Source):
    """A source of clean images with noise added, the same at every reading of the same image."""

    def __init__(self, clean: Source, spec: str) -> None:
        self.__dict__.update(clean.__dict__)
        self.clean, self.spec, self.modality = clean, spec, clean.modality
        self.name = f"{clean.name} + {spec} noise"
        self._scale = clean.unit_scale()
        self._kept: dict[int, np.ndarray] = {}

    def unit_scale(self) -> Scale:
        """None of its own: what is read is in [0, 1] already."""
        return Scale()

    def __len__(self) -> int:
        return len(self.clean)

    def read(self, i: int, min_side: int | None = None) -> np.ndarray:
        """The noisy image, float32 in [0, 1] but not clipped to it; the first ones stay in memory."""
        if i not in self._kept:
            image = self._noisy(i)
            if sum(kept.nbytes for kept in self._kept.values()) + image.nbytes > _KEPT_BYTES:
                return image
            self._kept[i] = image
        return self._kept[i]

    def _noisy(self, i: int) -> np.ndarray:
        kind, *numbers = self.spec.split(":")
        values = [float(number) for number in numbers]
        rng = np.random.default_rng([20304, i])
        image = to_unit(self.clean.read(i), self._scale)
        sigma = (values[0] if values else 25.0) / 255
        if kind == "gaussian":
            return noise.gaussian(image, sigma, rng)
        return noise.correlated(image, sigma, rng, kernel=int(values[1]) if len(values) > 1 else 3)

    def subset(self, indices: Any, tag: str = "") -> Source:
        """Noisy images of part of the source."""
        return Degraded(self.clean.subset(indices, tag), self.spec)

    def fingerprint(self) -> str:
        """The clean source's, and the noise's."""
        return f"{self.clean.fingerprint()}+{self.spec}"


def degraded(source: Source, spec: str) -> Source:
    """Add noise as ``gaussian:SIGMA`` or ``correlated:SIGMA[:KERNEL]`` (grey levels of 255); "" adds none.

    Raises:
        UserError: unknown kind, or not a number.
    """
    if not spec:
        return source
    kind, *numbers = spec.split(":")
    try:
        [float(number) for number in numbers]
    except ValueError:
        numbers = ["?"] * 3
    if kind not in ("gaussian", "correlated") or len(numbers) > 2:
        raise UserError(f"--noise {spec}: it may be gaussian:SIGMA or correlated:SIGMA[:KERNEL], SIGMA of 255")
    return Degraded(source, spec)


def streams(
    kind: type[Method], data: Any, modality: str, settings: Settings, given: dict[str, Any]
) -> dict[str, Source]:
    """The training samples of every stream that a method reads, by role.

    Raises:
        UserError: a stream that the method needs is not given, or nothing of one can be read.
    """
    source = training_source(data, modality, settings)
    check_pairs(kind, source)
    source = kind.takes(source)
    if len(kind.roles) == 1:
        return {kind.roles[0]: source}
    found = kind.streams(source, given, lambda spec, wanted=modality: training_source(spec, wanted, settings))
    for one in found.values():
        one.check_read()
    return found


def hold_out(source: Source, share: float, seed: int) -> tuple[Source, Source]:
    """(rest, held out): a share of the training samples to watch; whole groups where there are any."""
    by = f"group:{share}" if source.groups is not None and len(np.unique(source.groups)) > 1 else f"ratio:{share}"
    return split_source(source, "train", by, seed), split_source(source, "test", by, seed)


def facts(source: Source, pixels: str = "uint8") -> dict[str, Any]:
    """What a run records of its data: size, channels, classes, value range, pixel mean and deviation."""
    kind = kind_of(source.modality)
    looked = []
    for i in np.linspace(0, len(source) - 1, min(_STATISTICS, len(source))).astype(int):
        try:
            looked.append(_glance(source, int(i)))
        except SampleError:
            continue
    if not looked:
        raise UserError(f"{source.name}: none of the samples looked at can be read; run: selftaught data check")
    known: dict[str, Any] = {"name": source.name, "samples": len(source), "modality": source.modality}
    known |= {"classes": source.classes, "generated": source.generated}
    known |= {"devices": source.devices} if source.devices else {}
    truth = getattr(source, "brings_truth", "point_label" in source.fields)
    known |= {"truth": True} if truth else {}
    if source.labels is not None:
        known["class_count"] = len(source.classes) if source.classes else int(np.max(source.labels, initial=-1)) + 1
    channels = kind.channels(looked[0])
    known["channels"] = 1 if channels is None else channels
    sides = [kind.sides(sample) for sample in looked]
    if not kind.spatial:
        return known | ({"length": int(sides[0][0])} if sides[0] and channels is not None else {})
    shorter = [min(side[-2:]) for side in sides]
    known |= {"short_side": int(np.median(shorter)), "smallest": int(min(shorter))}
    if pixels == "uint8" and kind.pixels:
        known |= _statistics(source, [s for s in looked if kind.channels(s) == known["channels"]])
    elif kind.pixels:
        scale = getattr(source, "clean", source).unit_scale()
        known |= {"value_range": [list(pair) for pair in scale] or None, "depth": scale.depth}
    return known


def _glance(source: Source, i: int) -> np.ndarray:
    """A sample to take facts from: of a clip a few frames."""
    if source.modality != "clip":
        return source.read(i)
    frames = np.unique(np.linspace(0, source.frames(i) - 1, _FRAMES).astype(np.int64))
    return source.read(i, frames=frames)  # type: ignore[call-arg]


def _statistics(source: Source, samples: list[np.ndarray]) -> dict[str, Any]:
    from selftaught.data import as_uint8

    pixels = [as_uint8(s, source.value_range).reshape(-1, s.shape[-1])[::7].astype(np.float64) / 255 for s in samples]
    flat = np.concatenate(pixels)
    mean, std = flat.mean(0), np.maximum(flat.std(0), 0.02)
    value_range = source.value_range
    return {
        "mean": [round(float(m), 4) for m in mean],
        "std": [round(float(s), 4) for s in std],
        "value_range": np.asarray(value_range, dtype=float).tolist() if value_range is not None else None,
        "depth": source.depth,
    }
