"""Samples out of other people's data-set classes: any map-style torch Dataset, and torchvision's by name."""

from __future__ import annotations

import inspect
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from selftaught.data.decoding import is_pillow
from selftaught.data.files import file_stamps
from selftaught.data.image_source import ImageSource
from selftaught.data.kinds import kind_of
from selftaught.data.labelling import labelling
from selftaught.data.mapped import cache_folder
from selftaught.data.source import TEST, TRAIN, Modality, digest
from selftaught.data.spec import near
from selftaught.errors import SampleError, UserError

_LABEL_ATTRIBUTES = ("targets", "labels", "_labels", "y")
_SAMPLE_KEYS = ("image", "img", "images", "pixel_values", "series", "x")
_LABEL_KEYS = ("label", "labels", "target", "y", "fine_label")
_TIMEOUT_S, _LOOKED_AT = 15.0, 64


class DatasetSource(ImageSource):
    """Samples of one or several torch Datasets that follow each other.

    A sample that is a list (or a tuple within the item) of images brings its own views; the first one is what `read`
    gives. An item is a tensor, array or Pillow image, a tuple that starts with (sample, label), or a dict with
    "image"/"x"/... and "label"/"y". Labels come from the data set's own list (``targets``, ``labels``); without one
    every item is read once when the source is opened: hand over `labels` to spare that.
    """

    def __init__(
        self,
        parts: dict[str, Any],
        name: str,
        modality: Modality = "image",
        labels: Any = None,
        channels: int | None = None,
    ) -> None:
        """Args: data sets by split ("" where there is one only); name; kind of samples; labels (n,); channels to force
        or None.
        """
        self.parts, self.name, self.modality = parts, name, modality
        self._starts = np.cumsum([0] + [len(p) for p in parts.values()])
        self._splits = list(parts)
        self.names = [f"{split}/{name}" if split else name for split, part in parts.items() for name in _names(part)]
        if len(parts) > 1:
            codes = {"train": TRAIN, "test": TEST}
            self.given = np.concatenate([np.full(len(p), codes[s], dtype=np.int8) for s, p in parts.items()])
        self._find_labels(labels)
        self.convert = channels is not None
        first = self._first()
        self.channels = channels if channels is not None else kind_of(modality).channels(first)
        self.bands = self.modality == "image" and first.shape[2] == 4 and not self._pictures
        self.depth = str(first.dtype) if modality != "series" else None

    def _item(self, i: int) -> Any:
        part = int(np.searchsorted(self._starts, i, side="right")) - 1
        try:
            return self.parts[self._splits[part]][int(i - self._starts[part])]
        except Exception as error:
            raise SampleError(self.names[i], f"{type(error).__name__}: {' '.join(str(error).split())[:100]}") from None

    def _load(self, i: int, min_side: int | None) -> np.ndarray:
        value = sample_of(self._item(i))
        return kind_of(self.modality).adopt(value.detach().cpu() if hasattr(value, "detach") else value, self.names[i])

    def brought(self, i: int) -> list[np.ndarray] | None:
        """The views that a sample brings; see `Source.brought`."""
        if not self._brings:
            return None
        views = views_in(self._item(i))
        if views is None:
            raise SampleError(self.names[i], "no list of views, as the first samples have")
        adopt = kind_of(self.modality).adopt
        arrays = [v.detach().cpu() if hasattr(v, "detach") else v for v in views]
        return [self._conformed(adopt(array, self.names[i]), i) for array in arrays]

    def _is_uint8(self) -> bool:
        return self.depth == "uint8"

    def _first(self) -> np.ndarray:
        for i in range(min(len(self), 100)):
            try:
                first = self._load(i, None)
                self._pictures = is_pillow(sample_of(self._item(i)))
                self._brings = self.modality == "image" and views_in(self._item(i)) is not None
                return first
            except SampleError as error:
                last = error
        raise UserError(f"{self.name}: none of its first samples can be read ({last})")

    def _find_labels(self, labels: Any) -> None:
        found = [labels_of(part) for part in self.parts.values()] if labels is None else [np.asarray(labels)]
        if any(f is None for f in found):
            found = [self._scan_labels()]
        if all(f is not None for f in found):
            values = np.concatenate([np.asarray(f) for f in found])
            if len(values) != len(self):
                raise UserError(f"{self.name}: {len(values)} labels for {len(self)} samples")
            names = getattr(next(iter(self.parts.values())), "classes", None)
            meant = labelling(values, names, self.given, combine=False)
            self.labels, self.classes, self.targets, self.given, self.notes = meant

    def _scan_labels(self) -> np.ndarray | None:
        values: list[Any] = []
        broken = []
        for i in range(len(self)):
            try:
                value = label_in(self._item(i))
            except SampleError:
                broken.append(i)
                value = 0
            if value is None or np.ndim(value) > 0:
                return None
            values.append(value.item() if hasattr(value, "item") else value)
        for i in broken:  # never read again, so any label that occurs will do
            values[i] = next((v for k, v in enumerate(values) if k not in broken), 0)
        return np.asarray(values)

    def fingerprint(self) -> str:
        """Of the names, the labels and the content: of arrays and files that the data set lists all, else of 64 samples
        spread over it, since a data set's class can't say more.
        """
        content: list[str] = []
        for part in self.parts.values():
            held = getattr(part, "data", None)
            if isinstance(held, np.ndarray) or hasattr(held, "detach"):
                content.append(digest(np.asarray(held)))
            elif paths := _files(part):
                content.append(digest(file_stamps(Path("/"), [os.path.abspath(path) for path in paths])))
        if len(content) < len(self.parts):
            for i in np.unique(np.linspace(0, len(self) - 1, min(_LOOKED_AT, len(self))).astype(np.int64)).tolist():
                try:
                    content.append(digest(self._load(i, None)))
                except SampleError as error:
                    content.append(error.reason)
        names = [*self.names, *(self.classes or [])]
        return digest("dataset", self.name, names, self.labels, self.targets, content, self.channels)


