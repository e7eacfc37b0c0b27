"""Robust-Depth: a depth network that keeps its accuracy in any weather (Saunders et al., ICCV 2023, arXiv 2307.08357).

Every snippet is seen twice by the same network, clear and altered (weather, light, noise, and cuts that are undone in
the prediction). Both depths are judged on the clear frames, by the clear motion; where one explains a pixel best it
teaches the other, and the altered motion follows the clear one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import torch
from torch import Tensor

from selftaught._paths import expanded
from selftaught.catalog.rules import Form, NonNegative, Positive
from selftaught.engine.method import Optim
from selftaught.errors import UserError
from selftaught.methods._depth import DepthConfig, DepthMethod, Frames
from selftaught.networks.projection import intrinsics_matrix
from selftaught.objectives.monodepth2 import monodepth2_terms
from selftaught.objectives.robust_depth import pseudo_pose_loss, robust_depth_terms
from selftaught.views import ALTERATIONS, GEOMETRIC, Alteration, Recipe, View
from selftaught.views.rearranging import Rearrangement, draw_rearrangement, rearrange, undo_rearrangement

__all__ = ["RobustDepth"]


@dataclass
class Config(DepthConfig):
    """Robust-Depth's options; the defaults are the authors' for KITTI with ResNet-18."""

    training: Literal["robust", "naive"] = "robust"
    """robust: the altered branch is judged on clear frames; naive: plain training on altered frames, the baseline."""
    alterations: str = "all"
    """Alterations to draw from, as rain,fog,night+rain; all: every one there is; clear alone: geometric ones only."""
    altered: str = ""
    """Folder with altered copies of the videos in place of those made here: FOLDER/rain/VIDEO, FOLDER/fog/VIDEO."""
    strength: Positive = 0.8
    """Largest strength of an alteration made here, at most 1; the smallest is a quarter of it."""
    geometric: str = "all"
    """Geometric alterations: tiling,scale,erase,vertical, all or none."""
    weight: NonNegative = 0.01
    """Weight lambda of the pseudo-supervised depth and pose losses."""
    depth_loss: bool = True
    """Whether the branches teach each other their depth."""
    use_augpose_loss: bool = True
    """Whether the altered motion is taught by the clear one."""
    use_augpose_warping: bool = False
    """Whether the altered branch warps by its own motion."""
    warp_clear: bool = True
    """Whether the altered branch warps clear frames (semi-augmented warping) or altered ones."""
    one_optim: bool = False
    """One minimum over the errors of both branches in place of one for each."""
    automask: bool = True
    """Whether pixels that don't move against the camera are left out."""
    max_depth: float = 80.0
    decay_at: Annotated[str, Form(r"(0\.\d+(-0\.\d+)*)?", "shares of the run such as 0.67-0.83, or nothing")] = (
        "0.6667-0.8333-0.9667"
    )
    """Where in the run the step schedule falls (epochs 20, 25 and 29 of 30); empty: as decay_every says."""
    encoder_lr: NonNegative = 0.0
    """Learning rate of the depth encoder; 0: that of all else."""


PRESETS = {
    "kitti": {"epochs": 30, "batch_size": 12, "pretrained": True, "crop": "garg", "keep_best": True},
    "kitti-vit": {
        "epochs": 30, "batch_size": 12, "encoder": "mpvit-small", "optimizer": "adamw", "encoder_lr": 5e-5,
        "decay_at": "", "decay_every": 0.0333, "decay_factor": 0.9, "crop": "garg", "keep_best": True,
    },
    "naive": {
        "epochs": 30, "batch_size": 12, "pretrained": True, "training": "naive", "crop": "garg", "keep_best": True,
    },
    "laptop": {
        "encoder": "small", "pose_encoder": "small", "height": 48, "width": 64, "scales": 1, "lr": 2e-3, "steps": 400,
        "batch_size": 8, "precision": "32",
    },
}  # fmt: skip


