"""Weather, light and dirt that weren't there when the video was taken, and what a camera adds.

Every alteration keeps each pixel where it is (elastic jitter moves it by a pixel or so), and its randomness comes from
one number, so that all frames of a clip get the very same: streaks that jump between frames would pass for motion.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np

from selftaught.errors import UserError
from selftaught.views.degradations import _weather as pixels
from selftaught.views.operation import Drawn, Op, checked_range, executor, freeze, whole

__all__ = ["ALTERATIONS", "WEATHER_MIX", "Alteration", "alter", "ground_depth"]

ground_depth = pixels.ground_depth

Effect = Callable[[np.ndarray, float, np.random.Generator, "np.ndarray | None"], np.ndarray]
_PLAIN: dict[str, Effect] = {
    "clear": lambda x, s, r, d: x,
    "rain": pixels.rain,
    "fog": pixels.fog,
    "night": pixels.night,
    "dawn": pixels.dawn,
    "dusk": pixels.dusk,
    "snow": pixels.snow,
    "ground_snow": pixels.ground_snow,
    "dust": pixels.dust,
    "frost": pixels.frost,
    "gaussian_noise": pixels.gaussian_noise,
    "shot_noise": pixels.shot_noise,
    "impulse_noise": pixels.impulse_noise,
    "defocus_blur": pixels.defocus_blur,
    "glass_blur": pixels.glass_blur,
    "motion_blur": pixels.motion_blur,
    "zoom_blur": pixels.zoom_blur,
    "elastic": pixels.elastic,
    "pixelate": pixels.pixelate,
    "jpeg": pixels.jpeg,
    "grey": pixels.grey,
    "red": pixels.red,
    "green": pixels.green,
    "blue": pixels.blue,
    "color": pixels.color,
}
WEATHER_MIX: tuple[str, ...] = (
    "rain+fog", "rain+night", "fog+night", "rain+fog+night",
    "dawn+rain", "dawn+fog", "dawn+rain+fog", "dusk+rain", "dusk+fog", "dusk+rain+fog",
)  # fmt: skip
"""The paper's combinations: effects one after the other, joined by +."""
ALTERATIONS: tuple[str, ...] = (*_PLAIN, *WEATHER_MIX)
"""All that Robust-Depth draws from (arXiv 2307.08357); any other combination may be named, too."""


def alter(
    image: np.ndarray,
    kind: str,
    strength: float = 0.5,
    *,
    rng: np.random.Generator | None = None,
    depth: np.ndarray | None = None,
) -> np.ndarray:
    """One image with one alteration, or several joined by +.

    Args:
        image: (H, W, C) uint8, or float in [0, 1].
        kind: one of ``ALTERATIONS``, or some of them joined by +.
        strength: 0 (hardly) to 1 (heavily); "clear" and the colour channels have none.
        rng: draws streaks, flakes and the like; None takes a new one of seed 0.
        depth: (H, W) of the image in metres, for fog and snow that thicken with distance; None takes the depth of a
            plane road (:func:`ground_depth`).

    Returns:
        The same shape and type.

    Raises:
        UserError: an unknown kind, a strength outside [0, 1], an image that isn't (H, W, C), depth of another size.
    """
    effects = [effect_of(name) for name in kind.split("+")]
    if not 0 <= strength <= 1:
        raise UserError(f"strength {strength:g}: it may be 0 to 1")
    if image.ndim != 3:
        raise UserError(f"image: shape {image.shape}; pass (H, W, C)")
    if depth is not None and depth.shape != image.shape[:2]:
        raise UserError(f"depth: shape {depth.shape}; pass {image.shape[:2]}")
    rng = np.random.default_rng(0) if rng is None else rng
    eight = image.dtype == np.uint8
    made = image.astype(np.float32) / (255 if eight else 1)
    for effect in effects:
        made = np.clip(effect(made, float(strength), rng, depth), 0, 1).astype(np.float32)
    return np.rint(made * 255).astype(np.uint8) if eight else made.astype(image.dtype)


def effect_of(name: str) -> Effect:
    """The function of a single alteration's name.

    Raises:
        UserError: there is none.
    """
    if name not in _PLAIN:
        raise UserError(f"alteration {name!r}: one of {', '.join(_PLAIN)}, or some joined by +")
    return _PLAIN[name]


@dataclasses.dataclass(frozen=True, repr=False)
class Alteration(Op):
    """One of several alterations, drawn evenly, at a drawn strength; the same for all frames of a clip.

    The device executor hands each image to the CPU's function. Reports ``kind``, its number in ``kinds``.

    Args:
        kinds: names as in ``ALTERATIONS`` (default all of them).
        strength: (low, high) of an even draw in [0, 1] (default 0.2 to 0.8).

    Raises:
        UserError: an unknown name, a strength out of range.
    """

    kinds: tuple[str, ...] = ALTERATIONS
    strength: tuple[float, float] = (0.2, 0.8)

    columns: ClassVar = ("kind", "strength", "seed")
    draws: ClassVar = 3
    floats: ClassVar = True
    facts: ClassVar = ("kind",)

    def __post_init__(self) -> None:
        names = (self.kinds,) if isinstance(self.kinds, str) else tuple(self.kinds)
        if not names:
            raise UserError("Alteration: name one kind or more")
        for name in names:
            for part in name.split("+"):
                effect_of(part)
        freeze(self, kinds=names, strength=checked_range("Alteration", "strength", self.strength, 0, 1))

    def draw(self, u: Any, height: Any, width: Any) -> Drawn:
        """Draw the kind, the strength and the seed of all else."""
        low, high = self.strength
        values = (whole(u[0], len(self.kinds) - 1), low + u[1] * (high - low), whole(u[2], 2**31 - 1))
        return values, height, width

    def __repr__(self) -> str:
        shown = f"{len(self.kinds)} kinds" if len(self.kinds) > 3 else ", ".join(self.kinds)
        return f"Alteration({shown}, strength={self.strength[0]:g} to {self.strength[1]:g})"


@executor(Alteration, "image")
def _altered(x: np.ndarray, op: Alteration, values: Sequence[float]) -> tuple[np.ndarray, dict[str, Any]]:
    rng = np.random.default_rng(int(values[2]))
    made = alter(x, op.kinds[int(values[0])], float(values[1]), rng=rng)
    return made, {"kind": np.float32(values[0])}


@executor(Alteration, "image", device=True)
def _altered_batch(x: Any, op: Alteration, values: np.ndarray) -> tuple[Any, dict[str, Any]]:
    import torch

    images = x.permute(0, 2, 3, 1).cpu().numpy()
    made = np.stack([_altered(image, op, row)[0] for image, row in zip(images, values.tolist(), strict=True)])
    told = torch.from_numpy(values[:, 0].astype(np.float32)).to(x.device)
    return torch.from_numpy(made).permute(0, 3, 1, 2).to(x.device), {"kind": told}
