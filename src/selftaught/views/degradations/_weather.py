"""What weather does to pixels: functions of (image float32 in [0, 1], strength in [0, 1], generator, depth or None)."""

from __future__ import annotations

import cv2
import numpy as np

from selftaught.views.degradations import _corruptions as plain

Rng = np.random.Generator
Depth = np.ndarray | None


def ground_depth(
    height: int, width: int, horizon: float = 0.45, nearest: float = 4.0, farthest: float = 80.0
) -> np.ndarray:
    """Depth in metres of a plane road seen by a level camera: 1 / (rows below the horizon), the sky farthest.

    Args:
        height: rows.
        width: columns.
        horizon: share of the height above which there is sky.
        nearest: depth of the lowest row.
        farthest: depth of the sky.
    """
    below = (np.arange(height, dtype=np.float32) + 0.5) / height - horizon
    depth = nearest * (1 - horizon) / np.maximum(below, 1e-6)
    return np.repeat(np.clip(depth, nearest, farthest)[:, None], width, axis=1).astype(np.float32)


def _depth(x: np.ndarray, depth: Depth) -> np.ndarray:
    found = ground_depth(*x.shape[:2]) if depth is None else np.where(depth > 0, depth, depth.max() or 1.0)
    return (found / np.median(found))[:, :, None].astype(np.float32)


def _noise(shape: tuple[int, int], rng: Rng, cell: float) -> np.ndarray:
    """Smooth noise in [0, 1] with features of about ``cell`` of the shorter side."""
    height, width = shape
    side = max(2.0, cell * min(shape))
    found = np.zeros(shape, dtype=np.float32)
    weight = 1.0
    for _ in range(3):
        rows, columns = (max(2, round(n / side) + 1) for n in (height, width))
        grid = rng.random((rows, columns), dtype=np.float32)
        found += weight * cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)
        weight, side = weight / 2, max(2.0, side / 2)
    low, high = float(found.min()), float(found.max())
    return (found - low) / max(high - low, 1e-6)


def fog(x: np.ndarray, strength: float, rng: Rng, depth: Depth = None) -> np.ndarray:
    """Koschmieder's law: x e^(-b d) + A (1 - e^(-b d)), b in units of the median depth, thicker in patches."""
    air = np.float32(rng.uniform(0.7, 0.9))
    beta = (0.3 + 1.7 * strength) * (0.8 + 0.4 * _noise((x.shape[0], x.shape[1]), rng, 0.5))[:, :, None]
    through = np.exp(-beta * _depth(x, depth))
    return x * through + air * (1 - through)


def dust(x: np.ndarray, strength: float, rng: Rng, depth: Depth = None) -> np.ndarray:
    """Fog of brown air, and specks on the lens."""
    tint = _tint(x, (0.72, 0.58, 0.40))
    through = np.exp(-(0.3 + 1.2 * strength) * _depth(x, depth))
    made = x * through + tint * (1 - through)
    specks = _dots(x, rng, count=0.002 * strength, radius=0.02, soft=True)
    return made * (1 - 0.6 * specks) + 0.6 * specks * 0.5 * tint


def rain(x: np.ndarray, strength: float, rng: Rng, depth: Depth = None) -> np.ndarray:
    """Streaks of one slant in two layers, near and far, over a greyer, slightly hazy picture."""
    height, width = x.shape[:2]
    slant = rng.uniform(-0.35, 0.35)
    made = fog(x, 0.25 * strength, rng, depth) * np.float32(1 - 0.25 * strength)
    for length, count, light in ((0.06, 0.010, 0.25), (0.16, 0.003, 0.4)):
        layer = np.zeros((height, width), dtype=np.float32)
        drops = round(count * (0.3 + strength) * height * width / max(1.0, 0.05 * length * height * height) * height)
        size = length * height
        for _ in range(max(4, min(drops, 4000))):
            top, left = rng.uniform(-size, height), rng.uniform(-size, width + size)
            reach = size * rng.uniform(0.6, 1.2)
            end = (round(left + slant * reach), round(top + reach))
            cv2.line(layer, (round(left), round(top)), end, float(rng.uniform(0.4, 1.0)), 1, cv2.LINE_AA)
        layer = np.clip(layer, 0, 1)[:, :, None] * np.float32(light * (0.4 + 0.6 * strength))
        made = made * (1 - layer) + 0.85 * layer
    return made


