"""Improved CLIP and BarLIP, SiamLIP, BYOLIP, SwALIP (Fini et al., TMLR 2023, arXiv 2305.08675).

    L_CL2L = ( g + A l ) / (1 + A),      g = clip(weak views),   l = mean of clip_e over all pairs of A strong views
    L = L_CL2L + an extra loss:  BarLIP    cross-correlation of the modalities towards the identity
                                 SiamLIP   each modality predicts the other's projection, without its gradient
                                 BYOLIP    the same with a momentum copy's projections
                                 SwALIP    0.2 times the swapped prediction between views and modalities
                                 SLIP      SimCLR between the strong images

Weak image view: a crop; strong: small crop, colour, grey, blur, flip. Weak text: without stop words (p 0.8); strong:
one of EDA's operations besides, and dropout in the text tower. Global heads serve weak views, local ones strong views.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from selftaught import networks, objectives, views
from selftaught.catalog.rules import Count, Natural, NonNegative, Positive, PositiveShare, Share
from selftaught.engine.distributed import gather, gather_labels, is_distributed
from selftaught.engine.ema import MovingAverage
from selftaught.errors import UserError
from selftaught.methods._dual import DualConfig, DualMethod
from selftaught.networks.text import TextTransformer
from selftaught.views import Pipeline, Recipe, View

__all__ = ["CLIPBaselines", "ModalityHeads"]

_FROZEN_STEPS = 100
_PROTOTYPES = 3000


@dataclass
class Config(DualConfig):
    """Improved CLIP's options; the defaults are the paper's for CC12M."""

    objective: Literal["clip", "cl2l", "barlip", "siamlip", "byolip", "swalip", "swalip-v1", "slip"] = "cl2l"
    """cl2l: the improved recipe alone; clip: weak views alone; else the improved recipe and an extra loss."""
    num_augs: Natural = 2
    """Strong views A of each image and of each text; 0 is plain CLIP."""
    separate_proj: bool = True
    """Projectors of their own for strong views."""
    separate_proj_child: bool = False
    """Other heads of the extra loss for strong views than for weak ones (the authors do so with ViTs)."""
    z_projector: Literal["linear", "mlp"] = "linear"
    """Projectors of weak views."""
    h_projector: Literal["linear", "mlp"] = "mlp"
    """Projectors of strong views."""
    hidden: Count = 4096
    """Hidden width of projectors that are MLPs."""
    smoothing: Share = 0.1
    """Label smoothing among strong views; SwALIP takes none."""
    combine: Literal["avg", "sum"] = "sum"
    """Mean or sum of the image's and the text's side."""
    text_dropout: Share = 0.05
    """Dropout in the text tower, on strong texts alone."""
    dropout_place: Literal["entry", "residual"] = "entry"
    """At the entry of every block as in the authors' code, or on what each branch adds."""
    drop_path: Share = 0.0
    """Chance that a branch of the text tower is left out, on strong texts alone."""
    local_size: Natural = 0
    """Side of the strong views; 0: that of the weak ones."""
    strong_crop: PositiveShare = 0.08
    """Smallest share of the image that a strong view's crop keeps."""
    flip: Share = 0.5
    """Chance that a strong view is mirrored; 0 where captions say left and right."""
    byol_augment: bool = False
    """The two strong views of BYOL: the first always blurred, the second seldom, sometimes solarised."""
    image_views: Literal["mixed", "weak", "strong"] = "mixed"
    """Views of images: weak global and strong local ones, or one kind for both."""
    text_views: Literal["mixed", "weak", "strong", "plain"] = "mixed"
    """Views of texts: weak global and strong local ones, or one kind for both; plain leaves texts as they are."""
    stop_words: Share = 0.8
    """Chance that a text loses its English stop words."""
    synonyms: str = ""
    """File of synonyms, a group in each line separated by commas; "": a small built-in table."""
    extra_weight: NonNegative | None = None
    """Weight of the extra loss; None: 0.2 in SwALIP, else 1."""
    barlip_lambda: NonNegative = 5e-3
    """Weight of correlations off the diagonal (BarLIP)."""
    barlip_scale: Positive = 0.025
    """Factor on the whole (BarLIP)."""
    barlip_widths: str = "3000-3000-8192"
    """Widths of BarLIP's projectors."""
    siam_widths: str = "2048-128"
    """Widths of the projectors of SiamLIP, BYOLIP and SwALIP-V1."""
    siam_hidden: Count = 2048
    """Hidden width of the predictors (SiamLIP, BYOLIP)."""
    no_last_bn: bool = False
    """No BatchNorm after the projectors of SiamLIP and BYOLIP."""
    target_decay: Share = 0.99
    """Decay of the momentum copy (BYOLIP)."""
    eps: Positive = 0.05
    """Smoothness of the codes (SwALIP)."""
    iterations: Natural = 3
    """Rounds of Sinkhorn's algorithm (SwALIP)."""
    learn_v1_scale: bool = False
    """Learn the factor on cosines with prototypes (SwALIP-V1); else it stays 10."""
    lr: float = 3e-3
    weight_decay: float = 0.1
    warmup_epochs: float = 1.0
    final_lr: float = 0.0033

    def __post_init__(self) -> None:
        super().__post_init__()
        strong = self.objective != "clip"
        if strong and self.objective in ("swalip", "slip") and self.num_augs != 2:
            raise UserError(f"num_augs={self.num_augs}: {self.objective} is written for 2 strong views")
        if self.objective.startswith("swalip"):
            self.smoothing = 0.0


