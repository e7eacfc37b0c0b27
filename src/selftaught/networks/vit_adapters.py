"""Small trainable parts inside a frozen vision transformer: bottleneck adapters, LoRA, BitFit, prompts, or all weights.

    uni      h + s W_up act(W_down h)    after (or beside) attention and MLP of every block, before the residual sum
    lora     W + (alpha / r) B A         of chosen linear layers                          (Hu et al. 2021, 2106.09685)
    bitfit   b + delta                   of every bias                             (Ben Zaken et al. 2021, 2106.10199)
    vpt      prompt tokens before every block, taken away behind it                      (Jia et al. 2022, 2203.12119)
    full     W + delta                   of every weight

All but prompts start as the frozen network, exactly. A student and its momentum teacher share one base: only these
parts are copied.
"""

from __future__ import annotations

import copy
import re
from typing import Any, Literal

import torch
from torch import Tensor, nn

from selftaught.errors import UserError
from selftaught.networks.encoders import Encoder, class_attention

__all__ = ["ADAPTERS_OF_VITS", "Adapted", "UniAdapter", "adapter_parameters"]

Kind = Literal["uni", "lora", "bitfit", "vpt", "full"]
ADAPTERS_OF_VITS = ("uni", "lora", "bitfit", "vpt", "full")
_ACTIVATIONS: dict[str, type[nn.Module]] = {"gelu": nn.GELU, "relu": nn.ReLU, "none": nn.Identity}
_TARGETS = {
    "qkv": r"blocks\.\d+\.attn\.qkv\.weight",
    "attention": r"blocks\.\d+\.attn\.(qkv|proj)\.weight",
    "all": r"blocks\.\d+\.(attn\.(qkv|proj)|mlp\.fc[12])\.weight",
}


def adapter_parameters(dim: int, depth: int, rank: int, placements: int = 2) -> int:
    """Parameters of UniAdapters with down-projections of their own: placements x depth x (2 D r + r + D)."""
    return placements * depth * (2 * dim * rank + rank + dim)


class UniAdapter(nn.Module):
    """s W_up act(W_down h), with biases; W_up and its bias begin at 0, so that the network begins as it was.

    Args:
        dim: width D.
        rank: width r of the bottleneck, 8 to 256; 64.
        activation: gelu, relu, or none (then it can be merged into the linear layer before it).
        scale: s; "learned" is a scalar that begins at 1.
        down: a down-projection to share with other blocks; None makes one.

    Raises:
        UserError: a rank below 1, another activation.
    """

    def __init__(
        self,
        dim: int,
        rank: int = 64,
        *,
        activation: str = "gelu",
        scale: float | Literal["learned"] = 1.0,
        down: nn.Linear | None = None,
    ) -> None:
        super().__init__()
        if rank < 1 or activation not in _ACTIVATIONS:
            raise UserError(f"adapter: rank={rank} must be 1 or more, activation={activation} one of gelu, relu, none")
        self.down = nn.Linear(dim, rank) if down is None else down
        self.up = nn.Linear(rank, dim)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)
        self.activation = _ACTIVATIONS[activation]()
        learned = scale == "learned"
        self.scale: Any = nn.Parameter(torch.ones(())) if learned else float(scale)

    def forward(self, h: Tensor) -> Tensor:
        """(..., D) -> (..., D): what is added."""
        return self.scale * self.up(self.activation(self.down(h)))


