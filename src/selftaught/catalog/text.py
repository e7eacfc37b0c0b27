"""Cards as plain text for the terminal and as Markdown tables for the pages."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

from selftaught.catalog.cards import Card, all_cards, card, options, presets, stages
from selftaught.catalog.source import Option

_DATA = {"series": "recordings/", "video": "videos/", "volume": "scans/", "points": "scenes/", "text": "texts.csv"}


def command(c: Card) -> str:
    """The command that uses a method, on data of its kind."""
    return c.command or f"selftaught train {c.slug} --data {_DATA.get(c.modalities[0], 'photos/')}"


def reference(c: Card) -> str:
    """The paper in one line: title, venue and year, arXiv number."""
    place = (
        f"arXiv {c.arxiv} ({c.year})"
        if c.venue == "arXiv"
        else f"{c.venue} {c.year}{f', arXiv {c.arxiv}' if c.arxiv else ''}"
    )
    return f"{c.paper}. {place}"


def show(value: Any) -> str:
    """A default or preset value for a reader: 0.001 as it is, booleans as on and off, nothing as none."""
    if isinstance(value, bool) or value is None:
        return {True: "on", False: "off", None: "none"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)


def recipe(entries: dict[str, Any]) -> str:
    """A preset's settings on one line, named as on the command line: ``epochs 100, batch-size 512``."""
    return ", ".join(f"{name.strip('_').replace('_', '-')} {show(value)}" for name, value in entries.items())


def card_text(slug: str, width: int = 100) -> str:
    """The whole card as plain text: what for, when not, paper, presets, options with defaults, the command.

    Args:
        slug: the method.
        width: columns to wrap at.

    Raises:
        UserError: no such method.
    """
    c = card(slug)
    kind = "baseline" if c.baseline else f"system {c.number} of 47"
    lines = [f"{c.title}   ({c.slug})", f"{c.modality} · {c.job} · {c.family} · {kind}", ""]
    facts = {"what for": c.summary, "when not": c.avoid, "needs": c.needs, "paper": reference(c)}
    if c.mechanism:
        facts["what teaches"] = c.mechanism + (f"; uses {', '.join(c.uses)}" if c.uses else "")
    if not c.built:
        return "\n".join([*lines, *_aligned(facts.items(), width), "", "not built yet"])
    trained = stages(c.slug)
    if len(trained) > 1:
        facts["stages"] = ", then ".join(trained)
    lines += _aligned(facts.items(), width)
    recipes = presets(c.slug)
    if recipes:
        lines += ["", "presets (--preset NAME)", *_aligned(((n, recipe(p)) for n, p in recipes.items()), width, 2)]
    own, shared = split_options(options(c.slug))
    for title, fields in (("options of its own", own), ("options shared with other methods", shared)):
        lines += ["", title, *option_lines(fields, width)] if fields else []
    return "\n".join([*lines, "", command(c)])


def split_options(fields: Sequence[Option]) -> tuple[list[Option], list[Option]]:
    """A method's own options, and those that it shares with others."""
    return [o for o in fields if not o.inherited], [o for o in fields if o.inherited]


def option_lines(fields: Sequence[Option], width: int = 100) -> list[str]:
    """Options in aligned columns (flag, default, explanation with the choices), wrapped at ``width`` columns."""
    names = max(len(o.flag) for o in fields)
    shown = [show(o.default) or "''" for o in fields]
    defaults = min(24, max(map(len, shown)))
    rows = []
    for option, default in zip(fields, shown, strict=True):
        telling = option.choices or option.rule.range or option.rule.form
        text = f"{option.help} [{option.kind}]" if telling else option.help or option.type
        rows.append((f"{option.flag:{names}}  {default:{defaults}}", text))
    return _aligned(rows, width, 2)


def _aligned(rows: Iterable[tuple[str, str]], width: int, indent: int = 0) -> list[str]:
    """Two columns, the second wrapped under its own left edge."""
    rows = list(rows)
    edge = indent + 2 + max((len(name) for name, _ in rows if len(name) <= width // 2), default=0)
    lines: list[str] = []
    for name, text in rows:
        head = f"{' ' * indent}{name}"
        wrapped = textwrap.wrap(text, max(20, width - edge), break_long_words=False, break_on_hyphens=False) or [""]
        lines += [f"{head:{edge}}{wrapped[0]}".rstrip() if len(head) < edge else head]
        rest = wrapped[1:] if len(head) < edge else wrapped
        lines += [" " * edge + line for line in rest]
    return lines


def table_text(cards: Sequence[Card]) -> str:
    """Cards as aligned columns: method, what it is, modality, job, family, state."""
    rows = [("method", "system", "modality", "job", "family", "state")]
    rows += [(c.slug, c.title, c.modality, c.job, c.family, c.state) for c in cards]
    widths = [max(len(row[k]) for row in rows) for k in range(6)]
    return "\n".join("  ".join(f"{cell:{w}}" for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)


def table_markdown(cards: Sequence[Card] | None = None, link: str = "") -> str:
    """The table of methods with their state, for the README and the pages.

    Args:
        cards: which; default all.
        link: address of a card's page with ``{slug}`` in it ("methods/{slug}.md"); empty makes no links.
    """
    rows = ["| no | method | system | paper | modality | job | family | state |", "|--:|---|---|---|---|---|---|---|"]
    for c in all_cards() if cards is None else cards:
        name = f"[{c.slug}]({link.format(slug=c.slug)})" if link else f"`{c.slug}`"
        place = f"{c.venue} {c.year}"
        cells = (str(c.number or ""), name, c.title, place, c.modality, c.job, c.family, c.state)
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows)
