"""``methods``: the catalogue."""

from __future__ import annotations

import argparse

from selftaught.cli._command import Command
from selftaught.errors import UserError


def _options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("query", nargs="*", help="words to search for, or the slug of one method")
    for name in ("modality", "job", "family"):
        sub.add_argument(f"--{name}", help=f"only this {name}")


def _call(options: argparse.Namespace) -> None:
    from selftaught import catalog

    words = options.query
    filters = {name: getattr(options, name) for name in ("modality", "job", "family")}
    if len(words) == 1 and not any(filters.values()) and words[0] in {c.slug for c in catalog.all_cards()}:
        print(catalog.card_text(words[0]))
        return
    found = catalog.search(" ".join(words), **filters)
    if not found:
        raise UserError(f"no method matches {' '.join(words)!r}; selftaught methods lists all")
    print(catalog.table_text(found))


COMMAND = Command("methods", "the catalogue: list, search, or one method's card", _options, _call, order=5)
