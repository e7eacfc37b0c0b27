"""The claims: for each method what its paper says, and the smallest fair comparison that could show it.

Every arm of a claim has the same data, budget, seeds and optimiser; only what the claim is about differs. Learning
rates were not tuned for either arm: both take the method's laptop preset.
"""

from __future__ import annotations

from collections.abc import Callable

from selftaught.benchmark.comparison import Arm, Claim
from selftaught.benchmark.definitions import contrastive, labels, other_jobs, without_negatives

CLAIMS: dict[str, Callable[[], Claim]] = (
    contrastive.CLAIMS | without_negatives.CLAIMS | labels.CLAIMS | other_jobs.CLAIMS
)
"""One claim per method that is built."""

__all__ = ["CLAIMS", "Arm", "Claim"]
