"""The claim of gaussian2scene."""

from __future__ import annotations

import torch

from selftaught.claims._comparison import Arm, Claim
from selftaught.claims._facts import Fact
from selftaught.networks.gaussians import Gaussians
from selftaught.networks.splatting import render_gaussians

__all__ = ["claim", "fact"]


def claim() -> Claim:
    """What the paper says, and the smallest fair comparison that could show it.

    All arms take as many steps: in place of splatting, stage 1 goes on with its own loss. Features of single points are
    judged by a linear layer on rooms never seen.
    """
    return Claim(
        method="gaussian2scene",
        says="Splatting the restored points (stage 2) teaches a better encoder of scenes than masking alone (stage 1).",
        data="room-frames?train=8&test=6&frames=4",
        arms=(
            Arm("stage 2", "gaussian2scene"),
            Arm("stage 1", "gaussian2scene", {"geometry_weight": 0.0, "picture_weight": 0.0}),
            Arm("scratch", "gaussian2scene", {"steps": 1, "lr": 0.0, "gaussian_epochs": 0.0, "gaussian_steps": 0},
                kind="random"),
            Arm("points only", "gaussian2scene",
                {"branches": "points", "geometry_weight": 0.0, "picture_weight": 0.0}),
            Arm("image only", "gaussian2scene", {"branches": "image"}),
        ),
        common={
            "points": 384, "patches": 24, "neighbours": 16, "width": 64, "heads": 4, "point_depth": 2,
            "image_depth": 1, "joint_depth": 1, "joint_decoder": 1, "decoder_depth": 1, "image_height": 48,
            "image_width": 64, "gaussians": 6, "render_scale": 2, "batch_size": 8, "warmup_epochs": 1.0, "lr": 2e-3,
            "gaussian_lr": 1e-3, "precision": "32", "workers": 0, "steps": 30, "gaussian_steps": 10,
        },
        score=("scene-segmentation", "miou"),
        also=(("scene-segmentation", "pixel_accuracy"), ("run", "seconds")),
        full={
            "data": "room-frames?train=48&test=16", "points": 2048, "patches": 64, "neighbours": 32, "width": 128,
            "steps": 3000, "gaussian_steps": 600, "batch_size": 16,
        },
    )  # fmt: skip


def fact() -> Fact:
    """What holds exactly about the renderer, whatever the experiment shows."""
    generator = torch.Generator().manual_seed(0)
    means = torch.rand(30, 3, generator=generator, dtype=torch.float64) + torch.tensor([-0.5, -0.5, 2.0])
    turns = torch.randn(30, 4, generator=generator, dtype=torch.float64)
    scales, colours = (0.1 * torch.rand(30, 3, generator=generator, dtype=torch.float64) + 0.02 for _ in range(2))
    scene = Gaussians(means, turns, scales, torch.full((30,), 0.5, dtype=torch.float64), colours)
    camera = torch.tensor([[30.0, 0, 12], [0, 30, 12], [0, 0, 1]], dtype=torch.float64)
    pose = torch.eye(4, dtype=torch.float64)
    made = render_gaussians(scene, camera, pose, (24, 24), tile=24).image
    others = (scene._replace(quaternions=-2 * turns), Gaussians(*(part.flip(0) for part in scene)))
    again = [render_gaussians(other, camera, pose, (24, 24), tile=5).image for other in others]
    worst = [(other - made).abs().max().item() for other in again]
    return Fact(
        "A picture of Gaussians depends neither on a quaternion's sign or length, nor on order or tiles.",
        {"change with other quaternions": worst[0], "change in another order": worst[1]},
        max(worst) < 1e-9,
    )
