"""A frozen CLIP seen from inside: tokens of every image block, embedded tokens into the text tower.

Two kinds with one face: a :class:`~selftaught.networks.DualEncoder` of our own, and a model of open_clip.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from selftaught.errors import UserError
from selftaught.networks.dual import DualEncoder
from selftaught.networks.frozen import Frozen
from selftaught.networks.open_clips import open_clip_model

__all__ = ["CLIPTowers", "OpenCLIPTowers", "OwnTowers", "image_blocks"]


def image_blocks(encoder: nn.Module) -> list[nn.Module]:
    """The blocks of an image encoder, in order: a transformer's, a ResNet's four stages, else what gives maps.

    Raises:
        UserError: none are found.
    """
    inner = getattr(encoder, "model", encoder)
    for name in ("blocks", "stages"):
        if isinstance(getattr(inner, name, None), nn.ModuleList | nn.Sequential):
            return list(getattr(inner, name))
    layers = [getattr(inner, f"layer{k}") for k in range(1, 5) if hasattr(inner, f"layer{k}")]
    found = layers or [m for m in inner.children() if isinstance(m, nn.MaxPool2d)]
    if not found:
        raise UserError(f"{type(inner).__name__} has no blocks to take tokens from; use a ViT or a ResNet")
    return found


def _as_tokens(h: Tensor) -> Tensor:
    """What a block gives as (N, L, W): tokens as they are, maps (N, W, h, w) place by place."""
    return h.flatten(2).transpose(1, 2) if h.dim() == 4 else h


class CLIPTowers(nn.Module):
    """What prompts need of a CLIP; nothing in it is ever trained.

    Attributes:
        widths: W of each of the image tower's blocks.
        width: of the text tower's tokens.
        dim: of the space where both meet.
        context: longest text in tokens.
    """

    widths: list[int]
    width: int
    dim: int
    context: int

    def image(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Images (N, C, h, w), normalised -> embeddings (N, dim) of length 1, tokens (N, L, W) of every block."""
        raise TypeError(f"{type(self).__name__} has no image tower")

    def token_embedding(self, tokens: Tensor) -> Tensor:
        """(N, L) -> (N, L, width), without positions."""
        raise TypeError(f"{type(self).__name__} has no text tower")

    def text(self, x: Tensor, end: Tensor) -> Tensor:
        """Embedded tokens (N, L, width) and the ends' places (N,) -> embeddings (N, dim) of length 1, with gradient."""
        raise TypeError(f"{type(self).__name__} has no text tower")

    @property
    def factor(self) -> Tensor:
        """What cosines are multiplied by."""
        raise TypeError(f"{type(self).__name__} has no factor")

    def train(self, mode: bool = True) -> CLIPTowers:
        """Stays in evaluation mode."""
        return super().train(False)


def _tapped(blocks: Sequence[nn.Module], run: Callable[[], Tensor]) -> tuple[Tensor, list[Tensor]]:
    """What ``run`` returns, and what the blocks gave meanwhile; without gradient."""
    taken: list[Tensor] = []
    hooks = [b.register_forward_hook(lambda m, i, out: taken.append(_as_tokens(out.detach()))) for b in blocks]
    try:
        with torch.no_grad():
            return run(), taken
    finally:
        for hook in hooks:
            hook.remove()


class OwnTowers(CLIPTowers):
    """A dual encoder of ours, frozen; its weights travel with whoever holds it.

    Args:
        model: the dual encoder.
        channels: of its images.
        size: side of its images in pixels.
    """

    def __init__(self, model: DualEncoder, channels: int, size: int) -> None:
        super().__init__()
        self.model = model.requires_grad_(False).eval()
        self.width, self.dim, self.context = model.text.dim, model.dim, model.text.context
        self._blocks = [image_blocks(model.image)]
        probe = torch.zeros(1, channels, size, size)
        self.widths = [h.shape[2] for h in _tapped(self._blocks[0], lambda: model.image(probe))[1]]

    def image(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """See `CLIPTowers.image`."""
        return _tapped(self._blocks[0], lambda: self.model(x))

    def token_embedding(self, tokens: Tensor) -> Tensor:
        """See `CLIPTowers.token_embedding`."""
        return self.model.text.token_embedding(tokens)

    def text(self, x: Tensor, end: Tensor) -> Tensor:
        """See `CLIPTowers.text`."""
        return self.model.embed_texts(self.model.text.of_embeddings(x, end))

    @property
    def factor(self) -> Tensor:
        """exp of the learnt scale."""
        return self.model.scale.detach().exp()


class OpenCLIPTowers(CLIPTowers):
    """A model of open_clip with a vision transformer, found again by its name: never in a checkpoint.

    Args:
        name: "ViT-B-16/openai", architecture and weights, as `open_clip_model` takes them.

    Raises:
        UserError: open_clip isn't installed, has no such model, or its weights can't be had.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        model = open_clip_model(name)
        if not hasattr(model.visual, "transformer") or not hasattr(model, "token_embedding"):
            raise UserError(f"open_clip:{name} has no vision transformer; take a ViT such as ViT-B-16")
        self.frozen = Frozen(model, name=f"open_clip:{name}")
        blocks = list(model.visual.transformer.resblocks)
        self.widths = [int(block.ln_1.normalized_shape[0]) for block in blocks]
        self.width, self.context = int(model.token_embedding.weight.shape[1]), int(model.positional_embedding.shape[0])
        self.dim, self._blocks = int(model.text_projection.shape[1]), [blocks]

    @property
    def _model(self) -> Any:
        return self.frozen.module

    def image(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """See `CLIPTowers.image`."""
        found, tokens = _tapped(self._blocks[0], lambda: self._model.encode_image(x))
        first = getattr(self._model.visual.transformer, "batch_first", True)
        return normalize(found.float(), dim=1), tokens if first else [h.transpose(0, 1) for h in tokens]

    def token_embedding(self, tokens: Tensor) -> Tensor:
        """See `CLIPTowers.token_embedding`."""
        return self._model.token_embedding(tokens)

    def text(self, x: Tensor, end: Tensor) -> Tensor:
        """See `CLIPTowers.text`."""
        model, length = self._model, x.shape[1]
        x = x + model.positional_embedding[:length]
        mask = torch.full((length, length), -math.inf, device=x.device, dtype=x.dtype).triu_(1)
        x = model.ln_final(model.transformer(x, attn_mask=mask))
        return normalize(x[torch.arange(x.shape[0], device=x.device), end] @ model.text_projection, dim=1)

    @property
    def factor(self) -> Tensor:
        """exp of the learnt scale."""
        return self._model.logit_scale.detach().exp()
