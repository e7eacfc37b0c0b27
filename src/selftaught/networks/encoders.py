"""Image encoders: any timm model by name, with stems for small images, any number of channels, and a way back to timm.

The encoder's ``spec`` is plain JSON: `build` makes an equal network from it, and ``spec["timm_code"]`` does the same
with timm alone, so that exported weights never depend on this package.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from selftaught.errors import UserError
from selftaught.networks._models import (
    PLAIN,
    check_json,
    from_timm,
    own_encoders,
    own_network,
    own_patch,
    provenance,
    timm_options,
)
from selftaught.networks.own import PREFIX, own_model
from selftaught.networks.series import SERIES_ENCODERS, SeriesEncoder, build_series
from selftaught.networks.stems import OWN, SMALL_IMAGE, has_small_stem, small_stem
from selftaught.networks.tokens import LEAST_SIDE, check_keep, largest_patch
from selftaught.networks.video import ClipEncoder, FramewiseEncoder
from selftaught.networks.video_choice import VIDEO_NETWORKS, build_video
from selftaught.networks.video_layers import VideoNetwork
from selftaught.networks.vits import SMALL_VITS, named_vit

__all__ = ["Encoder", "build", "encoder", "own_encoders"]

Stem = Literal["auto", "small", "standard"]


class Encoder(nn.Module):
    """An image network without its classifier. Made by `encoder` or `build`.

    Attributes:
        model: the timm module; its state dict is what is exported.
        dim: size D of the embedding.
        spec: JSON-able description: name, channels, image_size, stem, kwargs, timm (version), dim, timm_code.
    """

    def __init__(self, model: nn.Module, spec: dict[str, Any]) -> None:
        super().__init__()
        self.model, self.spec = model, spec
        self.dim: int = spec["dim"]

    def forward(self, x: Tensor) -> Tensor:
        """Embed images.

        Args:
            x: (N, C, H, W), normalised.

        Returns:
            (N, D) pooled features.
        """
        return self.model(x)

    def maps(self, x: Tensor) -> Tensor:
        """Feature map before pooling.

        Args:
            x: (N, C, H, W), normalised.

        Returns:
            (N, F, h, w); F is the width of the last stage (for most families the embedding's). A transformer's patch
            tokens are put back on their grid, class and register tokens are left out.
        """
        return self._as_map(self.model.forward_features(x), x)  # type: ignore[operator]

    def with_maps(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The embedding (N, D) and the feature map (N, F, h, w) of `maps`, in one pass.

        Args:
            x: (N, C, H, W), normalised.

        Raises:
            UserError: the network makes no map (a module of one's own that pools by itself, a network of torch.hub).
        """
        model: Any = self.model
        if not (hasattr(model, "forward_features") and hasattr(model, "forward_head")):
            raise UserError(f"encoder={self.spec['name']}: makes no feature map before its embedding")
        features = model.forward_features(x)
        return model.forward_head(features), self._as_map(features, x)

    def _as_map(self, features: Tensor, x: Tensor) -> Tensor:
        if features.ndim == 2:
            raise UserError(f"encoder={self.spec['name']}: makes vectors, no feature map")
        if features.ndim == 4:
            channels_last = getattr(self.model, "output_fmt", "NCHW") == "NHWC"
            return features.permute(0, 3, 1, 2) if channels_last else features
        tokens = features[:, getattr(self.model, "num_prefix_tokens", 0) :]
        height, width = self._grid(x)
        return tokens.transpose(1, 2).reshape(x.shape[0], -1, height, width)

    def tokens(
        self,
        x: Tensor,
        keep: Tensor | None = None,
        *,
        mask: Tensor | None = None,
        mask_token: Tensor | None = None,
    ) -> tuple[Tensor | None, Tensor]:
        """Class token and patch tokens of the last layer, normed (transformers of timm's ViT family).

        Args:
            x: (N, C, H, W), normalised.
            keep: (V N, L') int64, patches that the blocks see; row r belongs to sample r mod N. None: all.
            mask: (N, L) bool, True where an embedded patch gives way to ``mask_token`` before positions are added: the
                other way to hide one (SimMIM, BEiT, iBOT), in which all tokens take part.
            mask_token: (D,) or (1, 1, D), with ``mask``.

        Returns:
            (V N, D) or None for a network without a class token, and (V N, L', D) in the order of ``keep``. Register
            tokens take part and are left out.

        Raises:
            UserError: the network has no tokens, ``keep`` or ``mask`` doesn't fit.
        """
        prefix, patches = self.all_tokens(x, keep, mask=mask, mask_token=mask_token)
        return prefix[:, 0] if self._vit().cls_token is not None else None, patches

    def all_tokens(
        self,
        x: Tensor,
        keep: Tensor | None = None,
        *,
        mask: Tensor | None = None,
        mask_token: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """As `tokens`, with all tokens before the patches: class token and register tokens (V N, R, D)."""
        model = self._vit()
        h = model.norm(self._through(model.blocks, self._embedded(x, keep, mask, mask_token)))
        return h[:, : model.num_prefix_tokens], h[:, model.num_prefix_tokens :]

    def attention(self, x: Tensor) -> Tensor:
        """What the last block's class token looks at (without one: the mean over patch tokens): (N, heads, L).

        The weights over patch tokens alone, so that they sum to 1 or less.

        Raises:
            UserError: the network has no tokens.
        """
        model = self._vit()
        h = self._through(model.blocks[:-1], self._embedded(x, None))
        return class_attention(model.blocks[-1], h, model.num_prefix_tokens, model.cls_token is not None)

    def _vit(self) -> Any:
        from timm.models.vision_transformer import VisionTransformer

        if not isinstance(self.model, VisionTransformer):
            raise UserError(
                f"encoder={self.spec['name']}: has no tokens; use a ViT of timm, such as vit_small_patch16_224"
            )
        return self.model

    @property
    def patch(self) -> tuple[int, int]:
        """Height and width of a patch of a transformer.

        Raises:
            UserError: the network has no tokens.
        """
        height, width = self._vit().patch_embed.patch_size
        return int(height), int(width)

    @property
    def changed(self) -> str:
        """What of the network is not as its name says, in a line; empty where all is.

        ``vit_tiny_patch16_224`` at 64 pixels has patches of 8: 16 would leave 4 x 4 tokens.
        """
        name, side, options = str(self.spec["name"]), self.spec["image_size"], self.spec["kwargs"]
        own, named = options.get("patch_size"), own_patch(name)
        if "patch" not in name or "embed_dim" in options or own is None or side is None or own == named:
            return ""  # named by their width, the small ones take the patch that fits
        if own != largest_patch(name, side, named):
            return ""  # it was asked for
        least = named * LEAST_SIDE
        return f"{name}: patches of {own} pixels in place of {named}, which are kept from {least} pixels on"

    @property
    def grid(self) -> tuple[int, int]:
        """Tokens along (rows, columns) of a transformer, at the size that it was built for.

        Raises:
            UserError: the network has no tokens.
        """
        rows, columns = self._vit().patch_embed.grid_size
        return int(rows), int(columns)

    def _embedded(
        self, x: Tensor, keep: Tensor | None, mask: Tensor | None = None, mask_token: Tensor | None = None
    ) -> Tensor:
        """Prefix tokens and the embedded patches that are kept, before the blocks."""
        model: Any = self.model
        patches = model.patch_embed(x)
        if mask is not None:
            wanted = (len(x), patches[0, ..., 0].numel())  # a ViT for any size keeps its patches on their grid
            if mask_token is None or mask.dtype != torch.bool or tuple(mask.shape) != wanted:
                shown = f"{tuple(mask.shape)} {mask.dtype}"
                raise UserError(f"a mask needs a mask_token, type bool and shape {wanted}; got {shown}")
            hidden = mask.view(*patches.shape[:-1], 1)
            patches = torch.where(hidden, mask_token.flatten().to(patches.dtype), patches)
        h = model._pos_embed(patches)
        if keep is not None:
            check_keep(keep, len(x))
            h = h.repeat(len(keep) // len(x), 1, 1)
            prefix, patches = h[:, : model.num_prefix_tokens], h[:, model.num_prefix_tokens :]
            h = torch.cat([prefix, patches.gather(1, keep[:, :, None].expand(-1, -1, h.shape[2]))], dim=1)
        return model.norm_pre(h)

    @staticmethod
    def _through(blocks: Any, h: Tensor) -> Tensor:
        for block in blocks:
            h = block(h)
        return h

    def _grid(self, x: Tensor) -> tuple[int, int]:
        embedding: Any = self.model.patch_embed
        height, width = embedding.patch_size
        return -(-x.shape[-2] // height), -(-x.shape[-1] // width)


def class_attention(block: Any, h: Tensor, prefix: int, by_class: bool) -> Tensor:
    """What a block of timm's looks at from its class token (without one: the mean over patch tokens): (N, heads, L).

    Args:
        block: the block.
        h: (N, P + L, D), its input.
        prefix: P, class and register tokens.
        by_class: whether the first token is a class token.
    """
    attn = block.attn
    q, k, _ = attn.qkv(block.norm1(h)).unflatten(2, (3, attn.num_heads, -1)).permute(2, 0, 3, 1, 4)
    weights = (attn.q_norm(q) * attn.scale @ attn.k_norm(k).transpose(2, 3)).softmax(3)[..., prefix:]
    return weights[:, :, 0] if by_class else weights[:, :, prefix:].mean(2)


def encoder(
    name: str = "resnet18",
    *,
    channels: int = 3,
    image_size: int | None = None,
    stem: Stem = "auto",
    pretrained: bool = False,
    zero_init_last: bool = True,
    **timm_kwargs: Any,
) -> Encoder:
    """Make an image encoder.

    Args:
        name: any name that timm knows (``timm.list_models()``), one of `own_encoders` or `SMALL_VITS`, or what
            `name_module` calls a module of your own. A transformer's may have timm's options behind it:
            ``vit_small_patch16_224?depth=6&mlp_ratio=2``.
        channels: channels C of the input; pretrained first layers are adapted to it by timm.
        image_size: side of the images in pixels. Chooses the stem; transformers are built for it, with the largest
            patch that divides it and leaves at least 7 patches a side.
        stem: "small" keeps the resolution (ResNet: 3x3 stride 1, no max-pool), "standard" is timm's, "auto" takes
            the small one for images up to 40 pixels unless the weights are pretrained.
        pretrained: start from timm's weights, from its cache or the network.
        zero_init_last: start every residual block as the identity (last BatchNorm scale 0), where the family knows it.
        **timm_kwargs: passed to timm (``drop_path_rate``, ``patch_size``, ...); values that JSON can hold.

    Returns:
        The encoder, with random or pretrained weights.

    Raises:
        UserError: unknown name, an option the model does not take, a size no patch divides, weights out of reach.
    """
    if channels < 1:
        raise UserError(f"channels={channels}: an image has at least one channel")
    if image_size is not None and image_size < 1:
        raise UserError(f"image_size={image_size}: give the side of the images in pixels, or leave it out")
    if stem not in ("auto", "small", "standard"):
        raise UserError(f"stem={stem}: choose auto, small or standard")
    check_json(timm_kwargs)
    if not isinstance(name, str):
        raise UserError(f"encoder={name!r}: give the name of a network, such as resnet18")
    if name.startswith(PREFIX):
        return Encoder(*own_model(name, channels, image_size))
    small = stem == "small" or (stem == "auto" and not pretrained and (image_size or SMALL_IMAGE + 1) <= SMALL_IMAGE)
    if pretrained and name in {*own_encoders(), *SMALL_VITS}:
        raise UserError(f"encoder={name}: has no pretrained weights; use pretrained=False or a timm name")
    name, own = named_vit(name)
    timm_kwargs = own | timm_kwargs
    if name in PLAIN:
        if timm_kwargs:
            raise UserError(f"encoder={name}: has no option {next(iter(timm_kwargs))!r}; leave it out")
        options, small = timm_kwargs, True
        model, lines = PLAIN[name][0](channels, image_size)
    elif name in OWN:
        options = timm_kwargs
        model, lines = own_network(name, channels, small, zero_init_last, options)
    else:
        options = timm_options(name, image_size, pretrained, timm_kwargs)
        model, lines = from_timm(name, channels, pretrained, zero_init_last, options)
        small = small and (stem == "small" or has_small_stem(model))
        if small:
            lines += small_stem(model, keep_weights=pretrained)
    _check_room(name, model, image_size, small)
    spec = {
        "name": name,
        "channels": channels,
        "image_size": image_size,
        "stem": "small" if small else "standard",
        "zero_init_last": zero_init_last,
        "kwargs": options,
    }
    return Encoder(model, spec | provenance(model, lines))


def _check_room(name: str, model: nn.Module, image_size: int | None, small: bool) -> None:
    """Refuse images so small that a stride would be taken on a map of one pixel.

    Nothing is learnt there, and oneDNN leaves the unused taps of such a convolution's bf16 gradient uninitialised: runs
    would differ from one another, or end in NaN.
    """
    stages = getattr(model, "feature_info", None)
    if image_size is None or not stages or not isinstance(stages, list) or "reduction" not in stages[-1]:
        return
    reduction = int(stages[-1]["reduction"]) // (4 if small else 1)
    if reduction > 1 and 2 * image_size <= reduction:
        raise UserError(
            f"image_size={image_size} is too small for {name}, which reduces {reduction} times: "
            f"use {reduction} or more{'' if small else ', or stem=small'}"
        )


def build(spec: dict[str, Any]) -> Encoder | SeriesEncoder | ClipEncoder | FramewiseEncoder | VideoNetwork:
    """Make the encoder that a ``spec`` describes, with random weights, ready for ``load_state_dict``.

    Args:
        spec: the ``spec`` of an `Encoder`, a `SeriesEncoder` or an encoder of clips, possibly through JSON.

    Raises:
        UserError: the spec is of something else.
    """
    if spec.get("name") in SERIES_ENCODERS:
        return build_series(spec)
    if spec.get("name") in VIDEO_NETWORKS:
        return build_video(spec)
    if spec.get("name") == "rank-encoder":
        from selftaught.networks.uni4eye import RankEncoder

        return RankEncoder(**{name: value for name, value in spec.items() if name != "name"})  # type: ignore[return-value]
    if spec.get("adapter"):
        from selftaught.networks.vit_adapters import Adapted

        plain: Any = build({name: value for name, value in spec.items() if name != "adapter"})
        return Adapted(plain, **spec["adapter"])  # type: ignore[return-value]
    missing = {"name", "channels", "stem"} - set(spec)
    if missing:
        raise UserError(f"encoder spec: {', '.join(sorted(missing))} missing; take the JSON file beside the weights")
    return encoder(
        spec["name"],
        channels=spec["channels"],
        image_size=spec.get("image_size"),
        stem=spec["stem"],
        zero_init_last=spec.get("zero_init_last", True),
        **spec.get("kwargs", {}),
    )
