"""RetFiner: an image encoder refined by the reports of its images (MICCAI 2025, arXiv 2506.22149).

    L = L_mlm + L_gm + L_itc + L_itm

The encoder's tokens V go, by cross-attention, into a BERT that fills in hidden words of the report (mlm), writes them
from what stands before (gm), finds the report that belongs to an image among the batch's (itc, without
cross-attention) and tells whether a report belongs, against hard negatives (itm). The refined encoder is what one
keeps; the text part is thrown away.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, cat, nn

from selftaught import networks, objectives, views
from selftaught.catalog.rules import Count, Form, Natural, NonNegative, Positive, Range, Share
from selftaught.data import captioned
from selftaught.engine.method import LearningRateScaling, Method, MethodConfig, Schedule, Stage
from selftaught.errors import UserError
from selftaught.methods._long_texts import note_long_texts
from selftaught.networks.bert import CrossBERT, LanguageHead, matching_head
from selftaught.views import Pipeline, Recipe, View

__all__ = ["RetFiner"]

_LOWEST = 0.01
_BERT_MASK, _BERT_LOW = 103, 106
"""In BERT's own vocabulary: [MASK], and the first number that may stand in for a hidden word."""


@dataclass
class Config(MethodConfig):
    """RetFiner's options; the defaults are the paper's for RETFound."""

    encoder: str = "vit_large_patch16_224"
    """The encoder that is refined: that of --init."""
    stem: Literal["auto", "small", "standard"] = "auto"
    """First layers of a ResNet; that of --init."""
    image_size: Natural = 224
    """Side of the images in pixels; that of --init. 0 chooses by the data."""
    losses: Annotated[str, Form(r"(mlm|gm|itc|itm)(\+(mlm|gm|itc|itm))*", "of mlm, gm, itc, itm, such as itc+itm")] = (
        "mlm+gm+itc+itm"
    )
    """Objectives that take part."""
    mlm_weight: NonNegative = 1.0
    """Weight of masked language."""
    gm_weight: NonNegative = 1.0
    """Weight of generating."""
    itc_weight: NonNegative = 1.0
    """Weight of the contrast of images and reports."""
    itm_weight: NonNegative = 1.0
    """Weight of matching."""
    mlm_share: Share = 0.15
    """Share of words that are hidden for masked language."""
    gm_share: Share = 0.6
    """Share of words that are hidden for generating."""
    temperature: Positive = 0.07
    """Temperature of the similarities."""
    learn_temperature: bool = False
    """Learn the temperature, from the given one on and never below 0.01."""
    smoothing: Share = 0.1
    """Label smoothing of the contrast."""
    equal_reports: Literal["negatives", "left-out"] = "negatives"
    """Whether equal reports of other images count as negatives, as in the paper, or are left out."""
    uncertainty: bool = False
    """Weigh the objectives by uncertainties that are learnt, beside the weights above (Kendall et al. 2018)."""
    text_encoder: Annotated[str, Form(r"scratch|hf:.+", "scratch, or hf:NAME of a BERT")] = "scratch"
    """BERT from scratch, or with its weights and word pieces (hf:bert-base-uncased, hf:FOLDER; extra text)."""
    vocabulary: Annotated[int, Range(64)] = 30522
    """Numbers that words are hashed into; this, width, heads and layers are of a BERT from scratch."""
    text_length: Annotated[int, Range(3)] = 30
    """Longest report in tokens; longer ones are cut."""
    text_width: Count = 768
    """Width of BERT."""
    text_heads: Count = 12
    """Attention heads of BERT."""
    text_layers: Count = 12
    """Layers of BERT."""
    dropout: Share = 0.1
    """Dropout of BERT."""
    dim: Count = 512
    """Width of the space of the contrast."""
    frozen_blocks: Natural = 0
    """First blocks of the encoder that stay as they are."""
    validation: Share = 0.1
    """Share of the pairs held out to choose the best weights by; 0 watches the training loss."""
    patience: Natural = 3
    """Epochs without a better loss after which training ends; 0 never."""
    probe: Literal["concat", "cls", "mean"] = "concat"
    """What probes see: class token and mean of the patch tokens, or one of them."""
    lr: float = 1e-4
    lr_scaling: LearningRateScaling = "none"
    weight_decay: float = 0.01
    schedule: Schedule = "constant"


