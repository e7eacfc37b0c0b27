"""From whatever a user gives - a path, a name, an array, a Dataset - to a source and one of its splits."""

from __future__ import annotations

import glob
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from selftaught.data import datasets, hf, series, shards, timeseries
from selftaught.data.arrays import open_image_arrays, open_npy
from selftaught.data.decoding import IMAGE_SUFFIXES
from selftaught.data.embedded import EMBEDDED_NAMES, embedded_builder, embedded_modality
from selftaught.data.files import holds_any, open_files, open_folder, open_glob
from selftaught.data.imbalance import long_tail
from selftaught.data.label_noise import mislabelled
from selftaught.data.source import Modality, Source
from selftaught.data.spec import call, near, parse
from selftaught.data.splits import split_source, take
from selftaught.errors import UserError


def open_source(
    spec: Any,
    *,
    modality: Modality | None = None,
    split: str = "train",
    by: str = "auto",
    seed: int = 0,
    n: int | None = None,
    **options: Any,
) -> Source:
    """Open a source of samples and take one split of it.

    Args:
        spec: what to open. A string may end in options, ``watch?window=100&step=50``; those given as arguments win.

            - an embedded name (`EMBEDDED_NAMES`); where a file or folder of that name is at hand, that is meant, and
            ``embedded:photos`` is the embedded one;
            - a folder, a glob pattern or a file of images (jpg png webp tiff bmp npy), or a list of files;
            - a .npz file or a dict of arrays (MedMNIST's layout, or ``images``/``x`` and ``labels``/``y``), a .npy
              file, an array, a tensor;
            - ``hf:NAME``, ``torchvision:NAME``, ``wds:PATTERN``, any map-style torch Dataset, one of Hugging Face,
              a `Source`;
            - series: .npz, .npy, a folder of .csv, a .ts file (with its pair) or a folder of them.
        modality: "image" or "series"; None: what the name, the suffix or the folder's files imply, else images.
        split: "train", "test", "val" (where the source brings one) or "all".
        by: how the splits are told apart: "auto" (given, else group, else ratio:0.2), "given", "ratio:0.2", "group",
            "list:FILE".
        seed: of the draw of a split and of `n`.
        n: at most so many samples of the split, evenly over the classes.
        **options: of the kind of source; an unknown one is an error that lists them. ``channels`` (images),
            ``window``, ``step`` ... Every labelled source takes ``imbalance``: 0.01, linear or exponential makes the
            classes of its training part uneven, after `n`; see `selftaught.data.imbalance.long_tail`. ``wrong_labels``:
            0.2, or 0.6:0,1,2 for some classes, makes labels of its training part wrong; see
            `selftaught.data.label_noise.mislabelled`.

    Returns:
        A source that `len`, `read(i)` and a DataLoader worker can take.

    Raises:
        UserError: one line: no such path, nothing in it, an unknown name or option, a split that can't be made.
    """
    text: dict[str, Any] = {}
    if isinstance(spec, str):
        where, text = parse(spec)
        by, seed = str(text.pop("by", by)), _whole(where, "seed", text.pop("seed", seed))
        n = _whole(where, "n", text.pop("n")) if n is None and "n" in text else n
        spec = where
    merged = {**text, **options}
    imbalance, wrong = merged.pop("imbalance", None), merged.pop("wrong_labels", None)
    source = _open(spec, modality, merged)
    _same_modality(source.name, source.modality, modality)
    if not len(source):
        raise UserError(f"{source.name}: there is no sample in it")
    chosen = split_source(source, split, by, seed)
    chosen = chosen if n is None else take(chosen, n, seed)
    if split in ("train", "all"):
        chosen = chosen if imbalance is None else long_tail(chosen, imbalance, seed)
        chosen = chosen if wrong is None else mislabelled(chosen, str(wrong), seed)
    return chosen


def _open(spec: Any, modality: Modality | None, options: dict[str, Any]) -> Source:
    if isinstance(spec, Source):
        return _without_options(spec, options)
    if isinstance(spec, str | Path):
        return _open_text(str(spec), modality, options)
    if isinstance(spec, list | tuple) and spec and all(isinstance(s, str | Path) for s in spec):
        return call(open_files, "a list of files", options, spec, f"{len(spec)} files")
    if type(spec).__module__.startswith("datasets."):
        return call(hf.open_huggingface, type(spec).__name__, options, spec, modality or "image")
    if isinstance(spec, np.ndarray | Mapping) or type(spec).__name__ == "Tensor":
        opener = series.open_series_arrays if modality == "series" else open_image_arrays
        return call(opener, "arrays", options, spec, "arrays")
    if hasattr(spec, "__getitem__") or hasattr(spec, "__iter__"):
        return call(datasets.open_dataset, type(spec).__name__, options, spec, modality or "image")
    raise UserError(
        f"a {type(spec).__name__} is no source; give a path, a name, an array, a dict of arrays or a torch Dataset"
    )


