"""The three that every protocol compares: the trained model, an untrained one, and the input itself."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from selftaught import evaluation, views
from selftaught.data import Source
from selftaught.engine.method import Method
from selftaught.errors import UserError
from selftaught.run.features import calibrate, embed, raw, through
from selftaught.views import Pipeline, Resize

Embedded = tuple[np.ndarray, np.ndarray]
"""Features (n, D) of the samples that could be read, and their indices (n,)."""

_WHITENING_CELLS, _FEW = 1 << 25, 512


@dataclass(frozen=True)
class Contender:
    """A way to make features of images.

    Attributes:
        kind: "this", "random" or "raw".
        model: the method whose encoder is judged; for the raw input, whose evaluation view is.
        size: shorter side at which images are embedded; 0 is the method's own.
    """

    kind: str
    model: Method
    size: int = 0

    def features(self, source: Source) -> Embedded:
        """Features of a source."""
        x, _, index = raw(self.model, source) if self.kind == "raw" else embed(self.model, source, pipeline=self.view())
        return x, index

    def predictions(self, source: Source) -> Embedded:
        """Class logits of a classifier."""
        x, _, index = embed(self.model, source, pipeline=self.view(), predict=True)
        return x, index

    def layers(self, source: Source, grid: tuple[int, int]) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Features of every layer, and the indices; the raw input is a single layer."""
        if self.kind == "raw":
            x, index = self.features(source)
            return {"input": x}, index
        own: Any = getattr(self.model, "layers", None)

        def tapped(batch: dict[str, Any]) -> dict[str, Tensor]:
            if own is not None and grid == (1, 1):
                return own(batch)
            return evaluation.layer_features(encoder_of(self.model), self.model.inputs(batch), grid=grid)

        parts = list(mapped(self.model, source, tapped, self.view()))
        stacked = evaluation.stack_layers([found for found, _ in parts])
        return stacked, np.concatenate([index for _, index in parts])

    def descriptor(self, aside: Source) -> Callable[[Source], Embedded]:
        """What describes pictures for copy detection: R-MAC of an encoder's maps, or pixels; whitened on ``aside``."""
        if self.kind == "raw":
            whitening = evaluation.fit_whitening(self.features(aside)[0])

            def pixels(source: Source) -> Embedded:
                x, index = self.features(source)
                return whitening(torch.from_numpy(x)).numpy(), index

            return pixels
        pipeline, batch_size = self.whole_view()
        of_regions = evaluation.fit_whitening(self._regions(aside, pipeline, batch_size))

        def describe(batch: dict[str, Any]) -> Tensor:
            return evaluation.rmac(maps_of(self.model, batch["views"][0]), of_regions)

        def described(source: Source) -> Embedded:
            return stacked(mapped(self.model, source, describe, pipeline, batch_size))

        return described

    def _regions(self, source: Source, pipeline: Pipeline | None, batch_size: int) -> np.ndarray:
        """Regional vectors (n, C) of as many pictures as fit in memory."""

        def regional(batch: dict[str, Any]) -> Tensor:
            return evaluation.regional_maxima(maps_of(self.model, batch["views"][0])).flatten(0, 1)

        kept, cells = [], 0
        for found, _ in mapped(self.model, source, regional, pipeline, batch_size):
            kept.append(found.float().cpu().numpy())
            cells += kept[-1].size
            if cells > _WHITENING_CELLS:
                break
        if not kept:
            raise UserError(f"{source.name}: no image to learn the whitening on can be read")
        return np.concatenate(kept)

    # ---- views ---------------------------------------------------------------------------------------------------
    def view(self) -> Pipeline | None:
        """The square evaluation view, of the wanted size."""
        if not self.size or self.model.modality != "image":
            return None
        if not self._takes(self.size, self.size):
            raise UserError(f"--size {self.size}: this run's encoder takes only its own size; leave it out")
        return next(iter(views.plain(self.size)))

    def whole_view(self) -> tuple[Pipeline | None, int]:
        """The whole picture in its own shape where the encoder takes any (then one at a time), else a square."""
        side = self.size or getattr(self.model.config, "image_size", 0)
        if side and self._takes(side, side + side // 2) and self._takes(side + side // 2, side):
            return Pipeline((Resize(side),), name="whole"), 1
        return self.view(), 256

    def _takes(self, height: int, width: int) -> bool:
        blank = torch.zeros(1, self.model.channels, height, width, device=self.model.device)
        try:
            with torch.inference_mode():
                maps_of(self.model, blank)
        except (AssertionError, RuntimeError, ValueError) as error:
            if not about_shape(error):
                raise
            return False
        return True


def about_shape(error: Exception) -> bool:
    """Whether an encoder says that it doesn't take images of this size; a full memory or a bug of ours is not that."""
    text = str(error).lower()
    if isinstance(error, torch.OutOfMemoryError) or "memory" in text:
        return False
    return any(word in text for word in _OF_SHAPES)


_OF_SHAPES = (
    "size of tensor", "sizes of tensors", "doesn't match model", "should be divisible", "kernel size can't be greater",
    "output size is too small", "invalid for input of size", "mat1 and mat2 shapes", "must match the size",
    "padding size should be less", "input height", "input width", "input size", "image size",
    "expected more than 1 spatial element", "too small",
)  # fmt: skip
"""How torch, timm and our own networks say that an input has the wrong size."""


def calibrated(kind: str, model: Method, size: int, source: Source) -> Contender:
    """An untrained model at its best on a source (see `features.calibrate`)."""
    calibrate(model, source)
    return Contender(kind, model, size)


def encoder_of(model: Method) -> nn.Module:
    """The network whose maps and layers are looked at: what is delivered, less a classifier or head on top."""
    delivered = model.deliverable()
    return delivered if hasattr(delivered, "maps") or not hasattr(model, "encoder") else model.encoder  # type: ignore[return-value]


def maps_of(model: Method, x: Tensor) -> Tensor:
    """Feature maps (N, C, h, w); features of an encoder that has none become maps of one pixel."""
    encoder: Any = encoder_of(model)
    return encoder.maps(x) if hasattr(encoder, "maps") else encoder(x)[:, :, None, None]


def mapped(
    model: Method,
    source: Source,
    function: Callable[[dict[str, Any]], Any],
    pipeline: Pipeline | None = None,
    batch_size: int = 256,
) -> Iterator[tuple[Any, np.ndarray]]:
    """Call a function with every batch of a source, on the model's device and in its precision.

    Yields:
        what it returned, and the indices (n,) of the samples; broken samples are left out.
    """
    workers = 0 if len(source) <= _FEW else -1
    for found, index, _ in through(model, source, function, pipeline=pipeline, batch_size=batch_size, workers=workers):
        if len(index):
            yield found, index


def stacked(parts: Iterator[tuple[Tensor, np.ndarray]]) -> Embedded:
    """Batches of `mapped` as one array."""
    found = [(x.float().cpu().numpy(), index) for x, index in parts]
    if not found:
        raise UserError("no image of this source can be read; run: selftaught data check")
    return np.concatenate([x for x, _ in found]), np.concatenate([index for _, index in found])


def some(source: Source, limit: int) -> Source:
    """The source, or a draw of ``limit`` samples in order."""
    if len(source) <= limit:
        return source
    return source.subset(np.sort(np.random.default_rng(0).permutation(len(source))[:limit]))


def spoken(classes: Sequence[str]) -> list[str]:
    """Names of classes in words: ImageNet's folders (n02395406) by their synset ("hog, pig"), others as they are."""
    if not all(re.fullmatch(r"n\d{8}", name) for name in classes):
        return list(classes)
    from timm.data.imagenet_info import ImageNetInfo

    info = ImageNetInfo("imagenet-22k")
    return [_described(info, name) for name in classes]


def _described(info: Any, synset: str) -> str:
    try:
        return info.label_name_to_description(synset)
    except KeyError:
        return synset
