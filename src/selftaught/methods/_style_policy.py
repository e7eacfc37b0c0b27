"""The policy of text erasing: what it draws, what it is rewarded for, and the detector that it tries to deceive."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from selftaught import networks, objectives
from selftaught.methods._frozen_features import FrozenFeatures
from selftaught.methods._lettering import Lettering
from selftaught.views import STYLE_DECISIONS

__all__: list[str] = []


@contextmanager
def judging(network: nn.Module) -> Iterator[None]:
    """A network in evaluation mode for a while."""
    before = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(before)


class StyledByPolicy(FrozenFeatures):
    """The part of text erasing that learns which styles to draw in."""

    config: Any
    eraser: networks.TextEraser
    lettering: Lettering
    mask_discriminator: networks.TextMaskDiscriminator
    difficulty: Tensor
    realism: Tensor

    @property
    def generator(self) -> networks.EraseNet:
        """G."""
        return self.eraser.network

    def build_policy(self) -> None:
        """The controller, and the running means of its rewards."""
        c = self.config
        self.register_buffer("difficulty", torch.zeros(()))
        self.register_buffer("realism", torch.zeros(()))
        seen = 16 * c.width if c.policy == "data-dependent" else 0
        self.controller = networks.StylePolicy(tuple(STYLE_DECISIONS.values()), features=seen)

    def pool(self) -> Tensor:
        """Styles for the loader, (pool, 18)."""
        with torch.no_grad():
            return self.controller(self.config.policy_pool).actions.cpu()

    def seen(self, g: Tensor) -> Tensor:
        """What a data-dependent policy sees of pictures: the bottleneck's means (N, 16 width)."""
        with torch.no_grad(), judging(self.generator):
            return self.generator(g).bottleneck.mean((2, 3))

    def policy_step(self, g: Tensor, real: Tensor) -> dict[str, Tensor]:
        """D_M learns where real text is, then the policy from the rewards of M styles on the batch."""
        c = self.config
        told: dict[str, Tensor] = {}
        if c.rewards != "difficulty":
            with torch.no_grad(), judging(self.generator):
                features = self.generator(g).mask_features
            told = self.detector_step(features, real)
        if c.policy == "data-dependent":
            seen = self.seen(g).repeat(c.policies, 1)
            drawn = self.controller(features=seen)
        else:
            drawn = self.controller(c.policies)
        difficulty, realism = self.tried(g, real, drawn.actions)
        rewards, more = self.rewards(difficulty, realism)
        if len(drawn.actions) > len(rewards):  # a style for each picture: all of a policy's share its reward
            rewards = rewards.repeat_interleave(len(g))
        relevant = objectives.erasing_relevant(drawn.actions, release=c.release_relevance)
        loss = objectives.erasing_policy(drawn.log_probs, drawn.entropies, rewards, relevant)
        return told | more | {"policy": self.minimise({"loss": loss}, optimiser="policy")["loss"]}

    def detector_step(self, features: Tensor, real: Tensor) -> dict[str, Tensor]:
        """D_M learns where real text is."""
        wrong = objectives.text_dice(self.mask_discriminator(features), 1 - real, sigmoid=False).mean()
        return {"mask discriminator": self.minimise({"loss": wrong}, optimiser="mask discriminator")["loss"]}

    def adapted(self, made: networks.Erased, g: Tensor, m: Tensor, real: Tensor) -> Tensor:
        """The term of ``adaptation``; features are the bottleneck's maxima, real text is that of g."""
        if self.config.adaptation == "dann":
            found = self.mask_discriminator(made.mask_features)
            return objectives.text_dice(found, 1 - m * real, sigmoid=False).mean()
        drawn, own = made.bottleneck.amax((2, 3)), self.generator(g).bottleneck.amax((2, 3))
        if self.config.adaptation == "rsd":
            return objectives.erasing_subspaces(drawn, own)
        return objectives.erasing_feature_norm(drawn) + objectives.erasing_feature_norm(own)

    def tried(self, g: Tensor, real: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """e and q, (M,) each, of text in M styles, or in M for each picture; the generator stays as it is."""
        styles = actions.cpu().numpy().reshape(self.config.policies, -1, actions.shape[1])
        found: list[list[Tensor]] = [[], []]
        with torch.no_grad(), judging(self.generator):
            for style in styles:
                x, m = self.lettering.batch(g, real[:, 0], np.broadcast_to(style, (len(g), style.shape[1])))
                made = self.generator(x)
                y = objectives.erasing_composite(x, made.image, m)
                found[0].append((y - g).abs().mean())
                if self.config.rewards != "difficulty":
                    seen = self.mask_discriminator(made.mask_features)
                    found[1].append(objectives.erasing_realism(seen, m, real).mean())
        e = torch.stack(found[0])
        return e, torch.stack(found[1]) if found[1] else torch.zeros_like(e)

    def rewards(self, e: Tensor, q: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """R (M,) and what it is made of; the running means move."""
        c, o = self.config, objectives
        start = e.mean() if self.difficulty == 0 else self.difficulty
        self.difficulty.copy_(o.erasing_running_mean(start, e))
        self.realism.copy_(o.erasing_running_mean(self.realism, q))
        total = torch.zeros_like(e)
        told = {"difficulty": e.mean(), "realism": q.mean()}
        if c.rewards != "realism":
            total = total + c.difficulty_weight * o.erasing_difficulty_reward(e, self.difficulty, limit=c.reward_limit)
        if c.rewards != "difficulty":
            total = total + c.realism_weight * o.erasing_realism_reward(q, self.realism)
        return total, told | {"reward": total.mean()}
