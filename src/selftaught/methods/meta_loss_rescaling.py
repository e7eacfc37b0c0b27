"""STORM: a classifier of noisy labels and the weight of every label, learnt together (AAAI 2025, arXiv 2412.12955).

    for a batch and a meta batch, both from the noisy training set:
        F     statistics of 1 + G dropout passes: losses, confidences, agreement with the label, within their groups
        theta' = theta - step on 1/B sum_i w_i(omega; F) l_i(theta)          kept differentiable in omega
        omega <- Adam step on 1/B sum_j w_j(omega; F') l_j(theta'(omega))      through w and through theta'
        theta <- theta'

Texts by TF-IDF and a linear layer, a small transformer of words, or a pretrained one; images and series by their
encoders. ``--meta SOURCE`` takes the meta batches from clean labels. Modes: ``storm``; ``simulate`` learns weights
without using them; ``plain``; ``agra`` keeps samples whose gradient does not point against a comparison batch's;
``static`` takes the weights that an earlier run's ``apply`` wrote.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import cross_entropy

from selftaught import networks, objectives
from selftaught._words import one_text
from selftaught.catalog.rules import Count, Natural, Positive, Range, Share
from selftaught.engine.linear_gradients import linear_in_the_loss
from selftaught.engine.method import LearningRateScaling, Method, Optim, Optimizer, Schedule
from selftaught.engine.orders import WithReplacement
from selftaught.engine.unrolled import known_gradients, lookahead
from selftaught.errors import UserError
from selftaught.methods._encoder import ClassifierConfig, accuracy
from selftaught.methods._meta_loss_rescaling_passes import DropoutPasses
from selftaught.methods._noisy_labels import Weighing, read_weights, text_encoder
from selftaught.objectives.meta_loss_rescaling import (
    DropoutStatistics,
    dropout_statistics,
    features_of,
    meta_loss_rescaling,
)
from selftaught.views import HorizontalFlip, Pipeline, RandomResizedCrop

__all__ = ["MetaLossRescaling"]


@dataclass
class Config(ClassifierConfig):
    """STORM's options; the defaults are the paper's for pretrained text encoders."""

    encoder: str = "auto"
    """Texts: tfidf, words (a small transformer), hf:NAME; images and series: as elsewhere. auto: hf:bert-base-uncased,
    resnet50 or resnet1d."""
    optimizer: Optimizer = "adam"
    lr: float = 5e-5
    lr_scaling: LearningRateScaling = "none"
    weight_decay: float = 0.0
    schedule: Schedule = "constant"
    mode: Literal["storm", "simulate", "plain", "agra", "static"] = "storm"
    """The method; its weights learnt but not used; no weights; AGRA; fixed weights from a file."""
    rescaler_lr: Positive = 1e-2
    """Learning rate of the rescalers' Adam."""
    dropout: Annotated[float, Range(0, below=1)] = 0.1
    """Dropout before the classifier: what the passes differ by (the encoder may have its own besides)."""
    passes: Natural = 2
    """Further dropout passes G for the statistics."""
    rounds: Count = 1
    """Learner's steps on a batch before the meta step; the last one is differentiated through."""
    window: Natural = 1
    """Batches that the statistics of groups are taken over; 0: all of the epoch so far."""
    statistics: Literal["default", "loss"] = "default"
    """What a rescaler sees: 18 statistics, or the mean loss alone."""
    agreement: bool = True
    """Whether it also sees if most passes agree with the label."""
    categories: bool = True
    """Samples that agree and those that don't form groups of their own."""
    class_separation: bool = True
    """A rescaler, and groups, for every class; off shares one."""
    meta_loss_rescaling: bool = True
    """The meta loss is weighted, too: the paper's novelty."""
    threshold: Share = 0.0
    """Weights above it become 1, the others 0, with a straight-through gradient; 0 leaves them as they are."""
    weights: str = ""
    """File of weights by name, as apply writes it (.csv), for mode=static."""
    vocabulary: Count = 5000
    """Most words that tfidf and words know."""
    ngrams: Count = 1
    """Longest run of words that tfidf counts."""
    max_length: Count = 128
    """Most words or tokens of a text that transformers read."""


