"""``methods``: the catalogue."""

from __future__ import annotations

import argparse

from selftaught.cli._command import Command
from selftaught.errors import UserError


def _options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("query", nargs="*", help="words to search for, or the slug of one method")
    for name in ("modality", "job", "family"):
        sub.add_argument(f"--{name}", help=f"only this {name}")
    sub.add_argument("--taxonomy", action="store_true", help="as a tree: branch, family, what teaches, what it uses")


def _call(options: argparse.Namespace) -> None:
    from selftaught import catalog

    words = options.query
    filters = {name: getattr(options, name) for name in ("modality", "job", "family")}
    named = len(words) == 1 and words[0] in {c.slug for c in catalog.all_cards()}
    if named and not options.taxonomy and not any(filters.values()):
        print(catalog.card_text(words[0]))
        return
    found = catalog.search(" ".join(words), **filters)
    if not found:
        raise UserError(f"no method matches {' '.join(words)!r}; selftaught methods lists all")
    print(catalog.taxonomy_text(found) if options.taxonomy else catalog.table_text(found))


COMMAND = Command("methods", "the catalogue: list, search, or one method's card", _options, _call, order=5)
