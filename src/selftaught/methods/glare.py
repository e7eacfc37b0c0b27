"""GLARE: a vision transformer's pre-training goes on in a new domain, in small adapters alone (Ebouky et al., 2025).

    T = f(theta, A'), S = f(theta, A)   theta frozen; A adapters, A' their moving average; S sees some patches perturbed
    L = L_G + lambda_L L_L + lambda_R L_R
    L_G   class tokens: each view's student against the other view's teacher                                (global)
    L_L   perturbed patches: the student says what the teacher says of the clean patch                      (local)
    L_R   regions around tokens that the teacher attends to, against their counterpart in the other view    (regional)
          r_k = mean of S over window k,   q_k = mean of T,   r'_k = sum_j softmax_j(cos(q_k, T^u_j) / tau_c) T^u_j

It takes a run or a model of timm's (``--init RUN|timm:NAME``) and delivers the same backbone with adapters, merged into
its weights where these are linear. Dropping L_R and hiding patches by a mask token is iBOT, dropping both DINO with two
crops. arXiv 2509.17816.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

import torch
from torch import Tensor, nn

from selftaught import networks, objectives, views
from selftaught.catalog.rules import Count, Form, Natural, NonNegative, Positive, Range, Share, Widths
from selftaught.engine.distributed import gather_labels
from selftaught.engine.ema import MovingAverage, cosine_decay
from selftaught.engine.method import Optim
from selftaught.errors import UserError
from selftaught.methods._encoder import EncoderConfig, EncoderMethod
from selftaught.methods._weight_decay import CosineWeightDecay
from selftaught.networks.masks import drawn_ratio_masks
from selftaught.networks.region_attention import RegionAttention
from selftaught.networks.vit_adapters import Adapted
from selftaught.views import Pipeline
from selftaught.views.patch_augmentation import augment_patches

__all__ = ["GLARE"]

Levels = Annotated[str, Form(r"(global|local|regional)(,(global|local|regional))*", "levels such as global,local")]
_LEVELS = ("global", "local", "regional")


@dataclass
class Config(EncoderConfig):
    """GLARE's options; what the paper leaves open has the sheet's best-founded values."""

    encoder: str = "vit_small_patch16_224"
    lr: float = 5e-4
    weight_decay: float = 0.04
    final_weight_decay: NonNegative = 0.4
    """Weight decay at the end of the run, reached along half a cosine."""
    final_lr: float = 0.002
    warmup_share: Share = 0.1
    """Share of the run in which the learning rate rises from 0."""
    crop: float = 0.32
    adapter: Literal["uni", "lora", "bitfit", "vpt", "full"] = "uni"
    """What is trained inside the frozen network: bottlenecks, low-rank changes, biases, prompts, or all weights."""
    rank: Count = 64
    """Width of the bottlenecks (uni), rank of the changes (lora)."""
    placement: Literal["sequential", "parallel"] = "sequential"
    """uni: act on what attention and MLP give, or on their input beside them."""
    activation: Literal["gelu", "relu", "none"] = "gelu"
    """uni: inside the bottleneck; none lets sequential ones be merged into the weights."""
    adapter_scale: Positive = 1.0
    """uni: s, by which what is added is multiplied."""
    learn_scale: bool = False
    """uni: s is learnt, beginning at 1."""
    share_down: bool = False
    """uni: one down-projection for all blocks."""
    lora_alpha: Positive = 16.0
    """lora: the change is scaled by alpha / rank."""
    lora_targets: Literal["qkv", "attention", "all"] = "all"
    """lora: which linear layers of a block are changed."""
    prompts: Count = 10
    """vpt: tokens before every block."""
    projector: Widths = "2048-2048-256"
    """Widths of the head's layers: equal hidden ones, then the bottleneck before the prototypes."""
    head_norm: Literal["none", "bn"] = "none"
    """Normalisation after the head's hidden layers."""
    prototypes: Count = 8192
    """Outputs K of the head."""
    heads: Literal["shared", "separate"] = "shared"
    """One head for class tokens, patches and regions, or a last layer for each."""
    levels: Levels = "global,local,regional"
    """Levels that count."""
    lambda_local: NonNegative = 1.0
    """Weight of the local term."""
    lambda_regional: NonNegative = 1.0
    """Weight of the regional term."""
    patch_augment: Literal["blur", "mask", "noise", "colour", "none"] = "blur"
    """What perturbs the student's patches; mask replaces them by a learnt token."""
    patch_ratio: Annotated[float, Range(0, below=1)] = 0.3
    """Middle of the drawn shares of perturbed patches."""
    patch_variance: Share = 0.2
    """A share lies within patch_ratio plus and minus this."""
    patch_blocks: bool = False
    """Perturb blocks of patches, not single ones."""
    blur_low: Positive = 1.0
    """Least deviation of the blur, in pixels of a view of 224."""
    blur_high: Positive = 4.0
    """Largest deviation of the blur."""
    regions: Count = 4
    """Regions R of a view."""
    windows: Widths = "3"
    """Sides of the regions in tokens, odd; several such as 3-5 are used at once."""
    anchors: Literal["attention", "uniform", "topk"] = "attention"
    """How regions are placed: by the teacher's attention, evenly, or where it is largest."""
    region_temperature: Positive = 0.1
    """Temperature tau_c of the search for a region's counterpart."""
    region_attention: Literal["cosine", "learned"] = "cosine"
    """cosine: the teacher's counterpart is what the student's region must say; learned: the student finds the region's
    counterpart in its other view by a trained cross-attention, and must say what the teacher says of the region."""
    region_weight: bool = False
    """Weigh regions by how sure the match is, for views that may not overlap."""
    student_temperature: Positive = 0.1
    """Temperature tau_s."""
    teacher_temperature: Positive = 0.07
    """Temperature tau_t after its warm-up."""
    teacher_temperature_start: Positive = 0.04
    """tau_t at the start."""
    teacher_warmup: Share = 0.3
    """Share of the run in which tau_t goes from its start to its value."""
    center_momentum: Share = 0.9
    """Share of the old centres that a step keeps."""
    target_decay: Share = 0.996
    """Decay of the adapters' and heads' moving average at the start; 1 keeps the teacher as it was."""
    target_final: Share = 1.0
    """Decay at the end, along half a cosine."""
    head_warmup: Natural = 200
    """Steps in which the new head learns alone, at most a fifth of the run."""
    keep: Literal["teacher", "student"] = "teacher"
    """Whose adapters are delivered."""


