"""The report: one self-contained HTML file that says what was trained on what, and what came of it.

    from selftaught import report
    report.write("runs/dcl/report.html", [run])            # one run
    report.write("comparison.html", [run_a, run_b])        # several: side by side

A run is a plain dict; :class:`selftaught.report.schema.Run` is its shape, every section of it optional. Pictures are
base64 text, made by :mod:`selftaught.report.images`; static figures for documents are in
:mod:`selftaught.report.figures`. This room knows only results: no model, no data, no method.
"""

from __future__ import annotations

from selftaught.report import images
from selftaught.report.page import render, write
from selftaught.report.schema import Run
from selftaught.report.validation import validate
from selftaught.report.verdict import Verdict, verdict

__all__ = ["Run", "Verdict", "images", "render", "validate", "verdict", "write"]
