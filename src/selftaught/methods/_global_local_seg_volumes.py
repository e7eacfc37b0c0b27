"""Annotated volumes of global and local contrast: which are learnt from, and what the U-Net makes of whole ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, cat

from selftaught import objectives, views
from selftaught.data.slices import Preparation, Slices, label_values, volume_sets
from selftaught.data.source import Source
from selftaught.engine.method import Method
from selftaught.errors import UserError
from selftaught.evaluation import dice
from selftaught.networks.unet import UNet
from selftaught.views import Recipe, View

_ROWS = 32
_MEND = "give --labelled 'pairs:?volume=SCANS/&mask=MASKS/'"


class VolumeSegmentation(Method):
    """The part of :class:`selftaught.methods.global_local_seg.GlobalLocalSeg` that segments, and learns to from masks.

    Attributes:
        net: the U-Net.
    """

    net: UNet

    @property
    def structures(self) -> list[str]:
        """Names of the classes, the background first; empty before the masks are known."""
        return [name.strip() for name in self.config.structures.split(",")] if self.config.structures else []

    @property
    def preparation(self) -> Preparation:
        """How volumes become slices."""
        return Preparation(self.config.image_size, self.config.pixel, self.config.axis)

    # ---- data ------------------------------------------------------------------------------------------------
    @classmethod
    def streams(cls, source: Any, given: dict[str, Any], opened: Callable[..., Any]) -> dict[str, Any]:
        """All volumes, annotated ones (of the same source where it has masks), and such that validate."""
        found = {"data": source} | {role: opened(given[role]) for role in cls.roles[1:] if role in given}
        if "labelled" not in found:
            if "mask" not in source.fields:
                raise UserError(f"{source.name} has no masks to learn structures from; {_MEND}")
            found["labelled"] = source
        for role in cls.roles[1:]:
            if role in found and "mask" not in found[role].fields:
                raise UserError(f"--{role} {found[role].name} has no masks; {_MEND.replace('labelled', role)}")
        return found

    @staticmethod
    def annotated(sources: dict[str, Any], config: Any) -> dict[str, Any]:
        """The volumes whose masks are learnt from, and those that say when to stop: drawn, or a stream."""
        whole = sources["labelled"]
        held = 0 if "validation" in sources else config.validation_volumes
        rows, rest = volume_sets(len(whole), config.labelled_volumes, held, config.subset)
        found = {"labelled": whole.subset(rows, "annotated")}
        if "validation" in sources:
            found["validation"] = sources["validation"]
        elif len(rest):
            found["validation"] = whole.subset(rest, "to validate")
        return found

    @classmethod
    def arranged(cls, sources: dict[str, Any], config: Any) -> dict[str, Any]:
        """Volumes as slices; of those with masks the chosen ones."""
        preparation = Preparation(config.image_size, config.pixel, config.axis)
        found: dict[str, Any] = {"data": Slices(sources["data"], preparation, parts=config.n_parts)}
        if "labelled" not in sources:
            return found
        masked = cls.annotated(sources, config)
        if not config.structures:
            config.structures = ",".join(_structures(list(masked.values())))
        for role, source in masked.items():
            found[role] = Slices(source, preparation, parts=1, values=_values(config.structures.split(",")))
        return found

    def views_of(self, role: str, source: Any) -> Any:
        """Slices as they are, with their masks where these are learnt from."""
        if role == "data":
            return None
        return Recipe((View("volume", "volume", ()), View("mask", "mask", ())))

    # ---- learning from masks ---------------------------------------------------------------------------------
    def _dice(self, x: Tensor, mask: Tensor) -> Tensor:
        """Soft Dice of slices (N, C, S, S) and their masks (N, S, S), both augmented as the options say in training."""
        c = self.config
        if self.training and c.augment == "paper":
            change = {"brightness": c.annotated_intensity, "contrast": 2 * c.annotated_intensity}
            x, mask = views.augment_labelled(x, mask, **change)
        if not (self.training and c.mixup):
            return objectives.soft_dice(self.net(x), mask)
        shares = torch.nn.functional.one_hot(mask, max(2, len(self.structures))).movedim(-1, 1).to(x.dtype)
        x, shares = views.mix_up(x, shares, c.mixup)
        return objectives.soft_dice(self.net(x), shares)

    @torch.no_grad()
    def watched(self, source: Any) -> float:
        """1 - the mean 3-D Dice of the structures of the volumes that validate, as prepared slices."""
        was = self.training
        self.eval()
        found, classes = [], max(2, len(self.structures))
        for v in np.unique(source.volume_of):
            rows = np.flatnonzero(source.volume_of == v)
            x = torch.from_numpy(np.stack([source.read(int(i))[0] for i in rows])).permute(0, 3, 1, 2)
            guess = np.concatenate([self._shares(part).argmax(1) for part in x.split(_ROWS)])
            truth = np.stack([source.sample(int(i), ["mask"])["mask"] for i in rows])
            found.append(np.nanmean(np.r_[dice(guess, truth, classes)[1:], np.nan if truth.any() else 0.0]))
        self.train(was)
        return 1 - float(np.mean(found))

    # ---- what one keeps --------------------------------------------------------------------------------------
    def inputs(self, batch: dict[str, Any]) -> Tensor:
        """Slices (N, C, S, S)."""
        x: Tensor = batch["volume"]
        return x[:, :, 0]

    def _shares(self, x: Tensor) -> np.ndarray:
        shares: np.ndarray = self.net(x.to(self.device)).float().softmax(1).cpu().numpy()
        return shares

    @torch.no_grad()
    def segment(self, volume: np.ndarray, spacing: np.ndarray | None = None, name: str = "volume") -> np.ndarray:
        """Classes (D, H, W) uint8 of a volume (D, H, W, C), slice by slice, at the volume's own resolution.

        Raises:
            SampleError: a volume that can't be prepared.
        """
        slices = torch.from_numpy(self.preparation.slices(volume, spacing, name)).permute(0, 3, 1, 2)
        shares = np.concatenate([self._shares(part) for part in slices.split(_ROWS)])
        return self.preparation.back(shares, volume.shape[:3], spacing)

    @torch.no_grad()
    def slice_features(self, volume: np.ndarray, spacing: np.ndarray | None, name: str = "volume") -> np.ndarray:
        """The mean of the encoder's last map (n, D) of every slice."""
        slices = torch.from_numpy(self.preparation.slices(volume, spacing, name)).permute(0, 3, 1, 2)
        parts = [self.net.encoder(x.to(self.device))[-1].mean((2, 3)) for x in slices.split(_ROWS)]
        return cat(parts).float().cpu().numpy()

    @property
    def mask_values(self) -> list[int]:
        """The number that stands for each class in masks."""
        return _values(self.structures)

    def predict(self, batch: dict[str, Any]) -> Tensor:
        """Logits (N, classes, S, S) of slices."""
        logits: Tensor = self.net(self.inputs(batch))
        return logits

    def features(self, batch: dict[str, Any]) -> Tensor:
        """The mean of the encoder's last map (N, D) of slices."""
        return self.net.encoder(self.inputs(batch))[-1].mean((2, 3))

    def deliverable(self) -> UNet:
        """The U-Net: prepared slices in, logits out."""
        return self.net

    def deliverable_spec(self) -> dict[str, Any]:
        """How to build it, and how slices are prepared."""
        c = self.config
        prepared = {"side": c.image_size, "pixel": c.pixel, "axis": c.axis, "intensity": "(x - p1) / (p99 - p1)"}
        return self.net.spec | {"prepared": prepared, "structures": self.structures}


def _values(structures: list[str]) -> list[int]:
    """The number of each class in masks: the names, where they are numbers, else their places."""
    names = [name.strip() for name in structures]
    whole = all(name.lstrip("-").isdigit() for name in names)
    return [int(name) for name in names] if whole else list(range(len(names)))


def _structures(masked: list[Source]) -> list[str]:
    """Names of the structures: the sources' own, else the numbers in their masks."""
    known = next((source.structures for source in masked if source.structures), None)
    if known:
        return list(known)
    return [str(value) for value in sorted(set().union(*(label_values(source) for source in masked)))]
