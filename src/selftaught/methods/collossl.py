"""ColloSSL: devices worn together are each other's views (IMWUT 6(1), 2022, arXiv 2202.00758).

    for a batch of one user: d_j = MMD of the norms of the anchor's and device j's windows
    positive: the closest device, same instants;  negatives: all others, other instants, weighted by 1 / d_j
    L = mean_b -log( P_b / (P_b + N_b) )                                            (see `objectives.collossl`)

One encoder for all devices, no projector, no augmentation. Baselines in the same code: ``simclr`` on the anchor alone
with rotated or noisy copies, ``transformations`` told apart and an ``autoencoder`` of its windows, ``supervised`` on
the anchor's labels or on those of ``all`` devices. Protocol ``device-finetune`` freezes the first two convolutions and
trains the rest on a share of the labels, beside an untrained encoder and En-Co-Training.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from selftaught import networks, objectives
from selftaught.catalog.rules import Count, Natural, Positive, Share
from selftaught.engine.method import LearningRateScaling, Method, MethodConfig, Optimizer, Stage
from selftaught.engine.orders import OneGroup
from selftaught.errors import UserError
from selftaught.methods._collossl_baselines import Reconstruction, Transformations
from selftaught.objectives.collossl import Selection, Strategy, pair_weights
from selftaught.views.series import jitter, rotation, scaling

__all__ = ["ColloSSL"]

_WHOLE = 512


@dataclass
class Config(MethodConfig):
    """ColloSSL's options; the defaults are the authors' script's."""

    optimizer: Optimizer = "adam"
    lr: float = 1e-4
    lr_scaling: LearningRateScaling = "none"
    weight_decay: float = 0.0
    mode: Literal["collossl", "simclr", "transformations", "autoencoder", "supervised", "supervised-all"] = "collossl"
    """The method; on the anchor alone SimCLR, eight transformations told apart (Saeed et al. 2019), or an autoencoder;
    the anchor's labels; the labels of all devices."""
    worn: str = ""
    """Names of the devices, parted by commas, in the order of the channels; empty: as the data say."""
    anchor: str = ""
    """Device that the encoder is for, by name; empty: the first; random: another one for every batch."""
    chosen_by: Strategy = "closest_pos_all_neg"
    """How positives and negatives are chosen by distance."""
    positives: str = ""
    """Devices to be positives, parted by commas, in place of the strategy."""
    negatives: str = ""
    """Devices to be negatives, parted by commas, in place of the strategy."""
    distance: Literal["norm", "axes"] = "norm"
    """Distance of two devices: MMD of their accelerations' norms, or the mean of that of the three axes."""
    selection: Literal["batch", "whole"] = "batch"
    """Choose in every batch, or once on the whole set; then the anchor itself is one negative more."""
    sampling: Literal["negatives", "synchronous", "asynchronous"] = "negatives"
    """What is taken at other instants than the anchor: the negatives, nothing, or positives, too."""
    draws: Count = 1
    """How often every negative device is drawn, each time permuted anew."""
    weighted: bool = True
    """Weigh negatives by 1 / distance."""
    temperature: Positive = 0.05
    """Temperature tau; the default of the authors' code is 0.1."""
    similarity: Literal["cosine", "keras_negative"] = "cosine"
    """cosine, as in the paper, or minus it, as released (it collapses)."""
    augment: Literal["none", "rotation", "noise"] = "none"
    """Turn each sensor's axes at random, or add noise (0.05) and scale (0.1); simclr rotates where it is none."""
    dropout: Share = 0.1
    """After every convolution."""
    per_device: Natural = 0
    """Channels of a device, three of acceleration first, then three of rotation; 0: as many as the data have."""
    patience: Natural = 20
    """Epochs without a lower mean loss after which training ends; 0 never."""


PRESETS = {
    "realworld": {"epochs": 100, "batch_size": 512},
    "opportunity": {"epochs": 100, "batch_size": 512},
    "pamap2": {"epochs": 100, "batch_size": 512},
    "laptop": {"epochs": 30, "batch_size": 60, "lr": 1e-3},
}