PRESETS = {
    "vit-small": {"epochs": 50, "batch_size": 128, "clip": 3.0},
    "vit-base": {"encoder": "vit_base_patch16_224", "epochs": 50, "batch_size": 128, "clip": 3.0},
    "laptop": {
        "image_size": 0, "rank": 16, "projector": "256-256-64", "head_norm": "bn", "prototypes": 256, "augment": "grey",
        "target_decay": 0.99, "lr": 2e-3, "lr_scaling": "none", "weight_decay": 0.05, "final_weight_decay": 0.05,
        "teacher_temperature": 0.04, "head_warmup": 50, "keep": "student", "steps": 300, "batch_size": 64, "clip": 3.0,
    },
}  # fmt: skip


class GLARE(CosineWeightDecay, EncoderMethod):
    """GLARE on images of any number of channels."""

    slug = "glare"
    config_class = Config
    config: Config
    modalities = ("image",)
    transforms = True
    teacher: Adapted
    centers: Tensor

    @classmethod
    def inherits(cls, original: Mapping[str, Any]) -> dict[str, Any]:
        """How the run's data were divided.

        Raises:
            UserError: the run has no encoder.
        """
        if "encoder" not in original["options"]:
            raise UserError(
                f"--init: {original['method']} has no vision transformer to adapt; use one trained on a ViT"
            )
        return {name: value for name in ("split", "by") if (value := original["settings"].get(name))}

    def build(self) -> None:
        """The frozen network with the student's adapters, heads, and the moving average of both."""
        c = self.config
        if not networks.plain_vit(c.encoder):
            raise UserError(f"encoder={c.encoder}: glare adapts vision transformers, such as vit_small_patch16_224")
        super().build()
        base = self._modules.pop("encoder")
        options = self.adapter_options()
        self.adapted = Adapted(base, **options)  # type: ignore[arg-type]
        length = self.adapted.grid[0] * self.adapted.grid[1]
        self.sides = [int(side) for side in str(c.windows).split("-")]
        if c.regions > length or any(side % 2 == 0 for side in self.sides):
            raise UserError(f"regions={c.regions}, windows={c.windows}: at most {length} regions, of odd sides")
        self.heads = self.new_heads(base.dim)  # type: ignore[union-attr, arg-type]
        self.extra = nn.ParameterDict()
        if c.patch_augment == "mask":
            self.extra["mask_token"] = nn.Parameter(torch.zeros(1, 1, base.dim))  # type: ignore[union-attr, arg-type]
        if c.region_attention == "learned":
            self.region_attention = RegionAttention(base.dim)  # type: ignore[union-attr, arg-type]
        self.momentum = MovingAverage(self.followed(), c.target_decay)
        average: Any = self.momentum.average
        teacher = Adapted(base, **options)  # type: ignore[arg-type]
        teacher.parts = average[0]
        object.__setattr__(self, "teacher", teacher)  # its base is the student's, its parts are the average's
        self.register_buffer("centers", torch.zeros(3, c.prototypes))

    def adapter_options(self) -> dict[str, Any]:
        """What :class:`selftaught.networks.Adapted` takes."""
        c = self.config
        return {
            "adapter": c.adapter, "rank": c.rank, "placement": c.placement, "activation": c.activation,
            "scale": "learned" if c.learn_scale else c.adapter_scale, "share_down": c.share_down,
            "alpha": c.lora_alpha, "targets": c.lora_targets, "prompts": c.prompts,
        }  # fmt: skip

    def new_heads(self, dim: int) -> nn.ModuleList:
        """Heads of class tokens, patches and regions: one three times, or three with one body."""
        c = self.config
        *hidden, bottleneck = (int(width) for width in str(c.projector).split("-"))
        if len(set(hidden)) > 1:
            raise UserError(f"projector={c.projector}: the hidden layers have one width, as in 2048-2048-256")
        made = [
            networks.dino_head(
                dim, c.prototypes, hidden=hidden[0] if hidden else bottleneck, bottleneck=bottleneck,
                layers=len(hidden) + 1, norm=c.head_norm,
            )
            for _ in _LEVELS
        ]  # fmt: skip
        for head in made[1:]:
            head.body = made[0].body
        return nn.ModuleList(made if c.heads == "separate" else made[:1] * 3)

    @property
    def encoder(self) -> Any:  # type: ignore[override]
        """The frozen network, which ``--init`` gives its weights."""
        return self.adapted.base

    def followed(self) -> nn.ModuleList:
        """What the teacher's moving average follows: adapters and heads."""
        return nn.ModuleList([self.adapted.parts, self.heads])

    def trained_modules(self) -> nn.Module:
        """Adapters, heads, mask token and cross-attention; never the network."""
        own = [self.adapted.parts, self.heads, self.extra]
        return nn.ModuleList([*own, self.region_attention] if hasattr(self, "region_attention") else own)

    # ---- views -----------------------------------------------------------------------------------------------
    def paper_views(self) -> list[Pipeline]:
        """DINO's two large crops."""
        return list(views.barlow_twins(self.config.image_size, scale=(self.config.crop, 1.0)))

    # ---- training --------------------------------------------------------------------------------------------
    def optimisers(self) -> dict[str, Optim]:
        """One, with a warm-up that is a share of the run."""
        found = super().optimisers()
        found["main"].warmup = round(self.config.warmup_share * self.total_steps)
        return found

    def loss(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """The three terms (means over local rows); the centres move."""
        c = self.config
        x = torch.cat(batch["views"][:2])
        rows, prefix = len(x) // 2, self.encoder.model.num_prefix_tokens
        mask = self.perturbed(len(x), x.device)
        with torch.no_grad():
            t, attention = self.teacher.features(x)
        s, _ = self.student_features(x, mask)
        windows = self.regions(attention.float().mean(1))
        wanted, said, sure = self.region_tokens(t[:, prefix:], s[:, prefix:], windows)
        average: Any = self.momentum.average
        with torch.no_grad():
            teacher = [self._said(head, tokens) for head, tokens in zip(average[1], (t[:, :1], t[:, prefix:], wanted),
                                                                        strict=True)]  # fmt: skip
        student = [
            self._said(head, tokens) for head, tokens in zip(self.heads, (s[:, :1], s[:, prefix:], said), strict=True)
        ]
        pair = (2, rows)
        weights = {level: float(level in c.levels.split(",")) for level in _LEVELS}
        terms = objectives.glare_terms(
            student[0][:, 0].unflatten(0, pair), teacher[0][:, 0].unflatten(0, pair), student[1].unflatten(0, pair),
            teacher[1].unflatten(0, pair), mask.unflatten(0, pair), student[2].unflatten(0, pair),
            teacher[2].unflatten(0, pair), centers=list(self.centers), student_temperature=c.student_temperature,
            teacher_temperature=self.teacher_temperature, lambda_global=weights["global"],
            lambda_local=c.lambda_local * weights["local"], lambda_regional=c.lambda_regional * weights["regional"],
            weight=sure.unflatten(0, pair) if c.region_weight else None,
        )  # fmt: skip
        self._move_centers(teacher)
        return terms

    def perturbed(self, samples: int, device: Any) -> Tensor:
        """Which patches the student sees changed: (samples, L) bool; none with patch_augment=none."""
        c, grid = self.config, self.adapted.grid
        if c.patch_augment == "none":
            return torch.zeros(samples, grid[0] * grid[1], dtype=torch.bool, device=device)
        return drawn_ratio_masks(
            samples, grid, c.patch_ratio, variance=c.patch_variance, probability=1.0, blockwise=c.patch_blocks,
            device=device,
        )  # fmt: skip

    def student_features(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """The student's tokens of views whose masked patches are perturbed, and its attention."""
        c = self.config
        if c.patch_augment == "mask":
            return self.adapted.features(x, None, mask, self.extra["mask_token"])
        sigma = (c.blur_low, max(c.blur_low, c.blur_high))
        return self.adapted.features(augment_patches(x, mask, self.adapted.grid, how=c.patch_augment, sigma=sigma))

    def regions(self, attention: Tensor) -> Tensor:
        """Windows (N, R', L) around anchors drawn for every side of the regions."""
        c = self.config
        found = []
        for side in self.sides:
            anchors = objectives.sample_anchors(attention, c.regions, how=c.anchors)
            found.append(objectives.region_windows(anchors, self.adapted.grid, side))
        return torch.cat(found, 1)

    def region_tokens(self, t: Tensor, s: Tensor, windows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What the teacher's head sees of regions, what the student's sees, and how sure each match is."""
        rows = len(t) // 2
        query, said = objectives.region_means(t, windows), objectives.region_means(s, windows)
        other = t.roll(rows, 0)  # the tokens of the same image's other view
        wanted, sure = objectives.counterparts(query, other, temperature=self.config.region_temperature)
        if self.config.region_attention == "learned":
            return query, self.region_attention(said, s.roll(rows, 0)), sure
        return wanted, said, sure

    @staticmethod
    def _said(head: Any, tokens: Tensor) -> Tensor:
        """(N, T, D) tokens -> (N, T, K) logits."""
        return head(tokens.flatten(0, 1)).unflatten(0, tokens.shape[:2])

    @torch.no_grad()
    def _move_centers(self, logits: list[Tensor]) -> None:
        """Every level's centre towards the mean of the teacher's raw logits, over all processes."""
        for center, level in zip(self.centers, logits, strict=True):
            means = gather_labels(level.float().flatten(0, 1).mean(0, keepdim=True))
            center.copy_(objectives.ibot_center(center, means, momentum=self.config.center_momentum))

    @property
    def teacher_temperature(self) -> float:
        """tau_t now: a line from its start to its value over ``teacher_warmup`` of the run, then constant."""
        c = self.config
        share = min(1.0, self.progress / c.teacher_warmup) if c.teacher_warmup else 1.0
        return c.teacher_temperature_start + share * (c.teacher_temperature - c.teacher_temperature_start)

    def edit_gradients(self, optimizer: Any) -> None:
        """The head learns alone at first; the weight decay of this step."""
        super().edit_gradients(optimizer)
        c = self.config
        if self.steps < min(c.head_warmup, self.total_steps // 5):
            for parameter in self.adapted.parts.parameters():
                parameter.grad = None

    @property
    def target_decay(self) -> float:
        """Decay of the teacher now."""
        c = self.config
        return cosine_decay(self.steps, self.total_steps, c.target_decay, c.target_final)

    def after_step(self) -> None:
        """Move the teacher's adapters and heads."""
        self.momentum.base = self.target_decay
        self.momentum.update(self.followed())

    # ---- what one keeps --------------------------------------------------------------------------------------
    plain = False
    """Whether the frozen network is delivered, without adapters: what `began_from` gives does."""

    def began_from(self) -> Self:
        """The same with the frozen network alone."""
        found = copy.copy(self)
        found.plain = True
        return found

    def deliverable(self) -> nn.Module:
        """The network with the teacher's adapters, or the student's."""
        if self.plain:
            return self.encoder
        return self.teacher if self.config.keep == "teacher" else self.adapted

    def deliverable_spec(self) -> dict[str, Any]:
        """The base's account, and its adapters'."""
        return dict(self.adapted.spec)

    def exported(self) -> tuple[nn.Module, dict[str, Any]]:
        """A plain network where the adapters can be merged into its weights."""
        found: Any = self.deliverable()
        if not found.mergeable:
            return found, self.deliverable_spec()
        plain = found.merged()
        return plain, dict(plain.spec)

    def features(self, batch: dict[str, Any]) -> Tensor:
        """h (N, D): the adapted network's pooled features."""
        return self.deliverable()(self.inputs(batch))
