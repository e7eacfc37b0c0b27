"""Optical flow: PWC-Net of any size, torchvision's RAFT, and Lucas and Kanade's method with a small network on top.

Sun et al., "PWC-Net: CNNs for optical flow using pyramid, warping, and cost volume", CVPR 2018, arXiv 1709.02371.
"""

from __future__ import annotations

import math
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selftaught.errors import UserError, first_line
from selftaught.networks.frozen import Frozen
from selftaught.networks.warping import flow_warp

__all__ = ["PWCNet", "SmallFlowNet", "correlation", "lucas_kanade", "pwc_net", "raft", "synthetic_flow"]

_SLOPE = 0.1
_UNIT = 20.0
_NUMBERS = ("One", "Two", "Thr", "Fou", "Fiv", "Six")


def correlation(first: Tensor, second: Tensor, radius: int = 4) -> Tensor:
    """Cost volume: the mean over channels of the product with every shift of the other map.

    Args:
        first: (N, C, H, W).
        second: same shape; zero outside.
        radius: largest shift r in pixels.

    Returns:
        (N, (2 r + 1)^2, H, W): shifts row by row, from up left to down right.

    Raises:
        UserError: other shapes.
    """
    if first.shape != second.shape or first.dim() != 4:
        raise UserError(f"maps: shapes {tuple(first.shape)} and {tuple(second.shape)}; pass two of (N, C, H, W)")
    height, width = first.shape[2:]
    padded = F.pad(second, (radius,) * 4)
    shifts = range(2 * radius + 1)
    found = [
        (first * padded[:, :, down : down + height, across : across + width]).mean(1)
        for down in shifts
        for across in shifts
    ]
    return torch.stack(found, 1)


