"""Where text is on pictures: boxes from files or from a detector, and masks of them."""

from __future__ import annotations

import functools
import re
import weakref
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from selftaught._paths import expanded
from selftaught._reading import text_of
from selftaught.data.fields import LABEL, Field
from selftaught.data.mapped import cache_folder, kept_arrays
from selftaught.data.scaling import ValueRange, as_uint8
from selftaught.data.source import PER_SAMPLE, Source, digest
from selftaught.errors import SampleError, UserError, require

__all__ = ["LETTERING", "Lettered", "boxes_beside", "boxes_mask", "detect_text", "read_boxes"]

LETTERING = "lettering"
"""The field of the masks: 0 where text is, 1 elsewhere."""

DILATION = (8, 4)
_SIDE = 320
_NUMBERS = re.compile(r"[-+]?\d+(?:\.\d+)?")


def read_boxes(path: str | Path) -> np.ndarray:
    """Boxes from a text file, one a line: left, top, right, bottom, or x and y of four corners; what follows is text.

    Returns:
        (K, 4, 2) float32 corners (x, y) in pixels.

    Raises:
        UserError: it can't be read; a line with neither four nor eight numbers.
    """
    try:
        lines = text_of(path).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: no boxes can be read from it ({error})") from None
    found = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        values: list[float] = []
        for word in re.split(r"[,;\s]+", line.strip()):
            if len(values) == 8 or not _NUMBERS.fullmatch(word):
                break
            values.append(float(word))
        values = values[:4] if 4 <= len(values) < 8 else values
        if len(values) not in (4, 8):
            raise UserError(
                f"{path}, line {number}: a box has left, top, right, bottom, or x and y of four corners; got {line!r}"
            )
        if len(values) == 4:
            left, top, right, bottom = values
            values = [left, top, right, top, right, bottom, left, bottom]
        found.append(np.reshape(values, (4, 2)))
    return np.asarray(found, np.float32).reshape(-1, 4, 2)


def boxes_beside(root: str | Path, name: str) -> Path | None:
    """NAME.boxes.txt, or gt_NAME.txt, or NAME.txt, beside a picture of a folder; None where there is none.

    Of photo.jpg photo.jpg.boxes.txt, which tells it from photo.tif's, comes before photo.boxes.txt.
    """
    path = PurePosixPath(name)
    stem = path.with_suffix("")
    for other in (f"{path}.boxes.txt", f"{stem}.boxes.txt", str(stem.with_name(f"gt_{stem.name}.txt")), f"{stem}.txt"):
        found = Path(root) / other
        if found.is_file():
            return found
    return None


def boxes_mask(boxes: np.ndarray, height: int, width: int, *, dilation: tuple[int, int] = DILATION) -> np.ndarray:
    """m_r: 0 in the boxes and so many pixels above and below, left and right of them; 1 elsewhere.

    Args:
        boxes: (K, 4, 2) corners, or (K, 4) left, top, right, bottom.
        height: of the mask.
        width: of the mask.
        dilation: (vertically, horizontally), the paper's by default.

    Returns:
        (height, width) uint8.

    Raises:
        UserError: boxes of another shape.
    """
    import cv2

    boxes = np.asarray(boxes, np.float64)
    if boxes.size and boxes.ndim == 2 and boxes.shape[1] == 4:
        left, top, right, bottom = boxes.T
        boxes = np.stack([left, top, right, top, right, bottom, left, bottom], 1).reshape(-1, 4, 2)
    if boxes.size and (boxes.ndim != 3 or boxes.shape[1:] != (4, 2)):
        raise UserError(f"boxes {boxes.shape}: (K, 4, 2) corners, or (K, 4) left, top, right, bottom")
    text = np.zeros((height, width), np.uint8)
    for corners in boxes.reshape(-1, 4, 2):
        cv2.fillPoly(text, [np.rint(corners).astype(np.int32)], (1.0,))
    down, right_ = dilation
    if boxes.size and (down or right_):
        text = cv2.dilate(text, np.ones((2 * down + 1, 2 * right_ + 1), np.uint8)).astype(np.uint8)
    return 1 - text


@functools.cache
def _engine() -> Any:
    module: Any = require("rapidocr_onnxruntime", "ocr")
    return module.RapidOCR(intra_op_num_threads=1, det_limit_side_len=_SIDE, det_limit_type="min")


def detect_text(image: np.ndarray) -> np.ndarray:
    """Boxes of the text on a picture, by the detector of rapidocr (PP-OCRv4; extra ``ocr``).

    Args:
        image: (H, W, C) uint8, grey or RGB first.

    Returns:
        (K, 4, 2) float32 corners (x, y) in pixels.

    Raises:
        UserError: rapidocr isn't installed, or no uint8 picture.
    """
    if image.ndim != 3 or image.dtype != np.uint8:
        raise UserError(f"detect_text: a picture (H, W, C) uint8, got {image.dtype} {image.shape}")
    colour = image[:, :, 2::-1] if image.shape[2] >= 3 else np.repeat(image[:, :, :1], 3, 2)
    found, _ = _engine()(np.ascontiguousarray(colour), use_cls=False, use_rec=False)
    return np.asarray(found if found is not None else [], np.float32).reshape(-1, 4, 2)


