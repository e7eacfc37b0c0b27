"""STORM's dropout passes, and the weights of labels that it takes from their statistics."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy, linear

from selftaught import networks, objectives
from selftaught.methods._encoder import ClassifierMethod
from selftaught.objectives.meta_loss_rescaling import DropoutStatistics, dropout_statistics, features_of


def _of(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors of one part of the learner, under its own names."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _draws(module: nn.Module) -> bool:
    """Whether a layer draws something anew in training: dropout, dropped paths, dropout inside attention."""
    shares = (getattr(module, name, 0.0) for name in ("p", "drop_prob", "dropout", "dropout_p", "attn_dropout", "drop"))
    return any(isinstance(share, float) and share > 0 for share in shares)


class DropoutPasses(ClassifierMethod):
    """The part of :class:`selftaught.methods.meta_loss_rescaling.MetaLossRescaling` that looks at labels.

    Attributes:
        encoder, dropout, classifier: the learner, in this order.
        rescalers: features of a batch and its labels to weights.
    """

    config: Any
    encoder: Any
    dropout: nn.Dropout
    classifier: nn.Linear
    rescalers: networks.ClassRescalers
    _windows: dict[str, list[DropoutStatistics]]

    @property
    def learner(self) -> nn.Sequential:
        """Encoder, dropout and classifier as one network: inputs to logits."""
        return nn.Sequential(self.encoder, self.dropout, self.classifier)

    @contextlib.contextmanager
    def _aside(self, number: int) -> Iterator[None]:
        """Chance of its own for what plain training does not do, so that the learner's stays as it is without."""
        seed = (torch.initial_seed() * 1_000_003 + self.steps * 4 + number) % (1 << 63)
        if self.device.type == "cuda":
            with torch.random.fork_rng(devices=[self.device]):
                torch.manual_seed(seed)
                yield
            return
        before = torch.get_rng_state()
        torch.default_generator.manual_seed(seed)  # torch.manual_seed asks every other kind of device as well
        try:
            yield
        finally:
            torch.set_rng_state(before)

    def passes(
        self,
        x: Tensor,
        labels: Tensor,
        state: Mapping[str, Tensor] | None = None,
        count: int = 0,
        *,
        features: Tensor | None = None,
    ) -> Any:
        """Losses (count, N) and probabilities (count, N, K) of ``count`` dropout passes without gradient.

        BatchNorm's statistics are left alone; ``state`` has parameters to take in place of the learner's own.
        ``features`` (N, D) are the encoder's of a pass before: where nothing in it is drawn it gives them again.
        """
        if not count:
            return torch.zeros(0, len(x), device=x.device), torch.zeros(0, len(x), self.classes, device=x.device)
        with torch.no_grad():
            tensors = {name: value.detach() for name, value in (state or {}).items()}
            if self._encoder_draws or features is None:
                tensors |= {name: buffer.clone() for name, buffer in self.learner.named_buffers()}
            if isinstance(self.encoder, networks.TfIdf):
                share = self.dropout.p if self.dropout.training else 0.0
                logits = networks.dropped_linear(x, *self._linear(tensors), share, count).flatten(0, 1)
            else:
                with networks.quick_dropout():
                    logits = self._drawn(x, tensors, count, features)
            losses = cross_entropy(logits, labels.repeat(count), reduction="none")
        return losses.view(count, -1), logits.softmax(1).view(count, len(labels), -1)

    def _drawn(self, x: Tensor, tensors: Mapping[str, Tensor], count: int, features: Tensor | None) -> Tensor:
        """Logits (count N, K) of ``count`` passes; through the encoder only where it draws, or its features are new."""
        if self._encoder_draws:
            return self._classified(self._encoded(x.repeat(count, *[1] * (x.dim() - 1)), tensors), tensors)
        h = self._encoded(x, tensors) if features is None else features.detach()
        return self._classified(h.repeat(count, *[1] * (h.dim() - 1)), tensors)

    def _encoded(self, x: Tensor, tensors: Mapping[str, Tensor]) -> Tensor:
        """The encoder's features by the learner's parameters and buffers of these names, else by its own."""
        own = _of(tensors, "0.")
        return functional_call(self.encoder, own, (x,)) if own else self.encoder(x)

    def _classified(self, h: Tensor, tensors: Mapping[str, Tensor]) -> Tensor:
        """Logits of features, some dropped."""
        return linear(self.dropout(h), *self._linear(tensors))

    def _linear(self, tensors: Mapping[str, Tensor]) -> list[Tensor]:
        return [tensors.get(f"2.{name}", getattr(self.classifier, name)) for name in ("weight", "bias")]

    @functools.cached_property
    def _encoder_draws(self) -> bool:
        """Whether anything in the encoder is drawn anew in every pass: dropout of any kind."""
        return any(_draws(module) for module in self.encoder.modules())

    def _statistics(
        self, logits: Tensor, losses: Tensor, x: Tensor, labels: Tensor, state: Any, seed: int, features: Tensor
    ) -> Any:
        with self._aside(seed):
            more, others = self.passes(x, labels, state, self.config.passes, features=features)
        first = logits.detach().softmax(1)[None]
        return dropout_statistics(torch.cat([losses.detach()[None], more]), torch.cat([first, others]), labels)

    def _weights(self, own: DropoutStatistics, role: str) -> Tensor:
        """Weights (N,) of a batch, from its statistics and those of the window before it."""
        c, kept = self.config, self._windows[role]
        if self.steps % max(1, self.epoch_batches) == 0:
            kept.clear()
        earlier = kept[-(c.window - 1) :] if c.window > 1 else kept if c.window == 0 else []
        features = features_of(own, earlier=list(earlier), **self._feature_options())
        if c.window != 1:
            kept.append(own)
            if c.window:
                del kept[: -c.window]
        weights = self.rescalers(features.to(self.classifier.weight), own.label)
        return objectives.binary_weights(weights, c.threshold) if c.threshold else weights

    def _feature_options(self) -> dict[str, Any]:
        c = self.config
        return {
            "feature_set": c.statistics, "agreement": c.agreement, "categories": c.categories,
            "class_separation": c.class_separation,
        }  # fmt: skip
