"""Gaussian2Scene: a cloud encoder out of RGB-D frames, by masking and by Gaussian splatting (arXiv 2506.08777).

    stage 1:  L1 = L_pc + L_img + L_x,    hidden points (Chamfer), hidden pixels, pixels out of the points that hit them
    stage 2:  L2 = L1 + w_g CD({mu_i}, P) + w_r (0.8 |I^ - I| + 0.2 (1 - SSIM(I^, I)))

Points and picture of a frame are masked so that one shows what the other hides. Then restored points become Gaussians,
and a camera that looks at them must see the photograph: the loss acts in space and on the picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selftaught import objectives
from selftaught.catalog.rules import Count, Natural, NonNegative, Positive, PositiveShare, Range, Share
from selftaught.engine.method import LearningRateScaling, Optim, Stage
from selftaught.errors import UserError
from selftaught.methods._scenes import SceneBatch, SceneConfig, SceneMethod, unit_pixels
from selftaught.networks.gaussians import Gaussians
from selftaught.networks.point_tokens import PointPatches, take_points
from selftaught.networks.scene_autoencoder import (
    GaussianHead,
    SceneAnswer,
    SceneAutoencoder,
    SceneMasks,
    complementary_masks,
    patches_on_image,
)
from selftaught.networks.scene_views import resized_intrinsics
from selftaught.networks.splatting import render_gaussians
from selftaught.networks.volume_rendering import pixel_rays, render_rays

__all__ = ["Gaussian2Scene"]


@dataclass
class Config(SceneConfig):
    """Gaussian2Scene's options; the defaults follow the paper, and PiMAE where it doesn't say."""

    point_ratio: Share = 0.6
    """Share of the point patches that is hidden."""
    image_ratio: Share = 0.75
    """Share of the image patches that is hidden."""
    alignment: Literal["complement", "same", "random"] = "complement"
    """Image patches hidden first: those that visible points fall on (complement), all others (same), or any."""
    norm_pix: bool = True
    """Restore pixels normalised patch by patch."""
    cross_weight: NonNegative = 1.0
    """Weight of restoring image patches from the points that fall on them."""
    geometry_weight: NonNegative = 1.0
    """Weight of the Gaussians' distance to the scanned points; 0: by pictures only."""
    picture_weight: NonNegative = 1.0
    """Weight of the rendered pictures; 0: by geometry only."""
    depth_weight: NonNegative = 0.0
    """Weight of the rendered depth."""
    structure: Share = 0.2
    """Share of structural similarity in the pictures' loss."""
    rendering: Literal["splatting", "volume"] = "splatting"
    """How Gaussians are seen: splatted, or along rays as volume-rendering baselines do."""
    backend: Literal["auto", "torch", "numba", "gsplat"] = "auto"
    """Who splats: plain PyTorch, kernels on a CPU (Numba), or gsplat on CUDA; auto takes the kernels where it can."""
    gaussians: Natural = 0
    """Gaussians of a point patch; 0: one for each of its points."""
    reach: NonNegative = 0.05
    """Largest way from a restored point to its Gaussian along an axis, in metres."""
    first_opacity: PositiveShare = 0.3
    """Opacity that Gaussians begin with."""
    first_scale: Positive = 0.05
    """Deviation in metres that Gaussians begin with."""
    render_scale: Count = 4
    """How many times smaller than the picture renderings are."""
    neighbour: bool = True
    """Render a neighbouring frame as well."""
    background: Literal["random", "grey"] = "random"
    """What lies behind the Gaussians; a chance colour keeps them from vanishing into it."""
    rays: Count = 256
    """Rays of each view (volume)."""
    ray_samples: Count = 32
    """Samples on a ray (volume)."""
    gaussian_epochs: NonNegative = 100.0
    """Length of the second stage; 0 with gaussian_steps=0: the first stage alone. Without Gaussians (branches=image, or
    all three weights 0) it goes on with the first stage's loss."""
    gaussian_steps: Natural = 0
    """The same in steps; 0 goes by gaussian_epochs."""
    gaussian_lr: Positive = 1e-4
    """Learning rate of the second stage."""
    lr: float = 1e-3
    lr_scaling: LearningRateScaling = "none"
    beta2: Annotated[float, Range(0, below=1)] = 0.95
    """Second beta of AdamW."""
    weight_decay: float = 0.05
    warmup_epochs: float = 15.0


PRESETS = {
    "scannet": {"epochs": 400, "batch_size": 64},
    "sunrgbd": {"epochs": 400, "batch_size": 64, "neighbour": False},
    "laptop": {
        "points": 1024, "patches": 48, "neighbours": 24, "width": 96, "heads": 4, "point_depth": 2, "image_depth": 2,
        "joint_depth": 1, "joint_decoder": 1, "decoder_depth": 1, "image_height": 96, "image_width": 128,
        "gaussians": 12, "steps": 300, "gaussian_steps": 100, "gaussian_lr": 5e-4, "batch_size": 16,
        "warmup_epochs": 2.0,
    },
}  # fmt: skip


