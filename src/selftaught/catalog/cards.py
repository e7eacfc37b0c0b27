"""Cards: reading, look-up and search."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from selftaught.catalog.source import Option, read_class_literal, read_literal, read_options, read_own_literals
from selftaught.errors import UserError

PACKAGE = Path(__file__).resolve().parents[1]
_BENCHMARKS = ("-benchmark", "-survey")
"""Endings of the slugs that are a comparison and no method."""


@dataclass(frozen=True)
class Card:
    """One method as a reader chooses it.

    ``number`` is the order in the list of the 47 systems, 0 for a baseline. ``modality`` may name several, joined by
    " + " ("image + volume"); "any" stands for all. ``summary`` says what the method is for, ``avoid`` when not to use
    it, ``needs`` what data it takes. For the taxonomy: ``branch`` where it isn't the family's, ``mechanism`` (what
    teaches, in a few words), ``uses`` (what it takes besides an encoder), ``representative`` (stands for its branch).
    """

    slug: str
    title: str
    paper: str
    year: int
    venue: str
    arxiv: str
    modality: str
    job: str
    family: str
    summary: str
    avoid: str
    needs: str
    tags: tuple[str, ...]
    number: int = 0
    command: str = ""
    branch: str = ""
    mechanism: str = ""
    uses: tuple[str, ...] = ()
    representative: bool = False

    @property
    def modalities(self) -> tuple[str, ...]:
        """The single modalities of ``modality``."""
        return tuple(self.modality.split(" + "))

    @property
    def baseline(self) -> bool:
        """Whether it is listed for comparison, not as one of the 47 systems."""
        return self.number == 0

    @property
    def built(self) -> bool:
        """Whether it can be run: its file stands in ``methods`` (a benchmark's in ``benchmark``)."""
        return method_file(self.slug).is_file()

    @property
    def state(self) -> str:
        """ "ready" or "not built yet"."""
        return "ready" if self.built else "not built yet"


# ---- cards -----------------------------------------------------------------------------------------------------------
@cache
def _cards() -> dict[str, Card]:
    cards = [_read_card(file) for file in (PACKAGE / "cards").glob("*.toml")]
    return {card.slug: card for card in sorted(cards, key=lambda c: (c.baseline, c.number, c.slug))}


def _read_card(file: Path) -> Card:
    import tomllib

    entry = tomllib.loads(file.read_text(encoding="utf-8"))
    entry = {key: " ".join(value.split()) if isinstance(value, str) else value for key, value in entry.items()}
    entry["modality"] = " + ".join(entry["modality"])
    lists: dict[str, Any] = {name: tuple(entry[name]) for name in ("tags", "uses") if name in entry}
    return Card(slug=file.stem, **entry | lists)


def all_cards() -> list[Card]:
    """Every card: the 47 systems in their order, then the baselines by name."""
    return list(_cards().values())


def card(slug: str) -> Card:
    """The card of one method. Case and underscores don't matter (``barlow_twins``).

    Raises:
        UserError: no such method; names the nearest ones.
    """
    if not isinstance(slug, str):
        raise UserError(f"{slug!r} is no method's name; give one such as 'dcl'")
    cards, wanted = _cards(), slug.strip().lower().replace("_", "-").replace(" ", "-")
    if wanted in cards:
        return cards[wanted]
    import difflib

    names = {name: c.slug for c in cards.values() for name in (c.slug, c.slug.replace("-", ""), c.title.lower())}
    near = list(dict.fromkeys(names[n] for n in difflib.get_close_matches(wanted, names, 5, 0.55)))[:3]
    hint = f"nearest: {', '.join(near)}" if near else "'selftaught methods' lists them all"
    raise UserError(f"no method {slug!r}; {hint}")


def method_file(slug: str) -> Path:
    """Where the code stands once it is built: ``methods/SLUG_WITH_UNDERSCORES.py``, or for a benchmark
    ``benchmark/NAME.py``.
    """
    if slug.endswith(_BENCHMARKS):
        return PACKAGE / "benchmark" / f"{slug.removesuffix('-benchmark').replace('-', '_')}.py"
    return PACKAGE / "methods" / f"{slug.replace('-', '_')}.py"


@cache
def applied_with() -> dict[str, dict[str, Any]]:
    """Options of ``apply`` that some kind of output or some method has, with what argparse is told of each."""
    found: dict[str, dict[str, Any]] = {}
    for folder, name in (("run/outputs", "takes"), ("methods", "applied_with")):
        for file in sorted((PACKAGE / folder).glob("*.py")):
            for options in read_own_literals(file, name):
                found |= options
    return found


_FILLERS = frozenset(["a", "an", "and", "by", "for", "from", "in", "of", "on", "or", "the", "to", "with", "without"])


# ---- search ----------------------------------------------------------------------------------------------------------
def search(
    query: str = "", modality: str | None = None, job: str | None = None, family: str | None = None
) -> list[Card]:
    """Cards that fit, best first: hits in the slug, then title and tags, then the rest of the card.

    Args:
        query: words (fillers such as "from" aside) that must all occur somewhere, as beginnings of words and whatever
            their ending ("denoising" finds "denoise"); empty takes every card.
        modality: one of :func:`values` of "modality"; cards for "any" fit too.
        job: one of the jobs.
        family: one of the families.

    Raises:
        UserError: a filter value that no card has.
    """
    chosen = all_cards()
    for name, value in (("modality", modality), ("job", job), ("family", family)):
        if value is not None:
            chosen = [c for c in chosen if _fits(c, name, value)]
    words = [word for word in query.lower().split() if word not in _FILLERS]
    scored = [(sum(scores), c) for c in chosen if all(scores := [_score(c, word) for word in words])]
    return [c for _, c in sorted(scored, key=lambda pair: -pair[0])]


def values(name: str) -> list[str]:
    """The values that "modality", "job" or "family" take over all cards, sorted."""
    return sorted({value for c in all_cards() for value in _values_of(c, name)})


def _values_of(c: Card, name: str) -> tuple[str, ...]:
    return c.modalities if name == "modality" else (getattr(c, name),)


def _fits(c: Card, name: str, value: str) -> bool:
    if value not in values(name):
        raise UserError(f"--{name} {value}: no such {name}; there are: {', '.join(values(name))}")
    return value in _values_of(c, name) or (name == "modality" and "any" in c.modalities)


def _score(c: Card, word: str) -> int:
    """How well one lower-case word fits a card; 0 for not at all."""
    parts = c.slug.split("-")
    if word in (c.slug, c.slug.replace("-", "")):
        return 100
    if word in parts:
        return 65 if word == parts[0] else 60
    if len(word) > 2 and (word in c.slug or word in c.slug.replace("-", "")):
        return 40
    stem = re.compile(r"\b" + re.escape(_stem(word)))
    ranked = ((30, c.title), (20, " ".join((*c.tags, c.job, c.family, c.modality))), (10, c.paper))
    rest = f"{c.summary} {c.needs} {c.venue} {c.year} {c.arxiv}"
    return next((points for points, text in (*ranked, (3, rest)) if stem.search(text.lower())), 0)


def _stem(word: str) -> str:
    """The word less a common ending, so that denoise, denoiser and denoising meet."""
    return re.sub(r"(ations?|ating|ing|ers?|ed|es|e|s)$", "", word) if len(word) > 4 else word


# ---- what the file of a built method says ----------------------------------------------------------------------------
def _built_file(slug: str) -> Path | None:
    file = method_file(card(slug).slug)
    return file if file.is_file() and not slug.endswith(_BENCHMARKS) else None


def options(slug: str) -> list[Option]:
    """Options of a built method in the order of its ``Config`` (inherited ones first); [] if it isn't built."""
    file = _built_file(slug)
    return read_options(file, "Config", PACKAGE.parent) if file else []


def presets(slug: str) -> dict[str, dict[str, Any]]:
    """Named recipes of a built method, ``PRESETS`` of its file; {} if it has none or isn't built.

    Raises:
        ValueError: ``PRESETS`` isn't a literal (a fault of the method's file).
    """
    file = _built_file(slug)
    return dict(read_literal(file, "PRESETS", PACKAGE.parent) or {}) if file else {}


def default_preset(slug: str, modality: str, on_cpu: bool) -> str | None:
    """The preset of a run that names none: laptop on a CPU (laptop-series for series), else the paper's first one."""
    recipes = presets(slug)
    own = f"laptop-{modality}"
    if on_cpu or not any("epochs" in p or "steps" in p for p in recipes.values()):
        return own if own in recipes else "laptop" if "laptop" in recipes else None
    return own if own in recipes and modality != "image" else next(iter(recipes))


def default_data(slug: str) -> str | None:
    """The built-in data set that a method learns from where none is named; None if it isn't built or needs one."""
    file = _built_file(slug)
    named = read_class_literal(file, "default_data", PACKAGE.parent) if file else None
    return str(named) if named else None


def stages(slug: str) -> list[str]:
    """Names of the stages that a method trains in, one after another: ``stages`` of its class, or ["train"]."""
    file = _built_file(slug)
    named = read_class_literal(file, "stages", PACKAGE.parent) if file else None
    return [str(name) for name in named or ("train",)]


def roles(slug: str) -> list[str]:
    """The streams of samples that a method reads: ``roles`` of its class, or ["data"]."""
    file = _built_file(slug)
    named = read_class_literal(file, "roles", PACKAGE.parent) if file else None
    return [str(name) for name in named or ("data",)]


def changes_a_run(slug: str) -> bool:
    """Whether a method takes a trained model and gives another one: ``transforms`` of its class."""
    file = _built_file(slug)
    return bool(read_class_literal(file, "transforms", PACKAGE.parent)) if file else False


def settings() -> list[Option]:
    """Settings of a run, the same for every method: the fields of ``run_settings.Settings``."""
    file = PACKAGE / "run_settings.py"
    return read_options(file, "Settings", PACKAGE.parent) if file.is_file() else []
