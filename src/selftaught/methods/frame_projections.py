"""Frame projections: a signal, its Fourier transform and its wavelet transform are its views; no augmentation (2025).

Three encoders, each with a projector, give unit vectors e_t, e_F, e_W. N is NT-Xent with temperature 0.15:

    L_ID  = N(e_t, e_W) + N(e_t, e_F) + N(e_W, e_F)
    L_map = ( mean|Phi_F(e_t) - e_F| + mean|Phi_W(e_t) - e_W| ) / B
    stage 1, pretrain:  L_ID + L_map;   the epoch of lowest loss is kept
    stage 2, map:       all frozen; two tiny mappers learn r_t -> r_F and r_t -> r_W on the encoders' outputs (L1)

At inference no transform is computed: f = [ Phi_h^F(r_t), r_t, Phi_h^W(r_t) ], 384 numbers. arXiv 2510.22655.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, cat, nn
from torch.nn.functional import normalize

from selftaught import networks, objectives
from selftaught.catalog.rules import Count, Positive, Range
from selftaught.engine.distributed import gather
from selftaught.engine.method import LearningRateScaling, Method, MethodConfig, Optimizer, Stage
from selftaught.errors import UserError
from selftaught.views import frames

__all__ = ["FrameProjections"]


@dataclass
class Config(MethodConfig):
    """Frame projections' options; the defaults are the paper's."""

    optimizer: Optimizer = "adam"
    lr: float = 3e-3
    lr_scaling: LearningRateScaling = "none"
    weight_decay: float = 1e-6
    temperature: Positive = 0.15
    """Temperature of the three NT-Xent terms."""
    views: Literal["both", "fourier", "wavelet"] = "both"
    """Which transforms are views besides the signal."""
    frame: Literal["cwt", "stft", "dwt"] = "cwt"
    """Frame of the wavelet view: continuous Morlet, short-time Fourier or Haar bases."""
    scales: Count = 48
    """Scales of the wavelet view, geometric from 1 to max_scale."""
    max_scale: Annotated[float, Range(1)] = 128.0
    """Largest wavelet scale, in samples."""
    mapper: Literal["conv", "linear", "mlp"] = "conv"
    """Kind of the four mappers."""
    map_penalty: Literal["l1", "mse"] = "l1"
    """Distance of the mapping terms."""
    map_scale: Literal["per_batch", "none"] = "per_batch"
    """per_batch divides L_map by the batch size once more, as the official code does."""
    map_at_inference: bool = True
    """Append the two mapped representations to the features (384 instead of 128)."""
    keep_best: bool = True
    """Go on from the weights of the epoch with the lowest training loss."""


PRESETS = {
    "paper": {"epochs": 256, "batch_size": 1024},
    "readme": {"epochs": 256, "batch_size": 1024, "lr": 1e-3},
    "clemson": {"epochs": 256, "batch_size": 512},
    "laptop": {"epochs": 60, "batch_size": 256, "lr": 1e-3},
}

_WIDTH = 128


class FrameProjections(Method):
    """Sensor series of any number of channels and any window length."""

    slug = "frame-projections"
    config_class = Config
    config: Config
    modalities = ("series",)
    default_data = "watch"
    stages = ("pretrain", "map")

    def build(self) -> None:
        """Encoders, projectors, and mappers of embeddings (z) and of representations (h)."""
        c, length = self.config, self.length or 200
        self.length = length
        self.encoder = networks.ResNet1d(self.channels)
        self.names = {"both": ("fourier", "wavelet")}.get(c.views, (c.views,))
        self.encoders = nn.ModuleDict()
        if "fourier" in self.names:
            self.encoders["fourier"] = networks.FourierEncoder(self.channels, length)
        if "wavelet" in self.names:
            rows, columns = self.wavelet(torch.zeros(1, self.channels, length)).shape[1:3]
            self.encoders["wavelet"] = networks.WaveletEncoder(self.channels, columns, scales=rows)
        self.projectors = nn.ModuleDict({name: self._projector() for name in ("time", *self.names)})
        self.embedding_mappers = nn.ModuleDict({n: networks.mapper(c.mapper, _WIDTH, hidden=64) for n in self.names})
        self.mappers = nn.ModuleDict({n: networks.mapper(c.mapper, _WIDTH, hidden=1) for n in self.names})
        self._cache: dict[int, Tensor] = {}
        self._known: dict[int, dict[str, Tensor]] = {}

    @staticmethod
    def _projector() -> nn.Module:
        return networks.mlp([_WIDTH, _WIDTH, _WIDTH], norm="none", hidden_bias=True, out_bias=True)

    def wavelet(self, x: Tensor) -> Tensor:
        """The wavelet view (N, S, T', C) of series (N, C, T)."""
        c = self.config
        if c.frame == "stft":
            return frames.stft(x)
        if c.frame == "dwt":
            return frames.dwt(x)
        return frames.scalogram(x, scales=frames.geometric_scales(c.scales, c.max_scale))

    def _cached_wavelet(self, batch: dict[str, Any]) -> Tensor:
        """Each window's transform is computed once per run, then kept in half precision."""
        index = batch["index"].tolist()
        new = [k for k, i in enumerate(index) if i not in self._cache]
        if new:
            with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
                for k, view in zip(new, self.wavelet(batch["series"][new].float()), strict=True):
                    self._cache[index[k]] = view.half()
        return torch.stack([self._cache[i].float() for i in index])

    def representations(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """r (N, 128) of the signal and of each transform."""
        x = batch["series"].float()
        found = {"time": self.encoder(x)}
        if "fourier" in self.names:
            with torch.autocast(x.device.type, enabled=False):
                magnitude, phase = frames.spectrum(x)
            found["fourier"] = self.encoders["fourier"](magnitude, phase)
        if "wavelet" in self.names:
            found["wavelet"] = self.encoders["wavelet"](self._cached_wavelet(batch))
        return found

    def loss(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """The terms of the current stage."""
        if self.stage == "map":
            return self._mapping_loss(batch)
        c, found = self.config, self.representations(batch)
        e = {n: gather(normalize(self.projectors[n](r).float(), eps=1e-8)) for n, r in found.items()}
        mapped = {n: self.embedding_mappers[n](e["time"]).float() for n in self.names}
        return objectives.frame_projections_terms(
            e["time"],
            e.get("wavelet"),
            e.get("fourier"),
            temperature=c.temperature,
            mapped_w=mapped.get("wavelet"),
            mapped_f=mapped.get("fourier"),
            map_scale=c.map_scale,
            map_loss=c.map_penalty,
        )

    def _frozen(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Representations of the frozen encoders: the same in every epoch, so computed once per window."""
        index = batch["index"].tolist()
        new = [k for k, i in enumerate(index) if i not in self._known]
        if new:
            part = {"series": batch["series"][new], "index": batch["index"][new]}
            with torch.no_grad():
                found = self.representations(part)
            for k, row in enumerate(new):
                self._known[index[row]] = {name: r[k].float() for name, r in found.items()}
        return {name: torch.stack([self._known[i][name] for i in index]) for name in ("time", *self.names)}

    def _mapping_loss(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        found = self._frozen(batch)
        mapped = {n: self.mappers[n](found["time"]) for n in self.names}
        return objectives.frame_projections_mappers_terms(
            mapped.get("wavelet"),
            mapped.get("fourier"),
            found.get("wavelet"),
            found.get("fourier"),
            map_loss=self.config.map_penalty,
        )

    # ---- stages ----------------------------------------------------------------------------------------------
    def enter_stage(self, stage: str) -> None:
        """Stage map: the encoders are frozen, in evaluation mode, only the two small mappers learn."""
        if stage not in self.stages:
            raise UserError(f"stage {stage!r}: it may be {', '.join(self.stages)}")
        self.stage = stage
        self._known = {}
        self.requires_grad_(stage == "pretrain")
        self.mappers.requires_grad_(stage == "map")

    def trained_modules(self) -> nn.Module:
        """Stage pretrain: all but the mappers of representations; stage map: those alone."""
        if self.stage == "map":
            return self.mappers
        return nn.ModuleList([self.encoder, self.encoders, self.projectors, self.embedding_mappers])

    def stage_plan(self, stage: str) -> Stage:
        """Go on from the epoch of lowest training loss; the mappers keep their last weights."""
        return Stage(keep="best" if stage == "pretrain" and self.config.keep_best else "last")

    def train(self, mode: bool = True) -> FrameProjections:
        """Frozen networks keep their BatchNorm statistics and drop nothing."""
        super().train(mode)
        if self.stage == "map":
            self.encoder.eval()
            self.encoders.eval()
        return self

    # ---- inference -------------------------------------------------------------------------------------------
    def predict(self, batch: dict[str, Any]) -> Tensor:
        """f (N, 384) = [mapped to Fourier, time, mapped to wavelet], or r_t (N, 128) without the mappers."""
        return self.deliverable()(batch["series"])

    def deliverable(self) -> nn.Module:
        """Time encoder and mappers."""
        return MappedEncoder(self.encoder, self.mappers if self.config.map_at_inference else nn.ModuleDict())

    def deliverable_spec(self) -> dict[str, Any]:
        """Sizes of the encoder and what its features are made of."""
        parts = [n for n in ("fourier", "time", "wavelet") if n == "time" or n in self.names]
        return {"name": "resnet1d", "channels": self.channels, "length": self.length, "features": parts}


class MappedEncoder(nn.Module):
    """Series (N,C,T) -> [Phi_F(r), r, Phi_W(r)], the transforms' representations estimated from the signal's."""

    def __init__(self, encoder: nn.Module, mappers: nn.ModuleDict) -> None:
        super().__init__()
        self.encoder, self.mappers = encoder, mappers

    def forward(self, x: Tensor) -> Tensor:
        """(N,C,T) -> (N,384)."""
        r = self.encoder(x)
        before = [self.mappers[n](r) for n in ("fourier",) if n in self.mappers]
        after = [self.mappers[n](r) for n in ("wavelet",) if n in self.mappers]
        return cat([*before, r, *after], dim=1)
