"""Uni4Eye: one transformer restores hidden patches of images and of volumes (MICCAI 2022, arXiv 2203.04614).

    one rank a step, images or volumes x (--volumes SOURCE): by turns of an epoch, or of a batch
    g = gradient map of x;  half of the patches of x go through the shared encoder
    L = L_I + beta L_G       the error of the hidden patches of x, and of those of g, each from a decoder of its own

The encoder then embeds images and volumes alike: a run is evaluated on, and applied to, either. With ``--data`` of
volumes and no images it is a masked autoencoder of volumes, without ``--volumes`` one of images.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from torch import Tensor

from selftaught import objectives, views
from selftaught.catalog.rules import Count, Form, Natural, NonNegative, PositiveShare, Range, Share
from selftaught.engine.method import Method, MethodConfig
from selftaught.errors import SampleError, UserError
from selftaught.networks.masks import random_masking
from selftaught.networks.tokens import patchify, unpatchify
from selftaught.networks.uni4eye import UNI4EYE_SIZES, DualDecoder, DynamicHead, RankEncoder
from selftaught.views import Grayscale, HorizontalFlip, Pipeline, RandomResizedCrop, Recipe, ResizeVolume, View

__all__ = ["Uni4Eye", "augment_volumes", "rank_of_turn"]

_LOOKED_AT = 8
_BOX = Form(r"[1-9]\d*-[1-9]\d*-[1-9]\d*", "depth, height and width as 16-32-32")


@dataclass
class Config(MethodConfig):
    """Uni4Eye's options; the defaults are the paper's ViT-L/16."""

    encoder: Literal["vit-pico-ranks", "vit-nano-ranks", "vit-base-ranks", "vit-large-ranks"] = "vit-large-ranks"
    """Size of the transformer."""
    image_size: Natural = 224
    """Side of the square views of images in pixels; 0 chooses by the data (32 for small images, else 64)."""
    patch: Count = 16
    """Side of an image's patch in pixels."""
    volume_size: Annotated[str, _BOX] = "112-224-224"
    """Depth, height and width in voxels that volumes are brought to."""
    volume_patch: Annotated[str, _BOX] = "16-16-16"
    """Depth, height and width of a volume's patch; they need not be equal."""
    ranks: Literal["both", "images", "volumes"] = "both"
    """What to learn from: all that is given, or one kind alone."""
    mix: Literal["epoch", "batch"] = "epoch"
    """Images and volumes take turns from epoch to epoch (volumes first), or from batch to batch."""
    volume_batch: Natural = 0
    """Volumes in a batch beside images; 0: an eighth of the batch size."""
    augment: Literal["paper", "none"] = "paper"
    """Images: crop, flip and grey; volumes: flips along the three axes and noise. Or neither."""
    crop: PositiveShare = 0.2
    """Smallest share of the image that a crop keeps."""
    volume_noise: Share = 0.05
    """Deviation of the noise that a fifth of the volumes get, as a share of the range of values."""
    pool: Literal["token", "avg"] = "token"
    """Embedding: the class token, or the mean of the patch tokens."""
    pos3d: Literal["sincos", "zero"] = "sincos"
    """Positions in volumes; zero is a defect of the released code, for comparison."""
    mask_ratio: Annotated[float, Range(0, below=1)] = 0.5
    """Share of the patches that is hidden."""
    branches: Literal["both", "intensity", "gradient"] = "both"
    """What is restored: intensities, the gradient map, or both."""
    beta: NonNegative = 1.0
    """Weight of the gradient map; 0 is a plain masked autoencoder."""
    gradient: Literal["sobel", "l1_avg"] = "sobel"
    """Gradient map of images: Sobel, or the successor's; that of volumes is Sobel's."""
    norm_pix: bool = False
    """Restore patches normalised one by one."""
    decoder: Annotated[str, Form(r"[1-9]\d*-[1-9]\d*-[1-9]\d*", "width, blocks and heads as 512-8-16")] = "512-8-16"
    """Width, blocks and heads of each decoder."""
    shared_blocks: Natural = 0
    """Blocks of the decoder that both branches share: cheaper."""
    head: Literal["plain", "dynamic"] = "plain"
    """dynamic: the successor's, for intensities of images: a linear map across the patches, made for each sample."""
    sources: Count = 7
    """Kinds of images that the dynamic head tells apart, by their class folders; images without one are of the
    first."""
    beta2: Annotated[float, Range(0, below=1)] = 0.95
    """Second beta of AdamW."""
    weight_decay: NonNegative = 0.05
    warmup_epochs: NonNegative = 40.0


