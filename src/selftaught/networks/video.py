"""Encoders of clips by name: vision transformers over tubelets, in timm's sizes."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from selftaught.errors import UserError
from selftaught.networks.tokens import largest_patch
from selftaught.networks.transformer import VisionTransformer

__all__ = ["CLIP_ENCODERS", "ClipEncoder", "FramewiseEncoder", "build_clip", "clip_encoder"]

CLIP_ENCODERS: dict[str, tuple[int, int, int]] = {
    "vit-nano-video": (96, 4, 3),
    "vit-tiny-video": (192, 12, 3),
    "vit-small-video": (384, 12, 6),
    "vit-base-video": (768, 12, 12),
    "vit-large-video": (1024, 24, 16),
}
"""Width, depth and heads; tiny to large are timm's, nano is for laptops."""


class ClipEncoder(VisionTransformer):
    """A vision transformer over the tubelets of a clip (N, C, T, H, W). Made by `clip_encoder`.

    Attributes:
        dim: size D of the embedding.
        spec: JSON-able description; `build_clip` makes an equal network from it.
        tubelet: frames that a token covers.
    """

    spec: dict[str, Any]

    @property
    def tubelet(self) -> int:
        """Frames that a token covers."""
        return self.patch[0]


class FramewiseEncoder(nn.Module):
    """An image transformer on every frame of a clip; the embedding is the mean over frames.

    Args:
        name: one of `CLIP_ENCODERS`, for width, heads and blocks.
        channels: C.
        image_size: side of the square frames in pixels.
        patch: side of a token in pixels.
        depth: blocks; 0 takes as many as the name says.
        class_token: whether there is one.

    Attributes:
        network: the transformer of frames (N, C, H, W).
        dim: size D of the embedding.
        spec: JSON-able description; `build_clip` makes an equal network from it.
    """

    def __init__(self, name: str, channels: int, image_size: int, patch: int, depth: int, class_token: bool) -> None:
        super().__init__()
        dim, usual, heads = CLIP_ENCODERS[name]
        side = (image_size, image_size)
        shape: dict[str, Any] = {"channels": channels, "dim": dim, "depth": depth or usual, "heads": heads}
        self.dim = dim
        self.network = VisionTransformer(side, (patch, patch), class_token=class_token, **shape)
        options = {"patch": patch, "depth": depth, "class_token": class_token}
        sizes = {"channels": channels, "image_size": image_size}
        self.spec: dict[str, Any] = {"name": name, **sizes, "framewise": True, "kwargs": options, "dim": dim}

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, T, H, W), any T -> (N, D)."""
        return self.network(x.transpose(1, 2).flatten(0, 1)).unflatten(0, (x.shape[0], -1)).mean(1)

    def maps(self, x: Tensor) -> Tensor:
        """(N, D, T, h, w): the patch tokens of every frame."""
        found = self.network.maps(x.transpose(1, 2).flatten(0, 1))
        return found.unflatten(0, (x.shape[0], -1)).transpose(1, 2)


def clip_encoder(
    name: str = "vit-small-video",
    *,
    channels: int = 3,
    frames: int = 16,
    image_size: int = 112,
    tubelet: int = 2,
    patch: int = 0,
    positions: str = "sinusoid",
    class_token: bool = True,
) -> ClipEncoder:
    """Make an encoder of clips.

    Args:
        name: one of `CLIP_ENCODERS`.
        channels: channels C of a frame.
        frames: frames T of a clip, a multiple of ``tubelet``.
        image_size: side of the square frames in pixels.
        tubelet: frames that a token covers.
        patch: side of a token in pixels; 0 chooses: 16, or less for frames under 112 pixels (`largest_patch`).
        positions: see `VisionTransformer`.
        class_token: whether there is one; without it the embedding is the mean of the tokens.

    Returns:
        The encoder with random weights.

    Raises:
        UserError: unknown name, sizes that don't divide, values below 1.
    """
    if name not in CLIP_ENCODERS:
        raise UserError(f"encoder={name}: choose {', '.join(CLIP_ENCODERS)} for clips")
    if min(channels, frames, image_size, tubelet) < 1 or patch < 0:
        given = f"channels={channels}, frames={frames}, image_size={image_size}, tubelet={tubelet}, patch={patch}"
        raise UserError(f"{given}: give 1 or more of each (patch=0 chooses)")
    if frames % tubelet:
        raise UserError(f"frames={frames} isn't a multiple of tubelet={tubelet}")
    patch = patch or largest_patch(name, image_size)
    if image_size % patch:
        raise UserError(f"image_size={image_size} isn't a multiple of patch={patch}")
    dim, depth, heads = CLIP_ENCODERS[name]
    shape: dict[str, Any] = {"channels": channels, "dim": dim, "depth": depth, "heads": heads}
    shape |= {"positions": positions, "class_token": class_token}
    side = (image_size, image_size)
    network = ClipEncoder((frames, *side), (tubelet, patch, patch), **shape)
    network.spec = {
        "name": name,
        "channels": channels,
        "frames": frames,
        "image_size": image_size,
        "kwargs": {"tubelet": tubelet, "patch": patch, "positions": positions, "class_token": class_token},
        "dim": dim,
    }
    return network


def build_clip(spec: dict[str, Any]) -> ClipEncoder | FramewiseEncoder:
    """Make the encoder that a ``spec`` of `clip_encoder` describes, with random weights.

    Raises:
        UserError: the spec is of something else.
    """
    missing = {"name", "channels", "image_size", *(["frames"] if not spec.get("framewise") else [])} - set(spec)
    if missing:
        raise UserError(f"encoder spec: {', '.join(sorted(missing))} missing; take the JSON file beside the weights")
    if spec.get("framewise"):
        return FramewiseEncoder(spec["name"], spec["channels"], spec["image_size"], **spec["kwargs"])
    sizes = {key: spec[key] for key in ("channels", "frames", "image_size")}
    return clip_encoder(spec["name"], **sizes, **spec.get("kwargs", {}))
