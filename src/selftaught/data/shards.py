"""WebDataset shards: tar files that are indexed once and read in place."""

from __future__ import annotations

import glob
import hashlib
import itertools
import math
import os
import re
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np

from selftaught._reading import json_text
from selftaught.data.combining.captioned import Captioned, captions_in
from selftaught.data.decoding import IMAGE_SUFFIXES, fourth_is_alpha, header
from selftaught.data.files import globbed, walk
from selftaught.data.image_source import ImageSource
from selftaught.data.labelling import labelling, whole_number
from selftaught.data.layout import layout
from selftaught.data.mapped import build_once, cache_folder
from selftaught.data.pixels import choose_channels
from selftaught.data.scaling import common_depth
from selftaught.data.source import TEST, TRAIN, VAL, digest
from selftaught.errors import SampleError, UserError, require

_IMAGES = tuple(s[1:] for s in IMAGE_SUFFIXES)
_WHOLE = re.compile(r"-?(0|[1-9]\d*)")
_REMOTE = re.compile(r"^(https?|s3|gs|ais|hf|file)://")


class ShardSource(ImageSource):
    """Images at known places of tar files: (shard, offset, size) per sample, nothing is unpacked."""

    def __init__(self, train: list[Path], test: list[Path], name: str, channels: int | None = None) -> None:
        """Args: shards for training; shards for testing (may be empty: then no given split); name; channels to force
        or None.
        """
        self.name, self.shards = name, train + test
        names, places, labels = [], [], []
        self.captions: list[list[str]] = []
        for number, shard in enumerate(self.shards):
            for key, offset, size, label, texts in index(shard):
                self.captions.append(texts)
                names.append(key)
                places.append((number, offset, size))
                labels.append(label)
        if not names:
            raise UserError(f"{name}: no image in these shards; looked for members .{' .'.join(_IMAGES)}")
        if len(set(names)) < len(names):
            of = _prefixes(self.shards)
            names = [f"{of[place[0]]}/{name}" for name, place in zip(names, places, strict=True)]
        self.names = names
        self._places = np.array(places, dtype=np.int64)
        if test:
            self.given = np.where(self._places[:, 0] < len(train), TRAIN, TEST).astype(np.int8)
        if any(label is not None for label in labels):
            found = labelling(_same_type(labels), None, self.given)
            self.labels, self.classes, self.targets, self.given, self.notes = found
        self.convert = channels is not None
        self._probe(channels)

    def _probe(self, channels: int | None) -> None:
        heads = []
        for i in np.unique(np.linspace(0, len(self) - 1, min(32, len(self))).astype(np.int64)):
            try:
                data = self._bytes(int(i))
                heads.append(header(data, self.names[i]))
            except SampleError:
                continue
            self.bands |= heads[-1].channels == 4 and not fourth_is_alpha(data)
        self.depth = common_depth([head.dtype for head in heads]) or "uint8"
        found = choose_channels([head.channels for head in heads] or [3], self.bands)
        self.channels = channels if channels is not None else found
        self.bands &= self.channels == 4

    def _bytes(self, i: int) -> bytes:
        shard, offset, size = self._places[i].tolist()
        try:
            with self.shards[shard].open("rb") as file:
                file.seek(offset)
                data = file.read(size)
        except OSError as error:
            raise SampleError(self.names[i], f"shard {self.shards[shard].name}: {error.strerror or error}") from None
        if len(data) < size:
            raise SampleError(self.names[i], f"shard {self.shards[shard].name} is truncated")
        return data

    def _load(self, i: int, min_side: int | None) -> np.ndarray:
        return self._decoded(self._bytes(i), i, min_side)

    def _is_uint8(self) -> bool:
        return self.depth == "uint8"

    def origin(self) -> str:
        """The first shard, and the pattern."""
        return f"{os.path.abspath(self.shards[0])} {self.name}"

    def fingerprint(self) -> str:
        """Of the index and of the shards' sizes and times of change."""
        stats = [os.stat(shard) for shard in self.shards]
        sizes = np.array([(s.st_size, s.st_mtime_ns) for s in stats], dtype=np.int64)
        return digest("shards", list(self.names), self._places, sizes, self.labels, self.channels)