def night(x: np.ndarray, strength: float, rng: Rng, depth: Depth = None) -> np.ndarray:
    """Darker by a gamma curve, bluer, lit in a cone from below and by lamps, with the sensor's noise."""
    height, width = x.shape[:2]
    dark = np.power(np.clip(x, 0, 1), 1 + 1.2 * strength) * np.float32(0.45 - 0.3 * strength)
    dark = dark * _tint(x, (0.85, 0.9, 1.1))
    rows, columns = np.linspace(0, 1, height, dtype=np.float32), np.linspace(-1, 1, width, dtype=np.float32)
    cone = np.clip(rows - 0.4, 0, 1)[:, None] * np.exp(-2 * columns**2)[None]
    made = dark + 0.5 * x * cone[:, :, None] * np.float32(0.4 + 0.4 * strength)
    lamps = np.zeros((height, width), dtype=np.float32)
    for _ in range(int(rng.integers(2, 6))):
        at = (int(rng.integers(width)), int(rng.uniform(0.15, 0.5) * height))
        cv2.circle(lamps, at, max(1, round(0.015 * height)), 1.0, -1)
    glow = np.clip(3 * cv2.GaussianBlur(lamps, (0, 0), 0.04 * height) + lamps, 0, 1)[:, :, None]
    made = made + 0.7 * glow * _tint(x, (1.0, 0.9, 0.7))
    return made + np.float32(0.015 + 0.035 * strength) * rng.standard_normal(x.shape, dtype=np.float32)


def dawn(x: np.ndarray, strength: float, rng: Rng, depth: Depth = None) -> np.ndarray:
    """Low warm light from one side, long soft shade from the other."""
    return _low_sun(x, strength, rng, (1.15, 0.98, 0.85), 0.15)


def dusk(x: np.ndarray, strength: float, rng: Rng, depth: Depth = None) -> np.ndarray:
    """Low violet light, darker than dawn."""
    return _low_sun(x, strength, rng, (1.05, 0.88, 1.0), 0.4)


def _low_sun(x: np.ndarray, strength: float, rng: Rng, tint: tuple[float, float, float], loss: float) -> np.ndarray:
    side = 1 if rng.random() < 0.5 else -1
    across = side * np.linspace(-1, 1, x.shape[1], dtype=np.float32)[None, :, None]
    colour = 1 + strength * (_tint(x, tint) - 1)
    return x * colour * np.float32(1 - loss * (0.3 + 0.7 * strength)) * (1 + 0.25 * strength * across)


def snow(x: np.ndarray, strength: float, rng: Rng, depth: Depth = None) -> np.ndarray:
    """Falling flakes, small and sharp, large and soft, over a paler picture."""
    pale = x * np.float32(1 - 0.3 * strength) + np.float32(0.25 * strength)
    near = _dots(x, rng, count=0.0015 * (0.3 + strength), radius=0.022, soft=True)
    far = _dots(x, rng, count=0.012 * (0.3 + strength), radius=0.008, soft=False)
    cover = np.clip(0.8 * near + 0.9 * far, 0, 1)
    return pale * (1 - cover) + cover * 0.97


def ground_snow(x: np.ndarray, strength: float, rng: Rng, depth: Depth = None) -> np.ndarray:
    """White patches on what lies low in the picture."""
    height, width = x.shape[:2]
    rows = np.clip((np.linspace(0, 1, height, dtype=np.float32) - 0.45) / 0.3, 0, 1)[:, None]
    patches = _noise((height, width), rng, 0.25)
    cover = rows / (1 + np.exp(-12 * (patches - (0.75 - 0.5 * strength))))
    bright = 0.75 + 0.25 * x.mean(2, keepdims=True)
    cover = cover[:, :, None].astype(np.float32)
    return x * (1 - 0.85 * cover) + 0.85 * cover * bright


