"""Correspondences with a run's encoder: images beside turned, moved and mirrored copies of themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from selftaught import evaluation
from selftaught.data import Source, as_uint8, open_source
from selftaught.data.pixels import conform
from selftaught.engine.method import Method
from selftaught.errors import SampleError, UserError
from selftaught.evaluation import Result
from selftaught.evaluation.correspondence import correspondence
from selftaught.run.contenders import some
from selftaught.run.suites._suite import suite
from selftaught.run.suites.dense import mapped_models, side_of

if TYPE_CHECKING:
    from selftaught.run.bench import Bench

NAME = "correspondence"
_LIMIT, _BATCH = 200, 32
_TURN, _ZOOM, _MOVE, _LIGHT = 30.0, 1.3, 0.1, 0.3


@suite(NAME)
def judge(bench: Bench) -> dict[str, Result]:
    """PCK of nearest tokens between images and moved copies: up to 30 degrees, 1.3 times larger or smaller, a tenth of
    the side away, mirrored or not, of another brightness. The raw input is the pixels of each token's place.

    Raises:
        UserError: an encoder without maps, no image that can be read.
    """
    source = some(open_source(bench.data, modality="image", split="all", seed=bench.settings.seed), _LIMIT)
    found: dict[str, Result] = {}
    for kind, method in mapped_models(NAME, bench):
        first, second, moves = _views(method, source, side_of(method, bench), bench.settings.seed)
        network: Any = method.deliverable()
        here, there = (_through(network, method, views) for views in (first, second))
        grid = (here.shape[2], here.shape[3])
        where = _places(moves, grid)
        found[kind] = correspondence(here, there, where)
        if kind == "this" and bench.baselines:
            bench.say(f"{NAME}: raw")
            here, there = (_pixels(method.normalise(views), grid) for views in (first, second))
            found["raw"] = correspondence(here, there, where)
    return {kind: found[kind] for kind in ("this", "original", "random", "raw") if kind in found}


def draw_move(rng: np.random.Generator) -> np.ndarray:
    """(2, 3) from (x, y) in shares of the first view's side to those of the second: turn, zoom, mirror, shift."""
    angle, zoom = np.radians(rng.uniform(-_TURN, _TURN)), np.exp(rng.uniform(-1, 1) * np.log(_ZOOM))
    turn = zoom * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    turn = turn @ np.diag([rng.choice([-1.0, 1.0]), 1.0])
    shift = rng.uniform(-_MOVE, _MOVE, 2)
    return np.column_stack([turn, 0.5 + shift - turn @ [0.5, 0.5]])


def move(image: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """A square image (S, S, C) uint8 under `draw_move`'s matrix; what comes from outside is its mirror image."""
    side = len(image)
    pixels = matrix.copy()  # pixel centres lie half a pixel inside
    pixels[:, 2] = side * matrix[:, 2] + matrix[:, :2] @ [0.5, 0.5] - 0.5
    return cv2.warpAffine(image, pixels, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)


def _views(method: Method, source: Source, side: int, seed: int) -> tuple[Tensor, Tensor, np.ndarray]:
    """uint8 images (n, C, side, side), their moved copies, and the moves (n, 2, 3); the same for every contender."""
    first, second, moves = [], [], []
    for i in range(len(source)):
        try:
            image = conform(source.sample(i, want=("image",))["image"], method.channels, str(source.names[i]))
        except SampleError:
            continue
        rng = np.random.default_rng((seed, i))
        pixels = as_uint8(image, source.scaled_as(method.value_range))
        small = cv2.resize(pixels, (side, side), interpolation=cv2.INTER_AREA).reshape(side, side, -1)
        matrix = draw_move(rng)
        moved = move(small, matrix).reshape(side, side, -1) * (1 + rng.uniform(-_LIGHT, _LIGHT))
        first.append(small)
        second.append(moved.clip(0, 255).astype(np.uint8))
        moves.append(matrix)
    if not first:
        raise UserError(f"{source.name}: none of its {len(source)} samples can be used; run: selftaught data check")
    tensors = [torch.from_numpy(np.stack(views).transpose(0, 3, 1, 2).copy()) for views in (first, second)]
    return tensors[0], tensors[1], np.stack(moves)


@torch.no_grad()
def _through(network: Any, method: Method, images: Tensor) -> Tensor:
    """Maps (n, F, h, w) of uint8 images."""
    mode = network.training
    network.eval()
    try:
        parts = [network.maps(method.normalise(part.to(method.device))).float().cpu() for part in images.split(_BATCH)]
    finally:
        network.train(mode)
    return torch.cat(parts)


def _pixels(images: Tensor, grid: tuple[int, int], cells: int = 4) -> Tensor:
    """The pixels around each token's place as its features: (n, C cells^2, h, w)."""
    size = (cells * grid[0], cells * grid[1])
    small = F.interpolate(images.float().cpu(), size=size, mode="bilinear", antialias=True, align_corners=False)
    return F.pixel_unshuffle(small, cells)


def _places(moves: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """(n, h, w, 2): where the centre of each token of the first view lies in the second."""
    centres = evaluation.token_centres(grid).numpy()
    return np.einsum("nij,hwj->nhwi", moves[:, :, :2], centres) + moves[:, None, None, :, 2]
