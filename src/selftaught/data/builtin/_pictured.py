"""Pictures with captions that a built-in data set keeps as two files in the cache folder: images.npy, facts.json."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from selftaught.data.arrays import ImageArrays, Piece, Pieces
from selftaught.data.combining.captioned import Captioned
from selftaught.data.source import TEST, TRAIN

TEST_SHARE = 5
"""One in so many samples is for testing."""


def keep(folder: Path, images: Sequence[np.ndarray], names: Sequence[str], texts: Sequence[str], **facts: Any) -> None:
    """Write the two files into a folder that is being made."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    np.save(folder / "images.npy", np.stack(list(images)))
    content = {"names": list(names), "texts": list(texts)} | facts
    (folder / "facts.json").write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


def opened(folder: Path, name: str) -> Captioned:
    """The source that two such files hold: a given split of 4 to 1, labels where the facts have classes.

    The classes are strings, one per sample, under the key "kinds".
    """
    facts = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
    count, kinds = len(facts["names"]), facts.get("kinds")
    classes = sorted(set(kinds)) if kinds else None
    labels = np.array([classes.index(k) for k in kinds], dtype=np.int64) if classes else None
    drawn = np.random.default_rng(0).permutation(count)
    given = np.full(count, TRAIN, dtype=np.int8)
    given[drawn[: count // TEST_SHARE]] = TEST
    piece = Piece(str(folder / "images.npy"), None, None, None)
    images = ImageArrays(Pieces([piece], labels, classes, None, parted=given), name)
    images.names = facts["names"]
    return Captioned(images, [[text] for text in facts["texts"]])


def squared(picture: Any, side: int) -> np.ndarray:
    """A PIL picture with transparency on white, in the middle of a square, (side, side, 3) uint8."""
    from PIL import Image

    picture = picture.convert("RGBA")
    largest = max(picture.size)
    ground = Image.new("RGBA", (largest, largest), (255, 255, 255, 255))
    ground.alpha_composite(picture, ((largest - picture.width) // 2, (largest - picture.height) // 2))
    return np.asarray(ground.convert("RGB").resize((side, side), Image.Resampling.BOX))
