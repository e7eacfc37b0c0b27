"""The methods as cards: what each is for, when not to use it, its paper, options, presets; look-up and search.

Standard library only, and nothing of the methods is run: cards are the TOML files in ``selftaught/cards``, options and
presets are read from the syntax tree of a method's file. So the command line can answer at once, without loading torch.
"""

from selftaught.catalog.cards import (
    Card,
    all_cards,
    applied_with,
    card,
    changes_a_run,
    default_data,
    default_preset,
    method_file,
    options,
    presets,
    roles,
    search,
    settings,
    stages,
    values,
)
from selftaught.catalog.protocols import protocols
from selftaught.catalog.source import REQUIRED, Expression, Option, read_options
from selftaught.catalog.taxonomy import branch_of, taxonomy, taxonomy_markdown, taxonomy_text
from selftaught.catalog.text import card_text, table_markdown, table_text

__all__ = [
    "REQUIRED",
    "Card",
    "Expression",
    "Option",
    "all_cards",
    "applied_with",
    "branch_of",
    "card",
    "card_text",
    "changes_a_run",
    "default_data",
    "default_preset",
    "method_file",
    "options",
    "presets",
    "protocols",
    "read_options",
    "roles",
    "search",
    "settings",
    "stages",
    "table_markdown",
    "table_text",
    "taxonomy",
    "taxonomy_markdown",
    "taxonomy_text",
    "values",
]
