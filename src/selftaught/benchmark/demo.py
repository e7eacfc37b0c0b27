"""The main job on the built-in photographs: train for about three minutes, evaluate, write the report."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from selftaught.run import Run, train

DEMO: dict[str, Any] = {
    "method": "dcl",
    "data": "embedded:photos",
    "options": {"augment": "grey", "crop": 0.08, "steps": 800},
}
"""What the demonstration trains."""


def run(*, out: str | None = None, steps: int | None = None, say: Callable[[str], None] = print) -> Run:
    """Train on ``photos``, evaluate beside raw pixels and an untrained encoder, write the report.

    Args:
        out: folder of the run; default under runs/.
        steps: optimiser steps; default about three minutes' worth on two cores.
        say: called with a line before each part.
    """
    options = DEMO["options"] | ({"steps": steps} if steps else {})
    say("photographs from scikit-image's and scikit-learn's packages; labels (which photograph) only for evaluation")
    done = train(DEMO["method"], DEMO["data"], out=out, **options)
    done.evaluate(say=say)
    done.report(say=say)
    return done
