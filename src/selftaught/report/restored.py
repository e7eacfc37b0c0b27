"""Before and after: what the page shows of a restored picture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from selftaught.report.images import crop_boxes, data_uri, decode, dimensions, encode, psnr
from selftaught.report.text import number

_SIDES = (("noisy", "input"), ("restored", "restored"), ("clean", "clean"))
_NEARLY_ALL, _MAP_SIDE = 0.995, 200
"""Share of a map whose errors are told apart, the rest is white; its longest side."""


def measured(item: Mapping[str, Any]) -> dict[str, Any]:
    """The item with the PSNR values that its own pictures tell, where a clean one is given and a value is not."""
    found = dict(item)
    if not item.get("clean"):
        return found
    clean: np.ndarray | None = None
    for key, picture in (("psnr", "restored"), ("psnr_noisy", "noisy")):
        if found.get(key) is None:
            clean = decode(item["clean"]) if clean is None else clean
            found[key] = psnr(decode(item[picture]), clean)
    return found


def plate(item: Mapping[str, Any]) -> dict[str, Any]:
    """Addresses, sizes, crops and captions of one restored picture."""
    sides = [(key, name) for key, name in _SIDES if item.get(key)]
    pixels = {key: decode(item[key]) for key, _ in sides}
    boxes = item.get("crops") or crop_boxes(pixels.get("clean", pixels["restored"]))
    width, height = dimensions(item["restored"])
    rows = [[{"name": name, "uri": _cut(pixels[key], box)} for key, name in sides] for box in boxes]
    where = ["{2} × {3} pixels at x {0}, y {1}".format(*box) for box in boxes]
    return {
        "name": item.get("name") or "picture",
        "uris": {key: data_uri(_small(item[key])) for key, name in sides if key != "clean"},
        "width": width,
        "height": height,
        "crops": [
            {"where": w, "cells": cells} for w, cells in zip(where, rows, strict=True) if all(c["uri"] for c in cells)
        ],
        "numbers": _numbers(item),
        "errors": _errors(pixels),
    }


def error_map(made: np.ndarray, clean: np.ndarray, most: float) -> np.ndarray:
    """How far a picture (H, W) or (H, W, C) lies from the clean one, in colours: (h, w, 3) uint8.

    The mean over the channels, and over neighbours where the picture is large; black is no error, then red, yellow, and
    white from ``most`` grey levels on.
    """
    share = np.clip(_apart(made, clean) / most, 0, 1)[..., None]
    return np.rint(255 * np.clip(3 * share - np.arange(3), 0, 1)).astype(np.uint8)


def _apart(made: np.ndarray, clean: np.ndarray) -> np.ndarray:
    """The mean absolute difference, in blocks that leave at most `_MAP_SIDE` of them along a side."""
    apart = np.abs(made.astype(np.float64) - clean)
    apart = apart.mean(2) if apart.ndim == 3 else apart
    block = -(-max(apart.shape) // _MAP_SIDE)
    down, right = ((-side) % block for side in apart.shape)
    blocks = np.pad(apart, ((0, down), (0, right)), mode="edge")
    return blocks.reshape(blocks.shape[0] // block, block, -1, block).mean((1, 3))


def _errors(pixels: Mapping[str, np.ndarray]) -> dict[str, Any] | None:
    """The error maps of input and result on one scale; None where there is no clean picture, or none of its size."""
    clean = pixels.get("clean")
    if clean is None or any(pixels[key].shape != clean.shape for key in ("noisy", "restored")):
        return None
    largest = max(float(np.quantile(_apart(pixels[key], clean), _NEARLY_ALL)) for key in ("noisy", "restored"))
    most = max(1, round(largest))
    maps = {name: error_map(pixels[key], clean, most) for key, name in _SIDES[:2]}
    cells = [{"name": name, "uri": data_uri(encode(one, format="webp", quality=60))} for name, one in maps.items()]
    return {"cells": cells, "most": most}


def _small(picture: str) -> str:
    """The picture as it is dragged over: lossy where that is smaller. What is to be judged is cut from the original."""
    lossy = encode(decode(picture), format="webp", quality=70)
    return min(picture, lossy, key=len)


def _cut(pixels: np.ndarray, box: list[int]) -> str | None:
    x, y, width, height = box
    piece = pixels[y : y + height, x : x + width]
    return data_uri(encode(piece, format="png")) if piece.size else None  # exact: noise and texture are judged here


def _numbers(item: Mapping[str, Any]) -> list[dict[str, str]]:
    rows = []
    for key, name, unit, places in (("psnr", "PSNR", " dB", 2), ("ssim", "SSIM", "", 3)):
        after, before = item.get(key), item.get(f"{key}_noisy")
        if after is None and before is None:
            continue
        gain = ""
        if after is not None and before is not None:
            gain = f"{'+' if after >= before else ''}{number(after - before, places)}{unit}"
        rows.append(
            {"name": name, "before": number(before, places), "after": number(after, places), "gain": gain, "unit": unit}
        )
    return rows