def open_shards(pattern: str, *, test: str | None = None, channels: int | None = None) -> ShardSource | Captioned:
    """``wds:PATTERN``: shards by path, glob or brace pattern (``train-{000..011}.tar``), local or remote.

    A sample is the members of one base name; its image the first of .jpg .jpeg .png .webp .tif .tiff .bmp .npy, its
    label the text of ``.cls``, or "label" or "cls" in ``.json``, its captions the lines of ``.txt``, or "caption",
    "captions" or "text" in ``.json``. Remote shards are fetched once into the cache folder
    through webdataset's opener.

    Args:
        pattern: the shards.
        test: pattern of further shards that are the given test split.
        channels: channels that every image shall have.

    Raises:
        UserError: no such shard, no image in them, a compressed tar, or a shard can't be fetched.
    """
    return _opened(locate(pattern), locate(test) if test else [], f"wds:{pattern}", channels)


def open_shard_file(
    path: Path, name: str, *, test: str | None = None, channels: int | None = None
) -> ShardSource | Captioned:
    """One shard, its path taken as it is written; else as `open_shards`."""
    return _opened([path], locate(test) if test else [], name, channels)


def open_shard_folder(folder: Path, name: str, *, channels: int | None = None) -> ShardSource | Captioned:
    """All shards under a folder; ``train/`` beside ``test/`` (or ``val/``) is a given split; else as `open_shards`."""
    names = walk(folder, (".tar",))
    given = layout(names).given
    parts = [TRAIN] * len(names) if given is None else given.tolist()
    train, test = ([folder / n for n, p in zip(names, parts, strict=True) if p in ok] for ok in ((TRAIN,), (TEST, VAL)))
    if not train:
        raise UserError(f"{name}: no shard to learn from in this folder or below")
    return _opened(train, test, name, channels)


def _opened(train: list[Path], test: list[Path], name: str, channels: int | None) -> ShardSource | Captioned:
    source = ShardSource(train, test, name, channels)
    return Captioned(source, source.captions) if any(source.captions) else source


def locate(pattern: str) -> list[Path]:
    """The local files of a shard pattern, remote ones fetched into the cache folder first."""
    paths: list[Path] = []
    for one in expand(pattern):
        if _REMOTE.match(one):
            paths.append(_fetch(one))
        elif glob.has_magic(one):
            paths += [Path(p) for p in globbed(one)]
        elif Path(one).is_dir():
            paths += sorted(Path(one).glob("*.tar"))
        else:
            paths.append(Path(one))
    if not paths:
        raise UserError(f"wds:{pattern}: no shard matches this pattern")
    for path in paths:
        if not path.is_file():
            raise UserError(f"wds:{pattern}: no such shard: {path}")
    return paths


def expand(pattern: str) -> list[str]:
    """A brace pattern as the list of what it stands for: ``{000..011}`` counts with leading zeros, ``{a,b}`` lists; in
    any number.
    """
    choices = []
    for piece in re.split(r"(\{[^{}]*\})", pattern):
        run = re.fullmatch(r"\{(\d+)\.\.(\d+)\}", piece)
        if run:
            first, last = run.groups()
            step = 1 if int(last) >= int(first) else -1
            choices.append([f"{k:0{len(first)}d}" for k in range(int(first), int(last) + step, step)])
        elif piece.startswith("{") and "," in piece:
            choices.append(piece[1:-1].split(","))
        else:
            choices.append([piece])
    return ["".join(c) for c in itertools.product(*choices)]


