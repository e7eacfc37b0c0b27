"""What methods of depth from video share: snippets as samples, motion between frames, intrinsics, what is delivered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selftaught.catalog.rules import Count, Natural, NonNegative, Positive, Range, Share
from selftaught.data import Source, as_uint8, open_source
from selftaught.data.snippets import Snippets
from selftaught.data.source import whole_of
from selftaught.engine.method import LearningRateScaling, Method, MethodConfig, Optimizer, Schedule
from selftaught.engine.stages import Stage
from selftaught.errors import SampleError, UserError
from selftaught.networks.depth import PoseNet, check_multiple, depth_net
from selftaught.networks.projection import disparity_to_depth, intrinsics_matrix, pose_matrix, warp
from selftaught.objectives.monodepth2 import NOISE
from selftaught.views import Op, Recipe, Resize, View

__all__ = ["DepthConfig", "DepthMethod", "Frames"]

DepthEncoder = Literal["small", "resnet18", "resnet34", "resnet50", "lite-mono-8m", "mpvit-small"]
_SMALL_FOCAL = 0.8


@dataclass
class DepthConfig(MethodConfig):
    """Options of methods that learn depth from video."""

    encoder: DepthEncoder = "resnet18"
    """Encoder of the depth network; mpvit-small brings MonoViT's decoder with it."""
    pose_encoder: Literal["small", "resnet18", "resnet50"] = "resnet18"
    """Encoder of the network that sees two frames and tells the motion between them."""
    pretrained: bool = False
    """Start the ResNets from ImageNet's weights."""
    height: Count = 192
    """Height of the frames that the networks see, a multiple of 32 (small, lite-mono-8m: 16)."""
    width: Count = 640
    """Width of the frames that the networks see, a multiple likewise."""
    intrinsics: str = "auto"
    """The camera: FILE, fx,fy,cx,cy in pixels, fov=70 (degrees across), learn; auto: what the data tell, else learn."""
    gap: Natural = 0
    """Frames from one of a snippet to the next; 0 chooses it for each video by how fast the picture moves."""
    keep_best: bool = False
    """Keep the weights of the epoch with the least error on held-out videos (of depth, where it is known)."""
    held_out: Annotated[float, Range(0, 0.9)] = 0.1
    """Share of the videos that is held out to find that epoch; 0: the training loss tells."""
    keep_still: bool = False
    """Whether stretches without motion or texture are learnt from, too."""
    scales: Annotated[int, Range(1, 4)] = 4
    """Sizes at which disparity is predicted and judged, each half of the last."""
    min_depth: Positive = 0.1
    """Smallest depth, in the unknown unit of the network."""
    max_depth: Positive = 100.0
    """Largest depth."""
    smoothness: NonNegative = 1e-3
    """Weight of the smoothness of disparity."""
    ssim: Share = 0.85
    """Share of structural similarity in the photometric error."""
    crop: Literal["none", "garg", "eigen", "cityscapes"] = "none"
    """Part of the frames whose depth is judged."""
    flip: Share = 0.5
    """Share of snippets that are mirrored."""
    optimizer: Optimizer = "adam"
    lr: float = 1e-4
    lr_scaling: LearningRateScaling = "none"
    weight_decay: float = 0.0
    schedule: Schedule = "step"
    decay_every: float = 0.75
    decay_factor: float = 0.1


@dataclass
class Frames:
    """A batch of snippets as the losses take it.

    Attributes:
        target: (N, C, H, W) in [0, 1], the middle frame.
        sources: (2, N, C, H, W), before and after.
        seen: the same three with the networks' colours, (3, N, C, H, W): before, target, after.
        shares: intrinsics (N, 4) as shares of the picture, NaN where they are learnt.
        rng: of this batch's draws; the same when a run is resumed.
    """

    target: Tensor
    sources: Tensor
    seen: Tensor
    shares: Tensor
    rng: np.random.Generator

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.target.shape[2], self.target.shape[3]


