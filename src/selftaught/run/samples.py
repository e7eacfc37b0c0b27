"""The samples of a run: which part of a source, its pixel statistics, noise added for demonstrations."""

from __future__ import annotations

from typing import Any

import numpy as np

from selftaught.data import Modality, Source, open_source
from selftaught.engine.loader import as_unit_float, training_part
from selftaught.errors import SampleError, UserError
from selftaught.run_settings import Settings
from selftaught.views import noise

_STATISTICS = 256
_KEPT_BYTES = 1 << 29


def training_source(data: Any, modality: Modality, settings: Settings) -> Source:
    """Open the part of a source to train on: all of it where it has no labels, groups or given parts."""
    options: dict[str, Any] = {"split": settings.split, "by": settings.by, "seed": settings.seed}
    return degraded(training_part(data, modality, **options), settings.noise)


def labelled_parts(data: Any, modality: Modality, settings: Settings) -> tuple[Source, Source] | None:
    """(train, test) of a source with labels, None where it has none."""
    try:
        parts = [
            open_source(data, modality=modality, split=split, by=settings.by, seed=settings.seed)
            for split in ("train", "test")
        ]
    except UserError:
        return None
    if any(part.labels is None or len(part) == 0 for part in parts) or len(np.unique(parts[0].labels)) < 2:  # type: ignore[arg-type]
        return None
    return parts[0], parts[1]


class Degraded(Source):
    """A source of clean images with noise added, the same at every reading of the same image."""

    def __init__(self, clean: Source, spec: str) -> None:
        self.__dict__.update(clean.__dict__)
        self.clean, self.spec = clean, spec
        self.name = f"{clean.name} + {spec} noise"
        self._kept: dict[int, np.ndarray] = {}

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
        image = as_unit_float(self.clean.read(i))
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


def facts(source: Source, method_output: str) -> dict[str, Any]:
    """What a run records of its data: size, channels, classes, value range, pixel mean and deviation."""
    samples = []
    for i in np.linspace(0, len(source) - 1, min(_STATISTICS, len(source))).astype(int):
        try:
            samples.append(source.read(int(i)))
        except SampleError:
            continue
    if not samples:
        raise UserError(f"{source.name}: none of the samples looked at can be read; run: selftaught data check")
    known: dict[str, Any] = {"name": source.name, "samples": len(source), "modality": source.modality}
    known |= {"classes": source.classes, "generated": source.generated}
    if source.labels is not None:
        known["class_count"] = len(source.classes) if source.classes else int(np.max(source.labels, initial=-1)) + 1
    if source.modality == "series":
        return known | {"channels": int(samples[0].shape[0]), "length": int(samples[0].shape[1])}
    known["channels"] = int(samples[0].shape[2])
    known["short_side"] = int(np.median([min(s.shape[:2]) for s in samples]))
    known["smallest"] = int(min(min(s.shape[:2]) for s in samples))
    if method_output != "image":
        known |= _statistics(source, [s for s in samples if s.shape[2] == known["channels"]])
    return known


def _statistics(source: Source, samples: list[np.ndarray]) -> dict[str, Any]:
    from selftaught.data import as_uint8

    pixels = [as_uint8(s, source.value_range).reshape(-1, s.shape[2])[::7].astype(np.float64) / 255 for s in samples]
    flat = np.concatenate(pixels)
    mean, std = flat.mean(0), np.maximum(flat.std(0), 0.02)
    value_range = source.value_range
    return {
        "mean": [round(float(m), 4) for m in mean],
        "std": [round(float(s), 4) for s in std],
        "value_range": np.asarray(value_range, dtype=float).tolist() if value_range is not None else None,
    }
