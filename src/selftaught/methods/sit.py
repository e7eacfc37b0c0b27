"""SiT: restore corrupted blocks, and agree with a teacher that sees the clean other view (Atito et al., 2104.03602).

    L = 2 tau (CE(q_1 K_2^T / tau) + CE(q_2 K_1^T / tau)) + lambda sum M |rec - x| / sum M

The student sees corrupted views (GMML: groups of connected blocks; half of the images with blocks of another image of
the batch), the momentum teacher the clean ones. Nothing is left out of the transformer, and there is no mask token: it
has to find out what doesn't belong. Made for small sets without any other pre-training.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from selftaught import networks, objectives, views
from selftaught.catalog.rules import Count, Form, Natural, NonNegative, Positive, Range, Share
from selftaught.engine.distributed import gather_labels, is_distributed
from selftaught.engine.method import Optim
from selftaught.engine.optim import clip_each
from selftaught.errors import UserError
from selftaught.methods._momentum import MomentumConfig, MomentumEmbedding
from selftaught.methods._weight_decay import CosineWeightDecay
from selftaught.views import Pipeline
from selftaught.views.gmml import gmml_batch, gmml_mix

__all__ = ["SiT"]


@dataclass
class Config(MomentumConfig):
    """SiT's options; the defaults are the authors' ViT-S/16."""

    encoder: str = "vit_small_patch16_224"
    """A ViT of timm, or vit-nano and the like for small images."""
    patch: Natural = 0
    """Side of a patch in pixels; 0 takes the encoder's own, or less where images are small."""
    pool: Literal["token", "avg"] = "token"
    """Embedding: the class token, or the mean of the patch tokens."""
    drop_path: Annotated[float, Range(0, below=1)] = 0.1
    """Stochastic depth of the last block of the student, rising from 0; the teacher has none."""
    projector: str = "4096-4096-256"
    """Widths of the contrastive head."""
    crop: float = 0.2
    temperature: Positive = 0.2
    """Temperature tau."""
    contrast: bool = True
    """Contrast with the teacher; off leaves the GMML autoencoder."""
    restore: bool = True
    """Restore what was corrupted; off leaves contrast on corrupted views."""
    restore_weight: NonNegative = 1.0
    """Weight lambda of the restoration; the authors advise about 5 for small sets."""
    restore_kind: Literal["l1", "l2"] = "l1"
    """Error of restored values."""
    corrupt: Annotated[
        str,
        Form(r"(zeros|noise|shuffle|other)(\+(zeros|noise|shuffle|other))*", "kinds joined by +, such as zeros+noise"),
    ] = "zeros"
    """What corrupted blocks become, one kind drawn for each image: zeros (the mean colour), noise, shuffle (a block
    from elsewhere in the image), other (the same place of another image)."""
    corrupt_most: Annotated[float, Range(0, below=1)] = 0.5
    """Largest share m of a view that is corrupted; 0 corrupts nothing."""
    align: Count = 1
    """Places and sides of blocks are multiples of so many pixels; the patch's side aligns them with patches."""
    mix: Share = 0.5
    """Chance that an image's corruption is made anew with blocks of another image of the batch; 0 leaves that out."""
    mix_most: Annotated[float, Range(0, below=1)] = 0.3
    """Largest share that such blocks take."""
    rotation: bool = False
    """Early versions: views are turned by quarter turns, which a token of its own has to name."""
    uncertainty: bool = False
    """Early versions: terms are weighted by learnt uncertainties; restore_weight is then left out."""
    lr: float = 5e-4
    weight_decay: float = 0.04
    final_weight_decay: NonNegative = 0.1
    """Weight decay at the end of the run, reached along half a cosine."""
    warmup_epochs: float = 10.0
    final_lr: float = 0.002
    target_decay: float = 0.996
    clip_each: NonNegative = 3.0
    """Largest norm of every parameter's own gradient; 0 does not clip."""