class IntrinsicsHead(nn.Module):
    """Focal lengths and axis as shares of the picture, out of the pose encoder's coarsest map (Gordon et al., 2019)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layer = nn.Linear(channels, 4)
        nn.init.zeros_(self.layer.weight)
        nn.init.zeros_(self.layer.bias)

    def forward(self, coarsest: Tensor) -> Tensor:
        """(N, C, h, w) to (N, 4): fx / W, fy / H, cx / W, cy / H."""
        raw = self.layer(coarsest.mean((2, 3)))
        return torch.cat((_SMALL_FOCAL * torch.exp(raw[:, :2]), 0.5 + 0.1 * torch.tanh(raw[:, 2:])), 1)


class DepthMethod(Method):
    """Base of methods that learn depth from snippets of three frames."""

    config_class = DepthConfig
    config: DepthConfig
    modalities = ("clip",)
    default_data = "room"
    output = "depth"
    compares = False
    lookback: ClassVar[int] = 0

    # ---- samples ---------------------------------------------------------------------------------------------
    @classmethod
    def arranged(cls, sources: dict[str, Any], config: Any) -> dict[str, Any]:
        """Videos cut into snippets; what stands still or is flat is left out, and listed."""
        return {role: cls.snippets(source, config) for role, source in sources.items()}

    @classmethod
    def snippets(cls, source: Source, config: Any) -> Source:
        """The snippets of a source of clips; one that has them already stays as it is."""
        if isinstance(source, Snippets) or isinstance(getattr(source, "parent", None), Snippets):
            return source
        altered = {k: open_source(w, modality="clip", split="all") for k, w in cls.altered_folders(config).items()}
        return Snippets(
            source, gap=config.gap, intrinsics=config.intrinsics, keep_still=config.keep_still, altered=altered
        )

    @classmethod
    def altered_folders(cls, config: Any) -> dict[str, str]:
        """Alteration -> folder of altered copies; none."""
        return {}

    def resize(self) -> Op:
        """To the networks' size."""
        return Resize((self.config.height, self.config.width))

    def evaluation_view(self) -> Recipe:
        """The frames at the networks' size."""
        return Recipe((View("clip", "clip", (self.resize(),)),))

    def normalise(self, image: Tensor) -> Tensor:
        """uint8 frames to [0, 1]; the networks take their own mean off."""
        return image.float() / 255 if image.dtype == torch.uint8 else image.float()

    def frames(self, batch: Mapping[str, Any], seen: str = "seen") -> Frames:
        """A batch as frames, some of its snippets mirrored while training.

        Raises:
            UserError: a batch that isn't made of snippets.
        """
        clip = batch["clip"]
        known = batch.get("values", {}).get("intrinsics")
        if clip.dim() != 5 or clip.shape[2] != 3 or known is None:
            raise UserError(
                f"{self.slug} learns from 3 frames at a time: give selftaught.data.snippets.Snippets(source)"
            )
        rng = np.random.default_rng([self.steps, int(batch["index"][0]), int(self.training)])
        looked, shares = batch.get(seen, clip), known.to(clip.device).float()
        if self.training:
            mirrored = torch.from_numpy(rng.random(len(clip)) < self.config.flip).to(clip.device)
            clip, looked = (torch.where(mirrored[:, None, None, None, None], x.flip(4), x) for x in (clip, looked))
            edge = (clip.shape[4] - 1) / clip.shape[4]
            other = torch.stack((shares[:, 0], shares[:, 1], edge - shares[:, 2], shares[:, 3]), 1)
            shares = torch.where(mirrored[:, None], other, shares)
        first = clip.permute(2, 0, 1, 3, 4)
        return Frames(first[1], first[[0, 2]], looked.permute(2, 0, 1, 3, 4), shares, rng)

    # ---- which epoch is kept ---------------------------------------------------------------------------------
    def stage_plan(self, stage: str) -> Stage:
        """The last weights, or the best ones on snippets that are held out."""
        c = self.config
        return Stage(keep="best", validation=c.held_out) if c.keep_best else Stage()

    @torch.no_grad()
    def watched(self, source: Any) -> float:
        """Mean error of clear snippets, one at a time.

        AbsRel of the middle frame, scaled by its median, where the data bring depth; else the method's loss.
        """
        was = self.training
        self.eval()
        snippets, rows = whole_of(source)
        parent: Any = snippets
        known, errors = "depth" in parent.source.fields, []
        for i, row in enumerate(rows.tolist()):
            try:
                frames = as_uint8(source.read(i), self.value_range or source.value_range)
            except SampleError:
                continue
            size = (self.config.width, self.config.height)
            small = [cv2.resize(f, size, interpolation=cv2.INTER_AREA).reshape(*size[::-1], -1) for f in frames]
            clip = torch.from_numpy(np.stack(small)).permute(3, 0, 1, 2)[None].to(self.device)
            camera = torch.from_numpy(source.values["intrinsics"][i : i + 1]).to(self.device)
            batch = {"clip": self.normalise(clip), "values": {"intrinsics": camera}, "index": torch.tensor([row])}
            if not known:
                errors.append(float(self.loss(batch)["loss"]))
                continue
            at, middle, _ = parent.places[row].tolist()
            truth = parent.source.sample(at, ["depth"], None, np.array([middle]))["depth"][0, :, :, 0]
            errors += _abs_rel(self.predict(batch)[0, 0].float().cpu().numpy(), truth)
        self.train(was)
        return float(np.mean(errors)) if errors else float("nan")

    # ---- networks --------------------------------------------------------------------------------------------
    def build(self) -> None:
        """Depth network, pose network and the head for intrinsics that aren't known."""
        c = self.config
        self.depth_net = depth_net(c.encoder, self.channels, c.pretrained, self.scales)
        check_multiple(torch.empty(c.height, c.width, device="meta"), self.depth_net.multiple)
        self.pose_net = PoseNet(c.pose_encoder, self.channels, c.pretrained)
        self.intrinsics_head = IntrinsicsHead(self.pose_net.encoder.channels[-1])

    @property
    def scales(self) -> tuple[int, ...]:
        """The scales of the disparities: a network of four maps has three."""
        return tuple(range(min(self.config.scales, 3 if self.config.encoder in ("lite-mono-8m", "small") else 4)))

    def depth_of(self, disparity: Tensor) -> Tensor:
        """Depth of a sigmoid's output."""
        return disparity_to_depth(disparity, self.config.min_depth, self.config.max_depth)[1]

    def motion(self, seen: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Motion from the target to the frames before and after.

        Args:
            seen: (3, N, C, H, W): before, target, after; pairs go through the network in the order of time.

        Returns:
            Transforms (2, N, 4, 4), axis-angle and translation (2, N, slots, 3), and the coarsest maps (N, C, h, w) of
            the later pair.
        """
        before, target, after = seen
        encoded = self.pose_net.coarsest(torch.cat((before, target)), torch.cat((target, after)))
        angles, shifts = self.pose_net.decoder(encoded)
        n = len(target)
        back = pose_matrix(angles[:n, 0], shifts[:n, 0], invert=True)
        ahead = pose_matrix(angles[n:, 0], shifts[n:, 0])
        return torch.stack((back, ahead)), angles.unflatten(0, (2, n)), shifts.unflatten(0, (2, n)), encoded[n:]

    def camera(self, shares: Tensor, coarsest: Tensor, size: tuple[int, int]) -> Tensor:
        """Intrinsics (N, 3, 3) in pixels; those that aren't known are the head's."""
        unknown = ~torch.isfinite(shares).all(1, keepdim=True)
        if bool(unknown.any()):
            shares = torch.where(unknown, self.intrinsics_head(coarsest), torch.nan_to_num(shares))
        return intrinsics_matrix(shares, *size)

    def warped(self, depth: Tensor, sources: Tensor, camera: Tensor, transforms: Tensor, offset: Any = None) -> Tensor:
        """The neighbours as the target would see them by this depth, (2, N, C, H, W), in one call."""
        two = len(sources)
        flat = sources.flatten(0, 1)
        repeated = depth.repeat(two, 1, 1, 1)
        offset = None if offset is None else offset.repeat(two, 1)
        made = warp(flat, repeated, camera.repeat(two, 1, 1), transforms.flatten(0, 1), offset=offset)
        return made.unflatten(0, sources.shape[:2])

    def all_warped(
        self, disparities: Mapping[int, Tensor], sources: Tensor, camera: Tensor, transforms: Tensor, offset: Any = None
    ) -> dict[int, Tensor]:
        """Scale -> the neighbours warped by that scale's depth at full size."""
        size = sources.shape[3:]
        depths = {s: self.depth_of(self.full(d, size)) for s, d in disparities.items()}
        return {s: self.warped(depth, sources, camera, transforms, offset) for s, depth in depths.items()}

    def noise(self, frames: Frames) -> Tensor:
        """The automask's noise of this batch, (N, 2, H, W)."""
        drawn = frames.rng.standard_normal((len(frames.target), 2, *frames.size), dtype="float32")
        return NOISE * torch.from_numpy(drawn).to(frames.target.device)

    def full(self, disparity: Tensor, size: Sequence[int]) -> Tensor:
        """A disparity at the picture's size."""
        if tuple(disparity.shape[2:]) == tuple(size):
            return disparity
        return F.interpolate(disparity, size=tuple(size), mode="bilinear", align_corners=False)

    def learnt_camera(self, earlier: Tensor, later: Tensor) -> Tensor:
        """Intrinsics (N, 4) as shares, as the head tells them of pairs of frames (N, C, H, W) in [0, 1]."""
        return self.intrinsics_head(self.pose_net.coarsest(earlier, later))

    # ---- what one keeps --------------------------------------------------------------------------------------
    def disparity(self, frames: Tensor, intrinsics: Tensor) -> Tensor:
        """Scaled disparity 1 / depth (N, 1, H, W) of frames (N, lookback + 1, C, H, W) in [0, 1], the last one's.

        Args:
            frames: at the networks' size.
            intrinsics: (N, 4) shares of the picture, NaN where unknown; methods of one frame don't look at them.
        """
        return disparity_to_depth(self.depth_net(frames[:, -1])[0], self.config.min_depth, self.config.max_depth)[0]

    def predict(self, batch: dict[str, Any]) -> Tensor:
        """Scaled disparity (N, 1, H, W) of the middle frame of each snippet."""
        clip = batch["clip"]
        middle = clip.shape[2] // 2
        known = batch.get("values", {}).get("intrinsics")
        known = torch.full((len(clip), 4), torch.nan) if known is None else known
        stack = clip[:, :, max(0, middle - self.lookback) : middle + 1].transpose(1, 2)
        return self.disparity(stack, known.to(clip.device).float())

    def features(self, batch: dict[str, Any]) -> Tensor:
        """Means of the encoder's coarsest map over the places (N, D)."""
        maps = self.depth_net.encoder(batch["clip"][:, :, batch["clip"].shape[2] // 2])
        return maps[-1].mean((2, 3))

    def deliverable(self) -> nn.Module:
        """A picture (N, C, H, W) in [0, 1] to scaled disparity, 1 / depth, (N, 1, H, W)."""
        parts = self.depth_net, self.pose_net, self.intrinsics_head
        return Delivered(*parts, self.config.min_depth, self.config.max_depth)

    def deliverable_spec(self) -> dict[str, Any]:
        """How to build the network again."""
        c = self.config
        return {
            "name": f"depth {c.encoder}", "height": c.height, "width": c.width, "min_depth": c.min_depth,
            "max_depth": c.max_depth, "input": "image in [0, 1]", "output": "1 / depth, up to one factor",
        }  # fmt: skip


def _abs_rel(disparity: np.ndarray, truth: np.ndarray) -> list[float]:
    """Mean |d - t| / t of depth d = 1 / disparity, scaled to the truth's median; of no frame without known depth."""
    known = np.isfinite(truth) & (truth > 0)
    if not known.any():
        return []
    depth = 1 / cv2.resize(disparity, truth.shape[::-1], interpolation=cv2.INTER_LINEAR)[known]
    true = truth[known]
    return [float((np.abs(depth * (np.median(true) / np.median(depth)) - true) / true).mean())]


class Delivered(nn.Module):
    """A depth network between a picture in [0, 1] and its scaled disparity.

    Args:
        network: gives sigmoid disparities by scale.
        pose: the network of motion, which comes along for another run to begin with.
        camera: what tells intrinsics that aren't known; it comes along for clouds of points.
        min_depth: depth where the sigmoid is 1.
        max_depth: depth where it is 0.
    """

    def __init__(
        self, network: nn.Module, pose: nn.Module, camera: nn.Module, min_depth: float, max_depth: float
    ) -> None:
        super().__init__()
        self.network, self.pose, self.camera = network, pose, camera
        self.min_depth, self.max_depth = min_depth, max_depth

    def forward(self, image: Tensor) -> Tensor:
        """(N, C, H, W) to (N, 1, H, W)."""
        return disparity_to_depth(self.network(image)[0], self.min_depth, self.max_depth)[0]
