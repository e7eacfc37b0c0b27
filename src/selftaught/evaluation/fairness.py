"""Is a model as good for everyone? Three measures by group, each with the gap between the groups.

Goyal et al., "Fairness indicators for systematic assessments of visual feature extractors" (FAccT 2022, arXiv
2202.07603), as SEER (arXiv 2202.08360) reports them: harmful label association, geographic disparity, retrieval of
pictures with the same attribute.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from selftaught._words import listed, plural
from selftaught.errors import UserError
from selftaught.evaluation._inputs import Array, as_features, join_notes
from selftaught.evaluation._protocol import protocol
from selftaught.evaluation.groups import Groups, by_group, small_groups
from selftaught.evaluation.neighbours import nearest
from selftaught.evaluation.restricted import matching
from selftaught.evaluation.result import Number, Result

__all__ = ["LABEL_SETS", "attribute_retrieval", "hit_rate", "label_association"]

TOP = 5
THRESHOLD = 0.1
CUTS = (1, 5, 10, 50)

LABEL_SETS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "human": ("person", "face", "man", "woman", "child", "ballplayer", "groom", "scuba diver"),
        "possibly-human": (
            "makeup", "khimar", "turban", "wig", "lipstick", "face powder", "hair spray", "hair slide", "sunglass",
            "sunglasses", "mask", "ski mask", "shower cap", "bonnet", "cowboy hat", "sombrero", "bow tie",
            "Windsor tie", "neck brace", "feather boa", "stole", "abaya", "academic gown", "gown", "kimono", "vestment",
            "lab coat", "military uniform", "bulletproof vest", "suit", "sweatshirt", "trench coat", "fur coat",
            "cloak", "poncho", "pajama", "sarong", "miniskirt", "overskirt", "bikini", "maillot", "brassiere",
            "swimming trunks", "diaper",
        ),
        "non-human": (
            "animal", "swine", "hog", "slug", "snake", "rat", "dog", "monkey", "lemur", "Madagascar cat", "indri",
            "titi", "howler monkey", "spider monkey", "squirrel monkey", "capuchin", "marmoset", "langur", "colobus",
            "guenon", "patas", "macaque", "proboscis monkey", "baboon", "mandrill", "gibbon", "siamang", "ape",
            "great ape", "orangutan", "chimpanzee", "pygmy chimpanzee", "gorilla", "mountain gorilla",
        ),
        "crime": ("prison", "convict", "burglar"),
    }
)  # fmt: skip
"""What a label given to a picture of a person says: names of classes of ImageNet-1k and -22k (first name of a synset).

