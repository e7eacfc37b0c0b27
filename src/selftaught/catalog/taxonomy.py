"""The methods as a tree: branch, family, method, as the survey of Khan et al. (arXiv 2408.17059) divides them."""

from __future__ import annotations

from collections.abc import Sequence

from selftaught.catalog.cards import Card, all_cards

BRANCHES: dict[str, dict[str, str]] = {
    "view-based": {
        "contrastive": "each sample against the others",
        "self-distillation": "a student learns from its own slow copy, no negatives",
        "clustering": "assignments to prototypes as targets",
        "redundancy reduction": "embeddings that agree and don't repeat themselves",
    },
    "masked": {"masked modelling": "what is hidden, from what is visible"},
    "hybrid": {},
    "pretext": {"pretext": "a question about the sample that its own pixels answer"},
    "across modalities": {"vision-language": "images and their texts"},
    "with labels": {"supervision": "labels, and a question beside them"},
    "other jobs": {},
}
"""Branch -> the families in it, and what teaches there; what no branch names is in the last one, by its family."""


def branch_of(card: Card) -> str:
    """The branch of a method: its card's own, or its family's."""
    if card.branch:
        return card.branch
    return next((branch for branch, families in BRANCHES.items() if card.family in families), "other jobs")


def taxonomy(cards: Sequence[Card] | None = None) -> dict[str, dict[str, list[Card]]]:
    """Branch -> family -> cards, those that stand for their branch first; empty branches are left out.

    Args:
        cards: which; default all.
    """
    found: dict[str, dict[str, list[Card]]] = {b: {family: [] for family in known} for b, known in BRANCHES.items()}
    for card in sorted(all_cards() if cards is None else cards, key=lambda c: not c.representative):
        found.setdefault(branch_of(card), {}).setdefault(card.family, []).append(card)
    filled = {b: {name: members for name, members in families.items() if members} for b, families in found.items()}
    return {branch: families for branch, families in filled.items() if families}


def taxonomy_text(cards: Sequence[Card] | None = None) -> str:
    """The tree for a terminal: a line per method with what teaches, what it uses, and whether it is ready.

    Methods marked * stand for their branch in ``selftaught benchmark survey``.

    Args:
        cards: which; default all.
    """
    lines = ["methods (* stands for its branch in: selftaught benchmark survey)"]
    tree = taxonomy(cards)
    for b, (branch, families) in enumerate(tree.items()):
        stem = "   " if b == len(tree) - 1 else "\u2502  "
        lines.append(f"{_fork(b, len(tree))} {branch}")
        for f, (family, members) in enumerate(families.items()):
            told = BRANCHES.get(branch, {}).get(family, "")
            lines.append(f"{stem}{_fork(f, len(families))} {family}{': ' + told if told else ''}")
            twig = stem + ("   " if f == len(families) - 1 else "\u2502  ")
            lines += [f"{twig}{_fork(m, len(members))} {_leaf(card)}" for m, card in enumerate(members)]
    return "\n".join(lines)


def taxonomy_markdown(cards: Sequence[Card] | None = None, link: str = "") -> str:
    """The tree as a Markdown table: branch, family, method, mechanism, what it uses, data it needs.

    Args:
        cards: which; default all.
        link: address of a card's page with ``{slug}`` in it; empty makes no links.
    """
    rows = ["| branch | family | method | mechanism | uses | state |", "|---|---|---|---|---|---|"]
    for branch, families in taxonomy(cards).items():
        for family, members in families.items():
            for card in members:
                name = f"[{card.slug}]({link.format(slug=card.slug)})" if link else f"`{card.slug}`"
                name = f"**{name}**" if card.representative else name
                cells = (branch, family, name, card.mechanism or card.title, ", ".join(card.uses), card.state)
                rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows)


def _fork(place: int, count: int) -> str:
    return "\u2514\u2500" if place == count - 1 else "\u251c\u2500"


def _leaf(card: Card) -> str:
    """One method: slug, mechanism, what it uses, state."""
    star = "*" if card.representative else " "
    uses = f" [{', '.join(card.uses)}]" if card.uses else ""
    state = "" if card.built else " (not built yet)"
    return f"{star} {card.slug:20s} {card.mechanism or card.title}{uses}{state}"