def frost(x: np.ndarray, strength: float, rng: Rng, depth: Depth = None) -> np.ndarray:
    """Ice on the lens: bright ridges, thickest towards the corners."""
    height, width = x.shape[:2]
    ridges = 1 - np.abs(2 * _noise((height, width), rng, 0.2) - 1)
    y, z = np.linspace(-1, 1, height, dtype=np.float32)[:, None], np.linspace(-1, 1, width, dtype=np.float32)[None]
    cover = np.clip(ridges**4 * (0.3 + 0.5 * (y**2 + z**2)) * (0.5 + strength), 0, 0.9)[:, :, None]
    return x * (1 - cover) + cover * _tint(x, (0.85, 0.92, 0.98))


def _dots(x: np.ndarray, rng: Rng, count: float, radius: float, soft: bool) -> np.ndarray:
    """Filled circles as (H, W, 1) in [0, 1]: ``count`` per pixel of a picture 100 pixels high."""
    height, width = x.shape[:2]
    layer = np.zeros((height, width), dtype=np.float32)
    for _ in range(max(3, round(count * 1e4 * width / height))):
        at = (int(rng.integers(width)), int(rng.integers(height)))
        cv2.circle(
            layer,
            at,
            max(1, round(radius * height * rng.uniform(0.4, 1.2))),
            float(rng.uniform(0.5, 1)),
            -1,
            cv2.LINE_AA,
        )
    if soft:
        return np.asarray(cv2.GaussianBlur(layer, (0, 0), max(0.5, 0.4 * radius * height)))[:, :, None]
    return layer[:, :, None]


def _tint(x: np.ndarray, colour: tuple[float, float, float]) -> np.ndarray:
    """A colour for images of three channels, its mean for others."""
    values = colour if x.shape[2] == 3 else (sum(colour) / 3,) * x.shape[2]
    return np.array(values, dtype=np.float32)


# ---- what the camera adds ----------------------------------------------------------------------------------------
def gaussian_noise(x: np.ndarray, strength: float, rng: Rng, depth: Depth = None) -> np.ndarray:
    """Deviation .04 to .3."""
    return plain.gaussian_noise(x, 0.04 + 0.26 * strength, rng)


def shot_noise(x: np.ndarray, strength: float, rng: Rng, depth: Depth = None) -> np.ndarray:
    """Photons per unit 60 down to 5."""
    return plain.shot_noise(x, 60 * (5 / 60) ** strength, rng)


def impulse_noise(x: np.ndarray, strength: float, rng: Rng, depth: Depth = None) -> np.ndarray:
    """Share of pixels .02 to .2."""
    return plain.impulse_noise(x, 0.02 + 0.18 * strength, rng)


def defocus_blur(x: np.ndarray, strength: float, rng: Rng, depth: Depth = None) -> np.ndarray:
    """Radius .008 to .04 of the shorter side."""
    return plain.defocus_blur(x, max(0.008 + 0.032 * strength, 1 / min(x.shape[:2])), rng)


def motion_blur(x: np.ndarray, strength: float, rng: Rng, depth: Depth = None) -> np.ndarray:
    """Length .03 to .13 of the shorter side."""
    return plain.motion_blur(x, 0.03 + 0.1 * strength, rng)


def zoom_blur(x: np.ndarray, strength: float, rng: Rng, depth: Depth = None) -> np.ndarray:
    """Mean of the picture enlarged by 1 to 1.03 ... 1.15."""
    height, width = x.shape[:2]
    made, steps = x.copy(), 8
    for zoom in np.linspace(1, 1.03 + 0.12 * strength, steps)[1:]:
        matrix = np.array(
            [[zoom, 0, (1 - zoom) * (width - 1) / 2], [0, zoom, (1 - zoom) * (height - 1) / 2]], dtype=np.float32
        )
        made += _planes(x, lambda c, m=matrix: cv2.warpAffine(c, m, (width, height), borderMode=cv2.BORDER_REFLECT_101))
    return made / steps


