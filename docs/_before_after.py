"""Pictures of the documentation: built-in data before and after every restoration system, and as they were.

    python docs/_before_after.py                     all systems that restore and have no picture yet
    python docs/_before_after.py rrformer --steps 300    one of them anew, with so many steps in place of the preset's

Each system is trained with its laptop preset on its built-in data; what is shown is held out: the first photograph that
the defect didn't turn white over large parts, where nothing is left to restore, or of the clip in which most moves the
part of a frame that the defect altered most, however it was restored. A picture's JSON says for the caption the steps,
and PSNR, SSIM and MS-SSIM of what is shown.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np

import selftaught
from selftaught import catalog, methods
from selftaught.data import open_source, to_unit
from selftaught.evaluation import restoration
from selftaught.run.outputs import clip, image
from selftaught.views import noise

FOLDER = Path(__file__).parent / "images" / "restoration"
SIDE, GAP, QUALITY = 220, 6, 82
NOISE = "correlated:25"
MOST_WHITE = 0.05
KINDS = ("image", "clip")
MEASURED = ("psnr", "ssim", "ms_ssim")
GIVEN: dict[str, dict[str, Any]] = {"perceptual-ssim": {"model": "srcnn", "patch": 48}}
"""Options besides the preset's."""
REMARKS = {
    "perceptual-ssim": "What is learnt is MS-SSIM, which asks for contrast and structure and leaves brightness free: "
    "the paper, too, has the higher PSNR for the squared error (`--loss l2`), and the sharper picture here",
    "rrformer": "On the held-out photographs together PSNR rises from 13.5 to 16.6 dB. This one's reflection is weaker "
    "than most: it fades on the building, light is taken from the bright sky as well, and PSNR falls",
    "selfdrsc": "A run as short as this joins the doubled legs and leaves bright lines 32 pixels apart, the cells of "
    "its coarsest level, so that PSNR hardly rises and SSIM falls",
}
"""What must be said where a number falls."""


def systems() -> list[str]:
    """Restoration systems that are built, without the baselines."""
    cards = [c for c in catalog.search(job="restore") if c.built and not c.baseline]
    return [c.slug for c in cards if methods.get(c.slug).output in KINDS]


def train(slug: str, steps: int | None, place: Path) -> Any:
    """A run of the laptop preset."""
    given: dict[str, Any] = GIVEN.get(slug, {}) | ({"steps": steps} if steps else {})
    if learns_from_noise(slug):
        given |= {"noise": NOISE, "data": "photos:whole"}
    return selftaught.train(slug, out=str(place), preset="laptop", quiet=True, workers=0, **given)


def learns_from_noise(slug: str) -> bool:
    """Whether a system of images learns from noisy pictures alone."""
    kind: Any = methods.get(slug)
    return kind.output == "image" and not hasattr(kind, "degraded")