class ColloSSL(Method):
    """Windows of several devices at once (``devices:FOLDER``); delivers the encoder of one of them."""

    slug = "collossl"
    config_class = Config
    config: Config
    modalities = ("series",)
    default_data = "worn"
    judged_by = ("device-finetune",)

    def build(self) -> None:
        """The encoder of all devices, and what was counted of them."""
        c = self.config
        self.names = [name.strip() for name in c.worn.split(",") if name.strip()]
        if len(self.names) < 2:
            raise UserError(
                "collossl learns from several devices worn at once: give --data devices:FOLDER (a table per device), "
                "or name the devices of the channels with --worn wrist,thigh"
            )
        self.per_device = c.per_device or self.channels // len(self.names)
        if self.channels != len(self.names) * self.per_device:
            of_each = f" of {c.per_device}" if c.per_device else ""
            raise UserError(
                f"{self.channels} channels for {len(self.names)} devices{of_each}: all need as many; --per-device N "
                "and --worn A,B say how many, and whose they are"
            )
        if self.per_device < 3 and c.mode == "collossl":
            raise UserError(
                f"--per-device {self.per_device}: the distance wants three axes of acceleration, first of all"
            )
        self.place = 0 if c.anchor in ("", "random") else self._find(c.anchor, "anchor")[0]
        self.encoder = networks.TPN(self.per_device, c.dropout)
        self.account = DeviceAccount(len(self.names))
        self._manual = self._find(c.positives, "positives"), self._find(c.negatives, "negatives")
        if c.mode == "simclr":
            self.head = networks.mlp([96, 256, 128, 50], norm="none", hidden_bias=True, out_bias=True)
        if c.mode == "transformations":
            self.head = Transformations(self.encoder.dim)
        if c.mode == "autoencoder":
            if not self.length:
                raise UserError("mode=autoencoder rebuilds windows of one length: say how long they are (length=150)")
            self.head = Reconstruction(self.encoder.dim, self.per_device, self.length)
        if c.mode.startswith("supervised"):
            if self.classes < 2:
                raise UserError("mode=supervised learns from labels: give data with two classes or more")
            self.classifier = networks.DeviceClassifier(self.encoder, self.classes).head

    def _find(self, listed: str, option: str) -> list[int]:
        found = [name.strip() for name in listed.split(",") if name.strip()]
        lost = next((name for name in found if name not in self.names), None)
        if lost is not None:
            raise UserError(f"--{option} {lost}: no such device; there are {', '.join(self.names)}")
        return [self.names.index(name) for name in found]

    @property
    def also_channels(self) -> tuple[int, ...]:
        """Windows of the anchor alone can be embedded, too."""
        return (self.per_device,)

    def order(self, source: Any, role: str) -> Any:
        """Batches of one user each; without users any windows."""
        return None if source.groups is None else OneGroup(source.groups)

    def stage_plan(self, stage: str) -> Stage:
        """Keep the epoch of the lowest mean loss."""
        return Stage(keep="best", patience=self.config.patience)

    def survey(self, sources: Mapping[str, Any]) -> None:
        """Distances of all devices on (up to 512 windows of) the whole set, where they are chosen once."""
        if self.config.selection != "whole" or self.config.mode != "collossl":
            return
        source = sources["data"]
        some = torch.linspace(0, len(source) - 1, min(len(source), _WHOLE)).long().tolist()
        parts = self.split(torch.stack([torch.from_numpy(source.read(i)) for i in some]))
        for a in range(len(parts)):
            for b in range(len(parts)):
                if a != b:
                    self.account.whole[a, b] = objectives.device_distance(parts[a], parts[b], self.config.distance)

    def same_survey(self, other: Method) -> None:
        """The distances of ``other``."""
        if isinstance(other, ColloSSL):
            self.account.whole.copy_(other.account.whole)

    # ---- learning --------------------------------------------------------------------------------------------
    def split(self, x: Tensor) -> Tensor:
        """Windows (B, D C, T) as devices (D, B, C, T)."""
        return x.float().unflatten(1, (len(self.names), self.per_device)).transpose(0, 1)

    def augmented(self, x: Tensor) -> Tensor:
        """Windows (N, C, T), changed as ``augment`` says."""
        kind = self.config.augment
        if kind == "none" and self.config.mode == "simclr":
            kind = "rotation"
        if kind == "rotation":
            return rotation(x)
        return scaling(jitter(x, 0.05), 0.1) if kind == "noise" else x

    def loss(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """The mode's loss."""
        parts = self.split(batch["series"])
        if self.config.mode == "collossl":
            return self._contrast(parts)
        if self.config.mode == "simclr":
            z = [self.head(self.encoder(self.augmented(parts[self.place]))) for _ in range(2)]
            return {"loss": objectives.simclr(z[0], z[1], temperature=self.config.temperature)}
        if self.config.mode in ("transformations", "autoencoder"):
            found: dict[str, Tensor] = self.head(self.encoder, parts[self.place])
            return found
        x, labels = parts[self.place], batch["label"]
        if self.config.mode == "supervised-all":
            x, labels = parts.flatten(0, 1), labels.repeat(len(parts))
        logits = self.classifier(self.encoder(self.augmented(x)))
        return {"loss": cross_entropy(logits, labels), "accuracy": (logits.argmax(1) == labels).float().mean()}

    def _contrast(self, parts: Tensor) -> dict[str, Tensor]:
        c, count = self.config, len(self.names)
        anchor = int(torch.randint(count, ())) if c.anchor == "random" else self.place
        others = [k for k in range(count) if k != anchor]
        distances = self.distances(parts, anchor)
        chosen = self.choose(distances, others)
        devices = [*others, anchor]  # the last place of a selection is the anchor itself
        positives = [devices[k] for k in chosen.positives]
        negatives = [devices[k] for k in chosen.negatives]
        self.account.add(anchor, positives, negatives, others, distances)
        used = [anchor, *dict.fromkeys(k for k in positives + negatives if k != anchor)]
        z = dict(zip(used, self.encoder(self.augmented(parts[used].flatten(0, 1))).chunk(len(used)), strict=True))
        rows = parts.shape[1]
        apart = {"negatives": (False, True), "synchronous": (False, False), "asynchronous": (True, True)}[c.sampling]

        def taken(device: int, permuted: bool) -> Tensor:
            return z[device][torch.randperm(rows, device=parts.device)] if permuted else z[device]

        drawn = [taken(k, apart[1]) for _ in range(c.draws) for k in negatives]
        found = objectives.collossl_terms(
            z[anchor], torch.stack([taken(k, apart[0]) for k in positives]), torch.stack(drawn),
            positive_weights=chosen.positive_weights, negative_weights=chosen.negative_weights.repeat(c.draws),
            temperature=c.temperature, similarity=c.similarity,
        )  # fmt: skip
        return found | {"distance": distances.min().float()}

    @torch.no_grad()
    def distances(self, parts: Tensor, anchor: int) -> Tensor:
        """(D - 1,) from the anchor to the other devices, in their order: of this batch, or of the whole set."""
        others = [k for k in range(len(parts)) if k != anchor]
        if self.config.selection == "whole":
            return self.account.whole[anchor, others].clamp_min(1e-4)
        found = [objectives.device_distance(parts[anchor], parts[k], self.config.distance) for k in others]
        return torch.stack(found)

    def choose(self, distances: Tensor, others: list[int]) -> Selection:
        """Positives and negatives as places in ``others``; by hand where they were named."""
        c, (by_hand, against) = self.config, self._manual
        whole = c.selection == "whole"
        found = objectives.select_devices(distances, c.chosen_by, weighted=c.weighted, with_anchor=whole)
        if not by_hand and not against:
            return found
        positives = [others.index(k) for k in by_hand if k in others] or found.positives
        negatives = [others.index(k) for k in against if k in others] or found.negatives
        known = torch.cat([distances, distances.min()[None] / 2]) if whole else distances
        return Selection(positives, negatives, *pair_weights(known, positives, negatives, weighted=c.weighted))

    # ---- what one keeps --------------------------------------------------------------------------------------
    def trained_modules(self) -> nn.Module:
        """The encoder, and a head where the mode has one."""
        parts = [self.encoder, *(getattr(self, name) for name in ("head", "classifier") if hasattr(self, name))]
        return nn.ModuleList(parts)

    def predict(self, batch: dict[str, Any]) -> Tensor:
        """(N, 96): the anchor's windows, encoded."""
        return self.deliverable()(batch["series"])

    def deliverable(self) -> nn.Module:
        """The anchor's encoder: windows of all devices, or of the anchor alone."""
        return AnchorEncoder(self.encoder, self.account, self.place, self.per_device)

    def deliverable_spec(self) -> dict[str, Any]:
        """The network, and which of the channels are the anchor's."""
        return dict(self.encoder.spec) | {"devices": self.names, "anchor": self.names[self.place]}

    def listings(self) -> list[dict[str, Any]]:
        """Who was chosen for whom, how often, and how far apart the devices were."""
        return self.account.listings(self.names)


class DeviceAccount(nn.Module):
    """What was seen of the devices: distances, and who was positive and negative for whom.

    Args:
        count: D.

    Attributes:
        whole: (D, D) distances on the whole set, 0 where none were taken.
        positive: (D, D) how often the column was the row's positive.
        negative: (D, D) how often it was its negative.
        far: (D, D) sum of the distances.
        batches: (D,) how often a device was the anchor.
    """

    def __init__(self, count: int) -> None:
        super().__init__()
        for name in ("whole", "positive", "negative", "far"):
            self.register_buffer(name, torch.zeros(count, count, dtype=torch.float64))
        self.register_buffer("batches", torch.zeros(count, dtype=torch.float64))

    whole: Tensor
    positive: Tensor
    negative: Tensor
    far: Tensor
    batches: Tensor

    @torch.no_grad()
    def add(self, anchor: int, positives: list[int], negatives: list[int], others: list[int], far: Tensor) -> None:
        """Count one batch."""
        for table, devices in ((self.positive, positives), (self.negative, negatives)):
            table[anchor, devices] += 1
        self.far[anchor, others] += far.to(self.far)
        self.batches[anchor] += 1

    def listings(self, names: list[str]) -> list[dict[str, Any]]:
        """Tables for the report: shares of the batches, and mean distances; a row for every anchor."""
        found = []
        for title, table in (("positive", self.positive), ("negative", self.negative), ("distance", self.far)):
            rows: list[list[str | float]] = []
            for k, name in enumerate(names):
                if self.batches[k] > 0:
                    shares = [round(share, 4) for share in (table[k] / self.batches[k]).tolist()]
                    rows.append([name, *("" if j == k and not share else share for j, share in enumerate(shares))])
            if rows:
                words = f"share of batches in which the column was the row's {title}"
                note = words if title != "distance" else "mean distance (MMD) of the column from the row"
                found.append({"title": f"Devices: {title}", "note": note, "columns": ["anchor", *names], "rows": rows})
        return found


class AnchorEncoder(nn.Module):
    """Windows (N, D C, T) of all devices, or (N, C, T) of the anchor alone, to embeddings of the anchor's."""

    def __init__(self, encoder: nn.Module, account: nn.Module, place: int, channels: int) -> None:
        super().__init__()
        self.encoder, self.account, self.place, self.channels = encoder, account, place, channels
        self.dim = int(encoder.dim)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """(N, 96)."""
        if x.shape[1] != self.channels:
            x = x[:, self.place * self.channels : (self.place + 1) * self.channels]
        return self.encoder(x.float())
