"""GOPro: a frozen CLIP's prompts, made of each image's own style and content (BMVC 2023, arXiv 2308.11605).

    t = rho(styles and contents of all image blocks),    prompt of class k: [start] (V_1 + t) ... (V_4 + t) [name k .]
    L = CE(s T f, y) + MSE(T, T^mo) + MSE(T, T^au) + 0.1 NT-Xent(P f, P f^mo)

T are the text embeddings made for an image, mo and au its MoCo-style and its AugMix view. CLIP itself never moves; V,
the projectors of style and content, rho and the visual projector P are learnt. Baselines in the same code: ``coop``
(t = 0), ``cocoop`` (t an MLP of f), ``linear`` (a layer over f), ``zero-shot`` (a hand-made prompt, nothing is learnt).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selftaught import objectives, views
from selftaught.catalog.rules import Count, Natural, NonNegative, Positive, PositiveShare
from selftaught.engine.distributed import gather
from selftaught.engine.method import LearningRateScaling, Method, MethodConfig, Optimizer
from selftaught.errors import UserError
from selftaught.methods._encoder import accuracy
from selftaught.networks.clip_towers import CLIPTowers, OpenCLIPTowers, OwnTowers
from selftaught.networks.open_clips import OPEN_CLIP
from selftaught.networks.prompts import MetaNet, PromptContext, StyleContent
from selftaught.views import Pipeline, Recipe, View, tokeniser

__all__ = ["GOPro", "PromptedCLIP"]


@dataclass
class Config(MethodConfig):
    """GOPro's options; the defaults are the paper's."""

    original: str = ""
    """The CLIP that is adapted, as --init told it."""
    class_names: list[str] | None = None
    """Names of the classes in words; None: those of the data's classes."""
    image_size: Natural = 224
    """Side of the square views in pixels; that of the run in --init."""
    mode: Literal["gopro", "coop", "cocoop", "linear", "zero-shot"] = "gopro"
    """GOPro, or a baseline on the same frozen CLIP."""
    n_ctx: Count = 4
    """Context vectors M, where they start at random; else as many as ctx_init has tokens."""
    ctx_init: str = "a photo of a"
    """Words that the context vectors start at; "": random."""
    style: bool = True
    """Whether the style of the image takes part in its prompts."""
    content: bool = True
    """Whether the content of the image takes part in its prompts."""
    per_view_rho: bool = False
    """A rho for each view, as the paper's figure draws it; the code has one for all."""
    project_logits: bool = False
    """The projected features in the classification too, as the paper's figure draws it."""
    con_weight: NonNegative = 0.1
    """Weight of the contrast between views; 0 leaves it out."""
    sem_weight: NonNegative = 1.0
    """Weight of the prompts' agreement between views; 0 leaves it out."""
    view_kinds: Literal["both", "moco", "augmix"] = "both"
    """Views whose prompts are to agree with the image's."""
    temperature: Positive = 0.1
    """Temperature of the contrast between views."""
    pieces: Natural = 512
    """Prompts that go through the text tower at a time; 0: all."""
    crop: PositiveShare = 0.08
    """Smallest share of the image that a view's crop keeps."""
    flip: bool = True
    """Whether views are mirrored at random; off where left and right matter."""
    optimizer: Optimizer = "sgd"
    lr: float = 2e-3
    lr_scaling: LearningRateScaling = "none"
    weight_decay: float = 5e-4
    warmup_epochs: float = 1.0

    @property
    def learns(self) -> bool:
        """Not with a hand-made prompt."""
        return self.mode != "zero-shot"


PRESETS = {
    "few-shot": {"epochs": 50, "batch_size": 4},
    "laptop": {
        "crop": 0.5, "optimizer": "adamw", "lr": 2e-3, "weight_decay": 0.01, "steps": 150,
        "batch_size": 16,
    },
}  # fmt: skip


