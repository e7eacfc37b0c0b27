"""DISCOVR: a video encoder for ultrasound and other grey clips, taught by masking alone (2025, arXiv 2506.11777).

    L = w_s L_SCD + w_v L_vid + w_i L_img

Two branches, each a student with a momentum teacher that sees everything: the video encoder on masked clips, the image
encoder on masked frames; both learn to say of the part what their teacher says of the whole (L_vid, L_img). From the
visible tokens of one more masked clip a decoder fills in all tokens, and these take the clusters of the image teacher's
tokens at the same place (L_SCD). The video encoder is what one keeps.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn

from selftaught import networks
from selftaught.catalog.rules import Count, Form, Natural, NonNegative, Positive, Range, Share, Widths
from selftaught.engine.distributed import gather_labels, is_distributed
from selftaught.engine.ema import MovingAverage
from selftaught.engine.method import Method, MethodConfig
from selftaught.errors import UserError
from selftaught.networks.tokens import keep_from_mask, largest_patch, patchify, random_keep, region_keep, visible_first
from selftaught.networks.transformer import MaskedDecoder
from selftaught.networks.video import CLIP_ENCODERS, FramewiseEncoder, clip_encoder
from selftaught.objectives.discovr import (
    cluster_distillation_terms,
    discovr_center,
    discovr_temperature,
    masked_distillation_terms,
    paired_tokens,
    sigma_terms,
    videomae,
)
from selftaught.views import MultiScaleCrop, Op, Recipe, Resize, TemporalCenterCrop, TemporalCrop, TubeMask, View

__all__ = ["DISCOVR"]


@dataclass
class Config(MethodConfig):
    """DISCOVR's options; the defaults are the authors' launch script for EchoNet-Dynamic."""

    encoder: str = "vit-base-video"
    """Video encoder: vit-nano-video, vit-tiny-video, vit-small-video, vit-base-video or vit-large-video."""
    frames: Count = 64
    """Frames of a clip."""
    stride: Count = 3
    """Frames of the video from one frame of the clip to the next."""
    image_size: Count = 112
    """Side of the square frames in pixels."""
    augment: Literal["crop", "resize"] = "crop"
    """crop: a multi-scale box; resize: the whole frame."""
    tubelet: Count = 2
    """Frames that a token of the video encoder covers."""
    patch: Natural = 0
    """Side of a token in pixels; 0 takes 16, or less where frames are small."""
    image_depth: Natural = 0
    """Blocks of the image encoder; 0 takes as many as the video encoder has."""
    class_token: bool = True
    """Whether the encoders have a class token; without it the mean of the tokens stands for the clip."""
    mask: Literal["tube", "random", "region"] = "tube"
    """Masks of clips: one pattern repeated over time, another one at every time step, or one region at all times."""
    mask_ratio: Annotated[float, Range(0, below=1)] = 0.9
    """Share of tokens hidden from the video encoder before the decoder."""
    local_mask_ratio: Annotated[float, Range(0, below=1)] = 0.9
    """Share of tokens hidden in the views of the self-distillation, in clips and frames."""
    local_views: Count = 4
    """Masked views of a clip in the self-distillation."""
    image_views: Count = 4
    """Masked views of a frame in the self-distillation."""
    head: Widths = "2048-2048-256"
    """Widths of the four projection heads: equal hidden layers, then the bottleneck before the outputs."""
    head_norm: Literal["none", "bn"] = "none"
    """Normalisation after the heads' hidden layers; bn helps in short runs."""
    outputs: Count = 16384
    """Outputs K_d of the heads."""
    decoder: Annotated[str, Form(r"[1-9]\d*-[1-9]\d*-[1-9]\d*", "width, blocks and heads as 384-4-6")] = "384-4-6"
    """Width, blocks and heads of the decoder."""
    prototypes: Count = 3000
    """Prototypes K of the cluster distillation."""
    target: Literal["image", "pixels", "mlp"] = "image"
    """What the decoder's tokens are compared with: the image teacher's tokens (DISCOVR), the hidden pixels (VideoMAE),
    or an MLP of the hidden pixels through prototypes (SIGMA)."""
    scd_weight: NonNegative = 1.0
    """Weight w_s of the decoder's term; 0 leaves it out."""
    video_weight: NonNegative = 1.0
    """Weight w_v of the video's self-distillation; 0 leaves it out."""
    image_weight: NonNegative = 1.0
    """Weight w_i of the frames' self-distillation; 0 leaves it out."""
    scd_targets: Literal["hard", "soft"] = "hard"
    """Clusters as the largest entry of a code (the authors' code), or the code itself (the paper)."""
    score_temperature: Positive = 0.1
    """Temperature of the scores against prototypes."""
    eps: Positive = 0.05
    """Smoothness of the codes."""
    iterations: Count = 10
    """Rounds of Sinkhorn's algorithm."""
    pairing: Literal["intended", "official"] = "intended"
    """intended: a video token and its first frame's token at its place; official: as the authors' code mixes them."""
    official_scale: bool = False
    """The image term times 256 / frames, of the last 1024 frames alone, as in the authors' code."""
    center_input: Literal["logits", "probs"] = "logits"
    """What the centres follow: logits as in DINO; probs as in the authors' code, which centres nothing."""
    center_momentum: Share = 0.9
    """Share of the old centre that a step keeps."""
    student_temperature: Positive = 0.1
    """Temperature tau_s of the students."""
    teacher_temperature: Positive = 0.07
    """Temperature tau_t of the teachers after the warm-up."""
    teacher_temperature_start: Positive = 0.04
    """The teachers' temperature at the start."""
    teacher_warmup_epochs: NonNegative = 30.0
    """Epochs over which the teachers' temperature rises."""
    target_decay: Share = 0.996
    """Momentum of the teachers, which move before every step."""
    lr: float = 1.5e-4
    beta2: Annotated[float, Range(0, below=1)] = 0.95
    """Second beta of AdamW."""
    weight_decay: float = 0.05
    final_lr: float = 0.6667
    warmup_epochs: float = 40.0


