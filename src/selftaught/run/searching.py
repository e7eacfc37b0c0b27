"""Pictures found by words: an index of embeddings in the run's folder that grows with the pictures."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from selftaught._paths import part_of
from selftaught.data import Source
from selftaught.data.files import file_stamps
from selftaught.data.mapped import DAMAGED
from selftaught.engine.embedding import none_usable
from selftaught.engine.method import Method
from selftaught.errors import UserError
from selftaught.run.applying import weights_digest, writing
from selftaught.run.features import stream
from selftaught.run.suites.image_text import worded

__all__ = ["Found", "Index", "nearest_rows", "search"]


@dataclass(frozen=True)
class Found:
    """One picture that a search found.

    Attributes:
        name: of the picture.
        score: cosine of its embedding and the query's.
    """

    name: str
    score: float


@dataclass
class Index:
    """Embeddings of a source's pictures.

    Attributes:
        names: n names.
        stamps: (n, 2) int64, size and time of change of each file; what has changed is embedded anew.
        vectors: (n, dim) float32 of length 1.
        added: how many were embedded at the last opening.
        skipped: name and reason of what could not be read.
    """

    names: list[str]
    stamps: np.ndarray
    vectors: np.ndarray
    added: int = 0
    skipped: tuple[tuple[str, str], ...] = ()


def open_index(
    method: Method, source: Source, folder: Path, *, workers: int = -1, say: Callable[[str], None] | None = None
) -> Index:
    """The index of a source: what ``folder`` holds of it already, and what has come or changed since.

    Args:
        method: one that knows words.
        source: pictures.
        folder: where indices lie.
        workers: loader processes; -1 chooses.
        say: told how many pictures are embedded, and which could not be used.

    Raises:
        UserError: no picture that can be read; the folder can't be written to.
    """
    key = hashlib.blake2b(f"{source.origin()} {weights_digest(method)}".encode("utf-8", "replace"), digest_size=8)
    path = folder / f"{key.hexdigest()}.npz"
    known = _load(path)
    stamps = _stamps(source)
    places = {} if known is None else {name: i for i, name in enumerate(known.names)}
    rows: dict[int, np.ndarray] = {}
    fresh: list[int] = []
    for i, name in enumerate(source.names):
        j = places.get(name)
        if known is None or j is None or not np.array_equal(known.stamps[j], stamps[i]):
            fresh.append(i)
        else:
            rows[i] = known.vectors[j]
    skipped: list[tuple[str, str]] = []
    part = source.subset(fresh)
    if fresh and say is not None:
        say(f"{len(fresh):,} new or changed of {len(source):,} pictures: embedding them")
    for vectors, index, bad in stream(method, part, workers=workers, predict=True) if fresh else ():
        rows |= {fresh[int(i)]: vector for i, vector in zip(index, vectors, strict=True)}
        skipped += [(part.names[i], reason) for i, reason in bad]
    if skipped and say is not None:
        (name, reason), more = skipped[0], len(skipped) - 1
        say(f"could not be used: {name} ({reason})" + f" and {more:,} more" * bool(more))
    if not rows:
        raise none_usable(source, skipped)
    kept = sorted(rows)
    found = Index(
        [source.names[i] for i in kept],
        stamps[kept],
        np.stack([rows[i] for i in kept]),
        len(fresh) - len(skipped),
        tuple(skipped),
    )
    if fresh or known is None or len(kept) != len(known.names):
        _save(path, found)
    return found


def _stamps(source: Source) -> np.ndarray:
    """Size and time of change of each file; of pictures that lie in no files of their own, the source's fingerprint."""
    inner = getattr(source, "source", source)
    if hasattr(inner, "root"):
        return file_stamps(inner.root, source.names)
    whole = np.frombuffer(bytes.fromhex(source.fingerprint())[:16], dtype=np.int64)
    return np.tile(whole, (len(source), 1))


def _load(path: Path) -> Index | None:
    """The index in a file; None where there is none, or it is damaged (it is then made anew)."""
    try:
        with np.load(path, allow_pickle=False) as file:
            names, stamps, vectors = file["names"].tolist(), file["stamps"], file["vectors"]
    except DAMAGED:
        return None
    return Index(names, stamps, vectors) if len(names) == len(stamps) == len(vectors) else None


def _save(path: Path, index: Index) -> None:
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        part = part_of(path)  # of this process: two may search at once
        try:
            with part.open("wb") as file:
                np.savez(file, names=np.array(index.names), stamps=index.stamps, vectors=index.vectors)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)


def nearest_rows(vectors: np.ndarray, queries: np.ndarray, k: int, *, exact: bool = False) -> tuple[Any, Any]:
    """The k rows of largest inner product with each query, the nearest first; by faiss where it is installed.

    Args:
        vectors: (n, D) float32.
        queries: (m, D) float32.
        k: at most n are given.
        exact: NumPy even where faiss is installed; both look at every row.

    Returns:
        scores (m, k) and rows (m, k).

    Raises:
        UserError: shapes that don't fit, k below 1.
    """
    if vectors.ndim != 2 or queries.ndim != 2 or vectors.shape[1] != queries.shape[1] or k < 1:
        raise UserError(
            f"search: rows {vectors.shape}, queries {queries.shape}, k={k}: widths must agree, k be 1 or more"
        )
    k = min(k, len(vectors))
    if not exact:
        try:
            import faiss
        except ImportError:
            pass
        else:
            index = faiss.IndexFlatIP(vectors.shape[1])
            index.add(np.ascontiguousarray(vectors, np.float32))
            return index.search(np.ascontiguousarray(queries, np.float32), k)
    scores = queries @ vectors.T
    rows = np.argpartition(-scores, k - 1, axis=1)[:, :k]
    best = np.take_along_axis(scores, rows, 1)
    order = np.argsort(-best, axis=1, kind="stable")
    return np.take_along_axis(best, order, 1), np.take_along_axis(rows, order, 1)


def search(
    method: Method,
    source: Source,
    query: str,
    folder: Path,
    *,
    k: int = 10,
    workers: int = -1,
    say: Callable[[str], None] | None = None,
) -> tuple[list[Found], Index]:
    """The pictures of a source that a text fits best.

    Raises:
        UserError: a method without words, an empty query, what :func:`open_index` refuses.
    """
    model = worded(method)
    if not query.strip():
        raise UserError("search for what? selftaught search RUN PICTURES 'a red car'")
    index = open_index(method, source, folder, workers=workers, say=say)
    scores, rows = nearest_rows(index.vectors, model.embed_texts([query]).cpu().numpy(), k)
    return [Found(index.names[int(i)], float(s)) for i, s in zip(rows[0], scores[0], strict=True)], index
