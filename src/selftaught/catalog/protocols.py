"""The protocols by name, read from the files that declare them: nothing is imported or run."""

from __future__ import annotations

import re
from functools import cache

from selftaught.catalog.source import PACKAGE

_DECLARED = re.compile(r'^@protocol\(\s*"([^"]+)",\s*"([^"]+)"', re.MULTILINE)


@cache
def protocols() -> dict[str, str]:
    """Name -> one line, sorted; what ``@protocol`` declares in the files of ``selftaught.evaluation``."""
    files = sorted((PACKAGE / "evaluation").glob("[!_]*.py"))
    found = [pair for file in files for pair in _DECLARED.findall(file.read_text(encoding="utf-8"))]
    return dict(sorted(found))
