"""The claim of the example."""

from __future__ import annotations

from selftaught.claims import Arm, Claim

__all__ = ["claim"]


def claim() -> Claim:
    """A critic changes what is learnt from pairs."""
    return Claim(
        method="retouch",
        says="A critic makes retouched pictures look more like a person's than nearness alone does.",
        data="pairs:pictures?before=raw&after=done",
        arms=(Arm("with critic", "retouch"), Arm("without", "retouch", {"weight": 0.0})),
        common={"steps": 300},
        score=("restoration", "psnr"),
    )
