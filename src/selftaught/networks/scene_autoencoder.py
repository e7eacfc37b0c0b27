"""A masked autoencoder of clouds and pictures of one scene, whose answer can be Gaussians (arXiv 2506.08777).

    points -> patches -> point branch  \\                        / point decoder -> hidden points, image patches
                                        joint encoder -> joint decoder
    image -> patches -> image branch   /                        \\ image decoder -> hidden pixels

What is visible of one is preferably hidden of the other: image patches onto which visible points fall are hidden first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from selftaught.errors import UserError
from selftaught.networks.gaussians import Gaussians
from selftaught.networks.point_tokens import PointPatches, PointTransformer
from selftaught.networks.tokens import patchify, sincos_positions
from selftaught.networks.transformer import Block, VisionTransformer

__all__ = [
    "GaussianHead",
    "SceneAnswer",
    "SceneAutoencoder",
    "SceneMasks",
    "complementary_masks",
    "patches_on_image",
    "project_points",
]

_EPS = 1e-6
_BEHIND = 1e-3
LOG_SCALE = (-8.0, 0.0)
"""Limits of the logarithm of a Gaussian's deviations in metres."""


# ---- masks -----------------------------------------------------------------------------------------------------------
class SceneMasks(NamedTuple):
    """What is hidden: ``points`` (N, M) and ``image`` (N, L), bool; equally many in each row."""

    points: Tensor
    image: Tensor


def project_points(points: Tensor, intrinsics: Tensor, world_to_camera: Tensor) -> tuple[Tensor, Tensor]:
    """Where points of the world fall on a picture.

    Args:
        points: (N, ..., 3).
        intrinsics: (N, 3, 3) in pixels.
        world_to_camera: (N, 4, 4).

    Returns:
        x and y in pixels (N, ..., 2), and Z (N, ...); what lies behind the camera has Z <= 0 and no meaningful place.
    """
    flat = points.flatten(1, -2)
    turned = flat @ world_to_camera[:, :3, :3].transpose(1, 2) + world_to_camera[:, None, :3, 3]
    z = turned[..., 2]
    place = turned[..., :2] / z.clamp_min(_BEHIND)[..., None]
    focal = torch.stack((intrinsics[:, 0, 0], intrinsics[:, 1, 1]), 1)
    at = place * focal[:, None] + intrinsics[:, None, :2, 2]
    shape = points.shape[1:-1]
    return at.unflatten(1, shape), z.unflatten(1, shape)


