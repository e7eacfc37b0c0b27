"""What an editor built on a flow model learns besides NP-Edit's two losses: the stages that prepare, and the rivals."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from selftaught import objectives
from selftaught.data.editing import EDITED, INSTRUCTION
from selftaught.engine.method import Method
from selftaught.errors import UserError
from selftaught.methods._editor import Editor, repeated
from selftaught.methods._judging import Judges
from selftaught.views import token_rows

__all__ = ["CONTEXT", "FlowEditor"]

CONTEXT = 32
"""Longest text of the small networks, in tokens."""


class FlowEditor(Method):
    """Base: ``editor`` holds generator, teacher and judges; ``small`` says whether texts are tokens or strings."""

    editor: Editor
    small: bool
    config: Any

    @property
    def generator(self) -> nn.Module:
        """G."""
        return self.editor.generator

    @property
    def teacher(self) -> nn.Module:
        """G_init, frozen."""
        return self.editor.teacher  # type: ignore[return-value]

    @property
    def judges(self) -> Judges:
        """Those that are learnt from, and the second one that is held out."""
        return self.editor.judges  # type: ignore[return-value]

    def words(self, texts: list[str]) -> Any:
        """Texts as the flow models take them: tokens of the small ones, strings of a pretrained one."""
        if not self.small:
            return list(texts)
        return torch.from_numpy(token_rows("words-1024", texts, CONTEXT)).to(self.pixel_mean.device)

    # ---- what prepares, and supervised pairs ----------------------------------------------------------------
    def _latents(self, batch: dict[str, Any], name: str = "image") -> Tensor:
        """Pictures of a batch as the flow sees them, without gradient."""
        with torch.no_grad():
            return self.generator.encode(2 * batch[name] - 1)  # type: ignore[operator]

    def _uniform(self, x: Tensor, low: float = 0.0, high: float = 1.0) -> Tensor:
        return low + (high - low) * torch.rand(len(x), device=x.device)

    def teacher_loss(self, batch: dict[str, Any]) -> Tensor:
        """Flow matching of pictures and their captions, some of them left out."""
        y = self._latents(batch)
        t, eps = self._uniform(y), torch.randn_like(y)
        said = [
            c if u > self.config.text_dropout else ""
            for c, u in zip(batch["text"], torch.rand(len(y)).tolist(), strict=True)
        ]
        return objectives.flow_matching(self.teacher(objectives.noised(y, eps, t), t, self.words(said)), y, eps)

    def identity_loss(self, batch: dict[str, Any]) -> Tensor:
        """L_id: the editor is to copy its reference, told the reference's caption."""
        y = self._latents(batch)
        t, eps = self._uniform(y), torch.randn_like(y)
        v = self.generator(objectives.noised(y, eps, t), t, self.words(batch["text"]), y)
        return objectives.flow_matching(v, y, eps)

    def supervised_loss(self, batch: dict[str, Any]) -> Tensor:
        """Flow matching of the result of a pair, given the picture before and the instruction."""
        y, x = self._latents(batch), self._latents(batch, EDITED)
        t, eps = self._uniform(y), torch.randn_like(y)
        v = self.generator(objectives.noised(x, eps, t), t, self.words(batch[INSTRUCTION]), y)
        return objectives.flow_matching(v, x, eps)

    def decoded(self, latents: Tensor) -> Tensor:
        """Pictures in about [0, 1] for a judge, with gradient."""
        return (self.generator.decode(latents) + 1) / 2  # type: ignore[operator]

    # ---- the policy gradient ---------------------------------------------------------------------------------
    def policy_terms(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Several edits of each picture with fresh noise in every step; what the judge likes gets more likely."""
        k, steps = self.config.policy_edits, self.editor.steps
        many = repeated(batch, k)
        y, said = self._latents(many), self.words(many[INSTRUCTION])
        x_t, log = torch.randn_like(y), []
        for number, at in enumerate(steps):
            t = y.new_full((len(y),), at)
            clean = objectives.clean_from_velocity(x_t, self.generator(x_t, t, said, y), t)
            if number + 1 < len(steps):
                after = steps[number + 1]
                mean = (1 - after) * clean
                x_t = (mean + after * torch.randn_like(y)).detach()
                log.append(objectives.gaussian_log_density(x_t, mean, after))
        if not log:
            raise UserError(
                "--baseline policy: one step has no chance to learn from; give --steps-at two times or more"
            )
        with torch.no_grad():
            reward = self.judges.reward(many, self.decoded(clean), self.config.question_set).view(-1, k)
        chance = torch.stack(log).mean(0).view(-1, k)
        return {"loss": objectives.policy_gradient(chance, reward), "reward": reward.mean()}