_BESIDE: weakref.WeakKeyDictionary[Source, bool] = weakref.WeakKeyDictionary()


def _any_beside(source: Source) -> bool:
    """Whether a file of boxes lies beside any picture; looked for once, for without one that asks for every picture."""
    if source not in _BESIDE:
        root = getattr(source, "root", None)
        _BESIDE[source] = root is not None and any(boxes_beside(root, name) for name in source.names)
    return _BESIDE[source]


class Lettered(Source):
    """The pictures of a source with a field "lettering": a mask of the text on each, 0 where it is."""

    def __init__(self, source: Source, boxes: str = "auto", *, dilation: tuple[int, int] = DILATION) -> None:
        """Give pictures their masks.

        Args:
            source: of pictures.
            boxes: a folder with NAME.boxes.txt, gt_NAME.txt or NAME.txt for each picture; "detect" (rapidocr); "none";
                "auto": beside the pictures where at least one file lies there, else detected.
            dilation: see :func:`boxes_mask`.

        Raises:
            UserError: no such folder; the detector is needed and not installed.
        """
        self.source, self.boxes, self.dilation = source, boxes, dilation
        self.name, self.names, self.modality = source.name, source.names, source.modality
        self.channels, self.depth, self.generated = source.channels, source.depth, source.generated
        self.bands = source.bands
        self.classes, self.values, self.notes = source.classes, source.values, [*source.notes]
        for attribute in PER_SAMPLE:
            setattr(self, attribute, getattr(source, attribute))
        root = getattr(source, "root", None)
        if boxes == "auto":
            beside = _any_beside(source)
            self.boxes = boxes = "beside" if beside else "detect"
            self.notes.append("text boxes: " + ("files beside the pictures" if beside else "found by rapidocr"))
        self.folder = root if boxes == "beside" else None
        if boxes == "detect":
            require("rapidocr_onnxruntime", "ocr")
        elif boxes not in ("none", "beside"):
            self.folder = expanded(boxes)
            if not self.folder.is_dir():
                raise UserError(f"boxes {boxes}: no such folder; name one with NAME.boxes.txt, or auto, detect, none")
            if not any(boxes_beside(self.folder, name) for name in self.names):
                raise UserError(f"boxes {boxes}: no NAME.boxes.txt for any picture of {source.name}")

    @property
    def fields(self) -> dict[str, Field]:
        """The picture, its mask, then whatever else the source has."""
        main, *others = self.source.fields.items()
        kept = {name: field for name, field in others if name != LABEL or self.labels is not None}
        return {main[0]: main[1], LETTERING: Field("mask")} | kept

    def read(self, i: int, min_side: int | None = None) -> np.ndarray:
        """The picture; see `Source.read`."""
        return self.source.read(i, min_side)

    def files(self, i: int) -> list[Path]:
        """The file of one picture's boxes; none where they come from no file."""
        path = None if self.folder is None else boxes_beside(self.folder, self.names[i])
        return [] if path is None else [path]

    def corners(self, i: int, image: np.ndarray | None = None) -> np.ndarray:
        """The boxes of one picture, (K, 4, 2); those that are detected are kept in the cache folder.

        Raises:
            SampleError: its file is broken, or the picture can't be read.
        """
        if self.boxes == "none":
            return np.zeros((0, 4, 2), np.float32)
        if self.folder is not None:
            path = boxes_beside(self.folder, self.names[i])
            try:
                return np.zeros((0, 4, 2), np.float32) if path is None else read_boxes(path)
            except UserError as error:
                raise SampleError(self.names[i], str(error)) from error
        picture = as_uint8(self.source.read(i) if image is None else image, self.source.value_range)
        key = digest("text boxes 1", picture, list(map(str, picture.shape)))
        kept = kept_arrays(cache_folder() / "text-boxes" / f"{key}.npz", lambda: {"boxes": detect_text(picture)})
        return kept["boxes"]

    def _field(self, name: str, i: int, min_side: int | None, frames: np.ndarray | None) -> Any:
        if name == LABEL and self.labels is not None:
            return int(self.labels[i])
        if name != LETTERING:
            return self.source.sample(i, [name])[name]
        image = self.source.read(i)
        return boxes_mask(self.corners(i, image), *image.shape[:2], dilation=self.dilation)

    @property
    def value_range(self) -> ValueRange | None:
        """The source's."""
        return self.source.value_range

    def range_of(self, field: str) -> ValueRange | None:
        """The source's, of any field but the mask."""
        return None if field == LETTERING else self.source.range_of(field)

    def any_depth(self) -> None:
        """Of the source."""
        super().any_depth()
        self.source.any_depth()

    def origin(self) -> str:
        """The source's."""
        return self.source.origin()

    def fingerprint(self) -> str:
        """Of the source, and of the files of boxes."""
        files = [] if self.folder is None else [boxes_beside(self.folder, name) for name in self.names]
        content = [path.read_bytes().hex() if path is not None else "" for path in files]
        return digest("lettered", self.source.fingerprint(), self.boxes, content, list(map(str, self.dilation)))
