"""What compression leaves of an image."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import numpy as np

from selftaught.errors import UserError
from selftaught.views._fast import kernels
from selftaught.views.operation import Drawn, Op, executor, freeze, whole

__all__ = ["JPEG"]


@dataclasses.dataclass(frozen=True, repr=False)
class JPEG(Op):
    """The image as JPEG of a quality gives it back (libjpeg, colours at half resolution).

    One or three channels; floats in [0, 1] pass through 8 bits. With the extra ``kernels`` no file is written: what a
    file loses is computed, to the bit the same. The device executor hands each image to the host: exact, but it waits
    for the device. Reports ``quality``.

    Args:
        quality: 1 to 100, or (low, high) of an even draw (default 30 to 95).

    Raises:
        UserError: a quality out of range; when rendering, images of other channels, floats outside [0, 1].
    """

    quality: int | tuple[int, int] = (30, 95)

    columns: ClassVar = ("quality",)
    draws: ClassVar = 1
    floats: ClassVar = True
    facts: ClassVar = ("quality",)

    def __post_init__(self) -> None:
        pair = (self.quality, self.quality) if isinstance(self.quality, int) else self.quality
        known = isinstance(pair, tuple | list) and len(pair) == 2 and all(isinstance(one, int) for one in pair)
        if not known or not 1 <= pair[0] <= pair[1] <= 100:
            raise UserError(f"JPEG: quality is a whole number from 1 to 100, or (low, high), got {self.quality!r}")
        freeze(self, quality=tuple(pair))

    def draw(self, u: Any, height: Any, width: Any) -> Drawn:
        """Draw the quality."""
        low, high = self.quality  # type: ignore[misc]
        return (low + whole(u[0], high - low),), height, width


def _given_back(levels: np.ndarray, quality: int) -> np.ndarray:
    """Levels (H, W, 1) or (H, W, 3) as libjpeg gives them back, or the compiled form of what it does, to the bit."""
    import cv2

    grey = levels.shape[2] == 1
    if kernels() is not None:
        from selftaught.views.degradations import _jpeg

        made, (luma, chroma) = np.empty(levels.shape, np.uint8), _jpeg.tables(quality)
        if grey:
            _jpeg.compressed_grey(levels[:, :, 0], luma, made[:, :, 0])
        else:
            _jpeg.compressed(np.ascontiguousarray(levels), luma, chroma, made)
        return made
    given = levels if grey else cv2.cvtColor(levels, cv2.COLOR_RGB2BGR)
    file = cv2.imencode(".jpg", given, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    read = cv2.imdecode(file, cv2.IMREAD_GRAYSCALE if grey else cv2.IMREAD_COLOR)
    assert read is not None
    return np.asarray(read[:, :, None] if grey else cv2.cvtColor(read, cv2.COLOR_BGR2RGB))


@executor(JPEG, "image")
def _compress(x: np.ndarray, op: JPEG, values: list[float]) -> tuple[np.ndarray, dict[str, Any]]:
    if x.shape[2] not in (1, 3):
        raise UserError(f"JPEG: images have 1 or 3 channels, got {x.shape[2]}")
    floats = x.dtype != np.uint8
    if floats and not (x.min() >= 0 and x.max() <= 1):
        raise UserError(
            f"JPEG: float images lie in [0, 1], got {x.min():.4g} to {x.max():.4g}; scale or clip them first"
        )
    made = _given_back(np.rint(x * 255).astype(np.uint8) if floats else x, int(values[0]))
    done = made.astype(x.dtype) / x.dtype.type(255) if floats else made
    return done, {"quality": np.float32(values[0])}


@executor(JPEG, "image", device=True)
def _compress_batch(x: Any, op: JPEG, values: np.ndarray) -> tuple[Any, dict[str, Any]]:
    import torch

    images = x.permute(0, 2, 3, 1).cpu().numpy()
    made = np.stack([_compress(image, op, row)[0] for image, row in zip(images, values.tolist(), strict=True)])
    told = torch.from_numpy(values[:, 0].astype(np.float32)).to(x.device)
    return torch.from_numpy(made).permute(0, 3, 1, 2).to(x.device), {"quality": told}
