"""A pretrained vision-language model as a judge of edits: logits of yes and no, differentiable down to the pixels.

The model's processor makes the prompt and shows how pixels are resized and normalised; the same is done again in torch,
so that gradients reach the edited picture, and compared with what the processor made.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from selftaught._paths import expanded
from selftaught.errors import UserError, require
from selftaught.networks.hub import hub

__all__ = ["VisionLanguageJudge", "answer_tokens"]

_ASKED = "{question} Answer with yes or no."
_ALIKE = 0.12
"""Largest mean deviation of our pixels from the processor's, in its normalised units; 8-bit rounding is below it."""
_RESAMPLE = {2: "bilinear", 3: "bicubic"}


class VisionLanguageJudge(nn.Module):
    """A model of transformers that takes two pictures and a text (LLaVA, LLaVA-OneVision, LLaVA-Interleave ...).

    Args:
        name: on the Hugging Face hub, or the folder of a saved model with its processor.

    Attributes:
        yes: number of the token that means yes.
        no: number of the token that means no.

    Raises:
        UserError: transformers isn't installed; no such model, and it can't be fetched; yes or no is no single token.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        library: Any = require("transformers", "text")
        place = str(expanded(name)) if expanded(name).is_dir() else name
        try:
            with hub():
                self.processor = library.AutoProcessor.from_pretrained(place)
                self.model = library.AutoModelForImageTextToText.from_pretrained(place)
        except (OSError, ValueError) as error:
            raise UserError(
                f"judge=hf:{name}: not at hand, and it can't be fetched; go online once, give the folder of a saved "
                f"model, or take --judge small ({' '.join(str(error).split())[:80]})"
            ) from None
        self.name = name
        self.processor.tokenizer.padding_side = "left"  # the answer's place is then the last one of every row
        self.yes, self.no = answer_tokens(self.processor.tokenizer, name)
        images = self.processor.image_processor
        self.register_buffer("mean", torch.tensor(images.image_mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(images.image_std).view(1, -1, 1, 1), persistent=False)

    def forward(self, ref: Tensor, edit: Tensor, questions: list[str]) -> Tensor:
        """Logits (N, 2) of yes and no at the place of the answer.

        Args:
            ref: (N, 3, H, W) in [0, 1], image 1.
            edit: the same shape, image 2; gradients reach it.
            questions: one each.

        Raises:
            UserError: pictures that aren't RGB of one shape; a model whose processor cuts pictures into pieces.
        """
        return self.vocabulary(ref, edit, questions)[:, [self.yes, self.no]]

    def vocabulary(self, ref: Tensor, edit: Tensor, questions: list[str]) -> Tensor:
        """Logits (N, V) of all words at the place of the answer; activations are made again in the backward pass."""
        if ref.shape != edit.shape or ref.dim() != 4 or ref.shape[1] != 3 or len(questions) != len(ref):
            raise UserError(
                f"judge=hf:{self.name} takes two RGB pictures of one shape and a question for each, got "
                f"{tuple(ref.shape)}, {tuple(edit.shape)} and {len(questions)} questions"
            )
        shown = torch.stack([ref, edit], dim=1).flatten(0, 1)
        given = self._prompted(shown, questions)
        template = given.pop("pixel_values")
        pixels = self._pixels(shown, template)

        def answer(values: Tensor) -> Tensor:
            return self.model(**given, pixel_values=values).logits[:, -1]

        return checkpoint(answer, pixels, use_reentrant=False).float()

    def _prompted(self, shown: Tensor, questions: list[str]) -> dict[str, Any]:
        """What the processor makes of pictures (2 N, ...) and questions."""
        flat = (255 * shown.detach().clamp(0, 1)).round().byte().permute(0, 2, 3, 1).cpu().numpy()
        arrays = [np.ascontiguousarray(one) for one in flat]
        pictures = [arrays[2 * i : 2 * i + 2] for i in range(len(questions))]
        prompts = [self._prompt(_ASKED.format(question=question)) for question in questions]
        made = self.processor(images=pictures, text=prompts, padding=True, return_tensors="pt")
        return {key: value.to(shown.device) if isinstance(value, Tensor) else value for key, value in made.items()}

    def _prompt(self, text: str) -> str:
        if getattr(self.processor, "chat_template", None):
            content = [{"type": "image"}, {"type": "image"}, {"type": "text", "text": text}]
            turns = [{"role": "user", "content": content}]
            return str(self.processor.apply_chat_template(turns, add_generation_prompt=True))
        token = self.processor.image_token
        return f"USER: {token} {token} {text} ASSISTANT:"

    def _pixels(self, shown: Tensor, template: Tensor) -> Tensor:
        """The processor's resizing and normalising with gradient, in the shape that it gave.

        Raises:
            UserError: pieces in place of whole pictures, or other pixels than the processor's.
        """
        count, size = template.shape[:-3].numel(), template.shape[-2:]
        if count != len(shown):
            raise UserError(f"judge=hf:{self.name} cuts pictures into pieces; take a model that sees whole pictures")
        shown = shown.float()
        x = shown - (shown - shown.clamp(0, 1)).detach()  # values in range, the gradient everywhere
        mode = _RESAMPLE.get(int(getattr(self.processor.image_processor, "resample", 3)), "bicubic")
        x = F.interpolate(x, size=tuple(size), mode=mode, antialias=True, align_corners=False)
        x = (x - self.mean) / self.std  # type: ignore[operator]
        found = x.view_as(template)
        off = float((found.detach() - template.to(found.dtype)).abs().mean())
        if not off < _ALIKE:
            raise UserError(
                f"judge=hf:{self.name}: its processor crops, pads or scales pictures in a way of its own (mean "
                f"deviation {off:.2f}); give square pictures, or take another model"
            )
        return found.to(self.model.dtype)


def answer_tokens(tokenizer: Any, name: str = "the model") -> tuple[int, int]:
    """Numbers of the tokens for yes and no: "Yes" and "No", or with a blank before them; both in one form.

    Raises:
        UserError: in no form both are single tokens of their own.
    """
    for form in ("Yes", " Yes", "yes", " yes"):
        other = form.replace("Yes", "No").replace("yes", "no")
        pair = [tokenizer.encode(word, add_special_tokens=False) for word in (form, other)]
        unknown = getattr(tokenizer, "unk_token_id", None)
        if all(len(one) == 1 and one[0] != unknown for one in pair) and pair[0] != pair[1]:
            return int(pair[0][0]), int(pair[1][0])
    raise UserError(f"judge=hf:{name}: yes and no are no single tokens of its vocabulary; take another model")