PRESETS = {
    "mmophth": {"epochs": 200, "batch_size": 64},
    "mmophth-base": {"encoder": "vit-base-ranks", "epochs": 200, "batch_size": 64},
    "successor": {"head": "dynamic", "branches": "intensity", "gradient": "l1_avg", "epochs": 200, "batch_size": 64},
    "laptop": {
        "encoder": "vit-nano-ranks", "image_size": 0, "patch": 4, "volume_size": "12-24-24", "volume_patch": "4-6-6",
        "mix": "batch", "volume_batch": 32, "crop": 0.5, "pool": "avg", "decoder": "64-1-4", "lr": 2e-3,
        "lr_scaling": "none", "warmup_epochs": 1.0, "steps": 1000, "batch_size": 64,
    },
}  # fmt: skip


def _readable(source: Any, i: int) -> bool:
    try:
        source.read(i)
    except SampleError:
        return False
    return True


def rank_of_turn(turn: int) -> int:
    """3 (volumes) for the epochs or batches 0, 2, 4 ..., 2 (images) for those between."""
    return 2 if turn % 2 else 3


def augment_volumes(
    x: Tensor, *, flip: float = 0.5, noise: float = 0.05, p: float = 0.2, generator: torch.Generator | None = None
) -> Tensor:
    """Volumes (N, C, D, H, W) mirrored and noisy, each by a draw of its own.

    Args:
        x: values in [0, 1]; noise may leave that range.
        flip: how often each of the three axes is mirrored.
        noise: deviation of Gaussian noise.
        p: how often a volume gets it.
        generator: of all draws.

    Raises:
        UserError: other than volumes.
    """
    if x.dim() != 5:
        raise UserError(f"volumes are (N, C, D, H, W), got {tuple(x.shape)}")
    drawn = torch.rand(4, len(x), generator=generator, device=x.device)[:, :, None, None, None, None]
    for axis in range(3):
        x = torch.where(drawn[axis] < flip, x.flip(axis + 2), x)
    if not noise:
        return x
    grain = torch.empty_like(x).normal_(generator=generator)
    return torch.where(drawn[3] < p, x + noise * grain, x)