class Gaussian2Scene(SceneMethod):
    """Gaussian2Scene on RGB-D frames with poses; delivers the encoder of clouds."""

    slug = "gaussian2scene"
    config_class = Config
    config: Config
    stages = ("masked", "gaussians")

    # ---- networks and stages ---------------------------------------------------------------------------------
    def build(self) -> None:
        """The two branches, the autoencoder over them, and the head that makes Gaussians."""
        super().build()
        c = self.config
        self.autoencoder = SceneAutoencoder(
            self.point_encoder, self.image_encoder, joint=c.joint_depth, joint_decoder=c.joint_decoder,
            decoder=c.decoder_depth, heads=c.heads,
        )  # fmt: skip
        if not (c.gaussian_epochs or c.gaussian_steps):
            self.stages = ("masked",)  # type: ignore[assignment]
        if not self.places_gaussians:
            return
        if c.gaussians > c.neighbours:
            raise UserError(f"gaussians={c.gaussians}: a point patch has {c.neighbours} points (neighbours)")
        self.gaussian_head = GaussianHead(c.width, reach=c.reach, scale=c.first_scale, opacity=c.first_opacity)

    @property
    def places_gaussians(self) -> bool:
        """Whether the second stage has Gaussians: not for pictures alone; without weights it goes on with the first."""
        c = self.config
        weighs = c.geometry_weight or c.picture_weight or c.depth_weight
        return c.branches != "image" and len(self.stages) == 2 and bool(weighs)

    def stage_plan(self, stage: str) -> Stage:
        """The second stage has a length of its own."""
        c = self.config
        if stage == "masked":
            return Stage()
        return Stage(settings={"steps": c.gaussian_steps} if c.gaussian_steps else {"epochs": c.gaussian_epochs})

    def optimisers(self) -> dict[str, Optim]:
        """AdamW; the second stage has a rate of its own."""
        found = super().optimisers()
        main = found["main"]
        if self.stage == "gaussians":
            main.parameters, main.lr = self.parameter_groups(self.config.gaussian_lr), self.config.gaussian_lr
        return found

    def trained_modules(self) -> nn.Module:
        """The autoencoder; in the second stage with the head of the Gaussians."""
        if self.stage == "gaussians" and self.places_gaussians:
            return nn.ModuleList([self.autoencoder, self.gaussian_head])
        return self.autoencoder

    # ---- learning --------------------------------------------------------------------------------------------
    def loss(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """The terms of the stage."""
        c = self.config
        scene = self.scene(batch)
        patches = self.cut(scene)
        hidden = self.hide(scene, patches)
        answer = self.autoencoder(patches, scene.middle, unit_pixels(scene.image), hidden)
        given: dict[str, Any] = self.masked_terms(scene, patches, hidden, answer)
        if self.stage == "gaussians" and self.places_gaussians:
            given |= self.gaussian_terms(scene, patches, hidden, answer)
        return objectives.gaussian2scene_terms(
            **given, cross_weight=c.cross_weight, geometry_weight=c.geometry_weight, picture_weight=c.picture_weight,
            depth_weight=c.depth_weight, structure=0.0 if c.rendering == "volume" else c.structure,
            norm_pix=c.norm_pix,
        )  # fmt: skip

    def cut(self, scene: SceneBatch) -> PointPatches | None:
        """The point patches, from a chance first centre while training; None without that branch."""
        if self.point_encoder is None:
            return None
        return self.point_encoder.cut(self.seen_points(scene.points), None if self.training else 0)

    def hide(self, scene: SceneBatch, patches: PointPatches | None) -> SceneMasks:
        """Masks of both branches; without points any image patches, without pictures any points."""
        c, n, device = self.config, len(scene.points), scene.points.device
        count = patches.centres.shape[1] if patches is not None else 1
        on = torch.full((n, count, 1), -1, dtype=torch.int64, device=device)
        if patches is not None and self.image_encoder is not None:
            places = take_points(scene.points[..., :3], patches.numbers)
            on = self.on_image(places, scene)
        images = self.image_encoder.count if self.image_encoder is not None else 1
        return complementary_masks(on, images, c.point_ratio, c.image_ratio, alignment=c.alignment)

    def on_image(self, places: Tensor, scene: SceneBatch) -> Tensor:
        """Number of the image patch that each place (N, ..., 3) falls on, -1 on none."""
        size = (self.config.image_height, self.config.image_width)
        return patches_on_image(places, scene.intrinsics, scene.camera, size, self.config.image_patch, pixel_centre=0.0)

    def masked_terms(
        self, scene: SceneBatch, patches: PointPatches | None, hidden: SceneMasks, answer: SceneAnswer
    ) -> dict[str, Any]:
        """What stage 1 compares."""
        found: dict[str, Any] = {}
        n = len(scene.points)
        if patches is not None and answer.points is not None:
            true = patches.points[..., :3]
            found["points"] = tuple(t[hidden.points].unflatten(0, (n, -1)) for t in (answer.points, true))
        if answer.image is None:
            return found
        pixels = self.autoencoder.pixels(scene.image)
        found["image"] = (answer.image, pixels, hidden.image)
        if answer.cross is not None and patches is not None and self.config.cross_weight:
            on = self.on_image(patches.centres, scene)
            target = pixels.gather(1, on.clamp_min(0)[:, :, None].expand(-1, -1, pixels.shape[2]))
            found["cross"] = (answer.cross, target, on >= 0)
        return found

    # ---- Gaussians -------------------------------------------------------------------------------------------
    def gaussian_terms(
        self, scene: SceneBatch, patches: PointPatches | None, hidden: SceneMasks, answer: SceneAnswer
    ) -> dict[str, Any]:
        """What stage 2 compares besides."""
        c = self.config
        assert patches is not None
        made = self.gaussians_of(patches, hidden, answer)
        found: dict[str, Any] = {}
        if c.geometry_weight:
            found["gaussians"] = (made.means, scene.points[..., :3].float())
        if not (c.picture_weight or c.depth_weight):
            return found
        shown = self.seen_by_rays(made, scene) if c.rendering == "volume" else self.seen_splatted(made, scene)
        if c.picture_weight:
            found["picture"] = shown[:2]
        if c.depth_weight:
            found["depth"] = shown[2:]
        return found

    def gaussians_of(self, patches: PointPatches, hidden: SceneMasks, answer: SceneAnswer) -> Gaussians:
        """Gaussians at the restored points of hidden patches and at the true ones of visible patches."""
        assert answer.points is not None
        assert answer.tokens is not None
        count = self.config.gaussians or answer.points.shape[2]
        places = torch.where(hidden.points[:, :, None, None], answer.points, patches.points[..., :3])[:, :, :count]
        return self.gaussian_head(answer.tokens, places, patches.centres)

    def views_of_scene(self, scene: SceneBatch) -> list[tuple[Tensor, Tensor, Tensor, Tensor | None]]:
        """What is rendered: pictures at the renderings' size, intrinsics, cameras, and depth where it is known."""
        views: list[tuple[Tensor, Tensor, Tensor, Tensor | None]]
        views = [(scene.image, scene.intrinsics, scene.camera, scene.depth)]
        if self.config.neighbour and scene.other_image is not None:
            assert scene.other_intrinsics is not None
            assert scene.other_camera is not None
            views.append((scene.other_image, scene.other_intrinsics, scene.other_camera, None))
        factor = 1 / self.config.render_scale
        size = tuple(side // self.config.render_scale for side in scene.image.shape[2:])
        found = []
        for image, intrinsics, camera, depth in views:
            small = F.interpolate(image, size, mode="area")
            coarse = None if depth is None else F.interpolate(depth, size, mode="nearest-exact")[:, 0]
            found.append((small, resized_intrinsics(intrinsics, factor, factor), camera, coarse))
        return found

    def behind(self, like: Tensor) -> Tensor:
        """The background's colour."""
        if self.config.background == "grey" or not self.training:
            return like.new_full((3,), 0.5)
        return torch.rand(3, device=like.device)

    def seen_splatted(self, made: Gaussians, scene: SceneBatch) -> tuple[Tensor, ...]:
        """Rendered and true pictures (N V, 3, h, w), rendered and true depth and alpha (N, h, w) of the first view."""
        pictures, photographs, depths = [], [], []
        for view, (image, intrinsics, camera, depth) in enumerate(self.views_of_scene(scene)):
            for i in range(len(image)):
                found = render_gaussians(
                    made.of(i), intrinsics[i], camera[i], (image.shape[2], image.shape[3]), self.behind(image),
                    pixel_centre=0.0, backend=self.config.backend,
                )  # fmt: skip
                pictures.append(found.image)
                if view == 0 and depth is not None:
                    depths.append((found.depth, depth[i], found.alpha))
            photographs.append(image)
        return torch.stack(pictures), torch.cat(photographs), *(torch.stack(d) for d in zip(*depths, strict=True))

    def seen_by_rays(self, made: Gaussians, scene: SceneBatch) -> tuple[Tensor, ...]:
        """The same along some rays: (N V, 3, 1, R) and (N, 1, R)."""
        pictures, photographs, depths = [], [], []
        for view, (image, intrinsics, camera, depth) in enumerate(self.views_of_scene(scene)):
            height, width = image.shape[2:]
            for i in range(len(image)):
                chosen = torch.randint(height * width, (self.config.rays,), device=image.device)
                pixels = torch.stack((chosen % width, chosen // width), 1).to(image.dtype)
                origins, directions = pixel_rays(pixels, intrinsics[i], camera[i])
                colour, far, alpha = render_rays(
                    made.of(i), origins, directions, samples=self.config.ray_samples, background=self.behind(image)
                )
                pictures.append(colour.T[:, None])
                photographs.append(image[i].flatten(1)[:, chosen][:, None])
                if view == 0 and depth is not None:
                    depths.append((far[None], depth[i].flatten()[chosen][None], alpha[None]))
        return torch.stack(pictures), torch.stack(photographs), *(torch.stack(d) for d in zip(*depths, strict=True))