PRESETS = {
    "echonet": {"epochs": 400, "batch_size": 16},
    "echonet-224": {"epochs": 400, "batch_size": 16, "image_size": 224},
    "echonet-small": {"epochs": 400, "batch_size": 16, "encoder": "vit-small-video"},
    "official": {
        "epochs": 400, "batch_size": 16, "pairing": "official", "center_input": "probs", "official_scale": True,
    },
    "videomae": {
        "epochs": 400, "batch_size": 16, "target": "pixels", "video_weight": 0.0, "image_weight": 0.0,
    },
    "sigma": {"epochs": 400, "batch_size": 16, "target": "mlp", "video_weight": 0.0, "image_weight": 0.0},
    "dino-video": {"epochs": 400, "batch_size": 16, "scd_weight": 0.0, "image_weight": 0.0},
    "dino-image": {"epochs": 400, "batch_size": 16, "scd_weight": 0.0, "video_weight": 0.0},
    "laptop": {
        "encoder": "vit-nano-video", "frames": 8, "stride": 2, "image_size": 48, "patch": 12, "image_depth": 2,
        "mask_ratio": 0.6, "local_mask_ratio": 0.6, "local_views": 2, "image_views": 2, "head": "256-256-64",
        "head_norm": "bn", "outputs": 256, "decoder": "48-1-4", "prototypes": 64, "teacher_temperature": 0.04,
        "teacher_warmup_epochs": 0.0, "target_decay": 0.99, "lr": 2e-3, "lr_scaling": "none", "final_lr": 0.0,
        "warmup_epochs": 2.0, "steps": 500, "batch_size": 16, "clip": 1.0,
    },
}  # fmt: skip


