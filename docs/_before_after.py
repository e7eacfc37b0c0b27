"""Pictures of the documentation: a built-in photograph before and after every restoration system, and as it was.

    python docs/_before_after.py                     all systems that restore images and have no picture yet
    python docs/_before_after.py rrformer --steps 300    one of them anew, with so many steps in place of the preset's

Each system is trained with its laptop preset on its built-in data; what is shown are photographs that are held out.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np

import selftaught
from selftaught import catalog, methods
from selftaught.data import open_source, to_unit
from selftaught.run.outputs.image import restore
from selftaught.views import noise

FOLDER = Path(__file__).parent / "images" / "restoration"
SIDE, GAP, QUALITY = 220, 6, 82
NOISE = "correlated:25"
SHOWN = 0


def systems() -> list[str]:
    """Restoration systems that are built, without the baselines."""
    cards = [c for c in catalog.search(job="restore") if c.built and not c.baseline]
    return [c.slug for c in cards if methods.get(c.slug).output == "image"]


def picture(slug: str, steps: int | None) -> np.ndarray:
    """Train and show: before, after and clean side by side, uint8 RGB."""
    given: dict[str, Any] = {"steps": steps} if steps else {}
    made_noisy = not hasattr(methods.get(slug), "degraded")  # it learns from noisy pictures alone
    given |= {"noise": NOISE, "data": "photos:whole"} if made_noisy else {}
    with tempfile.TemporaryDirectory() as place:
        run = selftaught.train(slug, out=str(Path(place) / "run"), preset="laptop", quiet=True, workers=0, **given)
        method: Any = run.method.eval()
        source = open_source("photos:whole", split="test")
        clean = to_unit(source.read(SHOWN), None)
        top, left = ((side - 2 * SIDE) // 2 for side in clean.shape[:2])
        clean = np.ascontiguousarray(clean[max(0, top) : top + 2 * SIDE, max(0, left) : left + 2 * SIDE])
        if made_noisy:
            noisy = noise.correlated(clean, 25 / 255, np.random.default_rng(0), kernel=3)
            before, target, more = noisy.astype(np.float32), clean, []
        else:
            before, target, *more = method.degraded(clean)
        after = restore(method, before, companions=more[0] if more else None)
    if before.shape != target.shape:
        before = method.simplest(before)
    return np.hstack([_panel(image) for image in (before, after, target)])


def _panel(image: np.ndarray) -> np.ndarray:
    """The middle of an image in [0, 1], with a white margin at its right."""
    top, left = ((side - SIDE) // 2 for side in image.shape[:2])
    cut = (np.clip(image, 0, 1)[top : top + SIDE, left : left + SIDE] * 255 + 0.5).astype(np.uint8)
    return np.pad(cut, ((0, 0), (0, GAP), (0, 0)), constant_values=255)


def main() -> None:
    """Write the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("slug", nargs="*", help="systems; default those without a picture")
    parser.add_argument("--steps", type=int, help="in place of the preset's")
    options = parser.parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    for slug in options.slug or [s for s in systems() if not (FOLDER / f"{s}.jpg").exists()]:
        made = picture(slug, options.steps)
        file = FOLDER / f"{slug}.jpg"
        cv2.imwrite(str(file), made[:, :-GAP, ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
        print(f"{file}: {file.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