PRESETS = {
    "retfound": {"text_encoder": "hf:bert-base-uncased", "epochs": 20, "batch_size": 128},
    "vit-b16": {
        "encoder": "vit_base_patch16_224", "text_encoder": "hf:bert-base-uncased", "epochs": 20, "batch_size": 128,
    },
    "laptop": {
        "encoder": "cnn-small", "image_size": 0, "vocabulary": 512, "text_length": 16, "text_width": 96,
        "text_heads": 4, "text_layers": 2, "dim": 64, "lr": 5e-4, "patience": 0, "steps": 200, "batch_size": 32,
    },
}  # fmt: skip


class RetFiner(Method):
    """RetFiner on images with reports, from an encoder of ours or of timm (``--init``)."""

    slug = "retfiner"
    config_class = Config
    config: Config
    modalities = ("image",)
    default_data = "bscans"
    transforms = True
    judged_by = ("refinement",)

    @classmethod
    def default_source(cls, original: Mapping[str, Any] | None = None) -> str:
        """What the original run learnt from."""
        return cls.default_data if original is None else str(original["settings"]["data"])

    @classmethod
    def takes(cls, source: Any) -> Any:
        """Images with reports; where there are none, the names of their classes stand for them."""
        return captioned(source)

    @classmethod
    def arranged(cls, sources: dict[str, Any], config: Any) -> dict[str, Any]:
        """The same, with a note where reports are longer than BERT from scratch reads."""
        if config.text_encoder == "scratch":
            note_long_texts(sources["data"], f"words-{config.vocabulary}", config.text_length, "--text-length")
        return sources

    # ---- networks --------------------------------------------------------------------------------------------
    def build(self) -> None:
        """The encoder, BERT with its heads, and the projections of the contrast."""
        c = self.config
        name, options = networks.timm_name(c.encoder)
        self.encoder = networks.encoder(name, channels=self.channels, image_size=c.image_size, stem=c.stem, **options)
        size = c.image_size or 64
        with torch.no_grad():
            _, places = self.eval().tokens(torch.zeros(1, self.channels, size, size))
        self.train()
        name = c.text_encoder.removeprefix("hf:") if c.text_encoder != "scratch" else ""
        known = networks.pretrained_bert(name) if name else None
        width = known[0].width if known else c.text_width
        self.wide = nn.Linear(places.shape[2], width) if places.shape[2] != width else nn.Identity()
        language: nn.Module
        bert, language = known or self._from_scratch()
        self.bert, self.language = bert, language
        self.bert.copy_to_cross()
        self.pieces, self.hiding = self._words(name)
        self.matching = matching_head(width)
        self.of_image, self.of_text = (nn.Linear(width, c.dim, bias=False) for _ in range(2))
        if c.uncertainty:
            self.log_variances = nn.Parameter(torch.zeros(len(c.losses.split("+"))))
        if c.learn_temperature:
            self.log_scale = nn.Parameter(torch.tensor(math.log(1 / c.temperature)))
        self._freeze(c.frozen_blocks)

    def _from_scratch(self) -> tuple[CrossBERT, LanguageHead]:
        c = self.config
        bert = CrossBERT(
            c.vocabulary, width=c.text_width, heads=c.text_heads, layers=c.text_layers, image=c.text_width,
            context=max(c.text_length, 64), dropout=c.dropout,
        )  # fmt: skip
        return bert, LanguageHead(bert)

    def _words(self, name: str) -> tuple[str, dict[str, int]]:
        """The tokeniser of a pretrained BERT or of hashed words, and what hides words or stands in for them."""
        size = self.bert.vocabulary
        if not name:
            return f"words-{size}", {"mask": size - 3, "low": 1, "high": size - 4}
        pieces = f"hf:{networks.model_place(name, '--text-encoder')}"
        known: Any = views.tokeniser(pieces)
        low = _BERT_LOW if known.mask == _BERT_MASK else 1 + max(known.special)
        return pieces, {"mask": known.mask, "low": low, "high": size - 1}

    def _freeze(self, count: int) -> None:
        """Leave the first blocks, and what lies before them, as they are."""
        if not count:
            return
        blocks = getattr(getattr(self.encoder, "model", None), "blocks", None)
        if blocks is None or count > len(blocks):
            raise UserError(f"frozen_blocks={count}: the encoder has {0 if blocks is None else len(blocks)} blocks")
        model: Any = self.encoder.model
        for part in (model.patch_embed, *blocks[:count]):
            part.requires_grad_(False)

    def tokens(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Class token (N, D) and patch tokens (N, L, D); of a convolutional network its map and the mean."""
        if hasattr(getattr(self.encoder, "model", None), "blocks"):
            whole, places = self.encoder.tokens(x)
        else:
            whole, places = None, self.encoder.maps(x).flatten(2).transpose(1, 2)
        return places.mean(1) if whole is None else whole, places

    # ---- views -----------------------------------------------------------------------------------------------
    def recipe(self) -> Recipe:
        """The whole image, and its report as tokens."""
        c = self.config
        report = Pipeline((views.PickText(), views.Tokenise(self.pieces, c.text_length)))
        return Recipe((View("scan", "image", self.evaluation_view()), View("report", "text", report)))

    def evaluation_view(self) -> Pipeline:
        """Shorter side resized, centre cropped."""
        return next(iter(views.plain(self.config.image_size)))

    def stage_plan(self, stage: str) -> Stage:
        """Keep the weights of the lowest loss on held-out pairs, and stop early."""
        c = self.config
        return Stage(keep="best", validation=c.validation, patience=c.patience)

    # ---- learning --------------------------------------------------------------------------------------------
    @property
    def tau(self) -> float | Tensor:
        """The temperature, learnt or not."""
        if not self.config.learn_temperature:
            return self.config.temperature
        return (-self.log_scale).exp().clamp(min=_LOWEST)

    def loss(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """The four objectives, each by its weight."""
        c, wanted = self.config, self.config.losses.split("+")
        whole, places = self.tokens(batch["scan"])
        image = self.wide(cat([whole.unsqueeze(1), places], dim=1))
        report = batch["report"]
        terms: dict[str, Tensor] = {}
        if "mlm" in wanted:
            terms["mlm"] = self._language(report, image, c.mlm_share, causal=False)
        if "gm" in wanted:
            terms["gm"] = self._language(report, image, c.gm_share, causal=True)
        if "itc" in wanted or "itm" in wanted:
            v, t = self.of_image(image[:, 0]), self.of_text(self.bert(report)[:, 0])
            same = (report[:, None] == report).all(2) if c.equal_reports == "left-out" else None
            if "itc" in wanted:
                terms["itc"] = objectives.contrast_texts(v, t, temperature=self.tau, smoothing=c.smoothing, same=same)
            if "itm" in wanted:
                terms["itm"] = self._matching(report, image, self._similarity(v, t), same)
        parts = torch.stack([getattr(c, f"{name}_weight") * term for name, term in terms.items()])
        if not c.uncertainty:
            return terms | {"loss": parts.sum()}
        return terms | {"loss": objectives.uncertainty_weighted(list(parts), self.log_variances)}

    def _similarity(self, v: Tensor, t: Tensor) -> Tensor:
        with torch.no_grad():
            return nn.functional.normalize(v.float(), dim=1) @ nn.functional.normalize(t.float(), dim=1).T / self.tau

    def _language(self, report: Tensor, image: Tensor, share: float, *, causal: bool) -> Tensor:
        hidden, labels = objectives.mask_tokens(report, share, **self.hiding)
        logits = self.language(self.bert(hidden, image, causal=causal, keep=report != 0), self.bert)
        return objectives.masked_language(logits, labels)

    def _matching(self, report: Tensor, image: Tensor, similarity: Tensor, same: Tensor | None) -> Tensor:
        """Every pair, every text with an image that isn't its own, every image with such a text."""
        of_text, of_image = objectives.hard_negatives(similarity, same)
        texts, images = cat([report, report, report[of_image]]), cat([image, image[of_text], image])
        logits = self.matching(self.bert(texts, images)[:, 0])
        belongs = torch.zeros(len(texts), dtype=torch.int64, device=texts.device)
        belongs[: len(report)] = 1
        return objectives.text_matching(logits, belongs)

    # ---- what one keeps --------------------------------------------------------------------------------------
    def features(self, batch: dict[str, Any]) -> Tensor:
        """What probes see: class token, mean of the patch tokens, or both side by side."""
        whole, places = self.tokens(self.inputs(batch))
        mean = places.mean(1)
        return {"cls": whole, "mean": mean, "concat": cat([whole, mean], dim=1)}[self.config.probe]

    def predict(self, batch: dict[str, Any]) -> Tensor:
        """The refined encoder's embedding."""
        return self.encoder(self.inputs(batch))

    def deliverable(self) -> nn.Module:
        """The refined encoder alone."""
        return self.encoder

    def deliverable_spec(self) -> dict[str, Any]:
        """How to build the encoder in plain timm."""
        return dict(self.encoder.spec)