def _open_text(spec: str, modality: Modality | None, options: dict[str, Any]) -> Source:
    scheme, _, rest = spec.partition(":")
    name = rest if scheme == "embedded" else spec
    if name in EMBEDDED_NAMES and (scheme == "embedded" or not Path(spec).exists()):
        _same_modality(name, embedded_modality(name), modality)
        return call(embedded_builder(name), name, options)
    if scheme == "hf" and rest:
        return call(hf.open_huggingface, spec, options, rest, modality or "image")
    if scheme == "torchvision" and rest:
        return call(datasets.open_torchvision, spec, options, rest)
    if scheme == "wds" and rest:
        return call(shards.open_shards, spec, options, os.path.expanduser(rest))
    path = Path(spec).expanduser()
    if path.is_dir():
        return _open_folder(path, spec, modality, options)
    if path.is_file():
        return _open_file(path, spec, modality, options)
    if glob.has_magic(spec):
        return call(open_glob, spec, options, str(path))
    raise UserError(_not_found(spec))


def _open_folder(path: Path, spec: str, modality: Modality | None, options: dict[str, Any]) -> Source:
    name = f"{path.resolve().name}/"
    if (path / "dataset_dict.json").exists() or (path / "state.json").exists():
        return call(hf.open_huggingface, spec, options, str(path), modality or "image")
    if modality == "series" or (modality is None and not holds_any(path, IMAGE_SUFFIXES)):
        if any(path.glob("*.ts")):
            return call(timeseries.open_ts, spec, options, path, name)
        if modality == "series" or holds_any(path, series.TABLE_SUFFIXES):
            return call(series.open_tables, spec, options, path, name)
    return call(open_folder, spec, options, path, name)


def _open_file(path: Path, spec: str, modality: Modality | None, options: dict[str, Any]) -> Source:
    suffix = path.suffix.lower()
    if suffix == ".ts":
        return call(timeseries.open_ts, spec, options, path, path.name)
    if suffix == ".tar":
        return call(shards.open_shards, spec, options, str(path))
    if suffix in series.TABLE_SUFFIXES:
        return call(series.open_tables, spec, options, path, path.name)
    if suffix in (".npz", ".npy") and modality == "series":
        return call(series.open_series_arrays, spec, options, path, path.name)
    if suffix == ".npz":
        return call(open_image_arrays, spec, options, path, path.name)
    if suffix == ".npy":
        return call(open_npy, spec, options, path, path.name)
    if suffix in IMAGE_SUFFIXES:
        return call(open_files, spec, options, [path], path.name)
    known = " ".join((*IMAGE_SUFFIXES, ".npz", ".ts", ".csv", ".tar"))
    raise UserError(f"{spec}: can't tell what this file holds by its suffix; can read {known}")


def _not_found(spec: str) -> str:
    bare = spec.rstrip("/")
    if bare in EMBEDDED_NAMES:
        return f"{spec}: no such file or folder; for the embedded data set write {bare}"
    if "/" in bare or "\\" in bare or "." in bare:
        parent = Path(bare).expanduser().parent
        try:
            beside = near(Path(bare).name, os.listdir(parent)) if parent.is_dir() else ""
        except OSError:
            beside = ""
        return f"{spec}: no such file or folder{beside}"
    found = near(bare, EMBEDDED_NAMES)
    there = ", ".join(EMBEDDED_NAMES)
    return f"{spec}: no such file or folder, and no embedded data set of that name{found}; there are {there}"


def _same_modality(name: str, held: Modality, wanted: Modality | None) -> None:
    if wanted is not None and held != wanted:
        raise UserError(f"{name} holds {held} samples, not {wanted}; choose a method for {held}")


def _without_options(source: Source, options: dict[str, Any]) -> Source:
    if options:
        raise UserError(f"{source.name} is open already; it takes no option {next(iter(options))!r}")
    return source


def _whole(where: str, name: str, value: Any) -> int:
    try:
        return int(value)
    except (TypeError, ValueError):
        raise UserError(f"{where}: {name}={value!r} must be a whole number") from None
