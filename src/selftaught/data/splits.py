"""How the samples of a source are told apart into training and test samples, the same way every time."""

from __future__ import annotations

import numpy as np

from selftaught._paths import expanded
from selftaught._reading import names_of
from selftaught._words import plural
from selftaught.data.source import TEST, TRAIN, UNLABELLED, VAL, Source
from selftaught.data.spec import near
from selftaught.errors import UserError


class EmptyPartError(UserError):
    """A source whose training or test part would be empty, by a way to split that is right in itself."""


SPLITS = ("train", "test", "val", "all", "pretrain")
_DEFAULT_RATIO = 0.2
_WAYS = ("auto", "given", "ratio", "group", "list")


def split_source(source: Source, split: str = "train", by: str = "auto", seed: int = 0) -> Source:
    """The training or the test samples of a source.

    Args:
        source: the whole.
        split: "train", "test", "val" (only where the source brings one), "pretrain" (the training part and what has no
            labels, without labels where some of it has none) or "all" (with label -1
            where a sample has none).
        by: "given": the source's own split. "ratio:0.2": that share for testing, drawn per class where there are
            labels. "group" or "group:0.2": whole groups (subjects, recordings), none of them in both; per class where
            each group has one class. "list:FILE": the names in FILE, one a line, are the test samples. "auto": given,
            else group, else ratio:0.2.
        seed: of the draw.

    Raises:
        UserError: the source can't be split this way, or one of the parts would be empty.
    """
    if split not in SPLITS:
        raise UserError(f"split {split!r} is none of {', '.join(SPLITS)}")
    if split == "all":
        if by != "auto":
            _divided(source, by, seed)  # so that a wrong one is said here as well
        return source
    codes, how = _divided(source, by, seed)
    if split == "pretrain":
        indices = np.flatnonzero((codes == TRAIN) | (codes == UNLABELLED))
        bare = bool((codes == UNLABELLED).any())
        return _without_labels(source, indices, "pretrain") if bare else source.subset(indices, f"pretrain by {how}")
    wanted = {"train": TRAIN, "val": VAL, "test": TEST}[split]
    indices = np.flatnonzero(codes == wanted)
    if not len(indices):
        if split == "val":
            raise UserError(f"{source.name} has no val split; use train, test or all")
        raise EmptyPartError(
            f"{source.name} ({plural(len(source), 'sample')}, by {how}) leaves nothing to {split}; "
            "use another by= or more data"
        )
    return source.subset(indices, f"{split} by {how}")


def take(source: Source, n: int, seed: int = 0) -> Source:
    """At most `n` samples, drawn evenly over the classes where there are labels, in the order of the source.

    Raises:
        UserError: n is not positive.
    """
    if n < 1:
        raise UserError(f"n={n} must be at least 1")
    if n >= len(source):
        return source
    rng = np.random.default_rng([seed, 1])
    order = rng.permutation(len(source))
    if source.labels is not None:
        labels = source.labels[order]
        rank = np.empty(len(order), dtype=np.int64)
        for k in np.unique(labels):
            rank[labels == k] = np.arange(int((labels == k).sum()))
        order = order[np.argsort(rank, kind="stable")]
    return source.subset(np.sort(order[:n]), f"{n:,} of {len(source):,}")


def _some_unlabelled(source: Source) -> bool:
    return source.given is not None and bool((source.given >= UNLABELLED).any())


def _without_labels(source: Source, indices: np.ndarray, tag: str) -> Source:
    part = source.subset(indices, tag)
    part.labels = part.classes = part.targets = None
    return part


def _divided(source: Source, by: str, seed: int) -> tuple[np.ndarray, str]:
    """The code of each sample. An unlabelled part stays apart; where nothing but it is beside the training part, the
    latter is divided as if there were no split.
    """
    if source.given is None or not _some_unlabelled(source):
        return _codes(source, by, seed)
    rows = np.flatnonzero(source.given < UNLABELLED)
    labelled = source.subset(rows)
    if by == "auto" and (source.given[rows] == TRAIN).all():
        by = "ratio" if source.groups is None else "group"
    codes = source.given.astype(np.int8)
    codes[rows], how = _codes(labelled, by, seed)
    return codes, how