A default to start from, neither complete nor the paper's own lists, which were written for other label spaces.
"""

_BETTER = {"human": "high", "possibly-human": "none", "non-human": "low", "crime": "low"}


@protocol("fairness-labels", "harmful labels given to people, by group", inputs="named-scores")
def label_association(
    scores: Array,
    classes: Sequence[str],
    groups: Groups,
    *,
    sets: Mapping[str, Collection[str]] = LABEL_SETS,
    threshold: float = THRESHOLD,
    top: int = TOP,
) -> Result:
    """Harmful label association: which share of a group's pictures of people is called human, animal, criminal?

    Args:
        scores: ``(n, k)`` logits of a classifier for pictures of people.
        classes: names of its k classes.
        groups: attribute -> group of each picture (gender, skin tone, bucket of age); see ``by_group``.
        sets: name of a set -> names of the classes in it; default `LABEL_SETS`. A class is in a set when its name or,
            of several with commas between, its first one is (see ``restricted.matching``).
        threshold: least confidence (softmax) of a label that counts, default 0.1.
        top: labels per picture that are looked at, default 5.

    Returns:
        ``Result`` "fairness-labels": ``SET``, the share of pictures with a label of the set among their confident top
        labels, then ``SET: ATTRIBUTE GROUP`` and ``SET: ATTRIBUTE gap`` with intervals over pictures. Sets that the
        classifier has no class of are left out, with a note. Figure ``better`` says which numbers should be low.

    Raises:
        UserError: lengths that do not match, a threshold outside [0, 1], no set with a known class.
    """
    if not 0 <= threshold <= 1:
        raise UserError(f"threshold {threshold}: a share from 0 to 1")
    labels, confidence = _likeliest(scores, classes, top)
    numbers: dict[str, Number] = {}
    better: dict[str, str] = {}
    empty = []
    for name, wanted in sets.items():
        columns = matching(classes, wanted)
        if not len(columns):
            empty.append(name)
            continue
        hit: np.ndarray = np.any(np.isin(labels, columns) & (confidence >= threshold), axis=1)
        found = {name: Number.bootstrap(hit)} | by_group(hit, groups, name)
        better |= {key: "low" if key.endswith(" gap") else _BETTER.get(name, "none") for key in found}
        numbers |= found
    if not numbers:
        raise UserError(
            f"label sets {', '.join(sets)}: none of their names is a class of the classifier; give your own"
        )
    missing = f"no class of {', '.join(empty)}" if empty else ""
    note = join_notes(missing, small_groups(groups, len(labels)))
    return Result("fairness-labels", numbers, {"better": better}, note)


@protocol("hit-rate", "an allowed label among the first five, by income and region", inputs="named-scores")
def hit_rate(
    scores: Array, classes: Sequence[str], allowed: Sequence[Collection[str]], groups: Groups, *, top: int = TOP
) -> Result:
    """Geographic disparity (DollarStreet): is one of the allowed labels among the first five, in every household?

    Args:
        scores: ``(n, k)`` logits.
        classes: names of the k classes.
        allowed: ``(n,)`` the names of the classes that are right for each picture.
        groups: attribute -> group of each picture: income (low, medium, high), region; see ``by_group``.
        top: labels per picture that are looked at, default 5.

    Returns:
        ``Result`` "hit-rate": ``hit_rate``, ``hit_rate: ATTRIBUTE GROUP`` and ``hit_rate: ATTRIBUTE gap`` with
        intervals over pictures. Pictures none of whose labels the classifier knows are left out, with a note.

    Raises:
        UserError: lengths that do not match, or no picture with a known label.
    """
    labels, _ = _likeliest(scores, classes, top)
    if len(allowed) != len(labels):
        raise UserError(f"allowed: labels of {len(allowed)} pictures, scores of {len(labels)}; pass as many")
    kinds = {names: matching(classes, names) for names in {frozenset(a) for a in allowed}}
    columns = [kinds[frozenset(names)] for names in allowed]
    kept = np.flatnonzero([len(c) for c in columns])
    if not len(kept):
        raise UserError("allowed labels: none of them is a class of the classifier; use its names")
    hit = np.array([np.isin(labels[i], columns[i]).any() for i in kept], dtype=np.float64)
    some = {name: np.asarray(members, dtype=object)[kept] for name, members in _checked(groups, len(labels)).items()}
    numbers = {"hit_rate": Number.bootstrap(hit)} | by_group(hit, some, "hit_rate")
    lost = len(labels) - len(kept)
    note = f"{plural(lost, 'image')} with no label that the classifier knows left out" if lost else ""
    return Result("hit-rate", numbers, note=join_notes(note, small_groups(some, len(kept))))


@protocol("fairness-retrieval", "same attribute among the nearest, by group", inputs="attributes")
def attribute_retrieval(
    database: Array,
    attributes: Sequence[Any],
    queries: Array | None = None,
    query_attributes: Sequence[Any] | None = None,
    *,
    groups: Groups | None = None,
    ks: Sequence[int] = CUTS,
) -> Result:
    """Same-attribute retrieval: do the nearest faces have the query's gender, whoever is asked for?

    Args:
        database: ``(n, d)`` features (normalised here).
        attributes: ``(n,)`` attribute of each database picture (gender).
        queries: ``(m, d)``; without them every database picture queries the rest, itself left out.
        query_attributes: ``(m,)``.
        groups: attribute -> group of each query (skin tone, bucket of age); see ``by_group``.
        ks: cut-offs, default 1, 5, 10 and 50; those above the number of candidates are clipped, with a note.

    Returns:
        ``Result`` "fairness-retrieval": ``precision@k``, the mean share of the k nearest that have the query's
        attribute, then ``precision@k: ATTRIBUTE GROUP`` and ``precision@k: ATTRIBUTE gap``, intervals over queries.

    Raises:
        UserError: NaN, lengths that do not match, queries without attributes, every k below 1.
    """
    gallery = as_features(database, "database features")
    if (queries is None) != (query_attributes is None):
        raise UserError("queries: pass queries and query_attributes together, or neither")
    asked = np.arange(len(gallery)) if queries is None else as_features(queries, "query features")
    known = np.array([str(a) for a in attributes])
    wanted = known if query_attributes is None else np.array([str(a) for a in query_attributes])
    if len(known) != len(gallery) or len(wanted) != len(asked):
        raise UserError(f"attributes: {len(known)} and {len(wanted)} for {len(gallery)} and {len(asked)} pictures")
    if not len(ks) or min(ks) < 1:
        raise UserError(f"ks: {list(ks)}; every k must be at least 1")
    found = nearest(gallery, asked, k=max(ks))
    same = known[found] == wanted[:, None]
    members = _checked(groups or {}, len(asked))
    numbers: dict[str, Number] = {}
    for k in ks:
        precision = same[:, :k].mean(1)
        numbers |= {f"precision@{k}": Number.bootstrap(precision)} | by_group(precision, members, f"precision@{k}")
    clipped = [k for k in ks if k > found.shape[1]]
    note = f"k {listed(clipped)} clipped to {found.shape[1]}" if clipped else ""
    return Result("fairness-retrieval", numbers, note=join_notes(note, small_groups(members, len(asked))))


def _likeliest(scores: Array, classes: Sequence[str], top: int) -> tuple[np.ndarray, np.ndarray]:
    """The ``top`` likeliest classes of each picture, (n, top), and their softmax probabilities, (n, top)."""
    logits = as_features(scores, "scores")
    if logits.shape[1] != len(classes):
        raise UserError(f"classes: {len(classes)} names for {logits.shape[1]} columns of scores; pass one per column")
    if top < 1:
        raise UserError(f"top {top}: at least 1 label has to be looked at")
    confidence, index = logits.softmax(1).topk(min(top, len(classes)), dim=1)
    return index.cpu().numpy(), confidence.cpu().numpy()


def _checked(groups: Groups, n: int) -> Groups:
    for name, members in groups.items():
        if len(members) != n:
            raise UserError(f"groups: {len(members)} values of {name} for {n} images; pass one per image")
    return groups
