"""LAF: a classifier forgets some of its samples without any label (Shen et al., ICLR 2024).

    e = g(x), the embedding that the classifier's encoder makes; its head stays as it is
    1. h learns to reconstruct e on all data, h_f on the samples to forget                            (two VAEs)
    2. in turns, an optimiser each:
       L_UE = sum_r phi(||h(e) - e||^2) - sum_f phi(||h_f(e) - e||^2)              phi(q) = exp(q / (q + 1))
       L_RA = sum_r log( exp c / sum_f exp(c / T) )                       c = 1 - cos(e, e of the model before)
    3. optional: cross-entropy on a few labelled samples to keep repairs the head                      (LAF+R)

It takes a run that delivers classes (``--init RUN``) and delivers the same network. Baselines in the same code, all but
the last read labels: ``retrain``, ``fine-tune``, ``negative-gradient``, ``random-label``, ``bad-teacher``.
arXiv 2404.00506.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from selftaught import objectives
from selftaught.catalog.rules import Count, Natural, NonNegative, Positive
from selftaught.data.source import Source, require_labels
from selftaught.engine.method import Optim, Stage
from selftaught.engine.orders import ActiveSet, Order
from selftaught.errors import UserError
from selftaught.methods._unlearning import Unlearner, UnlearnerConfig
from selftaught.networks.vae import EmbeddingVAE
from selftaught.objectives import laf

__all__ = ["LAF"]

WITHOUT_LABELS = ("laf", "ue", "ra", "bad-teacher")
"""Modes that never read a label."""


@dataclass
class Config(UnlearnerConfig):
    """LAF's options; the defaults are the paper's for removing a class of MNIST or Fashion-MNIST."""

    lr: float = 1e-4
    """Learning rate of the repair and of the baselines."""
    mode: Literal[
        "laf", "ue", "ra", "retrain", "fine-tune", "negative-gradient", "random-label", "bad-teacher"
    ] = "laf"  # fmt: skip
    """LAF; one of its two losses alone; or a baseline: all but bad-teacher read labels."""
    lr_ue: NonNegative = 5e-5
    """Learning rate of extractor unlearning."""
    lr_ra: NonNegative = 1e-4
    """Learning rate of representation alignment."""
    temperature: Positive = 20.0
    """T of representation alignment, in the denominator only."""
    latent: Count = 8
    """Width of the autoencoders' code."""
    vae_epochs: Positive = 10.0
    """Passes over its data that each autoencoder learns for."""
    vae_lr: NonNegative = 1e-3
    """Learning rate of the autoencoders (Adam)."""
    kl_weight: NonNegative = 0.025
    """Weight of the divergence in the autoencoders' loss."""
    vae_output: Literal["sigmoid", "linear"] = "sigmoid"
    """Last layer of the autoencoders: the paper's sigmoid stays within (0, 1), linear reaches any value."""
    vae_data: Literal["all", "remain"] = "all"
    """What the autoencoder of the remaining samples learns on: all data as the released code does, or what remains."""
    embedding: Literal["features", "logits"] = "features"
    """Layer that is made to forget: the encoder's features, or the class scores."""
    squash: bool = True
    """phi(q) = exp(q / (q + 1)) in extractor unlearning; off takes the errors as they are."""
    batch_norm: Literal["eval", "train"] = "eval"
    """eval leaves BatchNorm's statistics as they are, as the paper does; train lets them follow."""
    pairing: Literal["zip", "cycle"] = "zip"
    """An epoch ends with the shorter of the two streams, as in the paper, or with the longer, the shorter cycled."""
    repair_labels: Natural = 0
    """Labelled samples to keep, even over the classes, that repair the head at the end (LAF+R); 0: no repair."""
    repair_steps: Count = 100
    """Steps of the repair."""
    forget_weight: NonNegative | None = None
    """Weight of the samples to forget; None: 1 in random-label, 0.05 in negative-gradient (NegGrad+, 2302.09880)."""


PRESETS = {
    "mnist-class": {"epochs": 20, "batch_size": 32, "precision": "32"},
    "mnist-random": {"temperature": 5.0, "epochs": 20, "batch_size": 32, "precision": "32"},
    "mnist-noisy": {"epochs": 20, "batch_size": 32, "precision": "32"},
    "cifar10-class": {
        "lr_ue": 1e-5, "lr_ra": 5e-5, "latent": 16, "augment": "original", "epochs": 40, "batch_size": 32,
        "precision": "32",
    },
    "cifar10-random": {
        "lr_ue": 1e-5, "lr_ra": 4e-5, "latent": 16, "augment": "original", "epochs": 40, "batch_size": 32,
        "precision": "32",
    },
    "cifar10-noisy": {
        "lr_ue": 1e-5, "lr_ra": 4e-5, "temperature": 5.0, "latent": 16, "augment": "original", "epochs": 40,
        "batch_size": 32, "precision": "32",
    },
    "laptop": {
        "lr_ue": 1e-4, "lr_ra": 3e-4, "lr": 1e-3, "steps": 300, "batch_size": 32, "precision": "32",
    },
}  # fmt: skip