def glass_blur(x: np.ndarray, strength: float, rng: Rng, depth: Depth = None) -> np.ndarray:
    """Every pixel taken from a neighbour, softened."""
    reach = max(1.0, (0.005 + 0.015 * strength) * min(x.shape[:2]))
    soft = _moved(x, *(reach * rng.uniform(-1, 1, x.shape[:2]).astype(np.float32) for _ in range(2)))
    return _planes(soft, lambda c: cv2.GaussianBlur(c, (0, 0), 0.5))


def elastic(x: np.ndarray, strength: float, rng: Rng, depth: Depth = None) -> np.ndarray:
    """Smooth shifts of a hundredth of the picture at most."""
    reach = (0.003 + 0.007 * strength) * min(x.shape[:2])
    shifts = [2 * reach * (_noise((x.shape[0], x.shape[1]), rng, 0.15) - 0.5) for _ in range(2)]
    return _moved(x, *shifts)


def pixelate(x: np.ndarray, strength: float, rng: Rng, depth: Depth = None) -> np.ndarray:
    """Sides reduced to .7 ... .3."""
    return plain.pixelate(x, 0.7 - 0.4 * strength, rng)


def jpeg(x: np.ndarray, strength: float, rng: Rng, depth: Depth = None) -> np.ndarray:
    """Quality 40 down to 8."""
    return plain.jpeg_compression(x, 40 - 32 * strength, rng)


def grey(x: np.ndarray, strength: float, rng: Rng, depth: Depth = None) -> np.ndarray:
    """The luma in all channels."""
    weights = (
        np.array([0.299, 0.587, 0.114], dtype=np.float32) if x.shape[2] == 3 else np.full(x.shape[2], 1 / x.shape[2])
    )
    return np.repeat((x @ weights)[:, :, None], x.shape[2], axis=2)


def red(x: np.ndarray, strength: float, rng: Rng, depth: Depth = None) -> np.ndarray:
    """The first channel in all."""
    return np.repeat(x[:, :, :1], x.shape[2], axis=2)


def green(x: np.ndarray, strength: float, rng: Rng, depth: Depth = None) -> np.ndarray:
    """The second channel in all."""
    at = min(1, x.shape[2] - 1)
    return np.repeat(x[:, :, at : at + 1], x.shape[2], axis=2)


def blue(x: np.ndarray, strength: float, rng: Rng, depth: Depth = None) -> np.ndarray:
    """The last channel in all."""
    return np.repeat(x[:, :, -1:], x.shape[2], axis=2)


def color(x: np.ndarray, strength: float, rng: Rng, depth: Depth = None) -> np.ndarray:
    """Brightness .5 to 3, contrast and saturation .8 to 1.2, hue by .1 (the paper's ranges, whatever the strength)."""
    made = np.clip(x * np.float32(rng.uniform(0.5, 3.0)), 0, 1)
    middle = grey(made, 0, rng).mean()
    made = np.clip(middle + (made - middle) * np.float32(rng.uniform(0.8, 1.2)), 0, 1)
    pale = grey(made, 0, rng)
    made = np.clip(pale + (made - pale) * np.float32(rng.uniform(0.8, 1.2)), 0, 1)
    turn = rng.uniform(-0.1, 0.1)
    if x.shape[2] != 3:
        return made
    hsv = cv2.cvtColor(made.astype(np.float32), cv2.COLOR_RGB2HSV)
    hsv[..., 0] = np.mod(hsv[..., 0] + 360 * turn, 360)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)


def _moved(x: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    y, z = np.mgrid[: x.shape[0], : x.shape[1]].astype(np.float32)
    where = (z + columns.astype(np.float32), y + rows.astype(np.float32))
    return _planes(x, lambda c: cv2.remap(c, *where, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101))


def _planes(x: np.ndarray, function: object) -> np.ndarray:
    return np.stack([function(c) for c in plain.channels(x)], axis=-1)  # type: ignore[operator]
