"""What methods of RGB-D scenes share: clouds of one size, the scene with its cameras, the two branches, features."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selftaught.catalog.rules import Count, Positive, PositiveShare, Share
from selftaught.data.kinds.camera import Camera
from selftaught.data.kinds.points import unpack
from selftaught.engine.method import Method, MethodConfig
from selftaught.errors import UserError
from selftaught.networks.point_tokens import PointTransformer, nearest_points, take_points
from selftaught.networks.scene_autoencoder import patches_on_image
from selftaught.networks.scene_views import (
    centred_scene,
    cropped_view,
    moved_scene,
    random_motion,
    resized_intrinsics,
    world_to_camera,
)
from selftaught.networks.transformer import VisionTransformer
from selftaught.views import Recipe, Resize, View

__all__ = ["SceneBatch", "SceneConfig", "SceneMethod", "unit_pixels"]

_COLUMNS = 9
_MORE_COLUMNS = 64


@dataclass
class SceneConfig(MethodConfig):
    """Options of methods of RGB-D scenes."""

    branches: Literal["both", "points", "image"] = "both"
    """What is seen and restored: points and picture, or one of them alone."""
    points: Count = 2048
    """Points of a cloud that the encoder sees."""
    features: Literal["xyz", "xyz+colour"] = "xyz"
    """What is known of a point."""
    patches: Count = 64
    """Point patches, a token each."""
    neighbours: Count = 32
    """Points of a patch."""
    image_height: Count = 256
    """Height of the picture, a multiple of the patch."""
    image_width: Count = 352
    """Width of the picture, a multiple of the patch."""
    image_patch: Count = 16
    """Side of an image patch."""
    width: Count = 256
    """Width of all tokens."""
    heads: Count = 4
    """Attention heads of all blocks."""
    point_depth: Count = 3
    """Blocks of the encoder of points."""
    image_depth: Count = 3
    """Blocks of the encoder of pictures."""
    joint_depth: Count = 3
    """Blocks of the joint encoder."""
    joint_decoder: Count = 1
    """Blocks of the joint decoder."""
    decoder_depth: Count = 2
    """Blocks of each branch's decoder."""
    turn: bool = True
    """Turn scenes about the vertical axis while training."""
    flip: Share = 0.5
    """Share of scenes that are mirrored."""
    scale_low: Positive = 0.8
    """Smallest factor that scenes are scaled by."""
    scale_high: Positive = 1.2
    """Largest factor."""
    crop: PositiveShare = 0.8
    """Smallest share of the picture's sides that a crop keeps."""


class SceneBatch(NamedTuple):
    """Scenes with the mean of each cloud at 0.

    Attributes:
        points: (N, P, C).
        middle: (N, 3), zeros: where the cloud's mean lies.
        image: (N, 3, H, W) in [0, 1].
        intrinsics: (N, 3, 3) in pixels of ``image``, the first pixel's centre at 0.
        camera: (N, 4, 4) world to camera.
        depth: (N, 1, H, W) in the scene's metres, or None where a crop took its grid away.
        other_image: a neighbouring frame, or None.
        other_intrinsics: of it.
        other_camera: of it.
    """

    points: Tensor
    middle: Tensor
    image: Tensor
    intrinsics: Tensor
    camera: Tensor
    depth: Tensor
    other_image: Tensor | None
    other_intrinsics: Tensor | None
    other_camera: Tensor | None


def unit_pixels(image: Tensor) -> Tensor:
    """[0, 1] as the image branch takes it: mean 0.5 and deviation 0.25 taken off."""
    return (image - 0.5) / 0.25


