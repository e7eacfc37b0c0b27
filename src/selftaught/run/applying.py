"""Applying a run to new samples: embeddings to a table, restored images to a folder; resumable, in bounded memory."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from selftaught.data import Source, open_source
from selftaught.engine.loader import as_unit_float
from selftaught.engine.method import Method
from selftaught.errors import SampleError, UserError
from selftaught.run.evaluating import restore
from selftaught.run.features import stream

_BATCH = 256
_PART = 16  # batches per part file


def open_input(spec: Any, method: Method) -> Source:
    """The samples to apply a run to, checked against what it was trained on.

    Raises:
        UserError: other channels, or series of another length, than the run's.
    """
    source = open_source(spec, modality=method.modality, split="all")
    if source.channels is not None and source.channels != method.channels:
        raise UserError(f"{source.name} has {source.channels} channels, the run was trained on {method.channels}")
    return source


def embeddings(
    method: Method,
    source: Source,
    out: Path,
    *,
    workers: int = -1,
    classes: list[str] | None = None,
    say: Callable[[int], None] = lambda n: None,
) -> int:
    """Embed a source into ``out`` (.parquet or .npy), in its order, going on where an earlier call was cut off.

    A classifier writes class probabilities, and in Parquet the likeliest class, in place of embeddings.

    Finished parts lie in ``OUT.parts`` until all are there. Broken samples have no row in Parquet, a row of NaN in .npy
    (whose names stand in ``OUT.names.csv``); they are listed in ``OUT.skipped.csv``.

    Args:
        method: the trained method.
        source: samples, in the order that the rows will have.
        out: file to write.
        workers: loader processes.
        classes: names of a classifier's classes.
        say: called with the number of samples done so far.

    Returns:
        how many samples were embedded.

    Raises:
        UserError: another suffix; parts of another source lie there.
    """
    if out.suffix not in (".parquet", ".npy"):
        raise UserError(f"--out {out}: embeddings go to a .parquet or .npy file")
    parts = out.with_name(out.name + ".parts")
    key = {"source": source.fingerprint(), "samples": len(source), "method": method.slug}
    first = _begun(parts, key)
    rows: list[tuple[np.ndarray, np.ndarray]] = []
    skipped: list[tuple[int, str]] = []
    done = first * _BATCH * _PART
    say(min(done, len(source)))
    for number, (features, index, bad) in enumerate(
        stream(method, source, batch_size=_BATCH, workers=workers, start=done, predict=True), start=first * _PART
    ):
        rows.append((_probabilities(features) if method.output == "classes" else features, index))
        skipped += bad
        done = min((number + 1) * _BATCH, len(source))
        if (number + 1) % _PART == 0 or done == len(source):
            _write_part(parts, number // _PART, rows, skipped)
            rows, skipped = [], []
        say(done)
    sink: Any = _Npy(out, len(source))
    if out.suffix == ".parquet":
        sink = _Classes(out, classes) if method.output == "classes" else _Parquet(out)
    return _join(parts, out, source, sink)


def _probabilities(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(1, keepdims=True, initial=-np.inf))
    return powers / powers.sum(1, keepdims=True)


def _begun(parts: Path, key: dict[str, Any]) -> int:
    """Number of finished parts of the same work; a folder of other work is refused."""
    mark = parts / "work.json"
    if parts.exists():
        if not mark.exists() or json.loads(mark.read_text()) != key:
            raise UserError(f"{parts} holds parts of another input; delete it or choose another --out")
        return len(list(parts.glob("*.npz")))
    parts.mkdir(parents=True)
    mark.write_text(json.dumps(key))
    return 0


def _write_part(parts: Path, number: int, rows: list[tuple[np.ndarray, np.ndarray]], skipped: list[Any]) -> None:
    kept = [(f, i) for f, i in rows if len(i)]
    width = kept[0][0].shape[1] if kept else 0
    features = np.concatenate([f for f, _ in kept]) if kept else np.zeros((0, width), np.float32)
    index = np.concatenate([i for _, i in kept]) if kept else np.zeros(0, np.int64)
    path = parts / f"{number:06d}.npz"
    with path.with_suffix(".part").open("wb") as file:
        np.savez(file, features=features, index=index, skipped=json.dumps([[int(i), r] for i, r in skipped]))
    path.with_suffix(".part").replace(path)


def _join(parts: Path, out: Path, source: Source, sink: Any) -> int:
    files = sorted(parts.glob("*.npz"))
    skipped: list[list[Any]] = []
    written = 0
    for path in files:
        with np.load(path) as part:
            features, index = part["features"], part["index"]
            skipped += json.loads(str(part["skipped"]))
        if len(index):
            sink.add(features, index, [source.names[i] for i in index])
            written += len(index)
    sink.close(source)
    _list_skipped(out, [(source.names[i], reason) for i, reason in skipped])
    shutil.rmtree(parts)
    return written


class _Parquet:
    """Columns: name, index, embedding (a list of float32 of fixed length)."""

    def __init__(self, out: Path) -> None:
        self.out, self.part = out, out.with_name(out.name + ".part")
        self.writer: Any = None

    def add(self, features: np.ndarray, index: np.ndarray, names: list[str]) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        columns = {"name": pa.array(names), "index": pa.array(index)} | self.columns(features)
        table = pa.table(columns)
        self.writer = self.writer or pq.ParquetWriter(self.part, table.schema)
        self.writer.write_table(table)

    def columns(self, features: np.ndarray) -> dict[str, Any]:
        """What the rows hold besides name and index."""
        return {"embedding": _lists(features)}

    def close(self, source: Source) -> None:
        if self.writer is None:
            raise UserError(f"{source.name}: none of its {len(source)} samples can be used")
        self.writer.close()
        self.part.replace(self.out)


def _lists(rows: np.ndarray) -> Any:
    import pyarrow as pa

    return pa.FixedSizeListArray.from_arrays(pa.array(rows.astype(np.float32).ravel()), rows.shape[1])


class _Classes(_Parquet):
    """Columns: name, index, class (its name, or its number), probabilities (one float32 per class)."""

    def __init__(self, out: Path, classes: list[str] | None) -> None:
        super().__init__(out)
        self.classes = classes

    def columns(self, features: np.ndarray) -> dict[str, Any]:
        import pyarrow as pa

        likeliest = features.argmax(1)
        names = [self.classes[k] if self.classes else str(k) for k in likeliest]
        return {"class": pa.array(names), "probabilities": _lists(features)}


class _Npy:
    """float32 (n, D), a row for every sample of the source; rows of broken samples are NaN."""

    def __init__(self, out: Path, rows: int) -> None:
        self.out, self.part, self.rows = out, out.with_name(out.name + ".part"), rows
        self.array: Any = None

    def add(self, features: np.ndarray, index: np.ndarray, names: list[str]) -> None:
        if self.array is None:
            shape = (self.rows, features.shape[1])
            self.array = np.lib.format.open_memmap(self.part, mode="w+", dtype=np.float32, shape=shape)
            self.array[:] = np.nan
        self.array[index] = features

    def close(self, source: Source) -> None:
        if self.array is None:
            raise UserError(f"{source.name}: none of its {len(source)} samples can be used")
        self.array.flush()
        self.array = None
        self.part.replace(self.out)
        names = "\n".join(["name", *map(json.dumps, source.names)])
        self.out.with_name(self.out.name + ".names.csv").write_text(names + "\n")


def images(
    method: Method, source: Source, out: Path, *, tile: int = 512, say: Callable[[int], None] = lambda n: None
) -> int:
    """Restore every image of a source into a folder: same names, sizes and bit depth; finished ones are kept.

    Returns:
        how many images were restored now.
    """
    out.mkdir(parents=True, exist_ok=True)
    if not out.is_dir():
        raise UserError(f"--out {out}: restored images go to a folder")
    written = 0
    skipped: list[tuple[str, str]] = []
    for i, name in enumerate(source.names):
        path = out / _safe(name)
        if not path.exists():
            try:
                original = source.read(i)
            except SampleError as error:
                skipped.append((name, error.reason))
                continue
            write_image(path, as_type(restore(method, as_unit_float(original), tile), original.dtype))
            written += 1
        say(i + 1)
    _list_skipped(out, skipped)
    return written


def skipped_list(out: Path) -> Path:
    """Where the samples that could not be used are listed: in a folder of images, or beside a table."""
    return out / "skipped.csv" if out.is_dir() else out.with_name(out.name + ".skipped.csv")


def _list_skipped(out: Path, skipped: list[tuple[str, str]]) -> None:
    """Write the list; without samples on it none is left from before."""
    path = skipped_list(out)
    if not skipped:
        path.unlink(missing_ok=True)
        return
    lines = [f"{json.dumps(name)},{json.dumps(reason)}" for name, reason in skipped]
    path.write_text("\n".join(["name,reason", *lines]) + "\n")


def _safe(name: str) -> Path:
    path = Path(name.lstrip("/"))
    if ".." in path.parts:
        path = Path(path.name)
    return path if path.suffix else path.with_name(path.name + ".png")


def as_type(image: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Float images in [0, 1] -> the given type, rounded."""
    if np.issubdtype(dtype, np.integer):
        top = np.iinfo(dtype).max
        return np.clip(np.rint(image * top), 0, top).astype(dtype)
    return image.astype(dtype)


