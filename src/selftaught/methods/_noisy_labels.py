"""What classifiers of noisy labels share: encoders of texts, the deliverable with its rescalers, stored weights."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from selftaught import networks
from selftaught._reading import regular
from selftaught.errors import UserError


class Weighing(nn.Module):
    """A classifier with the rescalers that were learnt beside it; called, it is the classifier."""

    def __init__(self, encoder: nn.Module, classifier: nn.Module, rescalers: nn.Module, bag: nn.Module | None) -> None:
        super().__init__()
        self.encoder, self.classifier, self.rescalers = encoder, classifier, rescalers
        self.bag = bag if bag is not encoder else None

    def forward(self, x: Tensor) -> Tensor:
        """Inputs to logits (N, K)."""
        return self.classifier(self.encoder(x))


def text_encoder(c: Any) -> nn.Module:
    """The encoder of texts that the options ask for; auto is a pretrained BERT.

    Raises:
        UserError: another name than tfidf, words or hf:NAME.
    """
    name = "hf:bert-base-uncased" if c.encoder == "auto" else c.encoder
    if name == "tfidf":
        return networks.TfIdf(c.vocabulary, c.ngrams)
    if name == "words":
        return networks.WordTransformer(c.vocabulary, c.max_length, dropout=c.dropout)
    if name.startswith("hf:"):
        return networks.PretrainedText(name.removeprefix("hf:"), c.max_length)
    raise UserError(f"--encoder {name}: for texts it may be tfidf, words or hf:NAME")


def read_weights(path: Path, names: list[str], source: str) -> list[float]:
    """The weights of samples by name from a table with the columns name and weight.

    Raises:
        UserError: it can't be read, or a sample is not in it.
    """
    try:
        with regular(path).open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            known = {row["name"]: float(row["weight"]) for row in csv.DictReader(file)}
    except (OSError, KeyError, ValueError, TypeError, csv.Error) as error:
        raise UserError(f"--weights {path}: no table with the columns name and weight ({error})") from None
    missing = next((name for name in names if name not in known), None)
    if missing is not None:
        raise UserError(f"--weights {path}: holds no weight of {missing} of {source}; apply the run to the same data")
    return [known[name] for name in names]
