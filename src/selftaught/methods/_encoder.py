"""What methods around one encoder share: the encoder itself, the choice of views, embedding, delivery."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any, ClassVar, Literal

from torch import Tensor, cat, nn

from selftaught import networks, views
from selftaught.catalog.rules import Count, Natural, PositiveShare
from selftaught.engine.method import Method, MethodConfig
from selftaught.views import Pipeline


@dataclass
class EncoderConfig(MethodConfig):
    """Options of methods around one encoder."""

    encoder: str = "resnet50"
    """Any timm name, one of our small ones, or SEER's (regnety-400mf ...); for series: resnet1d."""
    features: Count = 128
    """Width of a series encoder's output (an image encoder has its own)."""
    stem: Literal["auto", "small", "standard"] = "auto"
    """First layers of a ResNet; small keeps full resolution (3x3, no max-pool), auto takes it up to 40 pixels."""
    pretrained: bool = False
    """Start the encoder from timm's weights (needs the network or timm's cache)."""
    image_size: Natural = 224
    """Side of the square views in pixels; 0 chooses by the data (32 for small images, else 64)."""
    augment: Literal["paper", "small", "grey", "mild"] = "paper"
    """Views: the paper's, small (no blur), grey (crop, flip, brightness, contrast: also where colour must stay),
    mild (small turns, shifts and changes of size: digits, letters and signs, which a flip or a close crop changes)."""
    crop: PositiveShare = 0.08
    """Smallest share of the image that a crop keeps; mild views have none."""
    one_forward: bool = False
    """Send views of one size through the encoder in one call; BatchNorm then sees them together."""


class EncoderMethod(Method):
    """Base of the methods that train one encoder on views of images, or on augmented series."""

    config_class = EncoderConfig
    config: EncoderConfig
    modalities: ClassVar[tuple[str, ...]] = ("image", "series")

    def build(self) -> None:
        """The encoder f; a series encoder where the samples are series."""
        c = self.config
        if not self.spatial:
            self.encoder: nn.Module = networks.series_encoder(
                c.encoder, channels=self.channels, length=self.length or 0, dim=c.features
            )
            return
        name, options = networks.timm_name(c.encoder)
        options |= self.encoder_options(name)
        self.encoder = networks.encoder(
            name, channels=self.channels, image_size=c.image_size, stem=c.stem, pretrained=c.pretrained, **options
        )

    def encoder_options(self, name: str) -> dict[str, Any]:
        """What the encoder of this timm name has to be told besides its size; nothing."""
        return {}

    # ---- views -----------------------------------------------------------------------------------------------
    def paper_views(self) -> list[Pipeline]:
        """The views as the paper makes them; here SimCLR's two."""
        return list(views.simclr(self.config.image_size, scale=(self.config.crop, 1.0)))

    def views(self) -> list[Pipeline]:
        """Two views per image."""
        return self.chosen_views(2)

    def chosen_views(self, count: int) -> list[Pipeline]:
        """``count`` views of the chosen augmentation; where the paper's two views differ they take turns."""
        c = self.config
        if c.augment == "small":
            pair = list(views.small(c.image_size, scale=(c.crop, 1.0)))
        elif c.augment == "grey":
            pair = list(views.grey(c.image_size, scale=(c.crop, 1.0)))
        elif c.augment == "mild":
            pair = list(views.mild(c.image_size))
        else:
            pair = self.paper_views()
        return list(islice(cycle(pair), count))

    def evaluation_view(self) -> Pipeline | None:
        """Shorter side resized, centre cropped."""
        return next(iter(views.plain(self.config.image_size))) if self.spatial else None

    def augmented_series(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Two augmented copies of each window, made on the device."""
        x1, x2 = views.series_simclr()(batch["series"])
        return x1, x2

    def seen(self, batch: dict[str, Any]) -> list[Tensor]:
        """The views of a batch: images as the loader made them, series augmented here."""
        return batch["views"] if "views" in batch else list(self.augmented_series(batch))

    def embed_views(self, xs: Sequence[Tensor], network: Callable[[Tensor], Tensor] | None = None) -> list[Tensor]:
        """Every view (N, C, h, w) through ``network`` (default: the encoder), in order.

        With ``one_forward`` neighbouring views of one size go through in one call; BatchNorm then sees them together.
        """
        network = network or self.encoder
        if not self.config.one_forward:
            return [network(x) for x in xs]
        found: list[Tensor] = []
        start = 0
        for stop in range(1, len(xs) + 1):
            if stop == len(xs) or xs[stop].shape != xs[start].shape:
                found += network(cat(list(xs[start:stop]))).chunk(stop - start)
                start = stop
        return found

    # ---- what the report shows -------------------------------------------------------------------------------
    @property
    def draws(self) -> bool:
        """A transformer's attention and tokens can be shown, and what a method restores."""
        return type(self).pictures is not EncoderMethod.pictures or networks.has_tokens(self.deliverable())

    def pictures(self, x: Tensor) -> dict[str, Tensor]:
        """Of a transformer: where its class token looks (mean of the heads), and its patch tokens as colours."""
        network: Any = self.deliverable()
        if not networks.has_tokens(network):
            return {}
        attention = networks.attention_maps(network, x).mean(1, keepdim=True)
        colours = networks.token_colours(network, x)
        if x.shape[1] not in (1, 3):
            colours = colours[:, :1]
        mean, std = self.pixel_mean[:, None, None], self.pixel_std[:, None, None]
        shown = {"attention of the class token": attention, "patch tokens": colours}
        return {"image": x} | {name: (part - mean) / std for name, part in shown.items()}

    # ---- what one keeps --------------------------------------------------------------------------------------
    def features(self, batch: dict[str, Any]) -> Tensor:
        """h (N, D): the encoder's pooled features, not the projection."""
        return self.encoder(self.inputs(batch))

    def predict(self, batch: dict[str, Any]) -> Tensor:
        """The embedding h."""
        return self.features(batch)

    def deliverable(self) -> nn.Module:
        """The encoder alone."""
        return self.encoder

    def deliverable_spec(self) -> dict[str, Any]:
        """How to build the encoder in plain timm."""
        return dict(self.encoder.spec)  # type: ignore[arg-type]


def accuracy(logits: Tensor, labels: Tensor) -> Tensor:
    """Share of rows of (N, K) logits whose likeliest class is the label (N,); no gradient."""
    return (logits.detach().argmax(1) == labels).float().mean()


@dataclass
class ClassifierConfig(EncoderConfig):
    """Options of methods that learn classes from labels."""


class ClassifierMethod(EncoderMethod):
    """Base of the methods that deliver a classifier: encoder and a linear layer over its features."""

    config_class = ClassifierConfig
    config: ClassifierConfig
    output = "classes"
    needs_labels = True

    def build(self) -> None:
        """The encoder and the linear classifier."""
        super().build()
        self.classifier = nn.Linear(int(self.encoder.dim), self.classes)  # type: ignore[arg-type]

    def views(self) -> list[Pipeline]:
        """One view per image."""
        return self.chosen_views(1)

    def predict(self, batch: dict[str, Any]) -> Tensor:
        """Class logits (N, K)."""
        return self.classifier(self.features(batch))

    def deliverable(self) -> nn.Module:
        """Encoder and classifier: normalised images in, class logits out."""
        return nn.Sequential(self.encoder, self.classifier)

    def deliverable_spec(self) -> dict[str, Any]:
        """The encoder's account, and the number of classes."""
        return {"name": "classifier", "classes": self.classes, "encoder": dict(self.encoder.spec)}  # type: ignore[arg-type]