class RobustDepth(DepthMethod):
    """Robust-Depth on videos, with alterations made here or brought along."""

    slug = "robust-depth"
    config_class = Config
    config: Config
    fields: Any = ()

    # ---- samples ---------------------------------------------------------------------------------------------
    @classmethod
    def altered_folders(cls, config: Any) -> dict[str, str]:
        """The sub-folders of ``--altered``.

        Raises:
            UserError: it isn't a folder of folders.
        """
        if not config.altered:
            return {}
        root = expanded(config.altered)
        found = {p.name: str(p) for p in sorted(root.iterdir()) if p.is_dir()} if root.is_dir() else {}
        if not found:
            raise UserError(
                f"--altered {config.altered}: no folders in it; put copies into {config.altered}/rain/VIDEO"
            )
        return found

    def order(self, source: Any, role: str) -> None:
        """Shuffled; whether altered copies come with the data is noted for :meth:`recipe`."""
        self.fields = tuple(source.fields)

    @property
    def kinds(self) -> tuple[str, ...]:
        """Names of the alterations that are made here."""
        text = self.config.alterations
        return ALTERATIONS if text == "all" else tuple(part.strip() for part in text.split(",") if part.strip())

    @property
    def geometric_kinds(self) -> tuple[Any, ...]:
        """Names of the geometric alterations.

        Raises:
            UserError: an unknown one.
        """
        text = self.config.geometric
        found = GEOMETRIC if text == "all" else () if text == "none" else tuple(text.split(","))
        for name in found:
            if name not in GEOMETRIC:
                raise UserError(f"--geometric {text}: of {', '.join(GEOMETRIC)}, or all or none")
        return tuple(found)

    def recipe(self) -> Recipe:
        """The three frames clear, and altered alike."""
        clear = View("clip", "clip", (self.resize(),))
        if "altered" in self.fields:
            return Recipe((clear, View("altered", "altered", (self.resize(),))))
        c = self.config
        return Recipe((clear, View("altered", "clip", (Alteration(self.kinds, (c.strength / 4, c.strength)),))))

    def changes(self, batch: dict[str, Any], frames: Frames) -> list[Rearrangement]:
        """The geometric alteration of every snippet: always one where nothing else is altered."""
        made = batch.get("altered.kind")
        names = [self.kinds[int(k)] for k in made.flatten().tolist()] if made is not None else [""] * len(frames.target)
        return [
            draw_rearrangement(
                frames.rng,
                *frames.size,
                always=name == "clear",
                kinds=self.geometric_kinds,
                unit=2 ** (len(self.scales) - 1),
            )
            if self.training
            else Rearrangement()
            for name in names
        ]

    # ---- training --------------------------------------------------------------------------------------------
    def build(self) -> None:
        """Networks as Monodepth2's; the options are looked at."""
        super().build()
        Alteration(self.kinds, (self.config.strength / 4, self.config.strength))
        assert self.geometric_kinds is not None

    def optimisers(self) -> dict[str, Optim]:
        """One; the depth encoder may have a learning rate of its own."""
        (main,) = super().optimisers().values()
        c = self.config
        if c.decay_at:
            main = replace(main, milestones=[float(share) for share in c.decay_at.split("-")])
        if not c.encoder_lr:
            return {"main": main}
        mine = list(self.depth_net.encoder.parameters())
        known = {id(p) for p in mine}
        rest = [p for p in self.trained_modules().parameters() if id(p) not in known]
        groups = [{"params": mine, "lr": c.encoder_lr}, {"params": rest, "lr": c.lr}]
        return {"main": replace(main, parameters=groups)}

    def loss(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """The terms of both branches; of naive training, Monodepth2's on altered frames."""
        c, frames = self.config, self.frames(batch, "altered")
        changes = self.changes(batch, frames)
        altered = _each(frames.seen, changes)
        if c.training == "naive":
            return self.naive(frames, altered)
        clear = torch.cat((frames.sources[:1], frames.target[None], frames.sources[1:]))
        transforms, angles, shifts, coarsest = self.motion(clear)
        scaled = [change if change.kind == "scale" else Rearrangement() for change in changes]
        seen = _each(clear, scaled)
        camera, offset = self.cameras(frames, coarsest, scaled)
        clear_disparity = {s: _each(d[None], scaled, s)[0] for s, d in self.depth_net(frames.target).items()}
        found = self.depth_net(altered[1])
        altered_disparity = {s: _each(d[None], changes, s, undo=True)[0] for s, d in found.items()}
        moved, altered_angles, altered_shifts, _ = self.motion(altered)
        own = moved if c.use_augpose_warping else transforms
        looked = seen if c.warp_clear else _each(altered, changes, undo=True)
        terms = robust_depth_terms(
            clear_disparity,
            altered_disparity,
            self.all_warped(clear_disparity, seen[[0, 2]], camera, transforms, offset),
            self.all_warped(altered_disparity, looked[[0, 2]], camera, own, offset),
            seen[1], seen[[0, 2]], weight=c.weight, smoothness=c.smoothness, one_minimum=c.one_optim,
            depth_loss=c.depth_loss, automask=c.automask, alpha=c.ssim, noise=self.noise(frames),
            skipped=torch.tensor([change.shrinks for change in changes], device=self.device),
            altered_target=None if c.warp_clear else looked[1],
        )  # fmt: skip
        if not c.use_augpose_loss:
            return terms
        pose = torch.stack(
            [
                pseudo_pose_loss(altered_angles[k], altered_shifts[k], angles[k], shifts[k], weight=c.weight)
                for k in (0, 1)
            ]
        ).sum()
        return terms | {"loss": terms["loss"] + pose, "pose": pose}

    def naive(self, frames: Frames, altered: Tensor) -> dict[str, Tensor]:
        """Monodepth2's terms where networks and loss see the same altered frames."""
        c = self.config
        transforms, _, _, coarsest = self.motion(altered)
        camera = self.camera(frames.shares, coarsest, frames.size)
        disparities = self.depth_net(altered[1])
        warped = self.all_warped(disparities, altered[[0, 2]], camera, transforms, None)
        return monodepth2_terms(
            disparities, warped, altered[1], altered[[0, 2]], smoothness=c.smoothness, automask=c.automask,
            alpha=c.ssim, noise=self.noise(frames),
        )  # fmt: skip

    def cameras(self, frames: Frames, coarsest: Tensor, scaled: Sequence[Rearrangement]) -> tuple[Tensor, Tensor]:
        """Intrinsics of the pictures as they were scaled, and where the window that is kept lies (N, 2) as x, y."""
        height, width = frames.size
        base = self.camera(frames.shares, coarsest, frames.size)
        rows, corners = [], []
        for k, change in enumerate(scaled):
            h, w = change.size if change.kind == "scale" else frames.size
            shares = torch.stack(
                (base[k, 0, 0] / width, base[k, 1, 1] / height, base[k, 0, 2] / width, base[k, 1, 2] / height)
            )
            rows.append(intrinsics_matrix(shares[None], h, w)[0])
            top, left = (max(0, value) for value in change.corner)
            corners.append((float(left), float(top)))
        return torch.stack(rows), base.new_tensor(corners)


def _each(x: Tensor, changes: Sequence[Rearrangement], scale: int = 0, undo: bool = False) -> Tensor:
    """(F, N, C, h, w) with every sample's alteration done or undone; itself where there is none."""
    if all(change.kind == "none" for change in changes):
        return x
    apply = undo_rearrangement if undo else rearrange
    return torch.stack([apply(x[:, k], change, scale) for k, change in enumerate(changes)], 1)