def _kind(by: str) -> tuple[str, str]:
    """(how, with which value) of a way to split.

    Raises:
        UserError: there is no such way.
    """
    kind, _, value = str(by).partition(":")
    if kind not in _WAYS:
        raise UserError(f"by={by!r} is none of auto, given, ratio:0.2, group, list:FILE{near(kind, _WAYS)}")
    return kind, value


def _codes(source: Source, by: str, seed: int) -> tuple[np.ndarray, str]:
    kind, value = _kind(by)
    if kind == "auto":
        kind = "given" if source.given is not None else "group" if source.groups is not None else "ratio"
    if kind == "given":
        if source.given is None:
            raise UserError(f"{source.name} brings no split of its own; use by=ratio:0.2, group or list:FILE")
        return _given(source.given), "given"
    if kind == "list":
        return _listed(source, value), by
    share = _share(by, value)
    if kind == "ratio":
        return _by_ratio(source, share, seed), f"ratio:{share:g}"
    return _by_group(source, share, seed), "group"


def _given(codes: np.ndarray) -> np.ndarray:
    """A source with train and val but no test is tested on val."""
    return np.where(codes == VAL, TEST, codes) if not (codes == TEST).any() else codes


def _share(by: str, value: str) -> float:
    try:
        share = float(value) if value else _DEFAULT_RATIO
    except ValueError:
        share = -1.0
    if not 0 < share < 1:
        raise UserError(
            f"by={by!r}: the share for testing must lie between 0 and 1, such as {by.partition(':')[0]}:0.2"
        )
    return share


def _listed(source: Source, file: str) -> np.ndarray:
    try:
        wanted = names_of(expanded(file), source.names)
    except OSError:
        raise UserError(
            f"by=list:{file}: no such readable text file; give the test samples' names, one a line"
        ) from None
    except ValueError as error:
        raise UserError(f"by=list:{file}: {error}") from None
    position = {name: i for i, name in enumerate(source.names)}
    codes = np.full(len(source), TRAIN, dtype=np.int8)
    for name in wanted:
        if name not in position:
            raise UserError(
                f"by=list:{file}: {name!r} is no sample of {source.name}; its names look like {source.names[0]!r}"
            )
        codes[position[name]] = TEST
    return codes


def _by_ratio(source: Source, share: float, seed: int) -> np.ndarray:
    """Per class c of n_c samples, round(share * n_c) of them, at least one and at most n_c - 1 where n_c is 2 or
    more.
    """
    rng = np.random.default_rng([seed, 0])
    order = rng.permutation(len(source))
    codes = np.full(len(source), TRAIN, dtype=np.int8)
    labels = np.zeros(len(source), dtype=np.int64) if source.labels is None else source.labels
    for k in np.unique(labels):
        members = order[labels[order] == k]
        codes[members[: _count(len(members), share)]] = TEST
    return codes


def _by_group(source: Source, share: float, seed: int) -> np.ndarray:
    if source.groups is None:
        raise UserError(f"{source.name} has no groups (subjects or recordings); use by=ratio:0.2 or list:FILE")
    found, member = np.unique(source.groups, return_inverse=True)
    if len(found) < 2:
        raise EmptyPartError(f"{source.name} has a single group, which can't be split; use by=ratio:0.2")
    rng = np.random.default_rng([seed, 0])
    order = rng.permutation(len(found))
    sizes = np.bincount(member)
    stratum = _class_of_groups(source, member, len(found))
    chosen = np.zeros(len(found), dtype=bool)
    for k in np.unique(stratum):
        groups = order[stratum[order] == k]
        if len(groups) > 1:
            reached = np.cumsum(sizes[groups]) / sizes[groups].sum()
            best = int(np.argmin(np.abs(reached[:-1] - share)))
            chosen[groups[: best + 1]] = True
    return np.where(chosen[member], TEST, TRAIN).astype(np.int8)


def _class_of_groups(source: Source, member: np.ndarray, groups: int) -> np.ndarray:
    """The one class of each group, or zeros where some group has several, or a class would have one group only."""
    if source.labels is None:
        return np.zeros(groups, dtype=np.int64)
    first = np.full(groups, -1, dtype=np.int64)
    first[member] = source.labels
    pure = bool((first[member] == source.labels).all())
    return first if pure and np.unique(first, return_counts=True)[1].min() > 1 else np.zeros(groups, dtype=np.int64)


def _count(n: int, share: float) -> int:
    return 0 if n < 2 else min(max(round(n * share), 1), n - 1)