PRESETS = {
    "glue": {"encoder": "hf:bert-base-uncased", "epochs": 3, "batch_size": 8},
    "roberta": {"encoder": "hf:roberta-base", "epochs": 3, "batch_size": 8},
    "electra": {"encoder": "hf:google/electra-base-discriminator", "epochs": 3, "batch_size": 8},
    "tfidf": {"encoder": "tfidf", "lr": 1e-2, "epochs": 20, "batch_size": 32, "dropout": 0.2},
    "laptop": {
        "encoder": "resnet10-narrow", "image_size": 0, "augment": "small", "crop": 0.5, "lr": 3e-3, "dropout": 0.2,
        "epochs": 10, "batch_size": 32,
    },
    "laptop-text": {"encoder": "tfidf", "lr": 3e-2, "dropout": 0.2, "epochs": 6, "batch_size": 32},
    "laptop-series": {"lr": 3e-3, "dropout": 0.2, "epochs": 10, "batch_size": 32},
}  # fmt: skip


class MetaLossRescaling(DropoutPasses):
    """A classifier that knows which of its labels to trust: of texts, of images of any channels, of sensor series."""

    slug = "meta-loss-rescaling"
    config_class = Config
    config: Config
    modalities = ("text", "image", "series")
    default_data = "sentiment?wrong_labels=0.2"
    output = "weights"
    roles = ("data", "meta")
    judged_by = ("label-noise",)

    def build(self) -> None:
        """Encoder, classifier, and the rescalers where the mode has any."""
        c = self.config
        if self.modality == "text":
            self.encoder = text_encoder(c)
            self.bag = self.encoder if isinstance(self.encoder, networks.TfIdf) else networks.TfIdf(c.vocabulary)
        else:
            auto = {"image": "resnet50", "series": "resnet1d"}[self.modality]
            self.config, given = copy.copy(c), c
            self.config.encoder = auto if c.encoder == "auto" else c.encoder
            super().build()
            del self.classifier
            self.config = given
        self.dropout = nn.Dropout(c.dropout)
        self.classifier = nn.Linear(int(self.encoder.dim), self.classes)
        count = objectives.feature_count(c.statistics, agreement=c.agreement)
        self.rescalers = networks.ClassRescalers(self.classes, count, separate=c.class_separation)
        self._windows: dict[str, list[DropoutStatistics]] = {"data": [], "meta": []}
        self._fixed: Tensor | None = None
        if c.mode == "static" and not c.weights:
            raise UserError("mode=static: give the weights with --weights FILE.csv, as apply writes them")

    # ---- data ------------------------------------------------------------------------------------------------
    @classmethod
    def streams(cls, source: Any, given: dict[str, Any], opened: Callable[[Any], Any]) -> dict[str, Any]:
        """Meta batches come from the training samples themselves, or from clean labels of the same classes."""
        if "meta" not in given:
            return {"data": source, "meta": source}
        meta = opened(given["meta"])
        if meta.labels is None or meta.classes != source.classes or int(meta.labels.min()) < 0:
            raise UserError(f"--meta {meta.name}: its classes are not those of {source.name}, or some sample has none")
        return {"data": source, "meta": meta}

    def order(self, source: Any, role: str) -> Any:
        """Meta batches are drawn with replacement; the weights of ``mode=static`` are found here, by name."""
        if role == "meta":
            return WithReplacement(len(source))
        if self.config.mode == "static":
            self._fixed = torch.tensor(read_weights(Path(self.config.weights), list(source.names), source.name))
        return None

    def survey(self, sources: Mapping[str, Any]) -> None:
        """Take the vocabulary from the training texts."""
        if self.modality != "text":
            return
        source = sources["data"]
        texts = [one_text(source.read(i)) for i in range(len(source))]
        for part in self._vocabularies():
            part.fit(texts)

    def same_survey(self, other: Method) -> None:
        """The vocabulary of ``other``."""
        if isinstance(other, MetaLossRescaling) and self.modality == "text":
            for own, known in zip(self._vocabularies(), other._vocabularies(), strict=True):
                own.copy_from(known)

    def _vocabularies(self) -> list[networks.Vocabulary]:
        return [self.bag.vocabulary] + (
            [self.encoder.vocabulary] if isinstance(self.encoder, networks.WordTransformer) else []
        )

    def paper_views(self) -> list[Pipeline]:
        """Crop and flip."""
        c = self.config
        return [Pipeline((RandomResizedCrop(c.image_size, (c.crop, 1.0)), HorizontalFlip()), name="view")]

    def prepare(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Texts become vectors or token numbers, under ``x``."""
        if self.modality == "text" and "text" in batch:
            encoder: Any = self.encoder
            batch["x"] = encoder.vectorise([one_text(text) for text in batch["text"]]).to(self.device)
        return super().prepare(batch)

    def inputs(self, batch: dict[str, Any]) -> Tensor:
        """What the learner sees; of texts that are not prepared their TF-IDF vectors, (N, 1, words)."""
        if self.modality != "text":
            return super().inputs(batch)
        if "x" in batch:
            return batch["x"]
        return self.bag.vectorise([one_text(text) for text in batch["text"]])[:, None]

    # ---- learning --------------------------------------------------------------------------------------------
    def trained_modules(self) -> nn.Module:
        """The learner; the rescalers have an optimiser of their own."""
        return nn.ModuleList([self.encoder, self.classifier])

    def optimisers(self) -> dict[str, Optim]:
        """The learner's, and the rescalers' where they learn.

        Raises:
            UserError: accumulated batches or several processes, which a meta step has no meaning for here.
        """
        learner = {"learner": super().optimisers()["main"]}
        if self.config.mode not in ("storm", "simulate"):
            return learner
        if self.accumulate > 1 or (self._trainer is not None and self.trainer.world_size > 1):
            raise UserError("a meta step looks through one whole batch: use --accumulate 1 and one process")
        return learner | {"rescaler": Optim(self.rescalers, optimizer="adam", lr=self.config.rescaler_lr)}

    def loss(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Plain cross-entropy of one batch: what ``mode=plain`` minimises, and what held-out samples are judged by."""
        batch = batch.get("data", batch)
        logits = self.learner(self.inputs(batch))
        losses = cross_entropy(logits, batch["label"], reduction="none")
        return {"loss": losses.mean(), "accuracy": accuracy(logits, batch["label"])}

    def step(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """One step of the mode."""
        mode = self.config.mode
        with torch.autocast(self.device.type, enabled=False), sdpa_kernel(SDPBackend.MATH):
            if mode == "plain":
                return self.minimise(self.loss(batch), "learner")
            if mode in ("agra", "static"):
                return self._kept(batch)
            for _ in range(self.config.rounds - 1):
                self._inner(batch["data"], again=True)
            return self._meta(batch)

    def _first(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
        """Logits, losses and features of the pass with gradient."""
        h = self.encoder(self.inputs(batch))
        logits = self.classifier(self.dropout(h))
        return logits, cross_entropy(logits, batch["label"], reduction="none"), h

    def _inner(self, batch: dict[str, Any], *, again: bool) -> None:
        """A learner's step that nothing is differentiated through."""
        logits, losses, h = self._first(batch)
        weights = None
        if self.config.mode == "storm":
            own = self._statistics(logits, losses, self.inputs(batch), batch["label"], None, 0, h)
            with torch.no_grad():
                weights = self._weights(own, "data")
        self.minimise({"loss": meta_loss_rescaling(losses, weights)}, "learner", again=again)

    def _meta(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """A learner's step and the rescalers', whose gradient goes through it.

        The learner's gradient g is linear in the weights, so that the meta loss L at theta' has by w_i the slope
        (dL/dtheta' dtheta'/dg) . dg/dw_i: one backward pass through L, and one through g to the weights alone.
        """
        data = batch["data"]
        with linear_in_the_loss():
            logits, losses, h = self._first(data)
        own = self._statistics(logits, losses, self.inputs(data), data["label"], None, 0, h)
        weights = self._weights(own, "data")
        given = weights.detach().requires_grad_()
        inner = meta_loss_rescaling(losses, given)
        named = {name: p for name, p in self.learner.named_parameters() if p.requires_grad}
        used = torch.autograd.grad(inner, list(named.values()), create_graph=True, materialize_grads=True)
        gradients = [g.detach() for g in used]
        if self.config.mode == "simulate":
            plain = losses.mean()
            gradients = list(
                torch.autograd.grad(plain, list(named.values()), retain_graph=True, materialize_grads=True)
            )
        value, direct, back = self._outer(batch["meta"], named, [g.detach() for g in used])
        reached = [(g, v) for g, v in zip(used, back, strict=True) if g.requires_grad]
        (slopes,) = torch.autograd.grad(
            [g for g, _ in reached], [given], [v for _, v in reached], materialize_grads=True, allow_unused=True
        )
        self.minimise({"loss": direct + (weights * slopes).sum()}, "rescaler")
        self.minimise({"loss": known_gradients(list(named.values()), gradients)}, "learner")
        kept = (weights > 0.5).float().mean()
        return {
            "loss": (inner if self.config.mode == "storm" else losses.mean()).detach(), "meta": value,
            "weight": weights.detach().mean(), "kept": kept, "accuracy": accuracy(logits, data["label"]),
        }  # fmt: skip

    def _outer(self, meta: dict[str, Any], named: Mapping[str, Tensor], gradients: list[Tensor]) -> Any:
        """The meta loss at the learner as it will be after its step.

        Returns:
            its value, the part of it in which the weights of the meta batch have their graph, and by the learner's
            gradients its derivatives.
        """
        two: Any = self.optimizers(use_pl_optimizer=False)
        given = dict(zip(named.values(), gradients, strict=True))
        ahead, back = lookahead(two[self._places["learner"]], given, clip=self.clip)
        state = {name: ahead[p].requires_grad_() for name, p in named.items()}
        x, labels = self.inputs(meta), meta["label"]
        tensors = state | {name: buffer.clone() for name, buffer in self.learner.named_buffers()}
        with self._aside(1), networks.quick_dropout():
            h = self._encoded(x, tensors)
            logits = self._classified(h, tensors)
        losses = cross_entropy(logits, labels, reduction="none")
        own = self._statistics(logits, losses, x, labels, state, 2, h)
        weights = self._weights(own, "meta")
        weighted = self.config.meta_loss_rescaling
        outer = meta_loss_rescaling(losses, weights.detach() if weighted else None)
        slopes = torch.autograd.grad(outer, list(state.values()), materialize_grads=True)
        reached = back(dict(zip(named.values(), slopes, strict=True)))
        direct = meta_loss_rescaling(losses.detach(), weights) if weighted else losses.new_zeros(())
        return outer.detach(), direct, [reached[p] for p in named.values()]

    def _kept(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """AGRA and fixed weights: a plain step on weighted losses."""
        data, labels = batch["data"], batch["data"]["label"]
        logits, losses, _ = self._first(data)
        if self.config.mode == "static":
            if self._fixed is None:
                raise UserError("mode=static weighs the samples of a run: train it with selftaught train")
            weights = self._fixed.to(losses)[data["index"].to(self._fixed.device)].to(losses)
        else:
            with torch.no_grad():
                weights = self._agra(data, batch["meta"], logits).to(losses)
        terms = {"loss": meta_loss_rescaling(losses, weights), "kept": weights.mean()}
        return self.minimise(terms | {"accuracy": accuracy(logits, labels)}, "learner")

    def _agra(self, data: dict[str, Any], meta: dict[str, Any], logits: Tensor) -> Tensor:
        """Which samples of a batch AGRA keeps, by the gradients of the classifier's weights."""
        with self._aside(1):
            h, other = self.encoder(self.inputs(data)), self.encoder(self.inputs(meta))
        gradients = objectives.linear_gradients(h, logits, data["label"])
        comparison = objectives.linear_gradients(other, self.classifier(other), meta["label"])
        return objectives.agra_keep(gradients, comparison)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """With the window of batches that statistics are taken over."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["windows"] = {role: [list(part) for part in kept] for role, kept in self._windows.items()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on with that window."""
        super().on_load_checkpoint(checkpoint)
        stored = checkpoint.get("windows", {})
        self._windows = {role: [DropoutStatistics(*p) for p in stored.get(role, [])] for role in self._windows}

    # ---- what one keeps --------------------------------------------------------------------------------------
    def weigh(self, losses: Tensor, probabilities: Tensor, labels: Tensor) -> Tensor:
        """Weights (N,) of whole sets of labels, from `passes` over all of them: groups and BatchNorm see them all."""
        features = features_of(dropout_statistics(losses, probabilities, labels), **self._feature_options())
        rescalers = copy.deepcopy(self.rescalers).cpu().train(len(labels) > 1)
        with torch.no_grad():
            return rescalers(features.cpu().float(), labels.cpu())

    def deliverable(self) -> nn.Module:
        """Inputs to class logits, with the rescalers and the vocabulary beside."""
        return Weighing(self.encoder, self.classifier, self.rescalers, getattr(self, "bag", None))

    def deliverable_spec(self) -> dict[str, Any]:
        """Of texts the name of the encoder; else as of any classifier."""
        if self.modality != "text":
            return super().deliverable_spec()
        c = self.config
        return {"name": "text classifier", "classes": self.classes, "encoder": c.encoder, "vocabulary": c.vocabulary}