PRESETS = {
    "imagenet": {"epochs": 800, "batch_size": 256},
    "imagenet-base": {"encoder": "vit_base_patch16_224", "epochs": 800, "batch_size": 256},
    "small-set": {"restore_weight": 5.0, "epochs": 800, "batch_size": 256},
    "gmml": {"contrast": False, "epochs": 800, "batch_size": 256},
    "early": {"rotation": True, "uncertainty": True, "mix": 0.0, "epochs": 800, "batch_size": 256},
    "laptop": {
        "encoder": "vit-nano", "image_size": 0, "augment": "grey", "crop": 0.4, "projector": "256-256-64",
        "restore_weight": 5.0, "drop_path": 0.0, "lr": 1e-3, "lr_scaling": "none", "final_lr": 0.0,
        "target_decay": 0.99, "warmup_epochs": 1.0, "steps": 600, "batch_size": 64,
    },
}  # fmt: skip


class SiT(CosineWeightDecay, MomentumEmbedding):
    """SiT on images of any number of channels."""

    slug = "sit"
    config_class = Config
    config: Config
    modalities = ("image",)

    # ---- networks --------------------------------------------------------------------------------------------
    def build(self) -> None:
        """Student, its heads, and the teacher, an exact copy without stochastic depth."""
        c = self.config
        if not (c.contrast or c.restore):
            raise UserError("contrast and restore can't both be off")
        if "vit" not in c.encoder:
            raise UserError(f"encoder={c.encoder}: SiT restores from tokens; use a ViT such as vit_small_patch16_224")
        super().build()
        part: Any
        for part in self.momentum.modules():
            if hasattr(part, "drop_prob"):  # stochastic depth is the student's alone
                part.drop_prob = 0.0
        network: Any = self.encoder
        self.restoration = networks.RestorationHead(network.dim, self.channels, network.patch[0])
        if c.rotation:
            self.rotation_head = nn.Linear(network.dim, 4)
        if c.uncertainty:
            self.log_variances = nn.Parameter(torch.zeros(c.contrast + c.restore + c.rotation))

    def encoder_options(self, name: str) -> dict[str, Any]:
        """Patch, pooling, stochastic depth, and a token for the rotation."""
        c = self.config
        if c.patch and c.image_size % c.patch:
            raise UserError(f"image_size={c.image_size} isn't a multiple of patch={c.patch}")
        found: dict[str, Any] = {"patch_size": c.patch} if c.patch else {}
        found |= {"drop_path_rate": c.drop_path} if c.drop_path else {}
        found |= {"reg_tokens": 1} if c.rotation else {}
        return found | ({"global_pool": "avg", "fc_norm": False} if c.pool == "avg" else {})

    def head(self, widths: list[int]) -> nn.Module:
        """The contrastive head."""
        if len(widths) != 4:
            raise UserError(f"projector={self.config.projector}: SiT's head has three layers, as 4096-4096-256")
        return networks.sit_head(widths)

    def followed(self) -> nn.Module:
        """What the teacher follows: backbone and contrastive head (its restoration head would not be asked)."""
        return nn.Sequential(self.encoder, self.projector)

    # ---- views -----------------------------------------------------------------------------------------------
    def paper_views(self) -> list[Pipeline]:
        """Two views: one always blurred, one seldom blurred and sometimes solarised."""
        return list(views.barlow_twins(self.config.image_size, scale=(self.config.crop, 1.0)))

    def corrupted(self, clean: Tensor) -> tuple[Tensor, Tensor]:
        """Corrupted views and masks (N, C, H, W) of clean ones: stage 1, then stage 2 within the batch."""
        c = self.config
        if not c.corrupt_most:
            return clean, torch.zeros_like(clean)
        rng = np.random.default_rng(int(torch.randint(2**62, ())))
        images, masks = gmml_batch(clean, maximum=c.corrupt_most, align=c.align, kinds=c.corrupt.split("+"), rng=rng)
        if not c.mix:
            return images, masks
        return gmml_mix(clean, images, masks, probability=c.mix, maximum=c.mix_most, align=c.align, rng=rng)

    # ---- training --------------------------------------------------------------------------------------------
    def loss(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Contrast, restoration and (early versions) rotation, summed."""
        c, clean = self.config, torch.cat(batch["views"][:2])
        pairs = [self.corrupted(view) for view in batch["views"][:2]]
        seen, masks = (torch.cat(parts) for parts in zip(*pairs, strict=True))
        turns = torch.randint(4, (len(clean),)) if c.rotation else None
        if turns is not None:
            seen, masks = turned(seen, turns), turned(masks, turns)
        network: Any = self.encoder
        prefix, patches = network.all_tokens(seen)
        terms: dict[str, Tensor] = {}
        if c.contrast:
            terms["contrast"] = self._contrast(prefix[:, 0], batch["views"])
        if c.restore:
            wanted = clean if turns is None else turned(clean, turns)
            restored = self.restoration(patches, network.grid)
            terms["restore"] = objectives.sit_reconstruction(restored, wanted, masks, kind=c.restore_kind)
        if turns is not None:
            terms["rotation"] = F.cross_entropy(self.rotation_head(prefix[:, 1]).float(), turns.to(clean.device))
        if c.uncertainty:
            return {"loss": objectives.uncertainty_weighted(list(terms.values()), self.log_variances)} | terms
        weights = {"restore": c.restore_weight}
        total = torch.stack([weights.get(name, 1.0) * term for name, term in terms.items()]).sum()
        return {"loss": total} | terms

    def _contrast(self, whole: Tensor, clean: list[Tensor]) -> Tensor:
        """Queries of corrupted views against the teacher's keys of the clean other ones."""
        copy: Any = self.momentum.average
        with torch.no_grad():
            keys = copy[1](copy[0].tokens(torch.cat(clean[:2]))[0])
        q1, q2 = self.projector(whole).chunk(2)
        k1, k2 = (gather_labels(k) for k in keys.chunk(2))
        rank = dist.get_rank() if is_distributed() else 0
        return objectives.sit_contrastive(q1, q2, k1, k2, temperature=self.config.temperature, rank=rank)

    @torch.no_grad()
    def pictures(self, x: Tensor) -> dict[str, Tensor]:
        """Corrupted, restored and original images."""
        network: Any = self.encoder
        seen, masks = self.corrupted(x)
        restored = self.restoration(network.tokens(seen)[1], network.grid)
        return {"corrupted": seen, "restored": torch.where(masks > 0, restored.to(x.dtype), x), "original": x}

    def optimisers(self) -> dict[str, Optim]:
        """AdamW; biases and other parameters of one dimension have no decay, positions and class token have."""
        found = super().optimisers()
        trained = [p for p in self.parameters() if p.requires_grad]
        wide, thin = ([p for p in trained if (p.ndim > 1) == many] for many in (True, False))
        decay, lr = self.config.weight_decay, found["main"].lr
        found["main"].parameters = [
            {"params": wide, "weight_decay": decay, "lr": lr},
            {"params": thin, "weight_decay": 0.0, "lr": lr},
        ]
        return found

    def edit_gradients(self, optimizer: Any) -> None:
        """The weight decay of this step, and every parameter's gradient clipped by itself."""
        super().edit_gradients(optimizer)
        for group in optimizer.param_groups:
            clip_each(group["params"], self.config.clip_each)


def turned(images: Tensor, turns: Tensor) -> Tensor:
    """Images (N, C, S, S), each turned anticlockwise by its number of quarter turns (N,); exact."""
    if images.shape[2] != images.shape[3]:
        raise UserError(f"quarter turns need square images, got {tuple(images.shape[2:])}")
    return torch.stack([image.rot90(int(k), (1, 2)) for image, k in zip(images, turns, strict=True)])