def before_after(run: Any, slug: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Three pictures (H, W, C) in [0, 1]."""
    method: Any = run.method.eval()
    if method.output == "clip":
        source: Any = open_source(method.default_data, modality="clip", split="test")
        source = method.to_judge(source) if hasattr(method, "to_judge") else source
        row = clip.restored_row(method, source, moves_most(source), None)
        place = altered_most(row.raw, row.clean)
        return row.raw[place], row.this[place], row.clean[place]
    source = open_source("photos:whole", split="test")
    pairs = (seen_and_clean(method, slug, to_unit(source.read(i), None)) for i in range(len(source)))
    seen = next(pair for pair in pairs if whitened(*pair[:2]) < MOST_WHITE)
    picture = image.restored_row(method, slug, seen[0], seen[1], seen[2] if len(seen) > 2 else {})
    return picture.raw, picture.this, picture.clean


def seen_and_clean(method: Any, slug: str, clean: np.ndarray) -> tuple[Any, ...]:
    """The middle of a photograph degraded, itself, and what else a method asks for."""
    top, left = (max(0, (side - 2 * SIDE) // 2) for side in clean.shape[:2])
    clean = np.ascontiguousarray(clean[top : top + 2 * SIDE, left : left + 2 * SIDE])
    if not learns_from_noise(slug):
        degraded: tuple[Any, ...] = method.degraded(clean)
        return degraded
    return noise.correlated(clean, 25 / 255, np.random.default_rng(0), kernel=3).astype(np.float32), clean


def whitened(seen: np.ndarray, clean: np.ndarray) -> float:
    """Share of pixels that are white where they weren't; 0 for a picture of another size."""
    return float(((seen >= 0.999) & (clean < 0.9)).all(2).mean()) if seen.shape == clean.shape else 0.0


def moves_most(source: Any) -> int:
    """The clip whose frames, clean ones where they are known, all differ most from the last ones; a cut, which lies
    between two of them, is no motion.
    """

    def motion(i: int) -> float:
        frames = source.sample(i, ["gs"])["gs"] if "gs" in source.fields else source.read(i)
        return float(np.abs(np.diff(to_unit(frames, None), axis=0)).mean((1, 2, 3)).min())

    return max(range(len(source)), key=motion)


def altered_most(raw: np.ndarray, clean: np.ndarray) -> tuple[int, slice, slice]:
    """Where clips (T, H, W, C) differ most: (frame, rows, columns) of a part."""
    height, width = (min(SIDE, side) for side in raw.shape[1:3])
    worst, best = -1.0, (0, slice(0, height), slice(0, width))
    for t, (one, other) in enumerate(zip(raw, clean, strict=True)):
        error = np.square(one - other).mean(2)
        sums = cv2.integral(np.ascontiguousarray(error, np.float32))
        part = sums[height:, width:] - sums[:-height, width:] - sums[height:, :-width] + sums[:-height, :-width]
        top, left = (int(at) for at in np.unravel_index(int(part.argmax()), part.shape))
        if part[top, left] > worst:
            worst = float(part[top, left])
            best = (t, slice(top, top + height), slice(left, left + width))
    return best


def _panel(shown: np.ndarray) -> np.ndarray:
    """The middle of an image in [0, 1], small ones enlarged, with a white margin at its right."""
    times = -(-SIDE // max(shown.shape[:2]))
    shown = np.clip(shown, 0, 1).repeat(times, 0).repeat(times, 1)
    top, left = (max(0, (side - SIDE) // 2) for side in shown.shape[:2])
    cut = (shown[top : top + SIDE, left : left + SIDE] * 255 + 0.5).astype(np.uint8)
    cut = cut.repeat(3, 2) if cut.shape[2] == 1 else cut
    return np.pad(cut, ((0, 0), (0, GAP), (0, 0)), constant_values=255)


def main() -> None:
    """Write the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("slug", nargs="*", help="systems; default those without a picture")
    parser.add_argument("--steps", type=int, help="in place of the preset's")
    options = parser.parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    for slug in options.slug or [s for s in systems() if not (FOLDER / f"{s}.jpg").exists()]:
        began = time.perf_counter()
        with tempfile.TemporaryDirectory() as place:
            run = train(slug, options.steps, Path(place) / "run")
            shown = before_after(run, slug)
            facts = told(run, slug, shown) | {"minutes": round((time.perf_counter() - began) / 60, 1)}
        made = np.hstack([_panel(one) for one in shown])
        file = FOLDER / f"{slug}.jpg"
        cv2.imwrite(str(file), made[:, :-GAP, ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
        file.with_suffix(".json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
        print(f"{file}: {file.stat().st_size / 1000:.0f} kB, {facts}", flush=True)


def told(run: Any, slug: str, shown: tuple[np.ndarray, np.ndarray, np.ndarray]) -> dict[str, Any]:
    """Steps, options, and the numbers of what is shown, measured as the method's paper measures them."""
    method: Any = run.method
    customs = method.judged() if hasattr(method, "judged") else {}
    customs = {key: value for key, value in customs.items() if key in ("channel", "shave")}
    before, after, clean = shown
    facts: dict[str, Any] = {"steps": int(run.settings.steps), "options": GIVEN.get(slug, {})}
    facts |= {"remark": REMARKS[slug]} if slug in REMARKS else {}
    for when, shown in (("before", before), ("after", after)):
        found = restoration([shown], [clean], data_range=1.0, **customs).numbers
        facts |= {f"{name} {when}": round(found[name].mean, 2 if name == "psnr" else 3) for name in MEASURED}
    return facts


if __name__ == "__main__":
    main()