class LAF(Unlearner):
    """LAF with its baselines, on whatever a run of ours classifies."""

    slug = "laf"
    config_class = Config
    config: Config
    stages: tuple[str, ...] = ("vae", "vae-forget", "forget", "repair")

    def build(self) -> None:
        """The classifier that forgets, a copy of it from before, and the autoencoders."""
        c = self.config
        super().build()
        if c.mode in ("laf", "ra", "bad-teacher"):
            self.teacher = copy.deepcopy(self.model)
        if c.mode == "bad-teacher":
            self.stranger = self.fresh_classifier()
        if c.mode in ("laf", "ue"):
            width = self.classes if c.embedding == "logits" else int(self.model.encoder.dim)  # type: ignore[arg-type, union-attr]
            self.h, self.h_forget = (EmbeddingVAE(width, c.latent, output=c.vae_output) for _ in range(2))
        wanted = [("vae", hasattr(self, "h")), ("vae-forget", hasattr(self, "h")), ("forget", True)]
        self.stages = tuple(stage for stage, asked in [*wanted, ("repair", c.repair_labels > 0)] if asked)

    # ---- stages ----------------------------------------------------------------------------------------------
    def order(self, source: Source, role: str) -> Order | None:
        """A few labelled samples for the repair; the shorter stream again and again where it is to be cycled."""
        c = self.config
        if self.stage == "repair":
            few = ActiveSet(len(source), c.repair_labels)
            few.select(_evenly(require_labels(source), c.repair_labels))
            return few
        if self.stage == "forget" and role == "forget" and c.pairing == "cycle":
            return ActiveSet(len(source), max(len(source), self.samples - len(source)))
        return None

    def stage_plan(self, stage: str) -> Stage:
        """Each autoencoder passes over its own data; the baselines read what they need."""
        c = self.config
        if stage == "vae":
            role = "data" if c.vae_data == "all" else "remain"
            return Stage(settings={"epochs": c.vae_epochs, "steps": None}, roles=(role,))
        if stage == "vae-forget":
            return Stage(settings={"epochs": c.vae_epochs, "steps": None}, roles=("forget",))
        if stage == "repair":
            return Stage(settings={"steps": c.repair_steps}, roles=("remain",))
        alone = c.mode in ("retrain", "fine-tune")
        return Stage(roles=("remain",) if alone else ("forget", "remain"))

    def enter_stage(self, stage: str) -> None:
        """Keep the model as it was, once; then train what the stage trains and nothing else."""
        super().enter_stage(stage)
        if stage == self.stages[0]:
            if hasattr(self, "teacher"):
                self.teacher.load_state_dict(self.model.state_dict())
            if self.config.mode == "retrain":
                self.model.load_state_dict(self.fresh_classifier().state_dict())
        self.requires_grad_(False)
        self.trained_modules().requires_grad_(True)

    def trained_modules(self) -> nn.Module:
        """An autoencoder; the encoder; all of the classifier; or its head."""
        c = self.config
        if self.stage in ("vae", "vae-forget"):
            return self.h if self.stage == "vae" else self.h_forget
        if self.stage == "repair":
            return nn.ModuleList(m for name, m in self.model.named_children() if name != "encoder")
        label_free = c.mode in ("laf", "ue", "ra") and c.embedding == "features"
        return self.model.encoder if label_free else self.model  # type: ignore[return-value]

    def train(self, mode: bool = True) -> LAF:
        """Training mode, but not for models that are only looked at, nor for BatchNorm that is to stay as it is."""
        super().train(mode)
        c = self.config
        for name in ("teacher", "stranger"):
            if hasattr(self, name):
                getattr(self, name).eval()
        label_free = c.mode in ("laf", "ue", "ra") and c.batch_norm == "eval"
        if self.stage != "forget" or label_free:
            self.model.eval()
        return self

    def optimisers(self) -> dict[str, Optim]:
        """Adam for each autoencoder; two for the two losses; the config's for the repair and the baselines."""
        c = self.config
        if self.stage in ("vae", "vae-forget"):
            return {self.stage: Optim(self.trained_modules(), lr=c.vae_lr)}
        if self.stage == "repair" or c.mode not in ("laf", "ue", "ra"):
            return super().optimisers()
        both = {
            "unlearn": Optim(self.trained_modules(), lr=c.lr_ue),
            "align": Optim(self.trained_modules(), lr=c.lr_ra),
        }
        return both if c.mode == "laf" else {"ue": {"unlearn": both["unlearn"]}, "ra": {"align": both["align"]}}[c.mode]

    # ---- learning --------------------------------------------------------------------------------------------
    def step(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """One step of the stage: of an autoencoder, of the two losses in turn, of a baseline, or of the repair."""
        c = self.config
        if self.stage == "vae":
            return self.minimise(self._reconstruct(self.h, self._stream(batch)))
        if self.stage == "vae-forget":
            return self.minimise(self._reconstruct(self.h_forget, self._stream(batch)))
        if self.stage == "repair":
            return self.minimise(self._cross_entropy(self._stream(batch)))
        if c.mode not in ("laf", "ue", "ra"):
            return self.minimise(self._baseline(batch))
        if c.mode == "laf" and self.accumulate > 1:
            raise UserError("--accumulate: LAF's two losses move the same weights in turn; raise --batch-size instead")
        shown: dict[str, Tensor] = {}
        if c.mode != "ra":
            shown |= _named("ue", self.minimise(self.unlearning_terms(batch), "unlearn"))
        if c.mode != "ue":
            shown |= _named("ra", self.minimise(self.alignment_terms(batch), "align"))
        return shown | {"loss": torch.stack([shown[name] for name in ("ue", "ra") if name in shown]).sum()}

    def embed(self, model: nn.Module, part: dict[str, Any]) -> Tensor:
        """(N, D) the layer that forgets, of one stream's batch."""
        return model.predict(part) if self.config.embedding == "logits" else model.features(part)  # type: ignore[operator]

    def _embeddings(self, model: nn.Module, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Embeddings of what stays and of what goes: in one pass, unless BatchNorm would see them together."""
        remain, forget = batch["remain"], batch["forget"]
        if model.training:
            return self.embed(model, remain), self.embed(model, forget)
        if "views" in remain:
            both: dict[str, Any] = {"views": [torch.cat([remain["views"][0], forget["views"][0]])]}
        else:
            both = {name: torch.cat([remain[name], forget[name]]) for name in remain if name not in ("index", "label")}
        e = self.embed(model, both)
        rows = len(remain["index"])
        return e[:rows], e[rows:]

    def _reconstruct(self, vae: EmbeddingVAE, part: dict[str, Any]) -> dict[str, Tensor]:
        with torch.no_grad():
            e = self.embed(self.model, part)
        coded = vae(e)
        weight = self.config.kl_weight
        return laf.laf_vae_terms(e, coded.reconstruction, coded.mean, coded.log_variance, kl_weight=weight)

    def unlearning_terms(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """L_UE: what stays is reconstructed by h, what goes no longer by h_f; the codes are drawn."""
        kept, gone = self._embeddings(self.model, batch)
        again, other = self.h(kept).reconstruction, self.h_forget(gone).reconstruction
        return laf.laf_ue_terms(kept, again, gone, other, squash=self.config.squash)

    def alignment_terms(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """L_RA: what stays is embedded as before, what goes elsewhere."""
        kept, gone = self._embeddings(self.model, batch)
        with torch.no_grad():
            before, past = self._embeddings(self.teacher, batch)
        return laf.laf_ra_terms(kept, before, gone, past, temperature=self.config.temperature)

    def _baseline(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """What the other ways of unlearning minimise."""
        c = self.config
        if c.mode in ("retrain", "fine-tune"):
            return self._cross_entropy(self._stream(batch))
        kept, gone = (self.model.predict(batch[role]) for role in ("remain", "forget"))
        if c.mode == "bad-teacher":
            with torch.no_grad():
                able, unable = self.teacher.predict(batch["remain"]), self.stranger.predict(batch["forget"])
            return {"loss": laf.bad_teacher(kept, able, gone, unable)}
        labels, wrong = self._label(batch["remain"]), self._label(batch["forget"])
        usual = {"negative-gradient": 0.05, "random-label": 1.0}[c.mode]
        weight = usual if c.forget_weight is None else c.forget_weight
        if c.mode == "negative-gradient":
            return {"loss": laf.negative_gradient(kept, labels, gone, wrong, weight=weight)}
        wrong = laf.random_other_labels(wrong, self.classes)
        return {"loss": laf.random_label(kept, labels, gone, wrong, weight=weight)}

    def _cross_entropy(self, part: dict[str, Any]) -> dict[str, Tensor]:
        return {"loss": objectives.supervised(self.model.predict(part), self._label(part))}

    @staticmethod
    def _stream(batch: dict[str, Any]) -> dict[str, Any]:
        """The batch of a stage that reads a single stream."""
        return batch if "index" in batch else next(iter(batch.values()))

    def _label(self, part: dict[str, Any]) -> Tensor:
        if "label" not in part:
            wanted = "--repair-labels" if self.stage == "repair" else f"--mode {self.config.mode}"
            raise UserError(
                f"{wanted} reads labels, and the data have none; of the modes {', '.join(WITHOUT_LABELS)} don't"
            )
        return part["label"]


def _named(name: str, terms: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Terms of one loss among those of two: ``loss`` becomes ``name``, others get it before theirs."""
    return {name if key == "loss" else f"{name}_{key}": value for key, value in terms.items()}


def _evenly(labels: np.ndarray, count: int) -> np.ndarray:
    """Positions of ``count`` samples, drawn from every class in turn, always the same.

    Raises:
        UserError: there are fewer.
    """
    if count > len(labels):
        raise UserError(f"--repair-labels {count}: there are {len(labels)} samples to keep")
    order = np.random.default_rng(0).permutation(len(labels))
    rank = np.empty(len(labels), dtype=np.int64)
    for k in np.unique(labels):
        rank[labels[order] == k] = np.arange(int((labels == k).sum()))
    return np.sort(order[np.argsort(rank, kind="stable")[:count]])
