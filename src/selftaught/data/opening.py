"""From whatever a user gives - a path, a name, an array, a Dataset - to a source and one of its splits."""

from __future__ import annotations

import glob
import inspect
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np

from selftaught._paths import expanded
from selftaught.data import datasets, hf
from selftaught.data.class_choice import of_classes
from selftaught.data.combining import Captioned, Concat, Mapped, Pairs
from selftaught.data.combining.captioned import TEXT
from selftaught.data.combining.mapped import Adopt
from selftaught.data.corrections import corrected, read_corrections
from selftaught.data.decoding import IMAGE_SUFFIXES
from selftaught.data.embedded import EMBEDDED_NAMES, embedded_builder, embedded_modality
from selftaught.data.files import globbed, holds_any
from selftaught.data.formats import FORMATS, Build
from selftaught.data.imbalance import long_tail
from selftaught.data.kinds import KINDS, kind_of
from selftaught.data.label_noise import mislabelled
from selftaught.data.selection import select
from selftaught.data.source import Modality, Source
from selftaught.data.spec import call, near, parse, several
from selftaught.data.splits import split_source, take
from selftaught.data.target_file import with_targets
from selftaught.data.tones import toned
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

            - the name of a built-in data set (`EMBEDDED_NAMES`); where a file or folder of that name is at hand, it is
            meant, and ``embedded:photos`` is the built-in one;
            - a folder, a glob pattern or a file of images (jpg png webp tiff bmp npy), or a list of files;
            - a .npz file or a dict of arrays (MedMNIST's layout, or ``images``/``x`` and ``labels``/``y``), a .npy
              file, an array, a tensor;
            - ``hf:NAME``, ``torchvision:NAME``, ``wds:PATTERN``, any map-style torch Dataset, one of Hugging Face,
              a `Source`;
            - series: .npz, .npy, a folder of .csv, a .ts file (with its pair) or a folder of them;
            - a list of sources, laid end to end (`Concat`; the options go to each), also as ``a/ + b/``; or a dict of
              them, joined by name (`Pairs`), also as ``pairs:FOLDER?low=lr&high=hr`` for sub-folders of one folder.
        modality: the kind of the samples ("image", "series", "clip" ...); None: what the name, the suffix or the
            folder's files imply, else images.
        split: "train", "test", "val" (where the source brings one) or "all".
        by: how the splits are told apart: "auto" (given, else group, else ratio:0.2), "given", "ratio:0.2", "group",
            "list:FILE".
        seed: of the draw of a split and of `n`.
        n: at most so many samples of the split, evenly over the classes.
        **options: of the kind of source; an unknown one is an error that lists them. ``channels`` (images),
            ``window``, ``step`` ... Every labelled source takes ``imbalance``: 0.01, linear or exponential makes the
            classes of its training part uneven, after `n`; see `selftaught.data.imbalance.long_tail`. ``wrong_labels``:
            0.2, or 0.6:0,1,2 for some classes, makes labels of its training part wrong; see
            `selftaught.data.label_noise.mislabelled`. ``corrections``: a .csv with the columns name and corrected,
            labels corrected by hand; see `selftaught.data.corrections.corrected`. Every source takes ``only``: a text
            file of names, one a line (what ``selftaught curate`` keeps), or another way of naming samples of
            `selftaught.data.selection.select`:
            the split then has these samples alone. ``classes``: base, new (the two halves of the list of classes) or
            names; see `selftaught.data.class_choice.of_classes`. ``tones``: db (amplitudes of radar), image (each
            image scaled by its own percentiles), db,image, or window:CENTRE:WIDTH (scans in Hounsfield units); see
            `selftaught.data.tones.toned`. ``targets``:
            FILE.csv or FILE.csv:COLUMN, numbers to predict by file name; see
            `selftaught.data.target_file.with_targets`.

    Returns:
        A source that `len`, `read(i)` and a DataLoader worker can take.

    Raises:
        UserError: one line: no such path, nothing in it, an unknown name or option, a split that can't be made.
    """
    if modality is not None:
        kind_of(modality)
    text: dict[str, Any] = {}
    if isinstance(spec, str) and len(parts := several(spec)) > 1:
        spec = parts
    elif isinstance(spec, str):
        where, text = parse(spec)
        by, seed = str(text.pop("by", by)), _whole(where, "seed", text.pop("seed", seed))
        n = _whole(where, "n", text.pop("n")) if n is None and "n" in text else n
        spec = where
    merged = {**text, **options}
    imbalance, wrong, only = (merged.pop(name, None) for name in ("imbalance", "wrong_labels", "only"))
    corrections = merged.pop("corrections", None)
    classes, tones = merged.pop("classes", None), merged.pop("tones", None)
    targets = merged.pop("targets", None)
    source = _open(spec, modality, merged)
    source = source if tones is None else toned(source, str(tones))
    _same_modality(source.name, source.modality, modality)
    if not len(source):
        raise UserError(f"{source.name}: there is no sample in it")
    source = source if targets is None else with_targets(source, str(targets))
    chosen = split_source(source, split, by, seed)
    if only is not None:
        chosen = chosen.subset(select(chosen, str(only), option="only"), f"only {only}")
    chosen = chosen if classes is None else of_classes(chosen, str(classes))
    chosen = chosen if n is None else take(chosen, n, seed)
    if split in ("train", "all"):
        chosen = chosen if imbalance is None else long_tail(chosen, imbalance, seed)
        chosen = chosen if wrong is None else mislabelled(chosen, str(wrong), seed)
    return chosen if corrections is None else _corrected(chosen, source, str(corrections))


def holds_videos(spec: Any) -> bool:
    """Whether a source of any kind is clips and nothing else: videos, a folder of them without pictures beside them,
    ``frames:FOLDER``. A folder of pictures could be one of frames; it is none here.
    """
    if isinstance(spec, Source):
        return spec.modality == "clip"
    if isinstance(spec, str) and len(parts := several(spec)) > 1:
        spec = parts
    if isinstance(spec, list | tuple):
        return bool(spec) and all(holds_videos(one) for one in spec)
    if not isinstance(spec, str | Path):
        return False
    where = parse(str(spec))[0]
    formats = [f for f in FORMATS if f.kind == "clip"]
    if any(f.scheme and where.startswith(f"{f.scheme}:") for f in formats):
        return True
    name = where.removeprefix("embedded:")
    if name in EMBEDDED_NAMES and (name != where or not Path(where).exists()):
        return embedded_modality(name) == "clip"
    path, suffixes = expanded(where), tuple(s for f in formats if f.file for s in f.suffixes)
    if path.is_dir():
        return holds_any(path, suffixes) and not holds_any(path, IMAGE_SUFFIXES)
    found = globbed(str(path)) if glob.has_magic(where) and not path.exists() else [where]
    return bool(found) and all(one.lower().endswith(suffixes) for one in found)


def _corrected(chosen: Source, whole: Source, table: str) -> Source:
    return corrected(chosen, read_corrections(table), whole, table)


def _open(spec: Any, modality: Modality | None, options: dict[str, Any]) -> Source:
    if isinstance(spec, Source):
        return _without_options(spec, options)
    if isinstance(spec, str | Path):
        return _open_text(str(spec), modality, options)
    if isinstance(spec, list | tuple) and spec and all(isinstance(s, str | Path | Source) for s in spec):
        return _open_list(list(spec), modality, options)
    if isinstance(spec, Mapping) and spec and all(isinstance(s, str | Path | Source) for s in spec.values()):
        return _open_pairs("pairs", dict(spec), modality, options)
    if type(spec).__module__.startswith("datasets."):
        return call(hf.open_huggingface, type(spec).__name__, options, spec, modality or "image")
    if isinstance(spec, np.ndarray | Mapping) or type(spec).__name__ == "Tensor":
        fitting = [f for f in FORMATS if f.arrays and f.fits(modality or "image")]
        if not fitting:
            raise UserError(f"arrays hold {_known('arrays')} samples, not {modality}; give files")
        return call(cast(Build, fitting[0].arrays), "arrays", options, spec, "arrays")
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
    if scheme == "pairs":
        return _open_pairs(spec, _sub_folders(rest, spec, options), modality, options)
    for found in FORMATS:
        if found.address is not None and found.scheme == scheme and rest:
            return call(found.address, spec, options, os.path.expanduser(rest), *found.more(modality))
    path = expanded(spec)
    if path.is_dir():
        return _open_folder(path, spec, modality, options)
    if path.is_file():
        return _open_file(path, spec, modality, options)
    if glob.has_magic(spec):
        return _open_pattern(path, spec, modality, options)
    raise UserError(_not_found(spec))


def _open_folder(path: Path, spec: str, modality: Modality | None, options: dict[str, Any]) -> Source:
    """The first format of the wanted kind that finds its files there; where none does, the last one says so."""
    fitting = [f for f in FORMATS if f.folder and f.fits(modality)]
    found = next((f for f in fitting if f.is_folder(path, options)), None)
    found = found or next((f for f in reversed(fitting) if f.kind == (modality or "image")), None)
    if found is None:
        raise UserError(f"{spec}: no folder holds {kind_of(modality or 'image').plural} that can be read")
    return call(cast(Build, found.folder), spec, options, path, f"{path.resolve().name}/", *found.more(modality))


def _open_file(path: Path, spec: str, modality: Modality | None, options: dict[str, Any]) -> Source:
    """The first format of the wanted kind that its suffix fits, else of any kind: which is then refused by its kind."""
    able = [f for f in FORMATS if f.file and path.name.lower().endswith(f.suffixes)]
    able = [f for f in able if f.reads is None or f.reads(path, options)]
    if not able:
        raise UserError(f"{spec}: can't tell what this file holds by its suffix; can read {_known('file')}")
    found = next((f for f in able if f.fits(modality)), able[0])
    return call(cast(Build, found.file), spec, options, path, path.name, *found.more(modality))


def _open_list(specs: list[Any], modality: Modality | None, options: dict[str, Any]) -> Source:
    """A list of files of one format is one source; of anything else, the sources one after the other."""
    for found in FORMATS:
        if found.files and found.fits(modality) and all(str(s).lower().endswith(found.suffixes) for s in specs):
            return call(found.files, "a list of files", options, specs, f"{len(specs)} files", *found.more(modality))
    return Concat([open_source(s, modality=modality, split="all", **options) for s in specs])


def _open_pairs(where: str, parts: dict[str, Any], modality: Modality | None, options: dict[str, Any]) -> Source:
    """Sources joined by name. A field that is called like a kind is of that kind: what is opened is brought to it.

    Captions that are named win over those that lie beside the images.
    """
    opened = {name: _open_field(name, part, modality) for name, part in parts.items()}
    if TEXT in opened:
        opened = {name: part.source if isinstance(part, Captioned) else part for name, part in opened.items()}
    return call(join, where, options, opened)


def _open_field(name: str, spec: Any, modality: Modality | None) -> Source:
    if name not in KINDS:
        return open_source(spec, modality=modality, split="all")
    if isinstance(spec, Source):
        source = spec
    else:
        readable = any(f.kind == name for f in FORMATS)
        source = open_source(spec, modality=name if readable else None, split="all")
    return source if source.modality == name else Mapped(source, Adopt(name), name)


def join(parts: Mapping[str, Source], *, join: str = "stem", missing: str = "refuse") -> Pairs:
    """Sources joined by name; see `Pairs`.

    Args:
        parts: name of the field -> source.
        join: "stem" or "name": what partners share.
        missing: "refuse" or "drop": samples without a partner.
    """
    return Pairs(parts, join, missing=missing)


def _sub_folders(folder: str, spec: str, options: dict[str, Any]) -> dict[str, str]:
    """The parts in ``pairs:FOLDER?low=lr&high=hr``, taken out of the options: sub-folders or files of the folder, or
    where none is named (``pairs:?low=a/&high=b/``) sources of any kind.
    """
    known = inspect.signature(join).parameters
    parts = {name: str(options.pop(name)) for name in [n for n in options if n not in known]}
    if len(parts) < 2:
        raise UserError(f"{spec}: say which sub-folders belong together: pairs:FOLDER?low=lr&high=hr")
    if not folder:
        return parts
    root = expanded(folder)
    for name, part in parts.items():
        if not (root / parse(part)[0]).exists():
            beside = near(part, os.listdir(root)) if root.is_dir() else ""
            raise UserError(f"{spec}: no {part} in {folder} for {name}{beside}")
    return {name: str(root / part) for name, part in parts.items()}


def _open_pattern(path: Path, spec: str, modality: Modality | None, options: dict[str, Any]) -> Source:
    """The files that a glob pattern matches, of the first format that has some among them."""
    matches = [match.lower() for match in globbed(str(path))]
    able = [f for f in FORMATS if f.pattern and f.fits(modality)]
    if not able:
        raise UserError(f"{spec}: a pattern can't name {kind_of(modality or 'image').plural}; give a folder")
    found = next((f for f in able if any(m.endswith(f.suffixes) for m in matches)), able[0])
    return call(cast(Build, found.pattern), spec, options, str(path), *found.more(modality))


def _known(slot: str) -> str:
    """The suffixes that formats read in this way, or the kinds of those without suffixes."""
    able = [f for f in FORMATS if getattr(f, slot)]
    return " ".join(dict.fromkeys(s for f in able for s in (f.suffixes or (f.kind,))))


def _not_found(spec: str) -> str:
    bare = spec.rstrip("/")
    if bare in EMBEDDED_NAMES:
        return f"{spec}: no such file or folder; for the built-in data set write {bare}"
    if "/" in bare or "\\" in bare or "." in bare:
        parent = expanded(bare).parent
        try:
            beside = near(Path(bare).name, os.listdir(parent)) if parent.is_dir() else ""
        except OSError:
            beside = ""
        return f"{spec}: no such file or folder{beside}"
    found = near(bare, EMBEDDED_NAMES)
    there = ", ".join(EMBEDDED_NAMES)
    return f"{spec}: no such file or folder, and no built-in data set of that name{found}; there are {there}"


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
