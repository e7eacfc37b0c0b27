"""What methods of images and their texts share: two towers in one space, views of both, classes given in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn

from selftaught import networks, objectives, views
from selftaught.catalog.rules import Count, Form, Natural, NonNegative, PositiveShare, Range, Share
from selftaught.data import Source, captioned
from selftaught.engine.distributed import gather, gather_labels, is_distributed, rank
from selftaught.engine.method import LearningRateScaling, Method, MethodConfig, Stage
from selftaught.errors import UserError
from selftaught.methods._long_texts import note_long_texts
from selftaught.networks.caching import cached_forward
from selftaught.networks.dual import DualEncoder
from selftaught.networks.text import TextTransformer
from selftaught.views import Op, Pipeline, tokeniser

_TEXTS = 256


@dataclass
class DualConfig(MethodConfig):
    """Options of methods with an image tower and a text tower."""

    encoder: str = "resnet50"
    """Image tower: any timm name, or one of our small ones."""
    stem: Literal["auto", "small", "standard"] = "auto"
    """First layers of a ResNet; small keeps full resolution (3x3, no max-pool), auto takes it up to 40 pixels."""
    pretrained: bool = False
    """Start the image tower from timm's weights (needs the network or timm's cache)."""
    image_size: Natural = 224
    """Side of the square views in pixels; 0 chooses by the data (32 for small images, else 64)."""
    tokeniser: Annotated[str, Form(r"clip|words(-[1-9]\d*)?", "clip, or words-8192 for hashed words")] = "clip"
    """What makes numbers of texts: CLIP's byte pairs (extra clip), or whole words hashed into so many numbers."""
    context: Annotated[int, Range(3)] = 77
    """Longest text in tokens; longer ones are cut."""
    text_width: Count = 512
    """Width of the text tower."""
    text_heads: Count = 8
    """Attention heads of the text tower."""
    text_layers: Count = 12
    """Blocks of the text tower."""
    text_activation: Literal["quick-gelu", "gelu"] = "quick-gelu"
    """Of the text tower's blocks: CLIP's own, or that of most models of open_clip."""
    dim: Count = 256
    """Width of the space in which images and texts meet."""
    crop: PositiveShare = 0.5
    """Smallest share of the image that a weak view's crop keeps."""
    pieces: Natural = 0
    """Gradient caching: samples that go through the towers at a time, for large batches on one machine; 0: all."""
    gather_grad: bool = True
    """With several processes: gradient into gathered keys too, as one process has it; off as in the authors' code."""
    freeze_norms: bool = False
    """Norms stand still, their weights and their running statistics: for fine-tuning with --init."""
    held_out: Annotated[float, Range(0, 0.9)] = 0.0
    """Share of the pairs held out to watch retrieval on after every epoch; the best weights are kept. 0: the last."""
    patience: Natural = 0
    """With held_out: epochs without better retrieval after which training ends; 0 never."""
    interpolate: Share = 1.0
    """With --init: what is kept is so much of the trained weights and the rest of those that it started from; 1: the
    trained ones (arXiv 2109.01903)."""
    beta2: Share = 0.98
    """Second beta of Adam."""
    lr: NonNegative = 5e-4
    """Learning rate, not scaled by the batch size."""
    lr_scaling: LearningRateScaling = "none"


def _norms(module: nn.Module) -> list[nn.Module]:
    """Layers that normalise, by batch, by sample or by group."""
    kinds = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm)
    return [m for m in module.modules() if isinstance(m, kinds)]