class PromptedCLIP(nn.Module):
    """Images to scores of classes in words: a frozen CLIP with learnt prompts.

    Args:
        towers: the frozen CLIP.
        tokens: (K, L) of the classes' prompts.
        config: GOPro's options.
        count: tokens of the context.
    """

    def __init__(self, towers: CLIPTowers, tokens: Tensor, config: Config, count: int) -> None:
        super().__init__()
        c = self.config = config
        self.towers = towers
        self.context = PromptContext(towers, tokens, count, random=not c.ctx_init)
        if c.mode == "gopro":
            options: dict[str, Any] = {"style": c.style, "content": c.content, "views": 3 if c.per_view_rho else 1}
            self.generator = StyleContent(towers.widths, towers.width, **options)
            self.projector = nn.Sequential(nn.Linear(towers.dim, towers.dim), nn.BatchNorm1d(towers.dim))
        elif c.mode == "cocoop":
            self.meta = MetaNet(towers.dim, towers.width)
        elif c.mode == "linear":
            self.probe = nn.Linear(towers.dim, len(tokens))

    def shift(self, f: Tensor, hidden: Sequence[Tensor], view: int = 0) -> Tensor | None:
        """t (B, width) of images, or None where prompts don't depend on them."""
        if self.config.mode == "gopro":
            return self.generator(hidden, view)
        return self.meta(f) if self.config.mode == "cocoop" else None

    def text(self, shift: Tensor | None, tokens: Tensor | None = None) -> Tensor:
        """Text embeddings (B or 1, K, dim) for images' shifts, in pieces of some prompts."""
        count = len(self.context.tokens if tokens is None else tokens)
        whole = torch.compiler.is_exporting() or not self.config.pieces  # pieces would bound a graph's batch
        if shift is None or whole or len(shift) * count <= self.config.pieces:
            return self.context(self.towers, shift, tokens)
        rows = max(1, self.config.pieces // count)
        return torch.cat([self.context(self.towers, part, tokens) for part in shift.split(rows)])

    def scores(self, f: Tensor, text: Tensor) -> Tensor:
        """s T_i f_i (B, K): each image with its own prompts."""
        if self.config.project_logits and self.config.mode == "gopro":
            f = F.normalize(self.projector(f), dim=1)
        return self.towers.factor * (text * f.unsqueeze(1)).sum(2)

    def forward(self, images: Tensor, tokens: Tensor | None = None) -> Tensor:
        """(N, C, h, w) -> logits (N, K) of the classes that it learnt, or of those in ``tokens``."""
        f, hidden = self.towers.image(images)
        if self.config.mode == "linear" and tokens is None:
            return self.probe(f)
        return self.scores(f, self.text(self.shift(f, hidden), tokens))


class GOPro(Method):
    """GOPro with its baselines, on a CLIP of ours (``--init RUN``) or of open_clip (``--init open_clip:NAME``)."""

    slug = "gopro"
    config_class = Config
    config: Config
    modalities = ("image",)
    default_data = "scenes"
    output = "classes"
    needs_labels = True
    transforms = True
    judged_by = ("base-to-new",)

    @classmethod
    def inherits(cls, original: Mapping[str, Any]) -> dict[str, Any]:
        """Which CLIP it is.

        Raises:
            UserError: a run without words.
        """
        from selftaught import methods

        method, options = original["method"], original["options"]
        if method == "open_clip":
            return {"original": f"{OPEN_CLIP}{options['name']}"}
        kind = methods.get(method)
        if kind is cls:
            return {"original": options["original"], "image_size": options["image_size"]}
        if kind.output != "image-text":
            raise UserError(f"--init: {method} knows no words; gopro needs a run of clip, or open_clip:ViT-B-16/openai")
        told = json.dumps({"method": method, "options": options})
        return {"original": told, "image_size": options["image_size"]}

    @classmethod
    def default_source(cls, original: Mapping[str, Any] | None = None) -> str:
        """What the original run learnt from."""
        return cls.default_data if original is None else str(original["settings"]["data"])

    @classmethod
    def takes(cls, source: Any) -> Any:
        """Labelled images, as the original run took them.

        Raises:
            UserError: no named classes.
        """
        from selftaught.data import captioned

        if source.labels is None or not source.classes:
            raise UserError(f"{source.name} has no named classes: gopro needs class folders, a few images of each")
        return captioned(source)

    # ---- networks --------------------------------------------------------------------------------------------
    def build(self) -> None:
        """The frozen CLIP, and what is learnt beside it."""
        c = self.config
        if not c.original:
            raise UserError("gopro adapts a trained CLIP: give it with --init RUN, or --init open_clip:ViT-B-16/openai")
        towers = self._towers()
        names = list(c.class_names or map(str, range(self.classes)))
        if len(names) != self.classes:
            raise UserError(f"class_names: {len(names)} names for {self.classes} classes")
        count = len(self._words.encode(c.ctx_init)) if c.ctx_init else c.n_ctx
        if not count:
            raise UserError(f"ctx_init={c.ctx_init!r}: no word in it")
        self._filler = c.ctx_init or " ".join(["x"] * count)
        self.model = PromptedCLIP(towers, self._tokens(names, towers.context), c, count)

    def _towers(self) -> CLIPTowers:
        c = self.config
        if c.original.startswith(OPEN_CLIP):
            self._words = tokeniser("clip")
            return OpenCLIPTowers(c.original.removeprefix(OPEN_CLIP))
        from selftaught import methods

        told = json.loads(c.original)
        kind = methods.get(told["method"])
        options = told["options"] | ({"pretrained": False} if "pretrained" in told["options"] else {})
        original = kind(kind.config_class(**options), channels=self.channels)
        self._words = tokeniser(original.config.tokeniser)
        return OwnTowers(original.model, self.channels, int(original.config.image_size) or 64)

    def begins_from(self, given: Mapping[str, Tensor]) -> bool:
        """Take the whole CLIP of the run, and start the context at its words."""
        towers = self.model.towers
        if not isinstance(towers, OwnTowers) or any(name.startswith("towers.") for name in given):
            return False
        towers.model.load_state_dict(dict(given))
        if self.config.ctx_init:
            self.model.context.begin(towers)
        return True

    def _tokens(self, names: Sequence[str], context: int) -> Tensor:
        spoken = [name.replace("_", " ").replace("-", " ") for name in names]
        return torch.from_numpy(self._words([f"{self._filler} {name}." for name in spoken], context))

    def trained_modules(self) -> nn.Module:
        """Everything but CLIP."""
        m, parts = self.model, nn.ModuleDict()
        if self.config.mode != "linear":
            parts["context"] = m.context
        for name in ("generator", "projector", "meta", "probe"):
            if hasattr(m, name):
                parts[name] = getattr(m, name)
        return parts

    # ---- views -----------------------------------------------------------------------------------------------
    def recipe(self) -> Recipe:
        """The image; in GOPro its MoCo-style and its AugMix view besides."""
        c = self.config
        flip = (views.HorizontalFlip(),) if c.flip else ()
        cut = (views.RandomResizedCrop(c.image_size, (c.crop, 1.0)), *flip)
        found = [View("original", "image", Pipeline(cut))]
        if c.mode == "gopro":
            jitter = (views.ColorJitter(0.4, 0.4, 0.2, 0.1, p=0.8), views.Grayscale(0.2), views.GaussianBlur(1.0))
            found.append(View("moco", "image", Pipeline((cut[0], *jitter, *flip))))
            found.append(View("augmix", "image", Pipeline((*cut, views.AugMix()))))
        return Recipe(tuple(found))

    def evaluation_view(self) -> Pipeline:
        """Shorter side resized, centre cropped."""
        return next(iter(views.plain(self.config.image_size)))

    # ---- learning --------------------------------------------------------------------------------------------
    def loss(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Cross-entropy, and in GOPro the agreement between views."""
        m, labels = self.model, batch["label"]
        if self.config.mode != "gopro":
            logits = m(batch["original"])
            return {"loss": F.cross_entropy(logits.float(), labels), "accuracy": accuracy(logits, labels)}
        features, shifts = [], []
        for number, name in enumerate(("original", "moco", "augmix")):
            f, hidden = m.towers.image(batch[name])
            features.append(f)
            shifts.append(m.shift(f, hidden, number))
        return self._agreement(features, shifts, labels)

    def _agreement(self, features: list[Tensor], shifts: list[Any], labels: Tensor) -> dict[str, Tensor]:
        c, m = self.config, self.model
        needed = {"both": (1, 2), "moco": (1, 1), "augmix": (2, 2)}[c.view_kinds] if c.sem_weight else (0, 0)
        text = {k: m.text(shifts[k]) for k in sorted({0, *needed})}
        logits = m.scores(features[0], text[0])
        a, b = (m.projector(features[k]) for k in (0, 1))
        weight = c.sem_weight if c.view_kinds == "both" else c.sem_weight / 2  # the one view would count twice
        terms = objectives.gopro_terms(
            logits, labels, text[0], text[needed[0]], text[needed[1]], gather(a), gather(b),
            con_weight=c.con_weight, sem_weight=weight, temperature=c.temperature,
        )  # fmt: skip
        return terms | {"accuracy": accuracy(logits, labels)}

    # ---- what one keeps --------------------------------------------------------------------------------------
    def features(self, batch: dict[str, Any]) -> Tensor:
        """CLIP's image embeddings, which stay as they are."""
        return self.model.towers.image(self.inputs(batch))[0]

    def predict(self, batch: dict[str, Any]) -> Tensor:
        """Class logits (N, K)."""
        return self.model(self.inputs(batch))

    def predict_words(self, batch: dict[str, Any], names: Sequence[str], prompt: str = "") -> Tensor:
        """Logits (N, K') of any classes in words, by the learnt prompts, or by a hand-made ``prompt`` with ``{}``.

        A linear probe knows its own classes alone: others are scored by their words, as by CLIP itself.
        """
        towers = self.model.towers
        images = self.inputs(batch)
        if not prompt:
            found = self.model(images, self._tokens(names, towers.context).to(images.device))
            return self._probed(images, names, found) if self.config.mode == "linear" else found
        said = [prompt.replace("{}", name.replace("_", " ").replace("-", " ")) for name in names]
        tokens = torch.from_numpy(self._words(said, towers.context)).to(images.device)
        text = towers.text(towers.token_embedding(tokens), tokens.argmax(1))
        return towers.factor * towers.image(images)[0] @ text.T

    def _probed(self, images: Tensor, names: Sequence[str], found: Tensor) -> Tensor:
        """The probe's logits in the columns of the classes that it learnt."""
        learnt = list(self.config.class_names or map(str, range(self.classes)))
        columns = [k for k, name in enumerate(names) if name in learnt]
        if columns:
            found = found.clone()
            found[:, columns] = self.model(images)[:, [learnt.index(names[k]) for k in columns]].to(found)
        return found

    def deliverable(self) -> nn.Module:
        """CLIP with its prompts: normalised images in, class logits out."""
        return self.model

    def deliverable_spec(self) -> dict[str, Any]:
        """Which CLIP, which classes."""
        return {"name": "prompted-clip", "original": self.config.original, "classes": self.config.class_names}
