"""Clouds of points as the page's script takes them: places in 16 bits, colours in 8, base64."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import numpy as np

__all__ = ["CLASS_COLOURS", "packed_cloud"]

CLASS_COLOURS = (
    (31, 119, 180), (255, 127, 14), (44, 160, 44), (214, 39, 40), (148, 103, 189), (140, 86, 75), (227, 119, 194),
    (188, 189, 34), (23, 190, 207), (250, 200, 90),
)  # fmt: skip
"""Colours of the classes of points, by number, again from the start after the last."""
_UNKNOWN = (160, 160, 160)


def packed_cloud(cloud: Mapping[str, Any]) -> dict[str, Any]:
    """One cloud of the report's clouds section.

    Args:
        cloud: ``xyz``, ``colours`` and, where known, ``label``; see :class:`selftaught.report.schema.Cloud`.

    Returns:
        ``name``, ``count``, ``span`` (3,) of the box, ``places`` (uint16, 65535 being the far end of the box) and
        ``layers`` of a name and uint8 colours each.
    """
    xyz = np.asarray(cloud["xyz"], dtype=np.float64)
    low, span = xyz.min(0), np.ptp(xyz, axis=0)
    places = np.round((xyz - low) / np.maximum(span, 1e-9) * 65535).astype("<u2")
    layers = [(name, np.asarray(rows)) for name, rows in (cloud.get("colours") or {}).items()]
    if cloud.get("label") is not None:
        label = np.asarray(cloud["label"])
        table = np.array([*CLASS_COLOURS, _UNKNOWN])
        layers.append(("classes", table[np.where(label < 0, len(CLASS_COLOURS), label % len(CLASS_COLOURS))]))
    return {
        "name": cloud.get("name") or "",
        "count": len(xyz),
        "span": span.tolist(),
        "places": _text(places),
        "layers": [{"name": name, "colours": _text(np.clip(rows, 0, 255).astype(np.uint8))} for name, rows in layers],
    }


def _text(values: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode("ascii")