def write_image(path: Path, image: np.ndarray) -> None:
    """Write (H,W,C) by the name's suffix, atomically; any number of channels through TIFF and npy.

    Raises:
        UserError: it can't be written.
    """
    import cv2
    import tifffile

    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(".part-" + path.name)
    suffix = path.suffix.lower()
    channels = image.shape[2]
    if suffix == ".npy":
        np.save(part.with_suffix(".npy"), image)
        part = part.with_suffix(".npy")
    elif suffix in (".tif", ".tiff") or channels not in (1, 3, 4) or image.dtype == np.float32:
        path = path if suffix in (".tif", ".tiff") else path.with_suffix(".tif")
        squeezed = image[..., 0] if channels == 1 else image
        tifffile.imwrite(part, squeezed, photometric="rgb" if channels in (3, 4) else "minisblack")
    else:
        order = {3: cv2.COLOR_RGB2BGR, 4: cv2.COLOR_RGBA2BGRA}.get(channels)
        pixels = image if order is None else cv2.cvtColor(image, order)
        quality = [cv2.IMWRITE_JPEG_QUALITY, 97] if suffix in (".jpg", ".jpeg") else []
        done, buffer = cv2.imencode(suffix, pixels, quality)
        if not done:
            raise UserError(f"{path}: can't be encoded as {suffix}")
        part.write_bytes(buffer.tobytes())
    part.replace(path)
