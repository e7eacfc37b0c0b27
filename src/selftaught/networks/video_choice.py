"""Encoders of clips by name, whatever their family."""

from __future__ import annotations

from typing import Any

from selftaught.errors import UserError
from selftaught.networks.r3d import R3D, r3d
from selftaught.networks.video import CLIP_ENCODERS, ClipEncoder, FramewiseEncoder, build_clip, clip_encoder
from selftaught.networks.video_cnn import VIDEO_CNNS, video_cnn
from selftaught.networks.video_layers import VideoNetwork

__all__ = ["VIDEO_NETWORKS", "build_video", "video_network"]

VIDEO_NETWORKS = (*R3D, *VIDEO_CNNS, *CLIP_ENCODERS)
"""Names of all encoders of clips."""


def video_network(
    name: str, *, channels: int = 3, frames: int = 16, image_size: int = 112, **kwargs: Any
) -> VideoNetwork | ClipEncoder:
    """Make an encoder of clips: a 3-D ResNet of CVRL, a network of the video benchmark, or a transformer.

    Args:
        name: one of `VIDEO_NETWORKS`.
        channels: C of a frame.
        frames: frames of a clip; transformers alone are built for a number of them.
        image_size: side of the frames in pixels; likewise.
        **kwargs: of `r3d` or `clip_encoder`.

    Raises:
        UserError: an unknown name; what the family doesn't take.
    """
    if name in R3D:
        return r3d(name, channels=channels, **kwargs)
    if name in VIDEO_CNNS:
        return video_cnn(name, channels=channels)
    if name in CLIP_ENCODERS:
        return clip_encoder(name, channels=channels, frames=frames, image_size=image_size, **kwargs)
    raise UserError(f"encoder={name}: no such encoder of clips; choose {', '.join(VIDEO_NETWORKS)}")


def build_video(spec: dict[str, Any]) -> VideoNetwork | ClipEncoder | FramewiseEncoder:
    """Make the encoder that a ``spec`` describes, with random weights.

    Raises:
        UserError: the spec is of something else.
    """
    if spec.get("name") in CLIP_ENCODERS:
        return build_clip(spec)
    if missing := {"name", "channels"} - set(spec):
        raise UserError(f"encoder spec: {', '.join(sorted(missing))} missing; take the JSON file beside the weights")
    return video_network(spec["name"], channels=spec["channels"], **spec.get("kwargs", {}))
