"""Images and texts in one space: an embedding per image, found and classified by words."""

from __future__ import annotations

from typing import ClassVar

from selftaught.run.outputs.embedding import Embedding

__all__ = ["ImageText"]


class ImageText(Embedding):
    """As embeddings; judged by words besides: `text-retrieval` where there are captions, `zero-shot` with classes."""

    headlines: ClassVar[tuple[tuple[str, str, str], ...]] = (
        ("zero-shot", "accuracy", "zero-shot accuracy"),
        ("text-retrieval", "image_to_text_r1", "image to text R@1"),
        *Embedding.headlines,
    )
