"""What methods of two views, one encoder and one projector share: networks, views, embedding, options."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, cat, nn

from selftaught import networks, views
from selftaught.engine.distributed import gather
from selftaught.engine.method import Method, MethodConfig
from selftaught.views import Pipeline


@dataclass
class JointEmbeddingConfig(MethodConfig):
    """Options of methods that compare the embeddings of two views."""

    encoder: str = "resnet50"
    """Any timm name, or one of our small ones; for series: resnet1d."""
    features: int = 128
    """Width of a series encoder's output (an image encoder has its own)."""
    stem: Literal["auto", "small", "standard"] = "auto"
    """First layers of a ResNet; small keeps full resolution (3x3, no max-pool), auto takes it up to 40 pixels."""
    pretrained: bool = False
    """Start the encoder from timm's weights (needs the network or timm's cache)."""
    image_size: int = 224
    """Side of the square views in pixels; 0 chooses by the data (32 for small images, else 64)."""
    projector: str = "2048-128"
    """Widths of the projector's layers."""
    augment: Literal["paper", "small", "grey"] = "paper"
    """Views: the paper's, small (no blur), grey (crop, flip, brightness, contrast: also where colour must stay)."""
    crop: float = 0.08
    """Smallest share of the image that a crop keeps."""
    one_forward: bool = False
    """Send both views through the encoder in one call; BatchNorm then sees them together."""


class JointEmbedding(Method):
    """Base of the two-view methods: subclasses name the projector, the paper's views and the objective."""

    config_class = JointEmbeddingConfig
    config: JointEmbeddingConfig

    def build(self) -> None:
        """The encoder f and the projector g; a series encoder where the samples are series."""
        c = self.config
        if self.length is not None:
            self.modality = "series"
            self.encoder: nn.Module = networks.series_encoder(
                c.encoder, channels=self.channels, length=self.length, dim=c.features
            )
        else:
            self.encoder = networks.encoder(
                c.encoder,
                channels=self.channels,
                image_size=c.image_size,
                stem=c.stem,
                pretrained=c.pretrained,
            )
        widths = [int(width) for width in str(c.projector).split("-")]
        self.projector = self.head([self.encoder.dim, *widths])

    # ---- what a method defines -------------------------------------------------------------------------------
    def head(self, widths: list[int]) -> nn.Module:
        """The projector, from the encoder's width to the embedding's."""
        return networks.mlp(widths, norm="bn", hidden_bias=False)

    def paper_views(self) -> list[Pipeline]:
        """The two views as the paper makes them."""
        return list(views.simclr(self.config.image_size, scale=(self.config.crop, 1.0)))

    def objective(self, z1: Tensor, z2: Tensor) -> dict[str, Tensor]:
        """Named terms from the gathered embeddings of the two views (N, D)."""
        raise TypeError(f"{type(self).__name__} defines no objective")

    # ---- what they share -------------------------------------------------------------------------------------
    def views(self) -> list[Pipeline]:
        """Two views per image."""
        c = self.config
        if c.augment == "small":
            return list(views.small(c.image_size, scale=(c.crop, 1.0)))
        if c.augment == "grey":
            return list(views.grey(c.image_size, scale=(c.crop, 1.0)))
        return self.paper_views()

    def evaluation_view(self) -> Pipeline | None:
        """Shorter side resized, centre cropped."""
        return None if self.modality == "series" else next(iter(views.plain(self.config.image_size)))

    def embed(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """z1, z2 (N, D): the projections of the two views."""
        x1, x2 = self.augmented_series(batch) if self.modality == "series" else batch["views"]
        if self.config.one_forward:
            return self.projector(self.encoder(cat([x1, x2]))).chunk(2)  # type: ignore[return-value]
        return self.projector(self.encoder(x1)), self.projector(self.encoder(x2))

    def augmented_series(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Two augmented copies of each window, made on the device."""
        x1, x2 = views.series_simclr()(batch["series"])
        return x1, x2

    def loss(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Project both views, gather over processes, compare."""
        z1, z2 = self.embed(batch)
        return self.objective(gather(z1), gather(z2))

    def predict(self, batch: dict[str, Any]) -> Tensor:
        """h (N, D): the encoder's pooled features, not the projection."""
        return self.encoder(batch["series"] if self.modality == "series" else batch["views"][0])

    def deliverable(self) -> nn.Module:
        """The encoder alone."""
        return self.encoder

    def deliverable_spec(self) -> dict[str, Any]:
        """How to build the encoder in plain timm."""
        return self.encoder.spec  # type: ignore[return-value]
