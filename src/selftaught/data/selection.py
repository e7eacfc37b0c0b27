"""Some samples of a source by name: a class, a list of names, or a folder of copies."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from selftaught._paths import expanded
from selftaught._reading import names_of
from selftaught.data.label_noise import WRONG
from selftaught.data.source import Source
from selftaught.data.spec import near
from selftaught.errors import UserError

__all__ = ["rest", "select"]


def select(source: Source, spec: str | Path | Sequence[int] | np.ndarray, *, option: str = "--forget") -> np.ndarray:
    """Positions in ``source`` of the samples that a user means.

    Args:
        source: what to choose from: the training samples. Names of samples of the whole that are no part of it (the
            test samples) are passed over, since no model learnt them.
        spec: ``class=NAME`` or ``class=INDEX``, several with commas between, a share of each with ``:0.4`` behind
            (``class=5,6,7:0.4``, the same samples at every call); ``random:0.1`` for a share of all; a text file with
            a sample's name a line; a folder that holds files of the same names; ``mislabelled`` where
            `selftaught.data.label_noise` made labels wrong; or positions.
        option: what to call it in an error.

    Returns:
        sorted positions without repetition, int64, at least one and fewer than all.

    Raises:
        UserError: no such class, file, folder or sample, a name that fits several samples, nothing or everything
            chosen.
    """
    if isinstance(spec, str | Path):
        found, said = _by_text(source, str(spec), option), f"{option} {spec}"
    else:
        found, said = _positions(source, spec, option), f"{option}: {len(spec)} positions"
    if not len(found):
        raise UserError(f"{said}: no sample of {source.name} that was trained on is meant by it")
    if len(found) == len(source):
        raise UserError(f"{said}: that is every sample of {source.name}; some must be left")
    return found


def rest(source: Source, chosen: np.ndarray) -> np.ndarray:
    """Positions in ``source`` that are not among ``chosen``, sorted."""
    return np.setdiff1d(np.arange(len(source)), chosen)


def _by_text(source: Source, spec: str, option: str) -> np.ndarray:
    kind, _, value = spec.partition("=")
    if kind == "class" and value:
        return _of_classes(source, value, option)
    if spec == "mislabelled" and not Path(spec).exists():
        if WRONG not in source.values:
            raise UserError(f"{option} mislabelled: {source.name} was not opened with wrong_labels=SHARE")
        return np.flatnonzero(source.values[WRONG])
    kind, _, value = spec.partition(":")
    if kind == "random" and value:
        rng = np.random.default_rng([len(source), 3])
        count = max(1, round(_share(value, spec, option) * len(source)))
        return np.sort(rng.permutation(len(source))[:count])
    path = expanded(spec)
    if spec and path.is_dir():
        # Sorted, so that an error names the same file at every call.
        files = sorted(file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file())
        names = [name for name in files if not any(part.startswith(".") for part in name.split("/"))]
        return _named(source, names, spec, option, within=path.resolve().name)
    try:
        names = names_of(path, _origin(source).names)
    except FileNotFoundError:
        raise UserError(
            f"{option} {spec}: no such file or folder; it may be class=NAME, random:0.1, a text file of names, a folder"
        ) from None
    except OSError as error:
        raise UserError(f"{option} {spec}: can't be read ({error.strerror or error})") from None
    except ValueError as error:
        raise UserError(f"{option} {spec}: {error}") from None
    return _named(source, names, spec, option)


def _of_classes(source: Source, value: str, option: str) -> np.ndarray:
    if source.labels is None:
        raise UserError(f"{option} class={value}: {source.name} has no classes; give a list of names or a folder")
    classes = source.classes or [str(k) for k in range(int(source.labels.max()) + 1)]
    share = 1.0
    names, _, tail = value.rpartition(":")
    if names and value not in classes:
        share, value = _share(tail, f"class={value}", option), names
    parts = [value] if value in classes else value.split(",")
    found = []
    for name in parts:
        members = np.flatnonzero(source.labels == _class(name.strip(), classes, source, option))
        rng = np.random.default_rng([len(members), 3])
        count = max(1, round(share * len(members))) if len(members) else 0
        found.append(rng.permutation(members)[:count])
    return np.unique(np.concatenate(found)).astype(np.int64)


def _class(name: str, classes: list[str], source: Source, option: str) -> int:
    if name in classes:
        return classes.index(name)
    if name.isdigit() and int(name) < len(classes):
        return int(name)
    hint = near(name, classes) or f"; it has {', '.join(classes[:12])}{' ...' if len(classes) > 12 else ''}"
    raise UserError(f"{option} class={name}: {source.name} has no such class{hint}")


def _share(text: str, spec: str, option: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 < share <= 1:
        raise UserError(f"{option} {spec}: the share behind the colon must be above 0 and at most 1, such as :0.4")
    return share


def _positions(source: Source, spec: Sequence[int] | np.ndarray, option: str) -> np.ndarray:
    found = np.unique(np.asarray(spec)) if len(spec) else np.zeros(0, np.int64)
    if found.dtype.kind not in "iu" or (len(found) and not 0 <= found[0] <= found[-1] < len(source)):
        raise UserError(
            f"{option}: positions must be whole numbers in 0 .. {len(source) - 1}, the samples of {source.name}"
        )
    return found.astype(np.int64)


def _named(source: Source, names: Sequence[str], spec: str, option: str, within: str = "") -> np.ndarray:
    """By the whole name, with the folder's own name before it, or by an end of the path that only one sample has."""
    known, own = _Names(_origin(source).names), _positions_of(source.names)
    found: list[int] = []
    for name in names:
        meant = known.find(name, within)
        if len(meant) > 1:
            raise UserError(f"{option} {spec}: {name!r} fits several samples of {source.name}; write the longer name")
        if not meant:
            example = f"; its names look like {source.names[0]!r}" if len(source) else ""
            raise UserError(f"{option} {spec}: {name!r} is no sample of {source.name}{example}")
        found += own.get(meant[0], [])
    return np.unique(np.array(found, dtype=np.int64))


def _origin(source: Source) -> Source:
    """The whole source that this one is a part of."""
    parent = getattr(source, "parent", None)
    return source if parent is None else _origin(parent)


def _positions_of(names: Sequence[str]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for i, name in enumerate(names):
        found.setdefault(name, []).append(i)
    return found


class _Names:
    """Samples' names, found whole or by the end of their path."""

    def __init__(self, names: Sequence[str]) -> None:
        self.whole = set(names)
        self.last: dict[str, list[str]] = {}
        for name in self.whole:
            self.last.setdefault(os.path.basename(name), []).append(name)

    def find(self, name: str, within: str) -> list[str]:
        """The names that are meant: one, several where it is ambiguous, or none."""
        for candidate in (name, f"{within}/{name}") if within else (name,):
            if candidate in self.whole:
                return [candidate]
        return [full for full in self.last.get(os.path.basename(name), []) if full.endswith(f"/{name}")]