class DualMethod(Method):
    """Base of the methods that train an image tower and a text tower together."""

    config_class = DualConfig
    config: DualConfig
    modalities = ("image",)
    default_data = "emoji"
    output = "image-text"
    judged_by = ("text-retrieval", "zero-shot")

    @classmethod
    def takes(cls, source: Source) -> Source:
        """Images with captions; where there are none, the names of their classes stand for them."""
        return captioned(source)

    @classmethod
    def arranged(cls, sources: dict[str, Any], config: Any) -> dict[str, Any]:
        """The same, with a note where texts are longer than the tower reads."""
        note_long_texts(sources["data"], config.tokeniser, config.context, "--context")
        return sources

    # ---- networks --------------------------------------------------------------------------------------------
    def build(self) -> None:
        """The two towers and their heads."""
        c = self.config
        name, options = networks.timm_name(c.encoder)
        image = networks.encoder(
            name, channels=self.channels, image_size=c.image_size, stem=c.stem, pretrained=c.pretrained, **options
        )
        self.model = DualEncoder(image, self.text_tower(), dim=c.dim, **self.heads())
        if c.patience and not c.held_out:
            raise UserError("--patience watches held-out pairs: give --held-out 0.1 as well")
        if c.freeze_norms:
            for norm in _norms(self.model):
                norm.requires_grad_(False)

    def text_tower(self) -> TextTransformer:
        """The text tower."""
        c = self.config
        return TextTransformer(
            tokeniser(c.tokeniser).vocabulary,
            context=c.context,
            width=c.text_width,
            heads=c.text_heads,
            layers=c.text_layers,
            activation=c.text_activation,
            **self.text_options(),
        )

    def text_options(self) -> dict[str, Any]:
        """Further options of the text tower; none."""
        return {}

    def heads(self) -> dict[str, Any]:
        """Options of the heads; CLIP's linear ones."""
        return {}

    @property
    def encoder(self) -> nn.Module:
        """The image tower without its head."""
        return self.model.image

    # ---- views -----------------------------------------------------------------------------------------------
    def weak_image(self) -> Pipeline:
        """A crop, nothing else."""
        c = self.config
        return Pipeline((views.RandomResizedCrop(c.image_size, (c.crop, 1.0)),))

    def text_view(self, *changes: Op) -> Pipeline:
        """One of a sample's texts, changed, as tokens."""
        c = self.config
        return Pipeline((views.PickText(), *changes, views.Tokenise(c.tokeniser, c.context)))

    def recipe(self) -> views.Recipe:
        """A weak view of the image and one of its texts."""
        return views.Recipe(
            (
                views.View("image_global", "image", self.weak_image()),
                views.View("text_global", "text", self.text_view()),
            )
        )

    def evaluation_view(self) -> Pipeline:
        """Shorter side resized, centre cropped."""
        return next(iter(views.plain(self.config.image_size)))

    # ---- learning --------------------------------------------------------------------------------------------
    def image_features(self, images: Tensor) -> Tensor:
        """(N, D) of the image tower, in pieces where gradients are cached."""
        return cached_forward(self.model.image, images, self.config.pieces)

    def text_features(self, tokens: Tensor, strong: bool = False) -> Tensor:
        """(N, D) of the text tower, in pieces where gradients are cached."""
        return cached_forward(self.model.text, tokens, self.config.pieces, strong)

    def contrast(self, image: Tensor, text: Tensor, *, temperature: Any, smoothing: float = 0.0) -> Tensor:
        """CLIP's loss of one process' rows against those of all."""
        options: dict[str, Any] = {"temperature": temperature, "smoothing": smoothing}
        if not is_distributed():
            return objectives.clip(image, text, **options)
        join = gather if self.config.gather_grad else gather_labels
        return objectives.clip_sharded(image, text, join(image), join(text), first=rank() * len(image), **options)

    def after_step(self) -> None:
        """Keep the factors on cosines within 1 .. 100."""
        self.model.clamp_scales()

    def train(self, mode: bool = True) -> DualMethod:
        """Frozen norms stay in evaluation mode."""
        super().train(mode)
        if self.config.freeze_norms and hasattr(self, "model"):
            for norm in _norms(self.model):
                norm.eval()
        return self

    def stage_plan(self, stage: str) -> Stage:
        """Best weights by the retrieval of held-out pairs, where some are held out."""
        c = self.config
        if not c.held_out:
            return super().stage_plan(stage)
        return Stage(keep="best", validation=c.held_out, patience=c.patience)

    def validate(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Share of held-out images and texts whose nearest among the batch is no partner; ties are wrong.

        Equal texts are one, the partner of all their images: names of classes stand for captions, too.
        """
        image = self.model.embed_images(self.model.image(batch["image_global"]))
        text = self.model.embed_texts(self.model.text(batch["text_global"]))
        scores = image @ text.T
        code = torch.unique(batch["text_global"], dim=0, return_inverse=True)[1]
        partners = code[:, None] == code
        own, others = (scores.masked_fill(hidden, -torch.inf) for hidden in (~partners, partners))
        right = [(own.amax(axis) > others.amax(axis)).float().mean() for axis in (1, 0)]
        return {"loss": 1 - (right[0] + right[1]) / 2}

    # ---- what one keeps --------------------------------------------------------------------------------------
    def features(self, batch: dict[str, Any]) -> Tensor:
        """The image tower's features, before its head."""
        return self.model.image(self.inputs(batch))

    def predict(self, batch: dict[str, Any]) -> Tensor:
        """Embeddings of images, of length 1, in the space of the texts."""
        return self.model(self.inputs(batch))

    def deliverable(self) -> nn.Module:
        """Both towers; called with images it embeds them."""
        return self.model

    def deliverable_spec(self) -> dict[str, Any]:
        """What the towers are, and which tokeniser the text tower reads."""
        return self.model.spec() | {"tokeniser": self.config.tokeniser}

    @torch.no_grad()
    def embed_texts(self, texts: Sequence[str], head: str = "z") -> Tensor:
        """Embeddings (N, dim) of texts, of length 1, in the space of the images.

        Raises:
            UserError: no text.
        """
        if not len(texts):
            raise UserError("no text to embed")
        tokens = torch.from_numpy(tokeniser(self.config.tokeniser)(list(texts), self.config.context)).to(self.device)
        model = self.model
        return torch.cat([model.embed_texts(model.text(part), head) for part in tokens.split(_TEXTS)]).float()

    def embed_classes(self, classes: Sequence[str], templates: Sequence[str], head: str = "z") -> Tensor:
        """A vector (K, dim) for each class: the mean of its prompts' embeddings, of length 1 again.

        Args:
            classes: in words.
            templates: prompts with ``{}`` for the class.
            head: "z" (global) or "h" (local).

        Raises:
            UserError: a template without ``{}``, no class.
        """
        for template in templates:
            if "{}" not in template:
                raise UserError(f"template {template!r}: write {{}} where the class goes")
        prompts = [template.replace("{}", name) for name in classes for template in templates]
        each = self.embed_texts(prompts, head).unflatten(0, (len(classes), len(templates)))
        return nn.functional.normalize(each.mean(1), dim=1)