class Adapted(nn.Module):
    """A frozen ViT with trainable parts; an encoder as others are: ``tokens``, ``maps``, ``attention``, features.

    Args:
        base: the encoder; it is frozen and put into evaluation mode, its weights never move.
        adapter: uni, lora, bitfit, vpt or full.
        rank: of uni and lora.
        placement: uni: "sequential" acts on what attention and MLP give, "parallel" on their normalised input.
        activation: of uni.
        scale: s of uni, a number or "learned".
        share_down: uni: one down-projection for all blocks, per placement after attention and after the MLP.
        alpha: lora: the product is scaled by alpha / rank.
        targets: lora: qkv, attention (qkv and output) or all (MLP too).
        prompts: vpt: tokens before every block.

    Raises:
        UserError: no ViT, an unknown kind, a number out of range.
    """

    base: Encoder

    def __init__(
        self,
        base: Encoder,
        adapter: Kind = "uni",
        *,
        rank: int = 64,
        placement: Literal["sequential", "parallel"] = "sequential",
        activation: str = "gelu",
        scale: float | Literal["learned"] = 1.0,
        share_down: bool = False,
        alpha: float = 16.0,
        targets: str = "all",
        prompts: int = 10,
    ) -> None:
        super().__init__()
        base.grid  # noqa: B018 - refuses what has no tokens
        if adapter not in ADAPTERS_OF_VITS or targets not in _TARGETS or placement not in ("sequential", "parallel"):
            raise UserError(f"adapter={adapter}, placement={placement}, targets={targets}: an unknown one among them")
        if rank < 1 or prompts < 1:
            raise UserError(f"adapter: rank={rank} and prompts={prompts} must be 1 or more")
        self.base = base.requires_grad_(False).eval()
        self.kind, self.placement, self.activation, self.alpha, self.rank = adapter, placement, activation, alpha, rank
        self.dim, dim = base.dim, base.dim
        model: Any = base.model
        depth = len(model.blocks)
        options: dict[str, Any] = {"adapter": adapter}
        self.parts: nn.Module
        if adapter == "uni":
            options |= {"rank": rank, "placement": placement, "activation": activation, "scale": scale}
            options |= {"share_down": share_down}
            self.parts = self._uni(dim, depth, rank, activation, scale, share_down)
        elif adapter == "vpt":
            options |= {"prompts": prompts}
            self.parts = nn.ParameterList(
                nn.init.trunc_normal_(torch.empty(prompts, dim), std=0.02) for _ in range(depth)
            )
        elif adapter == "lora":
            options |= {"rank": rank, "alpha": alpha, "targets": targets}
            self.parts = self._lora(_TARGETS[targets], rank)
        else:
            names = [n for n, _ in model.named_parameters() if adapter == "full" or n.endswith("bias")]
            shapes = dict(model.named_parameters())
            self.parts = nn.ParameterDict({_key(n): torch.zeros_like(shapes[n]) for n in names})
        self.spec = {k: v for k, v in base.spec.items() if k != "timm_code"} | {"adapter": options}

    @staticmethod
    def _uni(dim: int, depth: int, rank: int, activation: str, scale: Any, share: bool) -> nn.Module:
        shared = [nn.Linear(dim, rank) if share else None for _ in range(2)]
        pairs = [[UniAdapter(dim, rank, activation=activation, scale=scale, down=down) for down in shared]
                 for _ in range(depth)]  # fmt: skip
        return nn.ModuleList(nn.ModuleList(pair) for pair in pairs)

    def _lora(self, pattern: str, rank: int) -> nn.Module:
        found: dict[str, nn.ParameterList] = {}
        for name, weight in self.base.model.named_parameters():
            if re.fullmatch(pattern, name):
                a = nn.init.kaiming_uniform_(torch.empty(rank, weight.shape[1]), a=5**0.5)
                found[_key(name)] = nn.ParameterList([a, torch.zeros(weight.shape[0], rank)])
        return nn.ModuleDict(found)

    # ---- the network -----------------------------------------------------------------------------------------
    def train(self, mode: bool = True) -> Adapted:
        """The base stays in evaluation mode: no dropout, no drop path."""
        super().train(mode)
        self.base.eval()
        return self

    @property
    def grid(self) -> tuple[int, int]:
        """Tokens along (rows, columns)."""
        return self.base.grid

    @property
    def patch(self) -> tuple[int, int]:
        """Height and width of a patch in pixels."""
        return self.base.patch

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) normalised -> (N, D) pooled features."""
        model: Any = self.base.model
        return model.forward_head(self.features(x)[0])

    def tokens(
        self,
        x: Tensor,
        keep: Tensor | None = None,
        *,
        mask: Tensor | None = None,
        mask_token: Tensor | None = None,
    ) -> tuple[Tensor | None, Tensor]:
        """Class token (N, D) or None, and patch tokens (N, L, D); see :meth:`Encoder.tokens`."""
        h, _ = self.features(x, keep, mask, mask_token)
        model: Any = self.base.model
        return h[:, 0] if model.cls_token is not None else None, h[:, model.num_prefix_tokens :]

    def maps(self, x: Tensor) -> Tensor:
        """(N, D, h, w): the patch tokens on their grid."""
        rows, columns = self.base._grid(x)
        return self.tokens(x)[1].transpose(1, 2).reshape(x.shape[0], -1, rows, columns)

    def attention(self, x: Tensor) -> Tensor:
        """(N, heads, L): what the class token looks at in the last block (prompts take no part in it)."""
        return self.features(x)[1]

    def features(
        self, x: Tensor, keep: Tensor | None = None, mask: Tensor | None = None, mask_token: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """All tokens of the last layer, normed (N, P + L, D), and the last block's attention (N, heads, L), at once."""
        if self.kind in ("uni", "vpt"):
            return self._through(x, keep, mask, mask_token)
        weights = {f"host.base.model.{name}": value for name, value in self.weights().items()}
        return torch.func.functional_call(_Call(self), weights, (x, keep, mask, mask_token))

    def _through(self, x: Tensor, *hidden: Any) -> tuple[Tensor, Tensor]:
        model: Any = self.base.model
        h = self.base._embedded(x, *hidden)
        for number, block in enumerate(model.blocks):
            if number == len(model.blocks) - 1:
                seen = class_attention(block, h, model.num_prefix_tokens, model.cls_token is not None)
            h = self._block(number, block, h, model.num_prefix_tokens)
        return model.norm(h), seen

    def _block(self, number: int, block: Any, h: Tensor, prefix: int) -> Tensor:
        """One block with its adapters or prompts."""
        if self.kind == "vpt":
            prompt: Tensor = self.parts[number]  # type: ignore[index]
            added = prompt.expand(h.shape[0], -1, -1).to(h.dtype)
            h = block(torch.cat([h[:, :prefix], added, h[:, prefix:]], 1))
            return torch.cat([h[:, :prefix], h[:, prefix + len(prompt) :]], 1)
        if self.kind != "uni":
            return block(h)
        first, second = self.parts[number]  # type: ignore[index]
        for norm, inner, scale, adapter in (
            (block.norm1, block.attn, block.ls1, first), (block.norm2, block.mlp, block.ls2, second),
        ):  # fmt: skip
            given = norm(h)
            made = scale(inner(given))
            h = h + made + adapter(given if self.placement == "parallel" else made)
        return h

    # ---- weights ---------------------------------------------------------------------------------------------
    def weights(self) -> dict[str, Tensor]:
        """lora, bitfit, full: the changed weights of the base's model by their names in it."""
        own = dict(self.base.model.named_parameters())
        if self.kind == "lora":
            scale = self.alpha / self.rank
            parts: Any = self.parts
            return {n: own[n] + scale * (parts[_key(n)][1] @ parts[_key(n)][0]) for n in own if _key(n) in parts}
        deltas: Any = self.parts
        return {n: own[n] + deltas[_key(n)] for n in own if _key(n) in deltas}

    def peft(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """LoRA as the library peft keeps it: ``adapter_config.json``, and what ``adapter_model.safetensors`` holds.

        ``peft.PeftModel.from_pretrained(vit, FOLDER)`` puts it into the base's timm network.

        Raises:
            UserError: other adapters.
        """
        if self.kind != "lora":
            raise UserError(f"adapter={self.kind}: peft's format is for lora; take safetensors")
        parts: Any = self.parts
        named = [n for n, _ in self.base.model.named_parameters() if _key(n) in parts]
        layers = [name.removesuffix(".weight") for name in named]
        config = {
            "peft_type": "LORA", "r": self.rank, "lora_alpha": self.alpha, "lora_dropout": 0.0, "bias": "none",
            "target_modules": layers, "inference_mode": True,
        }  # fmt: skip
        tensors = {
            f"base_model.model.{layer}.lora_{side}.weight": parts[_key(name)][k].detach()
            for layer, name in zip(layers, named, strict=True)
            for k, side in enumerate("AB")
        }
        return config, tensors

    @property
    def mergeable(self) -> bool:
        """Whether it can become a plain ViT: lora, bitfit, full; uni where it is sequential, without activation and
        without a layer scale before it.
        """
        if self.kind == "uni":
            model: Any = self.base.model
            plain = all(isinstance(s, nn.Identity) for b in model.blocks for s in (b.ls1, b.ls2))
            return self.placement == "sequential" and self.activation == "none" and plain
        return self.kind != "vpt"

    @torch.no_grad()
    def merged(self) -> Encoder:
        """A plain encoder that does the same, its adapters merged into the linear layers.

        Raises:
            UserError: prompts, or adapters that are no linear map.
        """
        if not self.mergeable:
            raise UserError(
                f"adapter={self.kind} ({self.placement}, {self.activation}) can't be merged into the weights"
            )
        found = copy.deepcopy(self.base)
        if self.kind != "uni":
            own = dict(found.model.named_parameters())
            for name, value in self.weights().items():
                own[name].copy_(value)
            return found
        model: Any = found.model
        for block, pair in zip(model.blocks, self.parts, strict=True):  # type: ignore[call-overload]
            for linear, adapter in ((block.attn.proj, pair[0]), (block.mlp.fc2, pair[1])):
                change = torch.eye(self.dim, device=linear.weight.device)
                change = change + adapter.scale * adapter.up.weight @ adapter.down.weight
                shift = adapter.scale * (adapter.up.weight @ adapter.down.bias + adapter.up.bias)
                linear.bias.copy_(change @ linear.bias + shift)
                linear.weight.copy_(change @ linear.weight)
        return found


class _Call(nn.Module):
    """Calls the network of an :class:`Adapted` under a name that ``functional_call`` can reach."""

    def __init__(self, host: Adapted) -> None:
        super().__init__()
        self.host = host

    def forward(self, x: Tensor, *hidden: Any) -> tuple[Tensor, Tensor]:
        return self.host._through(x, *hidden)


def _key(name: str) -> str:
    """A parameter's name as a key, which may hold no points."""
    return name.replace(".", "-")