PRESETS = {
    "cc3m": {
        "weight_decay": 0.5, "combine": "avg", "text_layers": 6, "text_dropout": 0.2, "epochs": 32, "batch_size": 4096,
    },
    "cc3m-clip": {
        "objective": "clip", "num_augs": 0, "separate_proj": False, "text_views": "plain", "weight_decay": 0.5,
        "combine": "avg", "text_layers": 6, "epochs": 32, "batch_size": 4096,
    },
    "cc12m": {"epochs": 32, "batch_size": 4096},
    "cc12m-extra": {"text_dropout": 0.1, "epochs": 32, "batch_size": 4096},
    "yfcc15m": {"text_dropout": 0.0, "epochs": 32, "batch_size": 4096},
    "merged": {"text_dropout": 0.0, "local_size": 192, "epochs": 32, "batch_size": 4096},
    "vit-b16": {
        "encoder": "vit_base_patch16_224", "dim": 512, "separate_proj_child": True, "epochs": 32, "batch_size": 4096,
    },
    "fine-tune": {
        "lr": 1e-5, "weight_decay": 0.05, "warmup_epochs": 0.5, "separate_proj": False, "freeze_norms": True,
        "held_out": 0.1, "patience": 3, "interpolate": 0.5, "pieces": 64, "epochs": 10, "batch_size": 1024,
    },
    "laptop": {
        "encoder": "cnn-small", "image_size": 0, "dim": 128, "crop": 0.7, "strong_crop": 0.3, "tokeniser": "words-4096",
        "context": 16, "text_width": 128, "text_heads": 4, "text_layers": 2, "hidden": 512, "lr": 2e-3,
        "barlip_widths": "256-256-512", "siam_widths": "256-128", "siam_hidden": 256, "steps": 400, "batch_size": 128,
    },
}  # fmt: skip


class ModalityHeads(nn.Module):
    """What an extra loss adds to the towers: a projector for each modality, and predictors where it has some.

    Args:
        image: width of the image tower's features.
        text: width of the text tower's.
        kind: "barlip" (three layers, the last BatchNorm with scale and shift), "siamlip" (projector without biases and
            with a plain last BatchNorm, predictors of both directions) or "swalip-v1" (projector alone).
        widths: of the projectors' layers.
        predictor: hidden width of the predictors.
        last_norm: whether "siamlip"'s projectors end in a BatchNorm.
    """

    def __init__(
        self,
        image: int,
        text: int,
        kind: str,
        widths: list[int],
        *,
        predictor: int = 2048,
        last_norm: bool = True,
    ) -> None:
        super().__init__()
        options: dict[str, Any] = {}
        if kind == "barlip":
            options = {"last_norm": True}
        if kind == "siamlip":
            options = {"hidden_bias": False, "out_bias": False, "last_norm": last_norm, "last_affine": False}
        self.image, self.text = (networks.mlp([width, *widths], **options) for width in (image, text))
        if kind == "siamlip":
            both = (networks.mlp([widths[-1], predictor, widths[-1]], hidden_bias=False) for _ in range(2))
            self.image_to_text, self.text_to_image = both


