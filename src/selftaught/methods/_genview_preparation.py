"""What GenView does before training: variants made, foregrounds found; all of it kept on disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from selftaught import networks, objectives
from selftaught.data import Source, cache_folder, open_source
from selftaught.data.mapped import kept_arrays
from selftaught.data.source import digest
from selftaught.errors import SampleError, UserError
from selftaught.methods._genview_generators import (
    AutoencoderGenerator,
    Generator,
    UnCLIPGenerator,
    learn_autoencoder,
    own_generators,
)
from selftaught.methods._genview_variants import MEND, WithVariants, make_variants, squares
from selftaught.objectives._foreground import TokenSums

AUTOENCODER = "autoencoder"
_SHOWN_TO_AUTOENCODER = 20000
_MAKING = (
    "generator", "noise_mode", "noise_level", "noise_step", "fg_fraction", "gen_seed", "foreground", "pca_images",
    "unclip_model", "guidance", "sampler_steps", "prompt", "autoencoder_steps", "autoencoder_dim",
)  # fmt: skip
"""Options that variants depend on."""


def root_of(c: Any) -> Path:
    """The folder that all of it lies in."""
    return Path(c.variants) if c.variants else cache_folder() / "genview"


def with_variants(source: Source, c: Any) -> Source:
    """A source of images with the variants that GenView's options name, ready or yet to be made.

    Raises:
        UserError: no such generator, or a folder whose files have other names than the images.
    """
    if isinstance(source, WithVariants):
        return source
    if c.generator not in ("unclip", AUTOENCODER):
        if not Path(c.generator).exists():
            raise UserError(f"generator={c.generator}: unclip, autoencoder, none, or a folder of variants")
        return WithVariants(source, ready=open_source(c.generator, modality="image", split="all"))
    making = [f"{name}={getattr(c, name)}" for name in _MAKING]
    return WithVariants(source, place=root_of(c) / digest(source.fingerprint(), making)[:16])


class Preparation:
    """What a run prepares for its images.

    Args:
        config: GenView's options.
        channels: of the images.
        source: the images, with variants or without.
    """

    def __init__(self, config: Any, channels: int, source: Source) -> None:
        self.config, self.channels, self.source = config, channels, source

    def make_variants(self) -> None:
        """Make the variants that the cache lacks.

        Raises:
            UserError: the generator or the estimator of the foreground can't be had.
        """
        source = self.source
        if isinstance(source, WithVariants) and source.place is not None and not source.whole():
            make_variants(source, self._generator(), self._levels(), self.config.gen_seed)

    def judge(self) -> tuple[Any, Tensor]:
        """The frozen encoder that weighs pairs, and its direction of the foreground.

        Raises:
            UserError: it can't be had.
        """
        encoder = self._tokens(self.config.judge)
        return encoder, self._direction(encoder, self.config.judge)

    def _generator(self) -> Generator:
        c = self.config
        if c.generator == AUTOENCODER:
            return AutoencoderGenerator(self._autoencoder())
        device = "cuda" if torch.cuda.is_available() else "cpu"
        return UnCLIPGenerator(
            c.unclip_model, guidance=c.guidance, steps=c.sampler_steps, prompt=c.prompt, device=device
        )

    def _autoencoder(self) -> networks.ConditionalAutoencoder:
        """The built-in generator, trained once for these images."""
        c = self.config
        side = next((min(64, min(x.shape[:2]) // 8 * 8) for x in _readable(self.source)), 0)
        if side < 8:
            raise UserError(
                f"{self.source.name}: the built-in generator needs images of 8 pixels or more; give --generator"
            )
        stamp = digest(
            self.source.fingerprint(), side, c.autoencoder_steps, c.autoencoder_dim, c.noise_step, c.gen_seed
        )

        def learn() -> dict[str, np.ndarray]:
            rows = _spread(len(self.source), _SHOWN_TO_AUTOENCODER)
            images = torch.cat([pixels for _, pixels in squares(self.source, rows, side)])
            network = learn_autoencoder(
                images, steps=c.autoencoder_steps, dim=c.autoencoder_dim, highest=max(1, 4 * c.noise_step),
                seed=c.gen_seed,
            )  # fmt: skip
            return {name: value.numpy() for name, value in network.state_dict().items()}

        kept = kept_arrays(root_of(c) / f"autoencoder-{stamp[:16]}.npz", learn, MEND)
        network = networks.ConditionalAutoencoder(self.channels, side, dim=c.autoencoder_dim)
        network.load_state_dict({name: torch.from_numpy(value) for name, value in kept.items()})
        return network.eval()

    def _tokens(self, name: str) -> Any:
        """A frozen encoder of tokens by its name."""
        if name == AUTOENCODER:
            return networks.frozen_tokens(self._autoencoder(), self.channels)
        return networks.frozen_tokens(name, self.channels)

    def _direction(self, encoder: Any, name: str) -> Tensor:
        """v (C,) of an encoder on these images, its sign towards the middles; found once and kept."""
        c = self.config
        stamp = digest(self.source.fingerprint(), name, encoder.hash, c.pca_images)

        def find() -> dict[str, np.ndarray]:
            sums = TokenSums()
            for tokens, grid in self._token_batches(encoder):
                sums.add(tokens, grid)
            return {"direction": sums.direction().float().numpy()}

        return torch.from_numpy(kept_arrays(root_of(c) / f"direction-{stamp[:16]}.npz", find, MEND)["direction"])

    def _token_batches(self, encoder: Any) -> Iterator[tuple[Tensor, tuple[int, int]]]:
        """The tokens of the images that directions and thresholds are found from, and their grid."""
        c = self.config
        rows, side = _spread(len(self.source), c.pca_images), encoder.module.side or c.image_size
        for _, pixels in squares(self.source, rows, side):
            with torch.no_grad():
                tokens, grid = encoder(pixels.float() / 255)
            yield tokens, grid

    def _levels(self) -> Callable[[list[int], Tensor], Tensor]:
        """What says how much noise a batch of images gets."""
        c = self.config
        if c.noise_mode == "constant":
            return lambda rows, x: torch.full((len(x),), c.noise_level)
        if c.noise_mode == "random":
            return self._drawn_levels
        encoder = self._tokens(c.foreground)
        v = self._direction(encoder, c.foreground)
        scores = torch.cat([(tokens @ v).flatten() for tokens, _ in self._token_batches(encoder)])
        alpha = objectives.foreground_threshold(scores[None, :, None], torch.ones(1), fraction=c.fg_fraction)

        def levels(rows: list[int], x: Tensor) -> Tensor:
            with torch.no_grad():
                tokens, _ = encoder(x)
            return objectives.noise_level(objectives.foreground_ratio(tokens, v, alpha), step=c.noise_step)

        return levels

    def _drawn_levels(self, rows: list[int], x: Tensor) -> Tensor:
        """One of the five levels for each image, by its content and the seed."""
        drawn = [int(torch.randint(5, (), generator=g)) for g in own_generators(x, self.config.gen_seed + 1)]
        return self.config.noise_step * torch.tensor(drawn)


def _spread(count: int, most: int) -> np.ndarray:
    """Positions spread evenly over the samples, at most so many."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(np.int64))


def _readable(source: Source) -> Iterator[np.ndarray]:
    """The samples that can be read."""
    for i in range(len(source)):
        try:
            yield source.read(i)
        except SampleError:
            continue