def index(shard: Path) -> list[tuple[str, int, int, Any, list[str]]]:
    """(name, offset, size, label or None, captions) of every image in a tar file, in its order; a shard cut
    short is indexed as far as it goes.

    Raises:
        UserError: it is no tar file, or a compressed one.
    """
    found: dict[str, dict[str, Any]] = {}
    try:
        with tarfile.open(shard, "r:") as tar:
            try:
                for member in tar:
                    if member.isfile():
                        _note(found, member, tar)
            except tarfile.ReadError:
                pass
    except (tarfile.ReadError, OSError):
        with shard.open("rb") as file:
            packed = file.read(2) in (b"\x1f\x8b", b"BZ", b"\xfd7", b"(\xb5")
        mend = "it is compressed; unpack it to a plain .tar first" if packed else "it is empty or damaged"
        raise UserError(f"{shard}: not a readable tar file ({mend})") from None
    return [
        (e["name"], e["offset"], e["size"], e.get("label"), e.get("text") or e.get("said", []))
        for e in found.values()
        if "name" in e
    ]


def _prefixes(shards: list[Path]) -> list[str]:
    """What tells shards apart: their names without the suffix, with their folders where two are called alike."""
    stems = [shard.stem for shard in shards]
    if len(set(stems)) == len(stems):
        return stems
    shared = os.path.commonpath([shard.parent for shard in shards])
    return [shard.relative_to(shared).with_suffix("").as_posix() for shard in shards]


def _note(found: dict[str, dict[str, Any]], member: tarfile.TarInfo, tar: tarfile.TarFile) -> None:
    folder, _, base = member.name.removeprefix("./").rpartition("/")
    stem, _, suffix = base.partition(".")
    if not stem or base.startswith("."):
        return
    entry = found.setdefault(f"{folder}/{stem}" if folder else stem, {})
    last = suffix.lower().rpartition(".")[2]
    if last in _IMAGES and "name" not in entry:
        entry.update(name=member.name.removeprefix("./"), offset=member.offset_data, size=member.size)
    elif last in ("cls", "json", "txt"):
        file = tar.extractfile(member)
        text = (file.read() if file else b"").decode(errors="replace").strip()
        if last == "cls":
            entry["label"] = text
        elif last == "txt":
            entry["text"] = [line for line in re.split(r"\r\n|\r|\n", text) if line.strip()]
        else:
            row = _of_json(text)
            label = next((row[k] for k in ("label", "cls", "class") if k in row), None)
            if isinstance(label, int | str) or (isinstance(label, float) and math.isfinite(label)):
                label = int(label) if isinstance(label, bool) else label
                entry.setdefault("label", label)
            entry["said"] = captions_in(next((row[k] for k in ("caption", "captions", "text") if k in row), None))


def _of_json(text: str) -> dict[str, Any]:
    try:
        row = json_text(text)
    except ValueError:
        return {}
    return row if isinstance(row, dict) else {}


def _same_type(labels: list[Any]) -> np.ndarray:
    """Numbers where all labels are, else text; None stays missing. "001" is a name, "2.0" is 2."""
    found = np.empty(len(labels), dtype=object)
    read = [_number(label) for label in labels]
    named = any(isinstance(label, str) for label in read)
    found[:] = [str(label) if named and label is not None else label for label in read]
    return found


def _number(label: Any) -> Any:
    """A label as a number where it is one, without a fraction where it has none; else as it is."""
    if isinstance(label, float):
        return int(label) if label.is_integer() else label
    if not isinstance(label, str):
        return label
    text = whole_number(label)
    return int(text) if _WHOLE.fullmatch(text) else text


def _fetch(url: str) -> Path:
    wds: Any = require("webdataset", "wds")
    key = hashlib.sha256(url.encode()).hexdigest()[:16]
    target = cache_folder() / "shards" / f"{key}-{Path(url).name}"

    def build(part: Path) -> None:
        try:
            with wds.gopen(url) as remote, part.open("wb") as local:
                shutil.copyfileobj(remote, local, 1 << 20)
        except Exception as error:
            raise UserError(f"wds:{url}: can't be fetched ({' '.join(str(error).split())[:120]})") from None
        if not part.stat().st_size:
            raise UserError(f"wds:{url}: can't be fetched (nothing came)")

    return build_once(target, build)
