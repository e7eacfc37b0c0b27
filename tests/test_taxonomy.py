"""The tree of methods: every card once, in the branch of its family or its own; on the command line."""

from __future__ import annotations

import pytest

from selftaught import catalog
from selftaught.cli import main


def test_every_method_stands_once_in_its_branch() -> None:
    tree = catalog.taxonomy()
    members = [card.slug for families in tree.values() for cards in families.values() for card in cards]
    assert sorted(members) == sorted(card.slug for card in catalog.all_cards())
    assert list(tree)[:4] == ["view-based", "masked", "hybrid", "pretext"]
    assert next(iter(tree["view-based"])) == "contrastive"
    assert {card.slug for card in tree["masked"]["masked modelling"]} >= {"mae", "simmim", "beit", "maskfeat"}
    assert [card.slug for card in tree["hybrid"]["self-distillation"]] == ["ibot"]
    assert catalog.branch_of(catalog.card("c-bsn")) == "other jobs"


def test_those_that_stand_for_a_branch_come_first() -> None:
    for families in catalog.taxonomy().values():
        for cards in families.values():
            marks = [card.representative for card in cards]
            assert marks == sorted(marks, reverse=True)


def test_the_tree_says_what_a_method_uses(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["methods", "--taxonomy"]) == 0
    text = capsys.readouterr().out
    line = next(line for line in text.splitlines() if " beit " in line)
    assert "*" in line
    assert line.endswith("visual words behind mask tokens [masks, tokeniser]")
    assert main(["methods", "--taxonomy", "--family", "pretext"]) == 0
    small = capsys.readouterr().out
    assert "rotation" in small
    assert "moco" not in small
    card = catalog.card_text("ibot")
    assert "what teaches  self-distillation of images and of masked patches; uses momentum copy" in card
    table = catalog.taxonomy_markdown(link="methods/{slug}.md")
    assert "| hybrid | self-distillation | **[ibot](methods/ibot.md)** |" in table
