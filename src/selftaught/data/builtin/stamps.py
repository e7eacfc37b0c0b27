"""`stamps`: 700 and more cut-out photographs and drawings with a caption, of Tux Paint (GPL-2+).

Debian's package tuxpaint-stamps-default (161 MB, most of it sound) brings them. Classes are the folders; letters,
digits and other symbols are left out.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from selftaught.data.builtin._entry import Entry
from selftaught.data.builtin._pictured import keep, opened, squared
from selftaught.data.combining.captioned import Captioned
from selftaught.data.debian import debian_files
from selftaught.data.mapped import build_once, cache_folder

__all__ = ["ENTRIES", "fetch_stamps", "open_stamps"]

SIDE = 96
_PACKAGE, _ROOT = "tuxpaint-stamps-default", "/usr/share/tuxpaint/stamps"
_LEFT_OUT = ("symbols/",)


def open_stamps() -> Captioned:
    """Stamps (96, 96, 3) uint8 on white with the field ``text``, classes by folder, a given split of 4 to 1.

    Raises:
        UserError: the package is nowhere, and can't be fetched.
    """
    return opened(fetch_stamps(), "stamps")


def stamps_folder() -> Path:
    """Where the pictures lie, or will lie, in the cache folder."""
    return cache_folder() / "stamps"


def fetch_stamps() -> Path:
    """The folder of the pictures, made out of Debian's package if need be.

    Raises:
        UserError: the package is nowhere, and can't be fetched.
    """
    return build_once(stamps_folder(), _build)


def _build(folder: Path) -> None:
    files = dict(debian_files(_PACKAGE, _ROOT, _wanted))
    images, names, texts, kinds = [], [], [], []
    for path in sorted(files):
        text = files.get(f"{path[:-4]}.txt")
        if not path.endswith(".png") or text is None:
            continue
        images.append(_picture(files[path]))
        names.append(path)
        texts.append(text.decode("utf-8", "replace").splitlines()[0].strip())
        kinds.append(path.partition("/")[0])
    keep(folder, images, names, texts, kinds=kinds)


def _wanted(path: str) -> bool:
    return path.endswith((".png", ".txt")) and not path.startswith(_LEFT_OUT)


def _picture(content: bytes) -> np.ndarray:
    from PIL import Image

    return squared(Image.open(io.BytesIO(content)), SIDE)


ENTRIES = (
    Entry(
        "stamps",
        "image",
        "captioned stamps of Tux Paint, 96x96 RGB, about 430 + 110",
        "Debian's tuxpaint-stamps-default",
        open_stamps,
        fetch=fetch_stamps,
        here=lambda: stamps_folder().is_dir(),
    ),
)
