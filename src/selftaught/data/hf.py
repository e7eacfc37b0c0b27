"""Hugging Face data sets: from the hub, or from a folder that they were saved to."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from selftaught._words import plural
from selftaught.data.combining.captioned import Captioned, captions_in
from selftaught.data.decoding import fourth_is_alpha, is_pillow, read_bytes
from selftaught.data.files import file_stamps
from selftaught.data.image_source import ImageSource
from selftaught.data.kinds import kind_of
from selftaught.data.labelling import labelling
from selftaught.data.pixels import choose_channels, refuse_band
from selftaught.data.scaling import common_depth
from selftaught.data.source import TEST, TRAIN, UNLABELLED, VAL, Modality, digest
from selftaught.data.spec import near
from selftaught.errors import SampleError, UserError, require

_SPLITS = {
    "train": TRAIN, "validation": VAL, "valid": VAL, "val": VAL, "test": TEST, "unlabeled": UNLABELLED,
    "unlabelled": UNLABELLED, "unsupervised": UNLABELLED,
}  # fmt: skip
_SAMPLES = {
    "image": ("image", "img", "images", "pixel_values", "picture"),
    "series": ("series", "x", "signal", "values", "data"),
    "text": ("text", "caption", "captions", "sentence", "report"),
}
_LABELS = ("label", "labels", "fine_label", "target", "y", "class")


class HuggingFaceSource(ImageSource):
    """Rows of Arrow tables that stay on disk; the encoded images in them are decoded when asked for."""

    def __init__(
        self,
        tables: dict[str, Any],
        name: str,
        modality: Modality,
        sample: str,
        label: str | None,
        channels: int | None,
    ) -> None:
        """Args: tables by split; name; kind; columns of samples and labels; channels to force or None."""
        self.tables, self.name, self.modality, self._column = tables, name, modality, sample
        self._order = list(tables)
        self._starts = np.cumsum([0] + [len(t) for t in tables.values()])
        self._paths = {split: _paths(table, sample) for split, table in tables.items()}
        self.names = [n for split, table in tables.items() for n in _names(split, self._paths[split], len(table))]
        if len(tables) > 1:
            self.given = np.concatenate([np.full(len(t), _SPLITS[s], dtype=np.int8) for s, t in tables.items()])
        if label is not None:
            values = np.concatenate([np.asarray(table[label][:]) for table in tables.values()])
            names = getattr(next(iter(tables.values())).features[label], "names", None)
            found = labelling(values, names, self.given, combine=False)
            self.labels, self.classes, self.targets, self.given, self.notes = found
        self.convert = channels is not None
        self._probe(channels)

    def _probe(self, channels: int | None) -> None:
        kind = kind_of(self.modality)
        if kind.channel_axis is None:
            return
        shapes: list[int] = []
        types: list[str] = []
        bands = False
        for i in np.unique(np.linspace(0, len(self) - 1, min(16, len(self))).astype(np.int64)):
            try:
                sample = self._load(int(i), None)
            except SampleError:
                continue
            shapes.append(kind.channels(sample) or 1)
            types.append(str(sample.dtype))
            bands |= shapes[-1] == 4 and not self._alpha(int(i))
        self.depth, self.bands = common_depth(types) if kind.pixels else None, bands and self.modality == "image"
        self.channels = channels if channels is not None else choose_channels(shapes or [3], self.bands)
        self.bands &= self.channels == 4

    def _value(self, i: int) -> Any:
        """What the table holds: the bytes of a file, a Pillow image or an array."""
        part = int(np.searchsorted(self._starts, i, side="right")) - 1
        value = self.tables[self._order[part]][int(i - self._starts[part])][self._column]
        if value is None or (isinstance(value, dict) and value.get("bytes") is None and not value.get("path")):
            raise SampleError(self.names[i], "missing")
        if isinstance(value, dict):
            data = value.get("bytes")
            return data if data is not None else read_bytes(Path(value.get("path") or ""), self.names[i])
        return value

    def _alpha(self, i: int) -> bool:
        """Whether a fourth channel is transparency."""
        value = self._value(i)
        return fourth_is_alpha(value) if isinstance(value, bytes) else is_pillow(value)

    def _load(self, i: int, min_side: int | None) -> np.ndarray:
        value = self._value(i)
        if isinstance(value, bytes):
            return self._decoded(value, i, min_side)
        sample = kind_of(self.modality).adopt(value, self.names[i])
        if self.modality == "image" and self.channels not in (None, 4) and not is_pillow(value):
            refuse_band(sample, self.names[i])
        return sample

    def _is_uint8(self) -> bool:
        return self.depth == "uint8"

    def fingerprint(self) -> str:
        """Of the fingerprints that the tables carry, the labels, and the files that lie beside them."""
        tables = [str(t._fingerprint) for t in self.tables.values()]
        stamps = [file_stamps(Path("/"), paths) for paths in self._paths.values() if paths]
        names = [*self.names, *(self.classes or [])]
        return digest("hf", tables, names, self.labels, self.targets, self.channels, *stamps)


def open_huggingface(
    data: Any,
    modality: Modality = "image",
    *,
    config: str | None = None,
    column: str | None = None,
    image: str | None = None,
    label: str | None = None,
    channels: int | None = None,
    text: str | None = None,
) -> HuggingFaceSource | Captioned:
    """``hf:NAME``: a data set of the hub, or a local folder: one that ``save_to_disk`` wrote, or one that
    ``load_dataset`` understands.

    Args:
        data: name on the hub, a path, or a ``Dataset`` or ``DatasetDict`` in memory.
        modality: "image", "series" for columns of numbers, or "text".
        config: which configuration of the data set.
        column: column of the samples; None: the one of type Image, else one with a usual name.
        image: the same as `column`, for images.
        label: column of the labels; None: the one of type ClassLabel, else one with a usual name, else no labels.
        channels: channels that every image shall have.
        text: column of the images' captions, one or a list each; None: the first of text with a usual name, else none.

    Raises:
        UserError: no such data set, no such column, one that is streamed, or the package is missing.
    """
    if column is not None and image is not None:
        raise UserError(f"hf: column={column} and image={image} name the same thing; give one of them")
    if modality not in _SAMPLES:
        raise UserError(f"hf: can read {' and '.join(_SAMPLES)} columns, not {modality}")
    hub: Any = require("datasets", "hf")
    name = data if isinstance(data, str) else type(data).__name__
    loaded = _load_any(hub, data, config) if isinstance(data, str) else data
    found = dict(loaded) if isinstance(loaded, dict) else {"train": loaded}
    if any(not hasattr(table, "__len__") for table in found.values()):
        raise UserError(
            f"hf:{name} is streamed, and samples must be read in any order; load it without streaming=True, or save "
            "some of it with Dataset.from_list(list(stream.take(10000))).save_to_disk(FOLDER)"
        )
    first = next(iter(found))
    tables = {split: t for split, t in found.items() if split in _SPLITS and len(t)} or {"train": found[first]}
    used = [split for split in found if split in tables] or [first]
    features = next(iter(tables.values())).features
    sample = _pick(
        name, column or image, features, hub.Image if modality == "image" else None, _SAMPLES[modality], "samples"
    )
    assert sample is not None
    labels = _pick(name, label, features, hub.ClassLabel, _LABELS, None)
    spoken = _pick_captions(name, text, features, sample) if modality == "image" else None
    texts = [captions_in(cell) for table in tables.values() for cell in table[spoken][:]] if spoken else []
    if isinstance(features[sample], hub.Image):
        tables = {split: table.cast_column(sample, hub.Image(decode=False)) for split, table in tables.items()}
    keep = [sample] if labels is None else [sample, labels]
    tables = {split: table.select_columns(keep) for split, table in tables.items()}
    source = HuggingFaceSource(tables, f"hf:{name}", modality, sample, labels, channels)
    lost = {f"in the split {split}": len(table) for split, table in found.items() if split not in used and len(table)}
    if lost:
        source.left_out = lost
        source.notes = [
            *source.notes,
            *(f"left out: {plural(count, 'sample')} {where}" for where, count in lost.items()),
        ]
    if any(texts):
        return Captioned(source, texts)
    if text is not None:
        raise UserError(f"hf:{name}: no caption in the column {text}; it may hold texts, or lists of texts")
    return source


def _pick_captions(name: str, asked: str | None, features: Any, sample: str) -> str | None:
    """The column of captions that was asked for, or the first of texts (or lists of texts) with a usual name."""
    if asked is not None:
        return _pick(name, asked, features, None, (), None)
    usual = (*_SAMPLES["text"], "sentences", "alt_text", "description")
    return next((c for c in usual if c in features and c != sample and _holds_text(features[c])), None)


def _holds_text(feature: Any) -> bool:
    inner = getattr(feature, "feature", feature)
    if isinstance(inner, list):
        inner = inner[0]
    return getattr(inner, "dtype", None) in ("string", "large_string")


def _paths(table: Any, column: str) -> list[str] | None:
    """Where the images of a column lie on this machine, absolute, or None where some lie in the table itself."""
    cells = table.data.column(column)
    kind = cells.type
    if table._indices is not None or not hasattr(kind, "get_field_index") or kind.get_field_index("path") < 0:
        return None
    import pyarrow.compute as pc

    paths = pc.struct_field(cells, "path").to_pylist()
    return paths if paths and all(p is not None and Path(p).is_absolute() for p in paths) else None


def _names(split: str, paths: list[str] | None, n: int) -> list[str]:
    """The names on disk, from the folder that all share, where there are some; else numbers."""
    if not paths or len(set(paths)) < n:
        return [f"{split}/{i:05d}" for i in range(n)]
    root = os.path.commonpath([os.path.dirname(path) for path in paths])
    below = [os.path.relpath(path, root) for path in paths]
    return [f"{split}/{Path(name).as_posix()}" for name in below]


def _load_any(hub: Any, name: str, config: str | None) -> Any:
    path = Path(name)
    hub.disable_progress_bars()
    try:
        if (path / "dataset_dict.json").exists() or (path / "state.json").exists():
            return hub.load_from_disk(name)
        if path.is_dir():
            suffixes = {p.suffix.lower() for p in path.rglob("*") if p.is_file()}
            if suffixes & {".parquet", ".arrow", ".jsonl"}:
                return hub.load_dataset(name, config)
            return hub.load_dataset("imagefolder", data_dir=name)
        return hub.load_dataset(name, config)
    except Exception as error:
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise UserError(f"hf:{name}: neither a folder here nor to be had from the hub ({reason})") from None


def _pick(
    name: str, asked: str | None, features: Any, kind: Any, usual: tuple[str, ...], what: str | None
) -> str | None:
    if asked is not None:
        if asked not in features:
            raise UserError(f"hf:{name} has no column {asked!r}{near(asked, features)}; it has {', '.join(features)}")
        return asked
    typed = [c for c, f in features.items() if kind is not None and isinstance(f, kind)]
    found = next(iter(typed), None) or next((c for c in usual if c in features), None)
    if found is None and what is not None:
        raise UserError(f"hf:{name}: which column holds the {what}? Say column=NAME; it has {', '.join(features)}")
    return found