def _files(dataset: Any) -> list[str] | None:
    """The files of a data set that lists them as torchvision's do, (path, class) pairs; None of any other."""
    listed = getattr(dataset, "samples", None)
    if not isinstance(listed, list) or len(listed) != len(dataset):
        return None
    paths = [row[0] if isinstance(row, tuple) else row for row in listed]
    return [str(path) for path in paths] if all(isinstance(path, str | Path) for path in paths) else None


def _names(dataset: Any) -> list[str]:
    """The names on disk where the data set lists its files, from the folder that all share, else numbers."""
    paths = _files(dataset)
    if not paths or len(set(paths)) < len(paths):
        return [f"{i:05d}" for i in range(len(dataset))]
    root = os.path.commonpath([os.path.dirname(os.path.abspath(path)) for path in paths])
    return [Path(os.path.relpath(path, root)).as_posix() for path in paths]


def sample_of(item: Any) -> Any:
    """The image or series in an item of a data set: of a tuple the first, of a dict the one under a well-known name."""
    views = views_in(item)
    if views is not None:
        return views[0]
    if isinstance(item, dict):
        return item[next((k for k in _SAMPLE_KEYS if k in item), next(iter(item)))]
    return item[0] if isinstance(item, tuple | list) else item


def views_in(item: Any) -> list[Any] | None:
    """The views that an item brings: ``[v1, v2]``, ``([v1, v2], label)`` or a dict with such a list; None without."""
    held = item
    if isinstance(item, dict):
        held = item[next((k for k in _SAMPLE_KEYS if k in item), next(iter(item)))]
    elif isinstance(item, tuple):
        held = item[0] if item and isinstance(item[0], tuple | list) else None
    if not isinstance(held, tuple | list) or len(held) < 2:
        return None
    return list(held) if all(hasattr(v, "getbands") or len(getattr(v, "shape", ())) in (2, 3) for v in held) else None


def label_in(item: Any) -> Any:
    """The label in an item of a data set, or None."""
    if isinstance(item, dict):
        return next((item[k] for k in _LABEL_KEYS if k in item), None)
    if isinstance(item, list) and views_in(item) is not None:
        return None
    return item[1] if isinstance(item, tuple | list) and len(item) > 1 else None


