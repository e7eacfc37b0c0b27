"""Generators of variants: ``generate(images, noise_levels, seed) -> images``, the same answer to the same question."""

from __future__ import annotations

import hashlib
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from selftaught import networks, objectives
from selftaught.errors import UserError, first_line, require

STEP = 128
"""Images of a step while the autoencoder learns."""


class Generator(Protocol):
    """What makes a variant of an image.

    Attributes:
        stamp: tells generators apart that answer differently; part of the names in the cache.
        side: images are shown as squares of this side in pixels.
    """

    stamp: str
    side: int

    def generate(self, images: Tensor, noise_levels: Tensor, seed: int) -> Tensor:
        """Variants (N, C, h, w) in [0, 1] of images (N, C, side, side) in [0, 1], with levels (N,) int64 of noise."""
        ...


def own_generators(images: Tensor, seed: int) -> list[torch.Generator]:
    """A random generator for each image, by its content and the seed: batches and their order make no difference."""
    found = []
    for image in (images * 255).round().to(torch.uint8).cpu():
        digest = hashlib.blake2b(image.contiguous().numpy().tobytes(), digest_size=7, key=str(seed).encode()).digest()
        found.append(torch.Generator().manual_seed(int.from_bytes(digest)))
    return found


class AutoencoderGenerator:
    """The built-in one: the code of the image, noised, decoded."""

    def __init__(self, network: networks.ConditionalAutoencoder) -> None:
        self.network = networks.Frozen(network, name="autoencoder")
        self.side, self.stamp = network.side, f"autoencoder-{self.network.hash}"

    @torch.no_grad()
    def generate(self, images: Tensor, noise_levels: Tensor, seed: int) -> Tensor:
        """See :class:`Generator`; level 0 is the reconstruction."""
        network = self.network.module
        drawn = torch.stack([torch.randn(network.dim, generator=g) for g in own_generators(images, seed)])
        noised = objectives.perturb_embedding(
            network.code(images), noise_levels, mean=network.mean, std=network.std, noise=drawn.to(images.device)
        )
        return network.decode(noised, noise_levels)


def learn_autoencoder(
    images: Tensor, *, steps: int, dim: int = 128, width: int = 16, lr: float = 2e-3, highest: int = 400, seed: int = 0
) -> networks.ConditionalAutoencoder:
    """Train a conditional autoencoder: reconstruct images from codes with a random level of noise in them.

    Args:
        images: (N, C, side, side) uint8.
        steps: of Adam, with batches of 128.
        dim, width: of the network.
        lr: learning rate.
        highest: levels are drawn from 0 to this.
        seed: of weights, order and noise; torch's own generator is left alone.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = networks.ConditionalAutoencoder(images.shape[1], images.shape[2], dim=dim, width=width)
        optimiser = torch.optim.Adam(network.parameters(), lr=lr)
        for _ in range(steps):
            x = images[torch.randint(len(images), (min(STEP, len(images)),))].float() / 255
            code = network.code(x)
            mean, std = code.detach().mean(0), code.detach().std(0, correction=0).clamp(min=1e-6)
            level = torch.randint(highest + 1, (len(x),))
            loss = mse_loss(network.decode(objectives.perturb_embedding(code, level, mean=mean, std=std), level), x)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    network.eval().standardise(images[:4096].float() / 255)
    return network


class UnCLIPGenerator:
    """Stable unCLIP 2-1 image to image, by diffusers.

    Args:
        model: a name of the hub or a folder.
        guidance: scale of classifier-free guidance.
        steps: of the sampler.
        prompt: the same text for all images.
        device: where it runs.

    Raises:
        UserError: diffusers isn't installed, or the weights can't be had.
    """

    side = 512

    def __init__(
        self, model: str, *, guidance: float = 10.0, steps: int = 20, prompt: str = "", device: str = "cpu"
    ) -> None:
        diffusers: Any = require("diffusers", "generate")
        try:
            pipeline = diffusers.StableUnCLIPImg2ImgPipeline.from_pretrained(
                model, torch_dtype=torch.float16 if device == "cuda" else torch.float32
            )
        except Exception as error:
            reason = first_line(error, 100)
            raise UserError(
                f"unclip_model={model} can't be had here ({reason}); go online once, or name a folder"
            ) from error
        self.pipeline = pipeline.to(device)
        self.pipeline.set_progress_bar_config(disable=True)
        self.guidance, self.steps, self.prompt = guidance, steps, prompt
        self.stamp = f"unclip-{model}-{guidance}-{steps}-{prompt}"

    @torch.no_grad()
    def generate(self, images: Tensor, noise_levels: Tensor, seed: int) -> Tensor:
        """See :class:`Generator`; images of one level go through together."""
        if images.shape[1] not in (1, 3):
            raise UserError(
                f"unCLIP makes colour images, these have {images.shape[1]} channels; take generator=autoencoder"
            )
        colours, own = images.expand(-1, 3, -1, -1), own_generators(images, seed)
        shown = [(x * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy() for x in colours]
        seen = self.pipeline.feature_extractor(images=shown, return_tensors="pt").pixel_values
        found: list[Tensor | None] = [None] * len(images)
        for level in noise_levels.unique().tolist():
            rows = (noise_levels == level).nonzero().flatten().tolist()
            made = self.pipeline(
                image=seen[rows], prompt=[self.prompt] * len(rows), noise_level=int(level),
                num_inference_steps=self.steps, guidance_scale=self.guidance, generator=[own[r] for r in rows],
                output_type="pt",
            ).images  # fmt: skip
            for row, image in zip(rows, made.float().clamp(0, 1).cpu(), strict=True):
                found[row] = image.mean(0, keepdim=True) if images.shape[1] == 1 else image
        return torch.stack([image for image in found if image is not None])
