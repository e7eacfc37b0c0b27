"""GenView: generated views and weighed pairs on top of a two-view method (Li et al., ECCV 2024, arXiv 2403.12003).

    x_gen = G(x, l(p)),  p the share of foreground in x;        one of the two views, drawn for each sample, is of x_gen
    L = mean_b w_b l_b,    w = B softmax_b(gamma q),    q = cos of the foregrounds - cos of the backgrounds

l_b is the base method's loss of a pair. Variants are made once, before training, and lie in a cache; the tokens that
tell foreground from background come from a frozen encoder. Neither reads labels.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from importlib import import_module
from typing import Annotated, Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from selftaught import catalog, objectives
from selftaught.catalog.rules import Count, Natural, NonNegative, Positive, Range, Share, Widths, WidthsOrNone
from selftaught.engine.distributed import gather, rank
from selftaught.engine.method import Optimizer
from selftaught.errors import UserError
from selftaught.methods._encoder import EncoderConfig, EncoderMethod
from selftaught.methods._genview_bases import WEIGHTED
from selftaught.methods._genview_preparation import Preparation, with_variants
from selftaught.methods._genview_variants import GENERATED
from selftaught.views import Pipeline, Recipe, View

__all__ = ["GenView"]


@dataclass
class Config(EncoderConfig):
    """GenView's options; the defaults are the official recipe of MoCo v3 with ResNet-50 on ImageNet."""

    base: Literal["moco-v3", "simsiam", "byol", "swav", "moco-v2", "simclr"] = "moco-v3"
    """Method that the views and the weights go to; its own recipe is a preset, such as imagenet-simsiam."""
    base_preset: str = "imagenet"
    """Preset of the base method that its heads, temperature, momentum copy and queue are taken from."""
    optimizer: Optimizer = "lars"
    lr: float = 0.6
    weight_decay: float = 1e-6
    warmup_epochs: float = 10.0
    crop: float = 0.2
    projector: Widths | None = None
    """Widths of the projector's layers; None: the base method's."""
    predictor: WidthsOrNone | None = None
    """Widths of the predictor's hidden layers, where the base method has one; None: the base method's."""
    temperature: Positive | None = None
    """Temperature, where the base method has one; None: the base method's."""
    target_decay: Share | None = None
    """Decay of the momentum copy, where the base method has one; None: the base method's."""
    generator: str = "unclip"
    """Where variants come from: unclip (diffusers), autoencoder (built in, learns first), none (real images only), or a
    folder of ready ones, named as the images are; an image without one shows itself."""
    prob_gen: Share = 1.0
    """Probability that one of a sample's two views is of its variant."""
    noise_mode: Literal["adaptive", "constant", "random"] = "adaptive"
    """Level of noise: by the share of foreground, the same for all (noise_level), or any of the five."""
    noise_level: Annotated[int, Range(0, 999)] = 200
    """Level with noise_mode=constant."""
    noise_step: Annotated[int, Range(0, 249)] = 100
    """What adaptive and random levels rise by: 0 to four times this."""
    fg_fraction: Annotated[float, Range(above=0, below=1)] = 0.4
    """Share of all tokens that counts as foreground (the paper's; its script has 0.35)."""
    gen_seed: Natural = 0
    """Seed of the generator."""
    variants: str = ""
    """Folder that variants are kept in; empty: genview in the cache (SELFTAUGHT_CACHE)."""
    unclip_model: str = "stabilityai/stable-diffusion-2-1-unclip"
    """Weights of unclip: a name of the hub, or a folder."""
    guidance: NonNegative = 10.0
    """Scale of unclip's guidance."""
    sampler_steps: Count = 20
    """Steps of unclip's sampler."""
    prompt: str = ""
    """Text that unclip is given with every image."""
    autoencoder_steps: Count = 2000
    """Steps that the built-in generator learns for."""
    autoencoder_dim: Count = 128
    """Width of its code."""
    foreground: str = "open_clip:ViT-H-14/laion2b_s32b_b79k"
    """Encoder that estimates the foreground for the noise: open_clip:NAME/WEIGHTS, timm:NAME, a run, autoencoder."""
    judge: str = "open_clip:convnext_base_w/laion2b_s13b_b82k"
    """Encoder that weighs pairs; named in the same way."""
    pca_images: Count = 10000
    """Images that the direction of the foreground is found from."""
    gamma: NonNegative = 1.0
    """Sharpness of the weights; 0 weighs all pairs alike and needs no judge."""
    similarity: Literal["cosine", "dot"] = "cosine"
    """What compares the foregrounds, and the backgrounds, of two views."""
    parts: Literal["both", "foreground", "background"] = "both"
    """What weights are made of."""
    weights_over: Literal["local", "global"] = "local"
    """Several processes: weights are shared out within each one's batch (official), or over all."""