class CLIPBaselines(DualMethod):
    """Improved CLIP with its extra losses, on captioned images of any number of channels."""

    slug = "clip-baselines"
    config_class = Config
    config: Config

    # ---- networks --------------------------------------------------------------------------------------------
    def build(self) -> None:
        """The two towers, and what the extra loss needs besides."""
        super().build()
        c = self.config
        self.count = 0 if c.objective == "clip" else c.num_augs
        if c.objective in ("barlip", "siamlip", "byolip", "swalip-v1"):
            self.extra = self._extra_heads()
            self.extra_local = self._extra_heads() if c.separate_proj_child and self.count else None
        if c.objective == "byolip":
            self.momentum = MovingAverage(self._followed(), c.target_decay)
        if c.objective == "swalip-v1":
            self.prototypes = networks.Prototypes(self._widths(c.siam_widths)[-1], _PROTOTYPES)
            self.v1_scale = nn.Parameter(torch.tensor(10.0).log(), requires_grad=c.learn_v1_scale)

    def _extra_heads(self) -> ModalityHeads:
        c = self.config
        kind = "siamlip" if c.objective == "byolip" else c.objective
        widths = self._widths(c.barlip_widths if kind == "barlip" else c.siam_widths)
        sizes = int(self.model.image.dim), self.model.text.dim  # type: ignore[arg-type]
        return ModalityHeads(*sizes, kind, widths, predictor=c.siam_hidden, last_norm=not c.no_last_bn)

    @staticmethod
    def _widths(text: str) -> list[int]:
        return [int(width) for width in text.split("-")]

    def _followed(self) -> nn.ModuleDict:
        """What the momentum copy follows."""
        heads = {"extra": self.extra} | ({"extra_local": self.extra_local} if self.extra_local is not None else {})
        return nn.ModuleDict({"image": self.model.image, "text": self.model.text, **heads})

    def text_options(self) -> dict[str, Any]:
        """Dropout on strong texts."""
        c = self.config
        return {"dropout": c.text_dropout, "dropout_place": c.dropout_place, "drop_path": c.drop_path}

    def heads(self) -> dict[str, Any]:
        """Global and local projectors."""
        c = self.config
        separate = c.separate_proj and c.num_augs > 0 and c.objective != "clip"
        return {"z_head": c.z_projector, "h_head": c.h_projector, "separate": separate, "hidden": c.hidden}

    # ---- views -----------------------------------------------------------------------------------------------
    def recipe(self) -> Recipe:
        """A weak view of image and text, and A strong ones of each."""
        c = self.config
        count = 0 if c.objective == "clip" else c.num_augs
        weak_image = self.strong_image(0) if c.image_views == "strong" else self.weak_image()
        found = [
            View("image_global", "image", weak_image),
            View("text_global", "text", self._text(c.text_views == "strong")),
        ]
        for a in range(count):
            image = self.weak_image() if c.image_views == "weak" else self.strong_image(a)
            found.append(View(f"image_{a + 1}", "image", image))
            found.append(View(f"text_{a + 1}", "text", self._text(c.text_views in ("mixed", "strong"))))
        return Recipe(tuple(found))

    def strong_image(self, number: int) -> Pipeline:
        """Small crop, colour, grey, blur, flip."""
        c = self.config
        size = c.local_size or c.image_size
        jitter = views.ColorJitter(0.4, 0.4, 0.4, 0.1, p=0.8)
        blur, solarise = 0.5, 0.0
        if c.byol_augment:
            jitter = views.ColorJitter(0.4, 0.4, 0.2, 0.1, p=0.8)
            blur, solarise = ((1.0, 0.0), (0.1, 0.2))[number % 2]
        ops: list[Any] = [views.RandomResizedCrop(size, (c.strong_crop, 1.0)), jitter, views.Grayscale(0.2)]
        ops += [views.GaussianBlur(blur)] + ([views.Solarize(solarise)] if solarise else [])
        return Pipeline((*ops, views.HorizontalFlip(c.flip)))

    def _text(self, strong: bool) -> Pipeline:
        c = self.config
        if c.text_views == "plain":
            return self.text_view()
        change = (views.AugmentText(synonyms=c.synonyms),) if strong else ()
        return self.text_view(views.DropStopWords(c.stop_words), *change)

    # ---- learning --------------------------------------------------------------------------------------------
    def loss(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """CL2L, and the extra loss."""
        c, m = self.config, self.model
        weak = (self.image_features(batch["image_global"]), self.text_features(batch["text_global"]))
        numbers = range(1, self.count + 1)
        images = [self.image_features(batch[f"image_{a}"]) for a in numbers]
        texts = [self.text_features(batch[f"text_{a}"], True) for a in numbers]
        head = "h" if m.separate else "z"
        h_images = [m.embed_images(f, head) for f in images]
        h_texts = [m.embed_texts(f, head) for f in texts]
        terms = objectives.cl2l_terms(
            m.embed_images(weak[0]), m.embed_texts(weak[1]), h_images, h_texts, temperature=m.temperature,
            local_temperature=m.local_temperature, smoothing=c.smoothing, combine=c.combine, contrast=self.contrast,
        )  # fmt: skip
        terms = {name: value for name, value in terms.items() if name == "loss" or self.count}
        terms["scale"] = m.scale.detach().exp()
        if c.objective in ("clip", "cl2l"):
            return terms
        if c.objective in ("swalip", "slip"):
            extra = self._swalip(h_images, h_texts) if c.objective == "swalip" else self._slip(h_images)
        elif c.objective == "barlip":
            extra = self._barlip(weak, images, texts)
        elif c.objective == "swalip-v1":
            extra = self._swalip_v1(weak)
        else:
            extra = self._siamlip(batch, weak, images, texts)
        weight = (0.2 if c.objective.startswith("swalip") else 1.0) if c.extra_weight is None else c.extra_weight
        return terms | {"extra": extra, "loss": terms["loss"] + weight * extra}

    def _projected(self, heads: Any, images: list[Tensor], texts: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        return [heads.image(f) for f in images], [heads.text(f) for f in texts]

    def _local_heads(self) -> Any:
        return self.extra if self.extra_local is None else self.extra_local

    def _barlip(self, weak: tuple[Tensor, Tensor], images: list[Tensor], texts: list[Tensor]) -> Tensor:
        """Cross-correlation between the modalities."""
        c = self.config
        (global_image,), (global_text,) = self._projected(self.extra, [weak[0]], [weak[1]])
        views_i, views_t = self._projected(self._local_heads(), images, texts)
        joined = [[gather(v) for v in side] for side in (views_i, views_t)]
        return objectives.barlip(
            gather(global_image), gather(global_text), *joined, lambda_=c.barlip_lambda, scale=c.barlip_scale
        )

    def _siamlip(
        self, batch: dict[str, Any], weak: tuple[Tensor, Tensor], images: list[Tensor], texts: list[Tensor]
    ) -> Tensor:
        """Each modality predicts the other's projection; a mean over samples: nothing to gather."""
        local = self._local_heads()
        (v_image,), (v_text,) = self._projected(self.extra, [weak[0]], [weak[1]])
        v_images, v_texts = self._projected(local, images, texts)
        targets = (v_image, v_text, v_images, v_texts)
        if self.config.objective == "byolip":
            targets = self._targets(batch)
        return objectives.siamlip(
            self.extra.image_to_text(v_image),
            self.extra.text_to_image(v_text),
            targets[0],
            targets[1],
            p_images=[local.image_to_text(v) for v in v_images],
            p_texts=[local.text_to_image(v) for v in v_texts],
            v_images=targets[2],
            v_texts=targets[3],
        )

    @torch.no_grad()
    def _targets(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor, list[Tensor], list[Tensor]]:
        """The momentum copy's projections of all views."""
        copy: Any = self.momentum.average
        text: TextTransformer = copy["text"]
        local = copy["extra_local"] if "extra_local" in copy else copy["extra"]
        numbers = range(1, self.count + 1)
        images = [local.image(copy["image"](batch[f"image_{a}"])) for a in numbers]
        texts = [local.text(text(batch[f"text_{a}"], True)) for a in numbers]
        return (
            copy["extra"].image(copy["image"](batch["image_global"])),
            copy["extra"].text(text(batch["text_global"])),
            images,
            texts,
        )

    def _swalip(self, h_images: list[Tensor], h_texts: list[Tensor]) -> Tensor:
        """Swapped prediction with the other modality's batch as prototypes."""
        c = self.config
        if not is_distributed():
            keys: dict[str, Any] = {}
        else:
            join = gather if c.gather_grad else gather_labels
            keys = {"image_keys": [join(h) for h in h_images], "text_keys": [join(h) for h in h_texts], "join": gather}
        options: dict[str, Any] = {"temperature": self.model.local_temperature, "eps": c.eps, "iters": c.iterations}
        return objectives.swalip(h_images, h_texts, **options, **keys)

    def _swalip_v1(self, weak: tuple[Tensor, Tensor]) -> Tensor:
        """Swapped prediction with shared prototypes."""
        c = self.config
        scores = [
            self.prototypes(normalize(head(f), dim=1))
            for head, f in zip((self.extra.image, self.extra.text), weak, strict=True)
        ]
        join = gather if is_distributed() else None
        temperature = (-self.v1_scale).exp()
        return objectives.swalip_v1(*scores, temperature=temperature, eps=c.eps, iters=c.iterations, join=join)

    def _slip(self, h_images: list[Tensor]) -> Tensor:
        """SimCLR between the two strong images (SLIP, arXiv 2112.12750)."""
        return objectives.simclr(gather(h_images[0]), gather(h_images[1]), temperature=0.1)

    def edit_gradients(self, optimizer: Any) -> None:
        """Prototypes stand still at first (SwALIP-V1)."""
        if self.config.objective == "swalip-v1" and self.steps < _FROZEN_STEPS:
            self.prototypes.weight.grad = None

    def after_step(self) -> None:
        """Clamp the factors; move the momentum copy, parameters alone; prototypes of length 1."""
        super().after_step()
        if self.config.objective == "byolip":
            buffers = {name: b.clone() for name, b in self.momentum.average.named_buffers()}
            self.momentum.update(self._followed())
            for name, buffer in self.momentum.average.named_buffers():
                buffer.copy_(buffers[name])
        if self.config.objective == "swalip-v1":
            self.prototypes.normalise()
