"""Judges of edits as a method uses them: what they are asked, what they learn from, what their answers are worth."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from selftaught import objectives
from selftaught.data.editing import INSTRUCTION, TARGET, questions
from selftaught.errors import UserError
from selftaught.networks.frozen import Frozen
from selftaught.networks.judges import ConvJudge, PatchJudge, damaged, mixed_colours, shifted
from selftaught.networks.vision_language import VisionLanguageJudge
from selftaught.views import token_rows

__all__ = ["Judges"]

_WORDS = "words-1024"
_FAINT = 0.05
"""Standard deviation of the noise that a judge is to look past; `damaged` begins at twice as much."""
_WHICH = {"both": (0, 1), "edit": (0,), "identity": (1,)}


class Judges(nn.Module):
    """The judges that an editor learns from, and a second one that is held out.

    Args:
        names: "small", "hf:NAME", or several joined by "+"; the answers of several are averaged in the loss.
        channels: of a picture.
        width: of the small judges.
        form: "binary" or "vocabulary" loss.
        context: longest question in tokens.

    Attributes:
        small: the small judges by name: "judge" where one takes part, and always "second", which is held out.
        large: vision-language models by name, frozen.
    """

    def __init__(self, names: str, channels: int, *, width: int = 32, form: str = "binary", context: int = 32) -> None:
        super().__init__()
        asked = names.split("+")
        if len(set(asked)) < len(asked):
            raise UserError(f"judge={names}: name every judge once")
        if form == "vocabulary" and "small" in asked:
            raise UserError("judge_form=vocabulary: the small judge knows yes and no alone; name a model with hf:NAME")
        self.form, self.context = form, context
        small = {"judge": ConvJudge(channels, width, context=context)} if "small" in asked else {}
        self.small: Any = nn.ModuleDict(small | {"second": PatchJudge(channels, width, context=context)})
        models = {name: VisionLanguageJudge(name.partition(":")[2]) for name in asked if name != "small"}
        self.large: Any = nn.ModuleList(Frozen(model, name=name) for name, model in models.items())

    def _tokens(self, texts: list[str], device: torch.device) -> Tensor:
        return torch.from_numpy(token_rows(_WORDS, texts, self.context)).to(device)

    def answers(self, batch: dict[str, Any], edited: Tensor, name: str, which: tuple[int, ...] = (0, 1)) -> Tensor:
        """Logits (N, Q, 2) of yes and no of one small judge on edits of a batch.

        Args:
            batch: pictures "image" in [0, 1], captions "target", kinds "kind".
            edited: (N, C, H, W) in [0, 1].
            name: "judge" or "second".
            which: 0 asks whether the edit was carried out, 1 whether all else stayed.
        """
        asked = [questions(*pair) for pair in zip(batch[TARGET], batch["kind"], strict=True)]
        found = [self.small[name](batch["image"], edited, self._tokens([q[j] for q in asked], edited.device))
                 for j in which]  # fmt: skip
        return torch.stack(found, dim=1)

    def _large(self, batch: dict[str, Any], which: tuple[int, ...]) -> list[list[str]]:
        """What vision-language models are asked, per kind of question: the instruction stands before it."""
        asked = [questions(*pair) for pair in zip(batch[TARGET], batch["kind"], strict=True)]
        told = [f"Image 2 is image 1 after this instruction: {text}." for text in batch[INSTRUCTION]]
        return [[f"{t} {q[j]}" for t, q in zip(told, asked, strict=True)] for j in which]

    def _logits(self, batch: dict[str, Any], edited: Tensor, which: tuple[int, ...]) -> list[Tensor]:
        """(N, Q, 2) logits of yes and no of every judge that takes part."""
        found = [self.answers(batch, edited, "judge", which)] if "judge" in self.small else []
        asked = self._large(batch, which) if len(self.large) else []
        for model in self.large:
            found += [torch.stack([model(batch["image"], edited, part) for part in asked], dim=1)]
        return found

    def loss(self, batch: dict[str, Any], edited: Tensor, question_set: str = "both") -> Tensor:
        """L_vlm, averaged over the judges that take part; gradient into the edits."""
        which = _WHICH[question_set]
        if self.form == "binary":
            each = [objectives.judge_loss(x[..., 0], x[..., 1]) for x in self._logits(batch, edited, which)]
            return torch.stack(each).mean()
        each = []
        for model in self.large:
            parts = [model.module.vocabulary(batch["image"], edited, part) for part in self._large(batch, which)]
            logits = torch.stack(parts, dim=1)
            answer = torch.full(logits.shape[:2], model.module.yes, device=logits.device)
            each.append(objectives.judge_vocabulary_loss(logits, answer))
        return torch.stack(each).mean()

    def reward(self, batch: dict[str, Any], edited: Tensor, question_set: str = "both") -> Tensor:
        """(N,) mean log-probability of yes, for the policy gradient."""
        logits = self._logits(batch, edited, _WHICH[question_set])
        return torch.stack([logsigmoid(x[..., 0] - x[..., 1]).mean(1) for x in logits]).mean(0)

    def lesson(self, name: str, batch: dict[str, Any], rows: list[int]) -> Tensor:
        """What a small judge learns from some pictures of a batch and their captions, without any edit.

        A picture shows its own caption, and not that of an imagined result. It stays the same picture in other colours;
        shifted, damaged, or in place of another one, it doesn't.
        """
        x = batch["image"][rows]
        caption, target, kind = ([batch[key][i] for i in rows] for key in ("text", TARGET, "kind"))
        mixed = mixed_colours(x)
        before = torch.where(torch.rand(len(x), 1, 1, 1, device=x.device) < 0.5, mixed, x)
        which = torch.randint(0, 3, (len(x),), device=x.device)
        others = torch.stack([shifted(mixed), mixed.roll(1, 0), damaged(mixed)])
        others = others[which, torch.arange(len(x), device=x.device)]
        asked = [questions(c, k) for c, k in zip(caption, kind, strict=True)]
        wrong = [questions(c, k)[0] for c, k in zip(target, kind, strict=True)]
        ref, edit = torch.cat([before, before, x, x]), torch.cat([x, x, mixed_colours(x), others])
        noise = _FAINT * torch.rand(len(edit), 1, 1, 1, device=x.device)
        edit = edit + noise * torch.randn_like(edit)
        texts = [q[0] for q in asked] + wrong + 2 * [q[1] for q in asked]
        logits = self.small[name](ref, edit, self._tokens(texts, x.device))
        wanted = torch.tensor([True, False, True, False], device=x.device).repeat_interleave(len(x))[:, None]
        return objectives.judge_loss(logits[:, :1], logits[:, 1:], wanted)