def patches_on_image(
    points: Tensor,
    intrinsics: Tensor,
    world_to_camera: Tensor,
    size: tuple[int, int],
    patch: int,
    pixel_centre: float = 0.5,
) -> Tensor:
    """Number of the image patch on which each point falls, in raster order; -1 beside the picture or behind it.

    Args:
        points: (N, ..., 3) of the world.
        intrinsics: (N, 3, 3).
        world_to_camera: (N, 4, 4).
        size: height and width of the picture.
        patch: side of a patch.
        pixel_centre: where the first pixel's centre lies in the intrinsics' coordinates: 0.5, or 0 as OpenCV has it.

    Returns:
        (N, ...) int64.
    """
    at, z = project_points(points, intrinsics, world_to_camera)
    at = at - pixel_centre + 0.5  # the picture reaches from 0 to its width
    x, y = at.unbind(-1)
    inside = (z > _BEHIND) & (x >= 0) & (x < size[1]) & (y >= 0) & (y < size[0])
    x, y = (torch.where(inside, v, torch.zeros_like(v)).floor().long() // patch for v in (x, y))
    return torch.where(inside, y * (size[1] // patch) + x, torch.full_like(x, -1))


@torch.no_grad()
def complementary_masks(
    falls: Tensor,
    patches: int,
    point_ratio: float = 0.6,
    image_ratio: float = 0.75,
    *,
    alignment: Literal["complement", "same", "random"] = "complement",
    first: Literal["points", "image"] = "points",
) -> SceneMasks:
    """Hide patches of both kinds so that the one shows what the other hides.

    The kind that is ``first`` is hidden at random; of the other, patches that share a place with visible ones of the
    first are hidden before all others ("complement"), after them ("same"), or by chance ("random").

    Args:
        falls: (N, M, k) int64, on which image patch each point of each point patch falls, -1 on none.
        patches: number L of image patches.
        point_ratio: share of the M point patches that is hidden.
        image_ratio: share of the image patches that is hidden.
        alignment: see above.
        first: see above.

    Raises:
        UserError: ratios outside [0, 1], an unknown word, another shape.
    """
    if falls.dim() != 3 or falls.is_floating_point():
        raise UserError(f"falls needs whole numbers (N, M, k), got {falls.dtype} {tuple(falls.shape)}")
    if not (0 <= point_ratio <= 1 and 0 <= image_ratio <= 1):
        raise UserError(f"mask ratios {point_ratio} and {image_ratio}: shares from 0 to 1")
    if alignment not in ("complement", "same", "random") or first not in ("points", "image"):
        raise UserError(f"alignment={alignment!r}, first={first!r}: complement, same or random; points or image")
    n, count, _ = falls.shape
    shares = falls.new_zeros(n, count, patches + 1, dtype=torch.bool)
    shares.scatter_(2, falls.where(falls >= 0, torch.full_like(falls, patches)), True)
    shares = shares[:, :, :patches]
    points, image = (torch.rand(n, size, device=falls.device) for size in (count, patches))
    sign = {"complement": 1.0, "same": -1.0, "random": 0.0}[alignment]
    if first == "points":
        hidden = _highest(points, point_ratio)
        image = image + sign * (shares & ~hidden[:, :, None]).any(1)
        return SceneMasks(hidden, _highest(image, image_ratio))
    hidden = _highest(image, image_ratio)
    points = points + sign * (shares & ~hidden[:, None]).any(2)
    return SceneMasks(_highest(points, point_ratio), hidden)


def _highest(scores: Tensor, ratio: float) -> Tensor:
    """True for the share of highest scores in each row."""
    count = round(ratio * scores.shape[1])
    return torch.zeros_like(scores, dtype=torch.bool).scatter_(1, scores.topk(count, 1).indices, True)


# ---- Gaussians -------------------------------------------------------------------------------------------------------
class GaussianHead(nn.Module):
    """A Gaussian for each restored point, out of [token, point]: an MLP of one hidden layer.

    mu = point + offset, offset held within ``reach``; log scale within [-8, 0]; opacity and colour by a sigmoid.

    Args:
        dim: width of a token.
        reach: largest offset along an axis, in metres; 0: mu is the point.
        scale: deviation in metres that it begins with.
        opacity: that it begins with; opacities that begin at 0 stay there.
    """

    def __init__(self, dim: int, *, reach: float = 0.05, scale: float = 0.05, opacity: float = 0.3) -> None:
        super().__init__()
        self.reach = reach
        self.layers = nn.Sequential(nn.Linear(dim + 3, dim), nn.GELU(), nn.Linear(dim, 14))
        last: nn.Linear = self.layers[2]  # type: ignore[assignment]
        nn.init.normal_(last.weight, std=0.01)
        nn.init.zeros_(last.bias)
        with torch.no_grad():
            last.bias[3:6] = torch.tensor(scale).log()
            last.bias[6] = 1.0
            last.bias[10] = torch.tensor(opacity).logit()

    def forward(self, tokens: Tensor, points: Tensor, centres: Tensor) -> Gaussians:
        """Gaussians of patches.

        Args:
            tokens: (N, M, C).
            points: (N, M, k, 3) relative to the centres.
            centres: (N, M, 3).

        Returns:
            ``Gaussians`` of (N, M k, ...), in the world.
        """
        wide = tokens[:, :, None].expand(-1, -1, points.shape[2], -1)
        raw = self.layers(torch.cat((wide, points), -1)).flatten(1, 2).float()
        places = (points + centres[:, :, None]).flatten(1, 2)
        offset, logs, turns, opacity, colours = raw.split((3, 3, 4, 1, 3), -1)
        means = places + self.reach * offset.tanh()
        return Gaussians(means, turns, logs.clamp(*LOG_SCALE).exp(), opacity[..., 0].sigmoid(), colours.sigmoid())


# ---- the autoencoder -------------------------------------------------------------------------------------------------
class SceneAnswer(NamedTuple):
    """What the autoencoder says of a batch.

    Attributes:
        points: (N, M, k, 3) points of every point patch relative to its centre, or None without that branch.
        image: (N, L, P) pixels of every image patch, or None.
        cross: (N, M, P) pixels of the image patch that each point patch falls on, or None.
        tokens: (N, M, C) decoded point tokens, or None.
    """

    points: Tensor | None
    image: Tensor | None
    cross: Tensor | None
    tokens: Tensor | None


class SceneAutoencoder(nn.Module):
    """Two branches, joined in the middle; either may be left out.

    Args:
        point_encoder: the branch of points, or None: pictures only.
        image_encoder: the branch of pictures, a transformer without class token of the same width, or None.
        joint: blocks of the joint encoder.
        joint_decoder: blocks of the joint decoder.
        decoder: blocks of each branch's decoder.
        heads: of the joint blocks and the decoders.

    Raises:
        UserError: neither branch, or branches of two widths.
    """

    positions: Tensor

    def __init__(
        self,
        point_encoder: PointTransformer | None,
        image_encoder: VisionTransformer | None,
        *,
        joint: int = 3,
        joint_decoder: int = 1,
        decoder: int = 2,
        heads: int = 4,
    ) -> None:
        super().__init__()
        widths = {point_encoder.width} if point_encoder is not None else set()
        widths |= {image_encoder.dim} if image_encoder is not None else set()
        if len(widths) != 1:
            raise UserError(f"a scene autoencoder needs a branch, and branches of one width; widths: {sorted(widths)}")
        (dim,) = widths
        self.point_encoder, self.image_encoder = point_encoder, image_encoder
        self.modality = nn.Parameter(torch.randn(2, dim) * 0.02)
        self.joint, self.joint_norm = _blocks(dim, joint, heads), nn.LayerNorm(dim, eps=_EPS)
        self.mask_tokens = nn.Parameter(torch.randn(2, dim) * 0.02)
        self.joint_decoder = _blocks(dim, joint_decoder, heads)
        if point_encoder is not None:
            self.place = nn.Sequential(nn.Linear(3, 128), nn.GELU(), nn.Linear(128, dim))
            self.point_decoder, self.point_norm = _blocks(dim, decoder, heads), nn.LayerNorm(dim, eps=_EPS)
            self.point_head = nn.Linear(dim, 3 * point_encoder.k)
        if image_encoder is not None:
            pixels = image_encoder.channels * image_encoder.patch[0] * image_encoder.patch[1]
            self.register_buffer("positions", sincos_positions(image_encoder.grid, dim), persistent=False)
            self.image_decoder, self.image_norm = _blocks(dim, decoder, heads), nn.LayerNorm(dim, eps=_EPS)
            self.image_head = nn.Linear(dim, pixels)
            if point_encoder is not None:
                self.cross_head = nn.Linear(dim, pixels)

    def forward(
        self,
        patches: PointPatches | None,
        middle: Tensor | None,
        image: Tensor | None,
        hidden: SceneMasks,
    ) -> SceneAnswer:
        """Encode what is visible, decode all.

        Args:
            patches: of the clouds; None without that branch.
            middle: (N, 3) mean of each cloud.
            image: (N, C, H, W); None without that branch.
            hidden: masks; of a branch that isn't there anything.
        """
        visible, places, modality, masks = [], [], [], []
        if self.point_encoder is not None and patches is not None and middle is not None:
            visible.append(self.point_encoder.see(patches, middle, _kept(hidden.points)))
            places.append(self.place(patches.centres - middle[:, None]))
            modality.append(0)
            masks.append(hidden.points)
        if self.image_encoder is not None and image is not None:
            visible.append(self.image_encoder.tokens(image, _kept(hidden.image))[1])
            places.append(self.positions[None].expand(image.shape[0], -1, -1))
            modality.append(1)
            masks.append(hidden.image)
        h = _through(self.joint, torch.cat([v + self.modality[m] for v, m in zip(visible, modality, strict=True)], 1))
        seen = self.joint_norm(h).split([v.shape[1] for v in visible], 1)
        full = [
            _filled(s, mask, self.mask_tokens[m]) + place + self.modality[m]
            for s, mask, m, place in zip(seen, masks, modality, places, strict=True)
        ]
        decoded = _through(self.joint_decoder, torch.cat(full, 1)).split([f.shape[1] for f in full], 1)
        return self._answers(dict(zip(modality, decoded, strict=True)))

    def _answers(self, decoded: dict[int, Tensor]) -> SceneAnswer:
        points = image = cross = tokens = None
        if 0 in decoded:
            tokens = self.point_norm(_through(self.point_decoder, decoded[0]))
            points = self.point_head(tokens).unflatten(2, (-1, 3))
            cross = self.cross_head(tokens) if 1 in decoded else None
        if 1 in decoded:
            image = self.image_head(self.image_norm(_through(self.image_decoder, decoded[1])))
        return SceneAnswer(points, image, cross, tokens)

    def pixels(self, image: Tensor) -> Tensor:
        """Patches (N, L, P) of pictures, as the heads answer them."""
        assert self.image_encoder is not None
        return patchify(image, self.image_encoder.patch, channels_last=True)


def _blocks(dim: int, depth: int, heads: int) -> nn.ModuleList:
    return nn.ModuleList(Block(dim, heads) for _ in range(depth))


def _through(blocks: Sequence[nn.Module] | nn.ModuleList, h: Tensor) -> Tensor:
    for block in blocks:
        h = block(h)
    return h


def _kept(hidden: Tensor) -> Tensor:
    """Numbers of the visible patches (N, M'), ascending."""
    return (~hidden).nonzero()[:, 1].view(len(hidden), -1)


def _filled(seen: Tensor, hidden: Tensor, mask: Tensor) -> Tensor:
    """Visible tokens in their places, the mask token elsewhere: (N, M, C)."""
    whole = mask.to(seen.dtype).expand(*hidden.shape, -1).clone()
    return whole.masked_scatter((~hidden)[:, :, None], seen)