def labels_of(dataset: Any) -> np.ndarray | None:
    """The labels that a data set lists without being read, through Subset and TensorDataset as well; None without such
    a list.
    """
    if hasattr(dataset, "indices") and hasattr(dataset, "dataset"):
        inner = labels_of(dataset.dataset)
        return None if inner is None else inner[np.asarray(dataset.indices)]
    if hasattr(dataset, "tensors") and len(dataset.tensors) > 1:
        return np.asarray(dataset.tensors[1])
    for attribute in _LABEL_ATTRIBUTES:
        values = getattr(dataset, attribute, None)
        if values is not None and not callable(values) and hasattr(values, "__len__") and len(values) == len(dataset):
            return np.asarray(values)
    return None


def open_dataset(
    dataset: Any,
    modality: Modality = "image",
    *,
    labels: Any = None,
    channels: int | None = None,
    name: str | None = None,
) -> DatasetSource:
    """Any map-style torch Dataset as a source.

    Args:
        dataset: has ``__len__`` and ``__getitem__``.
        modality: what its samples are.
        labels: (n,), where the data set doesn't list them and reading every item for them takes too long.
        channels: channels that every image shall have.
        name: what to call it; None: the name of its class.

    Raises:
        UserError: it can only be iterated, or it is empty.
    """
    if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
        raise UserError(f"{type(dataset).__name__} has no length or no items by index; give a map-style Dataset")
    if not len(dataset):
        raise UserError(f"{type(dataset).__name__} is empty")
    return DatasetSource({"": dataset}, name or type(dataset).__name__, modality, labels, channels)


def open_torchvision(
    name: str, *, root: str | None = None, channels: int | None = None, **options: Any
) -> DatasetSource:
    """``torchvision:NAME``: a data set of torchvision by the name of its class, upper or lower case.

    Args:
        name: the class ("FashionMNIST", "CIFAR10", "FakeData").
        root: folder that holds it; None: ``torchvision`` in the cache folder. It is downloaded there if it is missing
            and torchvision can.
        channels: channels that every image shall have.
        **options: handed to the class (``size=20``, ``split="extra"``).

    Raises:
        UserError: there is no such class, or it is neither in `root` nor to be had by download.
    """
    from torchvision import datasets

    classes = {n.lower(): n for n in datasets.__all__ if n != "VisionDataset"}  # what the others inherit
    if name.lower() not in classes:
        raise UserError(f"torchvision has no data set {name!r}{near(name, datasets.__all__)}")
    name = classes[name.lower()]
    build = getattr(datasets, name)
    known = inspect.signature(build.__init__).parameters
    folder = Path(root) if root else cache_folder() / "torchvision"

    def make(**split: Any) -> Any:
        return _construct(build, known, folder, {**options, **split}, name)

    if "train" in known and "train" not in options:
        parts = {"train": make(train=True), "test": make(train=False)}
    elif "split" in known and "split" not in options and "test" in _split_names(build):
        parts = {"train": make(split="train"), "test": make(split="test")}
    else:
        parts = {"": make()}
    source = DatasetSource(parts, f"torchvision:{name}", "image", None, channels)
    source.generated = name == "FakeData"
    return source


def _split_names(build: Any) -> str:
    """Where torchvision's classes say which splits they have: the parameter's default or the class's documentation."""
    return f"{inspect.signature(build.__init__).parameters['split'].default} {build.__doc__}"


def _construct(build: Callable[..., Any], known: Any, folder: Path, options: dict[str, Any], name: str) -> Any:
    where = {"root": str(folder)} if "root" in known else {}
    unknown = [k for k in options if k not in known]
    if unknown:
        raise UserError(f"torchvision:{name} has no option {unknown[0]!r}{near(unknown[0], known)}")
    try:
        if "download" not in known:
            return build(**where, **options)
        try:
            return build(**where, **options, download=False)
        except (RuntimeError, FileNotFoundError):
            folder.mkdir(parents=True, exist_ok=True)
            with short_timeout():
                return build(**where, **options, download=True)
    except (TypeError, KeyError) as error:
        raise UserError(f"torchvision:{name}: {' '.join(str(error).split())[:150]}") from None
    except Exception as error:
        reason = " ".join(str(error).split())[:100]
        raise UserError(
            f"torchvision:{name} is not in {folder} and can't be downloaded ({reason}); put its files there"
        ) from None


@contextmanager
def short_timeout(seconds: float = _TIMEOUT_S) -> Iterator[None]:
    """Let connections that are opened meanwhile give up after `seconds` of silence."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