class DISCOVR(Method):
    """DISCOVR on clips of one or more channels; with other weights and targets its baselines, too."""

    slug = "discovr"
    config_class = Config
    config: Config
    modalities = ("clip",)
    default_data = "ultrasound?label=ejection"
    video_center: Tensor
    image_center: Tensor

    # ---- networks --------------------------------------------------------------------------------------------
    def build(self) -> None:
        """The encoder, and of the rest what the weights and the target make use of."""
        c = self.config
        if c.encoder not in CLIP_ENCODERS:
            raise UserError(f"encoder={c.encoder}: choose {', '.join(CLIP_ENCODERS)} for clips")
        if max(c.scd_weight, c.video_weight, c.image_weight) == 0:
            raise UserError("scd_weight, video_weight and image_weight can't all be 0")
        self.clustered = c.scd_weight > 0 and c.target == "image"
        self.framewise = max(c.scd_weight, c.video_weight) == 0
        frames = self._frame_branch() if c.image_weight > 0 or self.clustered else None
        self.encoder: Any = frames if frames is not None and self.framewise else clip_encoder(
            c.encoder, channels=self.channels, frames=c.frames, image_size=c.image_size, tubelet=c.tubelet,
            patch=self.patch_side, class_token=c.class_token,
        )  # fmt: skip
        if c.video_weight > 0:
            self.video_head = self._head()
            self.video_teacher = MovingAverage(nn.Sequential(self.encoder, self.video_head), c.target_decay)
            self.register_buffer("video_center", torch.zeros(c.outputs))
        if c.scd_weight > 0:
            self._build_decoder()

    @property
    def patch_side(self) -> int:
        """Side of a token in pixels."""
        c = self.config
        return c.patch or largest_patch(c.encoder, c.image_size)

    def _frame_branch(self) -> FramewiseEncoder:
        """The image encoder with its head, teacher and centre."""
        c = self.config
        found = FramewiseEncoder(c.encoder, self.channels, c.image_size, self.patch_side, c.image_depth, c.class_token)
        self.frame_encoder, self.image_head = found.network, self._head()
        self.image_teacher = MovingAverage(nn.Sequential(self.frame_encoder, self.image_head), c.target_decay)
        self.register_buffer("image_center", torch.zeros(c.outputs))
        if c.image_weight == 0:  # the teacher's tokens serve as they are: nothing trains this branch
            self.frame_encoder.requires_grad_(False)
            self.image_head.requires_grad_(False)
        return found

    def _head(self) -> nn.Module:
        *hidden, bottleneck = _numbers(self.config.head)
        if len(set(hidden)) > 1:
            raise UserError(f"head={self.config.head}: the hidden layers have one width, as in 2048-2048-256")
        width = CLIP_ENCODERS[self.config.encoder][0]
        return networks.dino_head(
            width, self.config.outputs, hidden=hidden[0] if hidden else bottleneck, bottleneck=bottleneck,
            layers=len(hidden) + 1, norm=self.config.head_norm,
        )  # fmt: skip

    def _build_decoder(self) -> None:
        c, dim = self.config, self.encoder.dim
        pixels = self.encoder.patch_embed.in_features
        width, depth, heads = _numbers(c.decoder)
        out = pixels if c.target == "pixels" else dim
        self.decoder = MaskedDecoder(self.encoder.grid, dim, out, dim=width, depth=depth, heads=heads)
        if c.target != "pixels":
            self.prototypes = networks.Prototypes(dim, c.prototypes)
        if c.target == "mlp":
            self.target_network = networks.mlp([pixels, 2 * dim, dim], norm="none", activation="gelu")

    # ---- views -----------------------------------------------------------------------------------------------
    def recipe(self) -> Recipe:
        """A stretch of frames, a box, and the masks: one before the decoder, others for the self-distillation."""
        c = self.config
        size: Op = MultiScaleCrop(c.image_size) if c.augment == "crop" else Resize((c.image_size, c.image_size))
        ops: list[Op] = [TemporalCrop(c.frames, c.stride), size]
        tube = TubeMask(c.mask_ratio, tubelet=c.tubelet, patch=self.patch_side)
        if c.mask == "tube" and not self.framewise:
            ops += [tube, replace(tube, ratio=c.local_mask_ratio, count=max(1, c.local_views), fact="local")]
        return Recipe((View("clip", "clip", tuple(ops)),))

    def evaluation_view(self) -> Recipe:
        """The frames in the middle of the clip, whole."""
        c = self.config
        ops = (TemporalCenterCrop(c.frames, c.stride), Resize((c.image_size, c.image_size)))
        return Recipe((View("clip", "clip", ops),))

    def masks(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Visible tokens before the decoder (N, L), and of the local views (V N, L'), view after view."""
        c, rows = self.config, len(batch["clip"])
        if c.mask != "tube":
            device, net = batch["clip"].device, self.encoder
            shape = net.grid if c.mask == "region" else net.count
            draw: Any = region_keep if c.mask == "region" else random_keep
            keep = draw(rows, shape, c.mask_ratio, device=device)
            return keep, draw(c.local_views * rows, shape, c.local_mask_ratio, device=device)
        local = batch["clip.local"].transpose(0, 1).flatten(0, 1)
        return keep_from_mask(batch["clip.mask"][:, 0]), keep_from_mask(local)

    # ---- training --------------------------------------------------------------------------------------------
    def before_step(self) -> None:
        """The teachers move before the forward pass."""
        if self.config.video_weight > 0:
            self.video_teacher.update(nn.Sequential(self.encoder, self.video_head))
        if hasattr(self, "image_teacher"):
            self.image_teacher.update(nn.Sequential(self.frame_encoder, self.image_head))

    def loss(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """The weighted sum of the three terms, and what shows a collapse."""
        c, clip = self.config, batch["clip"]
        terms: dict[str, Tensor] = {}
        frame_tokens = None
        if c.image_weight > 0 or self.clustered:
            image, frame_tokens = self._image_terms(clip.transpose(1, 2).flatten(0, 1))
            terms |= image
        keep, local = (None, None) if self.framewise else self.masks(batch)
        if c.video_weight > 0:
            assert local is not None
            terms |= self._video_terms(clip, local)
        if c.scd_weight > 0:
            assert keep is not None
            terms |= self._decoder_terms(clip, keep, frame_tokens)
        weights = {"scd": c.scd_weight, "video": c.video_weight, "image": c.image_weight}
        total = torch.stack([weight * terms[name] for name, weight in weights.items() if weight > 0]).sum()
        return {"loss": total} | terms

    def _image_terms(self, frames: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Self-distillation of frames (N T, C, H, W), and the teacher's tokens (N T, n, D)."""
        c = self.config
        copy: Any = self.image_teacher.average
        encoder, head = copy[0], copy[1]
        with torch.no_grad():
            whole, tokens = encoder.tokens(frames)
        if c.image_weight == 0:
            return {}, tokens
        keep = random_keep(c.image_views * len(frames), encoder.count, c.local_mask_ratio, device=frames.device)
        student = self.image_head(_summary(*self.frame_encoder.tokens(frames, keep)))
        with torch.no_grad():
            teacher = head(_summary(whole, tokens))
        terms = self._distil(student, teacher, "image", c.image_views, scaled=c.official_scale)
        return terms, tokens

    def _video_terms(self, clip: Tensor, local: Tensor) -> dict[str, Tensor]:
        """Self-distillation of clips (N, C, T, H, W)."""
        student = self.video_head(_summary(*self.encoder.tokens(clip, local)))
        with torch.no_grad():
            teacher = self.video_teacher(clip)
        return self._distil(student, teacher, "video", self.config.local_views)

    def _distil(
        self, student: Tensor, teacher: Tensor, name: str, views: int, scaled: bool = False
    ) -> dict[str, Tensor]:
        """A branch's term; its centre moves."""
        c, center = self.config, getattr(self, f"{name}_center")
        terms = masked_distillation_terms(
            student.unflatten(0, (views, -1)), teacher, center=center, student_temperature=c.student_temperature,
            teacher_temperature=self.teacher_temperature, official_scale=scaled,
        )  # fmt: skip
        moved = discovr_center(
            center, teacher, momentum=c.center_momentum, center_input=c.center_input,
            teacher_temperature=self.teacher_temperature, join=_join(),
        )  # fmt: skip
        center.copy_(moved)
        return {name: terms["loss"], f"{name}_entropy": terms["teacher_entropy"]}

    def _decoder_terms(self, clip: Tensor, keep: Tensor, frame_tokens: Tensor | None) -> dict[str, Tensor]:
        """The decoder's tokens against their target."""
        c, count = self.config, self.encoder.count
        filled = self.decoder(self.encoder.tokens(clip, keep)[1], keep)
        hidden = torch.ones(len(clip), count, dtype=torch.bool, device=clip.device).scatter_(1, keep, False)
        if c.target == "pixels":
            patches = patchify(clip, self.encoder.patch)
            return {"scd": videomae(filled, patches, hidden, channels=self.channels)}
        settings: dict[str, Any] = {
            "targets": c.scd_targets, "temperature": c.score_temperature, "eps": c.eps, "iters": c.iterations,
            "join": _join(),
        }  # fmt: skip
        weight = self.prototypes.weight
        if c.target == "mlp":
            patches = patchify(clip, self.encoder.patch)
            x, y = (z[hidden].unflatten(0, (len(clip), -1)) for z in (filled, self.target_network(patches)))
            found = sigma_terms(x, y, weight, **settings)
        else:
            assert frame_tokens is not None
            frames = frame_tokens.unflatten(0, (len(clip), -1))
            partners = paired_tokens(frames, tubelet=c.tubelet, pairing=c.pairing)
            if c.pairing == "official":
                order = visible_first(keep, count)
                filled = filled.gather(1, order[:, :, None].expand_as(filled))
            found = cluster_distillation_terms(filled, partners, weight, **settings)
        shown = {name: found[name] for name in ("agreement", "used_prototypes") if name in found}
        return {"scd": found["loss"]} | shown

    @property
    def teacher_temperature(self) -> float:
        """tau_t now."""
        c = self.config
        return discovr_temperature(
            self.epochs_done, start=c.teacher_temperature_start, end=c.teacher_temperature,
            warmup=c.teacher_warmup_epochs,
        )  # fmt: skip

    # ---- what one keeps --------------------------------------------------------------------------------------
    def predict(self, batch: dict[str, Any]) -> Tensor:
        """h (N, D): the encoder's class token of the whole clip (its tokens' mean without one)."""
        return self.encoder(self.inputs(batch))

    def deliverable(self) -> nn.Module:
        """The video encoder alone; the image encoder where only that is trained."""
        return self.encoder

    def deliverable_spec(self) -> dict[str, Any]:
        """How to build the encoder."""
        return dict(self.encoder.spec)


def _summary(whole: Tensor | None, tokens: Tensor) -> Tensor:
    """What stands for a sample: its class token, or the mean of its tokens."""
    return tokens.mean(1) if whole is None else whole


def _join() -> Any:
    return gather_labels if is_distributed() else None


def _numbers(text: str) -> list[int]:
    """Whole numbers written as 384-4-6."""
    return [int(part) for part in text.split("-")]
