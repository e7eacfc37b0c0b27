"""What methods of two views, one encoder and one projector share: projector, loss of gathered projections."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from selftaught import networks
from selftaught.catalog.rules import Widths
from selftaught.engine.distributed import gather
from selftaught.methods._encoder import EncoderConfig, EncoderMethod


@dataclass
class JointEmbeddingConfig(EncoderConfig):
    """Options of methods that compare the embeddings of two views."""

    projector: Widths = "2048-128"
    """Widths of the projector's layers."""


class JointEmbedding(EncoderMethod):
    """Base of the two-view methods: subclasses name the projector, the paper's views and the objective."""

    config_class = JointEmbeddingConfig
    config: JointEmbeddingConfig

    def build(self) -> None:
        """The encoder f and the projector g."""
        super().build()
        widths = [int(width) for width in str(self.config.projector).split("-")]
        self.projector = self.head([int(self.encoder.dim), *widths])  # type: ignore[arg-type]

    # ---- what a method defines -------------------------------------------------------------------------------
    def head(self, widths: list[int]) -> nn.Module:
        """The projector, from the encoder's width to the embedding's."""
        return networks.mlp(widths, norm="bn", hidden_bias=False)

    def objective(self, z1: Tensor, z2: Tensor) -> dict[str, Tensor]:
        """Named terms from the gathered embeddings of the two views (N, D)."""
        raise TypeError(f"{type(self).__name__} defines no objective")

    # ---- what they share -------------------------------------------------------------------------------------
    def project(self, x: Tensor) -> Tensor:
        """z (N, D): the projection of a view."""
        return self.projector(self.encoder(x))

    def embed_views(self, xs: Sequence[Tensor], network: Callable[[Tensor], Tensor] | None = None) -> list[Tensor]:
        """Every view through ``network`` (default: the projection); see :class:`EncoderMethod`."""
        return super().embed_views(xs, network or self.project)

    def embed(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """z1, z2 (N, D): the projections of the two views."""
        z1, z2 = self.embed_views(self.seen(batch))
        return z1, z2

    def loss(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Project both views, gather over processes, compare."""
        z1, z2 = self.embed(batch)
        return self.objective(gather(z1), gather(z2))
