"""A pretrained text-to-image flow model of diffusers as editor, teacher and fake model (Stable Diffusion 3).

It works on latents. The clean reference's latents stand beside the noisy ones, to their right, and so have positions of
their own; what the model says of the left half is the velocity.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, cat, nn

from selftaught.errors import UserError, require
from selftaught.networks.frozen import Frozen

__all__ = ["PipelineFlow", "pipeline_flow"]

Prompt = Callable[[list[str]], tuple[Tensor, Tensor]]
"""Texts -> embeddings of their tokens (N, L, D) and of the whole (N, P)."""


class PipelineFlow(nn.Module):
    """velocity = flow(x_t, t, texts, ref) of a transformer with the face of diffusers' ``SD3Transformer2DModel``.

    Args:
        transformer: takes hidden_states, encoder_hidden_states, pooled_projections and timestep (1000 t).
        vae: an ``AutoencoderKL``; frozen, its ``scaling_factor`` and ``shift_factor`` are applied.
        prompt: embeds texts, without gradient; what it gives is kept for texts that come again.
        size: side of a picture in pixels.

    Raises:
        UserError: a size that the autoencoder or the transformer's patches do not divide.
    """

    def __init__(self, transformer: nn.Module, vae: nn.Module, prompt: Prompt, size: int) -> None:
        super().__init__()
        self.transformer = transformer
        self.vae = vae if isinstance(vae, Frozen) else Frozen(vae, name="autoencoder of the flow model")
        self.prompt, self.size = prompt, size
        config: Any = self.vae.module.config
        shrunk = 2 ** (len(config.block_out_channels) - 1)
        patch = int(transformer.config.patch_size)  # type: ignore[union-attr, arg-type]
        if size % (shrunk * patch):
            raise UserError(f"image_size={size}: {shrunk * patch} must divide it for this model")
        self.scale, self.shift = float(config.scaling_factor), float(config.shift_factor or 0.0)
        self.latent = (int(config.latent_channels), size // shrunk, size // shrunk)
        self._known: dict[str, tuple[Tensor, Tensor]] = {}

    def encode(self, images: Tensor) -> Tensor:
        """Pictures (N, 3, size, size) in [-1, 1] -> latents; the mode of the autoencoder's distribution."""
        return (self.vae.module.encode(images).latent_dist.mode() - self.shift) * self.scale  # type: ignore[operator]

    def decode(self, latents: Tensor) -> Tensor:
        """The way back, with gradient."""
        return self.vae.module.decode(latents / self.scale + self.shift, return_dict=False)[0]  # type: ignore[operator]

    def forward(self, x_t: Tensor, t: Tensor, text: list[str], ref: Tensor | None = None) -> Tensor:
        """The velocity of latents (N, ...) at times (N,), with the reference's latents beside them or without."""
        tokens, whole = self._embedded(text, x_t)
        shown = x_t if ref is None else cat([x_t, ref.to(x_t.dtype)], dim=3)
        (found,) = self.transformer(
            hidden_states=shown,
            encoder_hidden_states=tokens,
            pooled_projections=whole,
            timestep=1000 * t,
            return_dict=False,
        )
        return found[..., : x_t.shape[3]]

    @torch.no_grad()
    def _embedded(self, texts: list[str], like: Tensor) -> tuple[Tensor, Tensor]:
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        if new:
            tokens, whole = self.prompt(new)
            self._known |= {text: (tokens[i].cpu(), whole[i].cpu()) for i, text in enumerate(new)}
        parts = [self._known[text] for text in texts]
        return tuple(torch.stack(part).to(like) for part in zip(*parts, strict=True))  # type: ignore[return-value]

    def another(self) -> PipelineFlow:
        """The same model with a transformer of its own; the autoencoder and the embedded texts are shared."""
        found = PipelineFlow(copy.deepcopy(self.transformer), self.vae, self.prompt, self.size)
        found._known = self._known
        return found


def pipeline_flow(name: str, size: int) -> tuple[PipelineFlow, PipelineFlow, PipelineFlow]:
    """Editor, teacher and fake model, all beginning as the pipeline of that name.

    Args:
        name: on the Hugging Face hub, or a folder, of a ``StableDiffusion3Pipeline``.
        size: side of a picture in pixels.

    Raises:
        UserError: diffusers isn't installed (extra generate); the model is not at hand.
    """
    library: Any = require("diffusers", "generate")
    try:
        pipeline = library.StableDiffusion3Pipeline.from_pretrained(name)
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(
            f"base=diffusers:{name}: not at hand, and it can't be fetched; go online once, give the folder of a saved "
            f"pipeline, or take --base unet ({' '.join(str(error).split())[:80]})"
        ) from None

    def prompt(texts: list[str]) -> tuple[Tensor, Tensor]:
        found = pipeline.encode_prompt(texts, None, None, do_classifier_free_guidance=False)
        return found[0], found[2]

    first = PipelineFlow(pipeline.transformer, pipeline.vae, prompt, size)
    return first, first.another(), first.another()