PRESETS = {
    "imagenet": {"epochs": 300, "batch_size": 4096},
    "imagenet-100": {"epochs": 100, "batch_size": 4096},
    "imagenet-vit": {
        "encoder": "vit_small_patch16_224", "base_preset": "imagenet-vit", "crop": 0.08, "optimizer": "adamw",
        "lr": 1.5e-4, "weight_decay": 0.1, "warmup_epochs": 40.0, "epochs": 300, "batch_size": 4096,
    },
    "imagenet-simsiam": {
        "base": "simsiam", "optimizer": "sgd", "lr": 0.05, "weight_decay": 1e-4, "warmup_epochs": 0.0,
        "epochs": 200, "batch_size": 256,
    },
    "imagenet-byol": {
        "base": "byol", "base_preset": "imagenet-300", "crop": 0.08, "lr": 0.3, "epochs": 200, "batch_size": 4096,
    },
    "imagenet-swav": {"base": "swav", "crop": 0.14, "lr": 0.3, "final_lr": 0.001, "epochs": 200, "batch_size": 4096},
    "imagenet-moco-v2": {
        "base": "moco-v2", "optimizer": "sgd", "lr": 0.03, "weight_decay": 1e-4, "warmup_epochs": 0.0,
        "epochs": 200, "batch_size": 256,
    },
    "laptop": {
        "encoder": "resnet10-narrow", "image_size": 0, "base_preset": "laptop", "augment": "small",
        "generator": "autoencoder", "foreground": "autoencoder", "judge": "autoencoder", "autoencoder_steps": 300,
        "pca_images": 1000, "optimizer": "adamw", "lr": 4e-3, "weight_decay": 0.05, "warmup_epochs": 1.0,
        "steps": 1500, "batch_size": 128,
    },
}  # fmt: skip