class Uni4Eye(Method):
    """Uni4Eye on images, volumes, or both."""

    slug = "uni4eye"
    config_class = Config
    config: Config
    modalities = ("image", "volume")
    takes_any = True
    default_data = "brain-slices"
    roles = ("data", "volumes")
    compares = False

    def build(self) -> None:
        """The encoder of both ranks, the decoders, and the dynamic head where it is asked for."""
        c = self.config
        dim, depth, heads = UNI4EYE_SIZES[c.encoder]
        side = c.image_size or 32
        for rank, size, patch in ((2, (side, side), (c.patch, c.patch)), (3, self.box, self.volume_patch)):
            if any(n % p for n, p in zip(size, patch, strict=True)):
                what = "image_size and patch" if rank == 2 else "volume_size and volume_patch"
                shown = ["-".join(map(str, one)) for one in (size, patch)]
                raise UserError(f"{what}: {shown[0]} isn't a multiple of {shown[1]}")
        self.encoder = RankEncoder(
            self.channels, (side, side), self.box, (c.patch, c.patch), self.volume_patch, dim=dim, depth=depth,
            heads=heads, pos3d=c.pos3d, pool=c.pool,
        )  # fmt: skip
        width, blocks, attention = (int(n) for n in c.decoder.split("-"))
        self.decoder = DualDecoder(
            self.encoder, self.channels, dim=width, depth=blocks, heads=attention, shared=c.shared_blocks,
            branches=c.branches,
        )  # fmt: skip
        if c.head == "dynamic":
            if c.branches == "gradient":
                raise UserError("head=dynamic changes restored intensities; branches=gradient restores none")
            self.head = DynamicHead((side // c.patch) ** 2, c.sources)

    @property
    def box(self) -> tuple[int, int, int]:
        """Depth, height and width that volumes are brought to."""
        d, h, w = (int(n) for n in self.config.volume_size.split("-"))
        return d, h, w

    @property
    def volume_patch(self) -> tuple[int, int, int]:
        """Depth, height and width of a volume's patch."""
        d, h, w = (int(n) for n in self.config.volume_patch.split("-"))
        return d, h, w

    # ---- data ------------------------------------------------------------------------------------------------
    @classmethod
    def streams(cls, source: Any, given: dict[str, Any], opened: Callable[..., Any]) -> dict[str, Any]:
        """Images, and the volumes beside them; the built-in slices have the built-in blocks beside them."""
        if "volumes" not in given:
            return {"data": source} | ({"volumes": opened("brain", "volume")} if source.name == "brain-slices" else {})
        if source.modality != "image":
            raise UserError(f"{source.name} holds volumes already; --volumes stands beside images: leave it out")
        found = opened(given["volumes"], "volume")
        if not any(_readable(found, i) for i in range(min(len(found), _LOOKED_AT))):
            raise UserError(f"--volumes {found.name}: no volume can be read of the first {_LOOKED_AT}")
        return {"data": source, "volumes": found}

    @classmethod
    def arranged(cls, sources: dict[str, Any], config: Any) -> dict[str, Any]:
        """Only the ranks that are asked for."""
        first = sources["data"]
        if config.ranks == "images" and first.modality != "image":
            raise UserError(f"ranks=images: {first.name} holds volumes")
        if config.ranks == "volumes" and first.modality != "volume":
            raise UserError("ranks=volumes: give the volumes as --data, such as --data brain")
        if config.ranks == "images":
            return {"data": first}
        if "volumes" in sources:
            have, wanted = sources["volumes"].channels, first.channels
            if have != wanted and not (have == 1 and wanted == 3):
                raise UserError(
                    f"{sources['volumes'].name} has {have} channels, {first.name} {wanted}: one network takes both; "
                    "bring images to one with ?channels=1"
                )
        return sources

    def views(self) -> list[Pipeline]:
        """One view of an image; none where volumes are looked at."""
        c = self.config
        if self.modality == "volume":
            return []
        if c.augment == "none":
            return list(views.plain(c.image_size))
        return [Pipeline((RandomResizedCrop(c.image_size, (c.crop, 1.0)), Grayscale(0.2), HorizontalFlip()))]

    def recipe(self) -> Recipe | None:
        """Volumes whole, brought to one size; None: images have views."""
        return self._volume() if self.modality == "volume" else None

    def _volume(self) -> Recipe:
        return Recipe((View("volume", "volume", (ResizeVolume(self.box),)),))

    def views_of(self, role: str, source: Any) -> Any:
        """Those of the stream's rank."""
        return self._volume() if source.modality == "volume" else super().views_of(role, source)

    def rows_of(self, role: str, batch_size: int) -> int:
        """Fewer volumes than images: they cost more."""
        if role != "volumes":
            return batch_size
        return self.config.volume_batch or max(1, batch_size // 8)

    def evaluation_view(self) -> Pipeline | Recipe:
        """The whole sample, brought to the network's size."""
        return self._volume() if self.modality == "volume" else next(iter(views.plain(self.config.image_size)))

    def finetuning_view(self) -> Recipe | None:
        """Volumes mirrored at random; images as the protocol shows them."""
        if self.modality != "volume":
            return None
        return Recipe((View("volume", "volume", (ResizeVolume(self.box), HorizontalFlip())),))

    @property
    def also_channels(self) -> tuple[int, ...]:
        """Grey volumes where images have colours."""
        return (1,) if self.modality == "volume" and self.channels == 3 else ()

    @property
    def evaluation_rows(self) -> int:
        """Samples that are judged at a time; fewer volumes than images."""
        return 256 if self.modality == "image" else max(1, 256 // max(1, self.box[0] // 8))

    def normalise(self, image: Tensor) -> Tensor:
        """As every method does; a grey volume is repeated where images have colours."""
        if image.dim() == 5 and image.shape[1] == 1 and self.channels > 1:
            image = image.expand(-1, self.channels, -1, -1, -1)
        return super().normalise(image)

    def inputs(self, batch: dict[str, Any]) -> Tensor:
        """The volumes of a batch, or its images."""
        return batch["volume"] if "volume" in batch else super().inputs(batch)

    # ---- training --------------------------------------------------------------------------------------------
    def step(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """One rank's batch: that of the turn where there are both."""
        if "index" in batch:
            return self.minimise(self.loss(batch))
        turn = self.steps
        if self.config.mix == "epoch":
            turn = self.steps * self.accumulate // self.epoch_batches
        return self.minimise(self.loss(batch["volumes" if rank_of_turn(turn) == 3 else "data"]))

    def loss(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """L_I + beta L_G of one rank; targets are values in [0, 1] and their gradient map."""
        c, x = self.config, self.inputs(batch)
        if x.dim() == 5 and c.augment == "paper" and self.training:
            x = self._scaled(augment_volumes(self._unit(x), noise=c.volume_noise), back=True)
        found, hidden = self.restore(x, self.visible(x), batch.get("label"))
        patches, steep = self.targets(x)
        if c.branches == "both":
            pair = found["intensity"], found["gradient"]
            return objectives.uni4eye_terms(*pair, patches, steep, hidden, beta=c.beta, norm_pix=c.norm_pix)
        target = patches if c.branches == "intensity" else steep
        return {"loss": objectives.mae(found[c.branches], target, hidden, norm_pix=c.norm_pix)}

    def visible(self, x: Tensor) -> Tensor:
        """Numbers of the patches that the encoder sees (N, L'), drawn anew for every sample."""
        count = math.prod(self.encoder.grids[x.dim() - 2])
        return random_masking(len(x), count, self.config.mask_ratio, device=x.device)[0]

    def targets(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Patches (N, L, P) of normalised samples in [0, 1], and of their gradient map."""
        unit = self._unit(x)
        operator = self.config.gradient if x.dim() == 4 else "sobel"
        return self._cut(unit), self._cut(objectives.gradient_map(unit, operator=operator))

    def restore(self, x: Tensor, keep: Tensor, label: Tensor | None = None) -> tuple[dict[str, Tensor], Tensor]:
        """All patches (N, L, P) of each branch from those in ``keep``, and the mask (N, L) of the hidden ones."""
        rank = x.dim() - 2
        whole, seen = self.encoder.tokens(x, keep)
        decoded = self.decoder.decoded(whole, seen, keep, rank)
        found = self.decoder.predicted(decoded, rank)
        if self.config.head == "dynamic" and rank == 2:
            source = torch.zeros(len(x), dtype=torch.int64, device=x.device) if label is None else label.clamp_min(0)
            found["intensity"] = self.head(decoded["intensity"], found["intensity"], source)
        count = next(iter(found.values())).shape[1]
        hidden = torch.ones(len(x), count, dtype=torch.bool, device=x.device).scatter_(1, keep, False)
        return found, hidden

    def _cut(self, x: Tensor) -> Tensor:
        return patchify(x, self.encoder.embed.patch(x.dim() - 2), channels_last=True)

    def _unit(self, x: Tensor) -> Tensor:
        """Normalised samples in [0, 1] again: the paper takes no mean out, and its gradient maps are of this range."""
        return self._scaled(x, back=False)

    def _scaled(self, x: Tensor, *, back: bool) -> Tensor:
        mean, std = (v.view(-1, *[1] * (x.dim() - 2)) for v in (self.pixel_mean, self.pixel_std))
        return (x - mean) / std if back else x * std + mean

    # ---- what one keeps --------------------------------------------------------------------------------------
    @torch.no_grad()
    def pictures(self, x: Tensor) -> dict[str, Tensor]:
        """What the report shows of images (N, C, H, W): what was visible, what was restored, and the gradient map."""
        found, hidden = self.restore(x, self.visible(x))
        patches, steep = self.targets(x)
        shown = {"original": patches, "visible": hidden[:, :, None].expand_as(patches).to(patches)}
        for name, target in (("intensity", patches), ("gradient", steep)):
            if name not in found:
                continue
            made = found[name]
            if self.config.norm_pix:  # mean and deviation are not predicted: the patch's own
                mean, variance = target.mean(2, keepdim=True), target.var(2, keepdim=True)
                made = made * (variance + 1e-6).sqrt() + mean
            shown |= {"gradient map": steep} if name == "gradient" else {}
            shown[f"restored {name}"] = torch.where(hidden[:, :, None], made.to(target.dtype), target)
        patch, size = self.encoder.embed.patch(x.dim() - 2), x.shape[2:]
        whole = {name: unpatchify(part, patch, size, channels_last=True) for name, part in shown.items()}
        hides = whole["visible"] > 0
        found = {name: self._scaled(part, back=True) for name, part in whole.items()}
        return found | {"visible": found["original"].masked_fill(hides, 0.0)}  # 0 is the mean colour here

    def features(self, batch: dict[str, Any]) -> Tensor:
        """h (N, D): the class token, or the mean of the patch tokens."""
        return self.encoder(self.inputs(batch))

    def predict(self, batch: dict[str, Any]) -> Tensor:
        """The embedding h."""
        return self.features(batch)

    def deliverable(self) -> RankEncoder:
        """The encoder, of images and volumes."""
        return self.encoder

    def deliverable_spec(self) -> dict[str, Any]:
        """How to build the encoder."""
        return dict(self.encoder.spec)