class SceneMethod(Method):
    """Base of methods that learn an encoder of clouds from RGB-D frames."""

    config_class = SceneConfig
    config: SceneConfig
    modalities = ("points",)
    default_data = "room-frames"
    compares = False
    judged_by = ("scene-segmentation", "scene-detection")

    # ---- samples ---------------------------------------------------------------------------------------------
    @classmethod
    def takes(cls, source: Any) -> Any:
        """RGB-D frames.

        Raises:
            UserError: a source of clouds without pictures and cameras.
        """
        missing = [name for name in ("image", "depth", "camera") if name not in source.fields]
        if missing:
            raise UserError(
                f"{source.name} has no {' and no '.join(missing)}: {cls.slug} learns from RGB-D frames with poses, "
                "rgbd:FOLDER or the built-in room-frames; its encoder can then be applied to clouds alone"
            )
        return source

    def recipe(self) -> Recipe:
        """The cloud, picture and depth at the networks' size, cameras, and the neighbouring frame."""
        fields = ("points", "image", "depth", "camera", "other_image", "other_camera", "frame_size")
        return Recipe(tuple(self._views(fields)))

    def evaluation_view(self) -> Recipe | None:
        """The cloud whole; for a network of pictures the picture."""
        return Recipe(tuple(self._views(("image",)))) if self.config.branches == "image" else None

    def probing_recipe(self) -> Recipe:
        """What probes of single points need: cloud, picture and camera."""
        return Recipe(tuple(self._views(("points", "image", "camera", "frame_size"))))

    def _views(self, fields: tuple[str, ...]) -> list[View]:
        size = (self.config.image_height, self.config.image_width)
        pictures = ("image", "depth", "other_image")
        return [View(name, name, (Resize(size),) if name in pictures else ()) for name in fields]

    def normalise(self, image: Tensor) -> Tensor:
        """uint8 pictures to [0, 1]."""
        return image.float() / 255 if image.dtype == torch.uint8 else image.float()

    @property
    def also_channels(self) -> tuple[int, ...]:
        """Clouds may have further features, which are not looked at."""
        return tuple(range(_COLUMNS, _MORE_COLUMNS))

    def clouds(self, packed: Mapping[str, Tensor]) -> Tensor:
        """Clouds of one size, (N, P, 3 or 6), of a packed batch: points drawn while training, else spread evenly.

        Small clouds repeat points. Colours become -0.5 to 0.5.
        """
        return torch.stack([cloud[self.drawn(len(cloud)).to(cloud.device)] for cloud in self._columns(packed)])

    def drawn(self, count: int) -> Tensor:
        """Which of a cloud's points are seen, (P,)."""
        wanted = self.config.points
        if not self.training:
            return torch.linspace(0, count - 1, wanted).round().long() if count > wanted else _cycled(count, wanted)
        return torch.randperm(count)[:wanted] if count >= wanted else _cycled(count, wanted)

    def _columns(self, packed: Mapping[str, Tensor]) -> list[Tensor]:
        place, colour = packed["coord"], packed["feat"][:, :3] / 255 - 0.5
        return unpack(dict(packed), torch.cat((place, colour), 1))

    def seen_points(self, points: Tensor) -> Tensor:
        """What the encoder knows of points (N, P, 6): place alone, or colour as well."""
        return points[..., :3] if self.config.features == "xyz" else points

    def inputs(self, batch: dict[str, Any]) -> Tensor:
        """What the delivered encoder sees of an evaluation's batch."""
        if self.config.branches == "image":
            return unit_pixels(self.normalise(batch["image"]))
        return self.seen_points(self.clouds(batch["points"]))

    def scene(self, batch: dict[str, Any]) -> SceneBatch:
        """A batch as scenes: clouds of one size with their mean at 0, cameras with them, moved while training."""
        c = self.config
        points = self.clouds(batch["points"])
        size = batch["frame_size"].to(points.device)
        factors = [side / size[:, axis] for axis, side in enumerate((c.image_width, c.image_height))]
        cameras = [batch[name] for name in ("camera", "other_camera")]
        intrinsics = [resized_intrinsics(camera.intrinsics, *factors) for camera in cameras]
        points, *poses = centred_scene(points, *(world_to_camera(camera.pose) for camera in cameras))
        depth, image = batch["depth"], batch["image"]
        if self.training:
            scales = (c.scale_low, c.scale_high)
            motion, scale = random_motion(len(points), turn=c.turn, flip=c.flip, scales=scales)
            motion, scale = motion.to(points.device), scale.to(points.device)
            points, *poses = moved_scene(points, motion, scale, *poses)
            both = torch.cat((image, depth * scale[:, None, None, None]), 1)
            both, intrinsics[0] = cropped_view(both, intrinsics[0], c.crop)
            image, depth = both[:, :3], both[:, 3:]
        middle = points.new_zeros(len(points), 3)
        other = batch["other_image"]
        return SceneBatch(points, middle, image, intrinsics[0], poses[0], depth, other, intrinsics[1], poses[1])

    # ---- networks --------------------------------------------------------------------------------------------
    def build(self) -> None:
        """The encoders of the branches that there are."""
        c = self.config
        if c.branches != "points" and (c.image_height % c.image_patch or c.image_width % c.image_patch):
            raise UserError(
                f"a picture of {c.image_width}x{c.image_height} isn't a multiple of image_patch={c.image_patch}"
            )
        self.point_encoder: PointTransformer | None = None
        self.image_encoder: VisionTransformer | None = None
        if c.branches != "image":
            channels = 3 if c.features == "xyz" else 6
            self.point_encoder = PointTransformer(channels, c.width, c.point_depth, c.heads, c.patches, c.neighbours)
        if c.branches != "points":
            self.image_encoder = VisionTransformer(
                (c.image_height, c.image_width), (c.image_patch, c.image_patch), dim=c.width, depth=c.image_depth,
                heads=c.heads,
                positions="sincos", class_token=False,
            )  # fmt: skip

    # ---- what one keeps --------------------------------------------------------------------------------------
    def predict(self, batch: dict[str, Any]) -> Tensor:
        """The embedding of each cloud: mean and maximum of its tokens; of a network of pictures their mean."""
        network: Any = self.deliverable()
        return network(self.inputs(batch))

    def deliverable(self) -> nn.Module:
        """The encoder of clouds; of pictures where there is none."""
        found = self.point_encoder if self.point_encoder is not None else self.image_encoder
        assert found is not None
        return found

    def deliverable_spec(self) -> dict[str, Any]:
        """How to build the encoder again."""
        c = self.config
        if c.branches == "image":
            return {
                "name": "vision transformer", "width": c.width, "depth": c.image_depth, "heads": c.heads,
                "size": [c.image_height, c.image_width], "patch": c.image_patch,
                "example": [3, c.image_height, c.image_width],
            }  # fmt: skip
        return {
            "name": "point transformer", "width": c.width, "depth": c.point_depth, "heads": c.heads,
            "patches": c.patches, "neighbours": c.neighbours, "points": c.points, "features": c.features,
            "input": "(N, P, 3) metres, z upwards", "output": "mean and maximum of the tokens",
            "example": [c.points, 3 if c.features == "xyz" else 6],
        }  # fmt: skip

    def tokens_of(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
        """Seen points (N, P, 6), and the encoder's tokens (N, M, C) with their centres (N, M, 3) in the same place.

        Raises:
            UserError: a network of pictures, whose tokens have no place in space.
        """
        points = self.clouds(batch["points"])
        if self.point_encoder is None:
            raise UserError("branches=image: tokens of pictures have no place in space; judge by scene-segmentation")
        seen = self.seen_points(points)
        patches = self.point_encoder.cut(seen)
        return points, self.point_encoder.see(patches, seen[..., :3].mean(1)), patches.centres

    def point_features(self, batch: dict[str, Any]) -> Tensor:
        """Features (N, P, C) of the seen points, to probe single points with.

        Tokens of clouds are interpolated from the three nearest centres by inverse distance; a point takes from a
        network of pictures the token of the patch that it falls on, zeros where it falls on none.
        """
        if self.point_encoder is not None:
            points, tokens, centres = self.tokens_of(batch)
            return interpolated(points[..., :3], centres, tokens)
        assert self.image_encoder is not None
        points = self.clouds(batch["points"])
        camera: Camera = batch["camera"]
        size = batch["frame_size"].to(points.device)
        factors = [side / size[:, k] for k, side in enumerate((self.config.image_width, self.config.image_height))]
        on = patches_on_image(
            points[..., :3], resized_intrinsics(camera.intrinsics, *factors), world_to_camera(camera.pose),
            (self.config.image_height, self.config.image_width), self.config.image_patch, pixel_centre=0.0,
        )  # fmt: skip
        tokens = self.image_encoder.tokens(unit_pixels(self.normalise(batch["image"])))[1]
        return take_points(F.pad(tokens, (0, 0, 0, 1)), on.where(on >= 0, torch.full_like(on, tokens.shape[1])))


def interpolated(points: Tensor, centres: Tensor, tokens: Tensor, k: int = 3) -> Tensor:
    """Tokens (N, M, C) at points (N, P, 3): the k nearest centres (N, M, 3) weighed by inverse squared distance."""
    nearest = nearest_points(centres, points, min(k, centres.shape[1]))
    away = (take_points(centres, nearest) - points[:, :, None]).square().sum(3)
    weight = 1 / (away + 1e-6)
    weight = weight / weight.sum(2, keepdim=True)
    return (take_points(tokens, nearest) * weight[..., None]).sum(2)


def _cycled(count: int, wanted: int) -> Tensor:
    return torch.arange(wanted) % count