def _convolution(inputs: int, outputs: int, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    layer = nn.Conv2d(inputs, outputs, 3, stride, dilation, dilation)
    return nn.Sequential(layer, nn.LeakyReLU(_SLOPE))


class _Decoder(nn.Module):
    """Flow of one level: its cost volume, features, and the flow and features of the coarser level; densely joined."""

    def __init__(self, inputs: int, dense: Sequence[int], coarser: int | None) -> None:
        super().__init__()
        if coarser is not None:
            self.upflow = nn.ConvTranspose2d(2, 2, 4, 2, 1)
            self.upfeatures = nn.ConvTranspose2d(coarser, 2, 4, 2, 1)
        self.layers = nn.ModuleList()
        for width in dense:
            self.layers.append(_convolution(inputs, width))
            inputs += width
        self.flow = nn.Conv2d(inputs, 2, 3, 1, 1)
        self.outputs = inputs

    def larger(self, flow: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """Flow and features of the coarser level at this one's size."""
        return self.upflow(flow), self.upfeatures(features)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        for layer in self.layers:
            x = torch.cat((layer(x), x), 1)
        return self.flow(x), x


class PWCNet(nn.Module):
    """Pyramid, warping, cost volume. The defaults are the paper's network (9,374,274 parameters).

    Args:
        channels: of a picture.
        widths: of the levels of the pyramid, fine to coarse; each is half the size of the one before.
        finest: level at which the flow ends, 1 the finest; it is then enlarged to the picture.
        dense: channels of the decoders' layers.
        refiner: channels of the dilated layers that look at the flow last.
        radius: of the cost volumes.
        align_corners: how features are warped (see `flow_warp`).
    """

    def __init__(
        self,
        channels: int = 3,
        *,
        widths: Sequence[int] = (16, 32, 64, 96, 128, 196),
        finest: int = 2,
        dense: Sequence[int] = (128, 128, 96, 64, 32),
        refiner: Sequence[int] = (128, 128, 128, 96, 64, 32),
        radius: int = 4,
        align_corners: bool = True,
    ) -> None:
        super().__init__()
        if not 1 <= finest <= len(widths):
            raise UserError(f"finest={finest}: the pyramid has levels 1 to {len(widths)}")
        self.finest, self.radius, self.align_corners = finest, radius, align_corners
        self.multiple = 2 ** len(widths)
        self.pyramid = nn.ModuleList()
        inputs = channels
        for width in widths:
            self.pyramid.append(
                nn.Sequential(*_convolution(inputs, width, 2), *_convolution(width, width), *_convolution(width, width))
            )
            inputs = width
        costs = (2 * radius + 1) ** 2
        coarser: int | None = None
        self.decoders = nn.ModuleList()
        for level in range(len(widths), finest - 1, -1):
            decoder = _Decoder(costs if coarser is None else costs + widths[level - 1] + 4, dense, coarser)
            coarser = decoder.outputs
            self.decoders.append(decoder)
        assert coarser is not None
        layers: list[nn.Module] = []
        dilations = [*(2**k for k in range(len(refiner) - 1)), 1]
        for width, dilation in zip(refiner, dilations, strict=True):
            layers.extend(_convolution(coarser, width, dilation=dilation))
            coarser = width
        self.refiner = nn.Sequential(*layers, nn.Conv2d(coarser, 2, 3, 1, 1))

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Flow in pixels.

        Args:
            first: (N, C, H, W) in [0, 1], of any size.
            second: what is to be found there, same shape.

        Returns:
            (N, 2, H, W): what is at p in the first picture is at p + flow in the second.

        Raises:
            UserError: other shapes.
        """
        _same(first, second)
        height, width = first.shape[2:]
        size = [math.ceil(side / self.multiple) * self.multiple for side in (height, width)]
        both = torch.cat((first, second))
        if size != [height, width]:
            both = F.interpolate(both, size=size, mode="bilinear", align_corners=False)
        coarse = self._coarse(both)
        flow = _UNIT * F.interpolate(coarse, size=(height, width), mode="bilinear", align_corners=False)
        return flow * flow.new_tensor([width / size[1], height / size[0]])[:, None, None]

    def _coarse(self, both: Tensor) -> Tensor:
        levels = []
        for stage in self.pyramid:
            both = stage(both)
            levels.append(both.chunk(2))
        flow: Tensor | None = None
        found: Tensor | None = None
        for level, decoder in zip(range(len(levels), self.finest - 1, -1), self.decoders, strict=True):
            assert isinstance(decoder, _Decoder)
            one, other = levels[level - 1]
            if flow is None or found is None:
                seen = F.leaky_relu(correlation(one, other, self.radius), _SLOPE)
            else:
                flow, found = decoder.larger(flow, found)
                there = flow_warp(other, flow * (_UNIT / 2**level), align_corners=self.align_corners)
                seen = F.leaky_relu(correlation(one, there, self.radius), _SLOPE)
                seen = torch.cat((seen, one, flow, found), 1)
            flow, found = decoder(seen)
        assert flow is not None
        assert found is not None
        return flow + self.refiner(found)


def lucas_kanade(
    first: Tensor, second: Tensor, *, levels: int = 4, iterations: int = 2, window: int = 7, damping: float = 1e-4
) -> Tensor:
    """Flow by least squares in windows, coarse to fine (Lucas and Kanade, 1981); nothing is learnt, gradients flow.

    At every level, of half the size of the next: where the second picture, warped by the flow so far, differs from the
    first, the 2 x 2 system of its window is solved for the step, of at most a pixel.

    Args:
        first: (N, C, H, W) in [0, 1]; the channels' mean is looked at.
        second: same shape.
        levels: of the pyramid; fewer where the sides would fall below 8.
        iterations: steps at each level.
        window: side in pixels, odd.
        damping: added to the system's diagonal, so that flat places stay where the coarser level put them.

    Returns:
        (N, 2, H, W) pixels.

    Raises:
        UserError: other shapes.
    """
    _same(first, second)
    pyramid = [torch.stack((first.mean(1, keepdim=True), second.mean(1, keepdim=True)))]
    while len(pyramid) < levels and min(pyramid[-1].shape[3:]) >= 16:
        pyramid.append(F.avg_pool2d(pyramid[-1].flatten(0, 1), 2, ceil_mode=True).unflatten(0, (2, -1)))
    flow: Tensor | None = None
    for one, other in reversed(pyramid):
        size = (one.shape[2], one.shape[3])
        flow = one.new_zeros((len(one), 2, *size)) if flow is None else 2 * _enlarged(flow, size)
        for _ in range(iterations):
            flow = _box(flow + _lucas_kanade_step(one, other, flow, window, damping), 3)
    assert flow is not None
    return flow


def _lucas_kanade_step(one: Tensor, other: Tensor, flow: Tensor, window: int, damping: float) -> Tensor:
    there = flow_warp(other, flow, align_corners=True, masked=False)
    padded = F.pad((one + there) / 2, (1, 1, 1, 1), mode="replicate")
    across = (padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]) / 2
    down = (padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]) / 2
    missing = one - there
    products = (across * across, across * down, down * down, across * missing, down * missing)
    xx, xy, yy, xt, yt = _box(torch.cat(products, 1), window).split(1, 1)
    xx, yy = xx + damping, yy + damping
    step = torch.cat((yy * xt - xy * yt, xx * yt - xy * xt), 1) / (xx * yy - xy * xy)
    return step.clamp(-1, 1)


def _box(x: Tensor, side: int) -> Tensor:
    return F.avg_pool2d(x, side, 1, side // 2, count_include_pad=False)


def _enlarged(x: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


class SmallFlowNet(nn.Module):
    """`lucas_kanade`, and a few convolutions at half the size that mend it; at first they change nothing.

    Args:
        channels: of a picture.
        width: of the convolutions.
    """

    def __init__(self, channels: int = 3, width: int = 24) -> None:
        super().__init__()
        inputs, layers = 3 * channels + 2, list[nn.Module]()
        for dilation in (1, 2, 4, 1):
            layers.extend(_convolution(inputs, width, dilation=dilation))
            inputs = width
        self.body, self.last = nn.Sequential(*layers), nn.Conv2d(width, 2, 3, 1, 1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)  # type: ignore[arg-type]

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """(N, C, H, W) twice, in [0, 1], to flow (N, 2, H, W) in pixels.

        Raises:
            UserError: other shapes.
        """
        flow = lucas_kanade(first, second)
        there = flow_warp(second, flow, align_corners=True, masked=False)
        seen = F.avg_pool2d(torch.cat((first, there, first - there, flow / 8), 1), 2, ceil_mode=True)
        return flow + _enlarged(self.last(self.body(seen)), (flow.shape[2], flow.shape[3]))


def _same(first: Tensor, second: Tensor) -> None:
    if first.shape != second.shape or first.dim() != 4:
        raise UserError(f"pictures: shapes {tuple(first.shape)} and {tuple(second.shape)}; pass two (N, C, H, W)")


def synthetic_flow(
    n: int, height: int, width: int, *, most: float = 12.0, bend: float = 0.3, generator: torch.Generator | None = None
) -> Tensor:
    """Smooth random flows to learn from: a shift, a turn with a zoom, and gentle waves.

    Args:
        n: how many.
        height: in pixels.
        width: in pixels.
        most: largest shift in pixels to each side.
        bend: what turn, zoom and waves add at most, as a share of ``most``.
        generator: of the chance.

    Returns:
        (n, 2, height, width) float32.
    """
    shift = (2 * torch.rand(n, 2, 1, 1, generator=generator) - 1) * most
    matrix = (2 * torch.rand(n, 2, 2, generator=generator) - 1) * most * bend
    y, x = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    affine = (matrix @ torch.stack((x, y)).flatten(1)).unflatten(2, (height, width))
    coarse = (2 * torch.rand(n, 2, 4, 4, generator=generator) - 1) * most * bend
    return shift + affine + F.interpolate(coarse, size=(height, width), mode="bicubic", align_corners=True)


def pwc_net(weights: str | Path, channels: int = 3) -> Frozen:
    """The paper's PWC-Net with weights from a file, frozen.

    Args:
        weights: a state dict (.pth, .pytorch, .safetensors) of the usual PyTorch ports, whose names begin with
            ``moduleExtractor`` or ``netExtractor``, or of :class:`PWCNet`.
        channels: 3.

    Raises:
        UserError: no such file, or weights of another network.
    """
    path = Path(weights)
    if not path.is_file():
        raise UserError(f"--flow-weights {weights}: no such file; give PWC-Net's weights (.pth, .safetensors)")
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        state: Any = load_file(path)
    else:
        state = torch.load(path, map_location="cpu", weights_only=True)
    module = PWCNet(channels)
    try:
        module.load_state_dict(_translated(state))
    except (RuntimeError, AttributeError) as error:
        reason = first_line(error)
        raise UserError(f"--flow-weights {weights}: not PWC-Net's weights ({reason})") from None
    return Frozen(module, name=f"PWC-Net of {path.name}")


def _translated(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names of PyTorch ports of PWC-Net to those of :class:`PWCNet`."""
    found = {}
    for name, value in state.items():
        parts = name.replace("net", "module").split(".")
        if not parts[0].startswith("module"):
            found[name] = value
            continue
        where = parts[0].removeprefix("module")
        if where == "Extractor":
            parts = ["pyramid", str(_NUMBERS.index(parts[1].removeprefix("module"))), *parts[2:]]
        elif where == "Refiner":
            parts = ["refiner", *parts[2:]]
        else:
            at = ("Six", "Fiv", "Fou", "Thr", "Two").index(where)
            inner = parts[1].removeprefix("module")
            layer = {"Upflow": ["upflow"], "Upfeat": ["upfeatures"], "Six": ["flow"]}.get(inner)
            rest = parts[2:] if layer is None else parts[3:] if inner == "Six" else parts[2:]
            parts = ["decoders", str(at), *(layer or ["layers", str(_NUMBERS.index(inner))]), *rest]
        found[".".join(parts)] = value
    return found


class _Raft(nn.Module):
    """torchvision's RAFT between pictures in [0, 1]."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        height, width = first.shape[2:]
        size = [max(128, math.ceil(side / 8) * 8) for side in (height, width)]
        beyond = (0, size[1] - width, 0, size[0] - height)
        one, other = (F.pad(2 * x.expand(-1, 3, -1, -1) - 1, beyond, mode="replicate") for x in (first, second))
        flow: Tensor = self.network(one, other)[-1]
        return flow[..., :height, :width]


def raft(size: Literal["small", "large"] = "small") -> Frozen:
    """torchvision's RAFT with its own weights, frozen: (N, 3 or 1, H, W) pictures in [0, 1] to flow in pixels.

    The weights come from torch's cache or are fetched.

    Raises:
        UserError: they can't be fetched.
    """
    from torchvision.models import get_model, get_model_weights

    entry = get_model_weights(f"raft_{size}").DEFAULT
    cached = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlsplit(entry.url).path).name
    network = get_model(f"raft_{size}", weights=None)
    try:
        if not cached.exists():  # torch waits without end for a network that swallows packets
            socket.create_connection((urlsplit(entry.url).hostname or "", 443), timeout=3).close()
        state = entry.get_state_dict(progress=False, check_hash=True, weights_only=True, map_location="cpu")
    except OSError as error:
        raise UserError(f"RAFT's weights can't be fetched ({error}); use --flow small, which learns its own") from None
    network.load_state_dict(state)
    return Frozen(_Raft(network), name=f"RAFT ({size}) of torchvision")
