"""Images and texts in one space: an embedding per image, found and classified by words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from selftaught.run.bench import Bench
from selftaught.run.outputs._base import Judged
from selftaught.run.outputs.embedding import Embedding
from selftaught.run.suites import forgetting
from selftaught.run_settings import Settings

__all__ = ["ImageText"]


class ImageText(Embedding):
    """As embeddings; judged by words besides: `text-retrieval` where there are captions, `zero-shot` with classes."""

    headlines: ClassVar[tuple[tuple[str, str, str], ...]] = (
        ("zero-shot", "accuracy", "zero-shot accuracy"),
        ("text-retrieval", "image_to_text_r1", "image to text R@1"),
        *Embedding.headlines,
    )

    def needed(self, settings: Settings, data: Mapping[str, Any]) -> str:
        """None: what was learnt from has captions, or classes."""
        return ""

    def evaluate(self, bench: Bench) -> Judged:
        """As embeddings; with `forgetting` the sweep between start and end as a table besides."""
        judged = super().evaluate(bench)
        if forgetting.NAME in judged.found:
            judged.sections["listings"] = [forgetting.listing(judged.found[forgetting.NAME]["this"])]
        elif bench.own.init and not bench.protocols:
            bench.say(f"what it forgot of its start, and weights in between: --protocol {forgetting.NAME}")
        return judged