class GenView(EncoderMethod):
    """GenView on images of any number of channels, around one of six methods."""

    slug = "genview"
    config_class = Config
    config: Config
    modalities: ClassVar[tuple[str, ...]] = ("image",)

    # ---- samples -----------------------------------------------------------------------------------------------
    @classmethod
    def arranged(cls, sources: dict[str, Any], config: Any) -> dict[str, Any]:
        """Every image with its variant, ready in a folder or to be made by :meth:`survey`."""
        if config.generator == "none":
            return sources
        return {role: with_variants(source, config) for role, source in sources.items()}

    # ---- networks ----------------------------------------------------------------------------------------------
    def build(self) -> None:
        """The base method, whose encoder is what one keeps."""
        c = self.config
        kind: Any = getattr(import_module(f"selftaught.methods.{c.base.replace('-', '_')}"), _CLASSES[c.base])
        self.inner = kind(
            _base_options(c, kind.config_class), channels=self.channels, samples=self.samples, modality="image"
        )
        self._judge: tuple[Any, Tensor] | None = None

    @property
    def encoder(self) -> nn.Module:  # type: ignore[override]
        """The base method's."""
        return self.inner.encoder

    def recipe(self) -> Recipe:
        """The base method's views of the image, and its first two of the variant."""
        made = [View(f"view {k}", "image", p) for k, p in enumerate(self.base_views(), 1)]
        if self.config.generator == "none" or self.config.prob_gen == 0:
            return Recipe(tuple(made))
        twins = [View(f"generated {k}", GENERATED, p) for k, p in enumerate(self.base_views()[:2], 1)]
        return Recipe((*made, *twins))

    def base_views(self) -> list[Pipeline]:
        """As the base method makes them."""
        return list(self.inner.views())

    # ---- before training ---------------------------------------------------------------------------------------
    def survey(self, sources: Any) -> None:
        """Make the variants that the cache lacks; find where the judge sees foreground.

        Raises:
            UserError: a generator or an encoder that can't be had.
        """
        (source,) = sources.values()
        prepared = Preparation(self.config, self.channels, source)
        with torch.random.fork_rng(devices=[]):
            prepared.make_variants()
            self._judge = prepared.judge() if self.config.gamma > 0 else None

    # ---- the loss ----------------------------------------------------------------------------------------------
    def loss(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """The base method's loss of mixed pairs, each with its weight."""
        self._follow()
        xs = self.mixed(batch)
        weights, shown = self.pair_weights(xs[0], xs[1])
        return WEIGHTED[self.config.base](self.inner, xs, weights, batch) | shown

    def mixed(self, batch: dict[str, Any]) -> list[Tensor]:
        """The views, one of each sample's first two taken from its variant (with probability ``prob_gen``)."""
        xs = [batch[name] for name in batch if name.startswith("view ")]
        if "generated 1" not in batch:
            return xs
        rows = len(xs[0])
        chosen = torch.randint(2, (rows,), device=xs[0].device)
        chosen[torch.rand(rows, device=xs[0].device) >= self.config.prob_gen] = -1
        for k in range(2):
            xs[k] = torch.where((chosen == k)[:, None, None, None], batch[f"generated {k + 1}"], xs[k])
        return xs

    @torch.no_grad()
    def pair_weights(self, x1: Tensor, x2: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """w (B,) of pairs of normalised views, without gradient, and what is shown of them.

        Raises:
            UserError: the judge hasn't seen the data (:meth:`survey`).
        """
        c = self.config
        if c.gamma == 0:
            return torch.ones(len(x1), device=x1.device), {}
        if self._judge is None:
            raise UserError("genview: weights need the judge; call survey({'data': source}) first, or set gamma=0")
        judge, v = self._judge[0].to(x1.device), self._judge[1].to(x1.device)
        mean, std = self.pixel_mean[:, None, None], self.pixel_std[:, None, None]
        (t1, _), (t2, _) = (judge((x * std + mean).clamp(0, 1)) for x in (x1, x2))
        q = objectives.genview_quality(t1, t2, v.to(t1.dtype), similarity=c.similarity, parts=c.parts)
        weights = self._shared_out(q)
        return weights, {"quality": q.mean(), "heaviest": weights.max()}

    def _shared_out(self, q: Tensor) -> Tensor:
        if self.config.weights_over == "local":
            return objectives.genview_weights(q, gamma=self.config.gamma)
        rows = len(q)
        every = objectives.genview_weights(gather(q), gamma=self.config.gamma)
        return every[rank() * rows : (rank() + 1) * rows]

    # ---- the base method's own ---------------------------------------------------------------------------------
    def _follow(self) -> None:
        """Tell the base method where the run stands."""
        self.inner.plan(self.total_steps, self.epoch_batches)
        self.inner.steps, self.inner.accumulate = self.steps, self.accumulate

    def after_step(self) -> None:
        """Momentum copy, prototypes."""
        self._follow()
        self.inner.after_step()

    def parameter_groups(self, lr: float) -> list[dict[str, Any]]:
        """As the base method has them; the weight decay is this method's."""
        return self.inner.parameter_groups(lr)

    def finish_optimizer(self, optimizer: Any) -> Any:
        """As the base method does."""
        return self.inner.finish_optimizer(optimizer)

    def edit_gradients(self, optimizer: Any) -> None:
        """As the base method does: prototypes that wait."""
        self._follow()
        self.inner.edit_gradients(optimizer)


_CLASSES = {
    "moco-v3": "MoCoV3", "simsiam": "SimSiam", "byol": "BYOL", "swav": "SwAV", "moco-v2": "MoCoV2", "simclr": "SimCLR",
}  # fmt: skip


def _base_options(c: Config, kind: Any) -> dict[str, Any]:
    """The base method's options: its preset's heads and the like, then what GenView shares with it."""
    known = catalog.presets(c.base)
    if c.base_preset not in known:
        raise UserError(f"base_preset={c.base_preset}: {c.base} has {', '.join(known)}")
    names = {field.name for field in fields(kind)}
    shared = {field.name for field in fields(EncoderConfig)}
    found = {k: v for k, v in known[c.base_preset].items() if k in names - shared}
    found |= {name: getattr(c, name) for name in shared & names if name != "one_forward"}
    found["one_forward"] = c.one_forward or kind().one_forward
    own = {name: getattr(c, name) for name in ("projector", "predictor", "temperature", "target_decay")}
    for name, value in own.items():
        if value is not None and name not in names:
            raise UserError(f"{name}={value}: {c.base} has none; leave it out")
    return found | {name: value for name, value in own.items() if value is not None}
