"""MAE's step: what hiding three quarters saves, and how the step compares with a plain loop and with lightly's.

    python benchmarks/speed/mae_step.py [--encoder vit_small_patch16_224] [--side 224] [--batch 64] [--decoder 512-8-16]
        [--steps 3] [--rounds 7] [--threads 2] [--float32]

In turn within every round, on tensors that lie in memory, forward, backward and AdamW's step:

- encoder, nothing hidden; encoder, 75 % hidden; MAE with 75 % hidden (the same and the decoder);
- bare: timm's blocks and a decoder written out in a plain loop, with the same sizes and one mask;
- lightly: its documented MAE loop with the same encoder, decoder and ratio.

Limits: the masked encoder takes at most 40 % of the whole one's time; ours is at least 0.95 of the bare step and 1.0 of
lightly's. Pixels are not normalised, as in lightly. Then ``selftaught train`` end to end, loader included, in its own
process.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from common import compared, machine, rounds, show, spread, store
from peers import peer
from torch import nn

import selftaught
from selftaught import methods, networks
from selftaught.networks.masks import random_masking

RATIO = 0.75
OURS = "selftaught"


def made(options: argparse.Namespace) -> Any:
    """Our method, its options as all contenders have them."""
    torch.manual_seed(0)
    given = {"encoder": options.encoder, "image_size": options.side, "decoder": options.decoder, "norm_pix": False}
    return methods.get("mae")(mask_ratio=RATIO, **given).train()


def adamw(module: nn.Module) -> torch.optim.Optimizer:
    """The same rule for all."""
    return torch.optim.AdamW([p for p in module.parameters() if p.requires_grad], lr=1.5e-4, fused=True)


def worker(
    options: argparse.Namespace, module: nn.Module, loss: Callable[[torch.Tensor], torch.Tensor]
) -> Callable[[], float]:
    """Images per second of whole steps."""
    optimizer = adamw(module)
    x = torch.randn(options.batch, 3, options.side, options.side)

    def work() -> float:
        began = time.perf_counter()
        for _ in range(options.steps):
            with torch.autocast("cpu", torch.bfloat16, enabled=not options.float32):
                found = loss(x)
            found.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return options.batch * options.steps / (time.perf_counter() - began)

    return work


class Bare(nn.Module):
    """A ViT of timm, a decoder of timm's blocks, and nothing else."""

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__()
        from timm.models.vision_transformer import Block

        self.vit: Any = networks.encoder(options.encoder, image_size=options.side).model
        self.patch = self.vit.patch_embed.patch_size[0]
        self.count = self.vit.patch_embed.num_patches
        width, depth, heads = (int(n) for n in options.decoder.split("-"))
        self.enter = nn.Linear(self.vit.embed_dim, width)
        self.hidden = nn.Parameter(torch.zeros(1, 1, width))
        self.places = nn.Parameter(torch.zeros(1, self.count + 1, width), requires_grad=False)
        self.blocks = nn.Sequential(*(Block(width, heads, qkv_bias=True) for _ in range(depth)))
        self.norm, self.leave = nn.LayerNorm(width), nn.Linear(width, 3 * self.patch**2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        vit, n = self.vit, len(x)
        order = torch.rand(n, self.count).argsort(1)
        keep, back = order[:, : int(self.count * (1 - RATIO))], order.argsort(1)
        tokens = vit.patch_embed(x) + vit.pos_embed[:, 1:]
        tokens = tokens.gather(1, keep[:, :, None].expand(-1, -1, tokens.shape[2]))
        h = torch.cat([(vit.cls_token + vit.pos_embed[:, :1]).expand(n, -1, -1), tokens], 1)
        h = self.enter(vit.norm(vit.blocks(h)))
        whole = torch.cat([h[:, 1:], self.hidden.expand(n, self.count - keep.shape[1], -1).to(h.dtype)], 1)
        whole = whole.gather(1, back[:, :, None].expand(-1, -1, whole.shape[2]))
        out = self.leave(self.norm(self.blocks(torch.cat([h[:, :1], whole], 1) + self.places)))[:, 1:]
        p, side = self.patch, x.shape[2] // self.patch
        wanted = x.reshape(n, 3, side, p, side, p).permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)
        mask = torch.ones(n, self.count).scatter_(1, keep, 0.0)
        return ((out.float() - wanted).square().mean(2) * mask).sum() / mask.sum()


def lightly(options: argparse.Namespace) -> Callable[[], float] | None:
    """lightly's MAE as its page of examples writes it, with our sizes; None where it can't be had."""
    if peer("lightly") is None:
        return None
    from lightly.models import utils
    from lightly.models.modules import MAEDecoderTIMM, MaskedVisionTransformerTIMM

    width, depth, heads = (int(n) for n in options.decoder.split("-"))
    vit: Any = networks.encoder(options.encoder, image_size=options.side).model
    patch = vit.patch_embed.patch_size[0]

    class Peer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = MaskedVisionTransformerTIMM(vit=vit)
            self.length = self.backbone.sequence_length
            self.decoder = MAEDecoderTIMM(
                num_patches=vit.patch_embed.num_patches, patch_size=patch, embed_dim=vit.embed_dim,
                decoder_embed_dim=width, decoder_depth=depth, decoder_num_heads=heads, mlp_ratio=4.0,
                proj_drop_rate=0.0, attn_drop_rate=0.0,
            )  # fmt: skip

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            n = len(images)
            keep, masked = utils.random_token_mask(size=(n, self.length), mask_ratio=RATIO)
            seen = self.decoder.embed(self.backbone.encode(images=images, idx_keep=keep))
            tokens = utils.repeat_token(self.decoder.mask_token, (n, self.length))
            tokens = utils.set_at_index(tokens, keep, seen.type_as(tokens))
            guess = self.decoder.predict(utils.get_at_index(self.decoder.decode(tokens), masked))
            target = utils.get_at_index(utils.patchify(images, patch), masked - 1)
            return nn.functional.mse_loss(guess, target)

    torch.manual_seed(0)
    model = Peer().train()
    return worker(options, model, model)


def encoder_alone(options: argparse.Namespace, ratio: float) -> Callable[[], float]:
    """The encoder on what is left of the patches."""
    network: Any = made(options).encoder
    count = network.grid[0] * network.grid[1]

    def loss(x: torch.Tensor) -> torch.Tensor:
        keep = random_masking(len(x), count, ratio)[0] if ratio else None
        whole, patches = network.tokens(x, keep)
        return whole.float().square().mean() + patches.float().square().mean()

    return worker(options, network, loss)


def contenders(options: argparse.Namespace) -> Iterator[tuple[str, Callable[[], float]]]:
    """Names and what they do."""
    method, bare = made(options), Bare(options).train()
    yield "encoder, nothing hidden", encoder_alone(options, 0.0)
    yield "encoder, 75 % hidden", encoder_alone(options, RATIO)
    yield OURS, worker(options, method, lambda x: method.loss({"views": [x]})["loss"])
    yield "bare", worker(options, bare, bare)
    if (found := lightly(options)) is not None:
        yield "lightly", found


def train(options: argparse.Namespace) -> None:
    """``selftaught train`` as a user calls it; prints images per second."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (4 * options.batch, options.side, options.side, 3), dtype=np.uint8)
    given = {"encoder": options.encoder, "image_size": options.side, "decoder": options.decoder, "norm_pix": False}
    warm, steps = 2, max(4, options.steps)
    with tempfile.TemporaryDirectory() as folder:
        run = selftaught.train(
            "mae", images, out=f"{folder}/run", steps=warm + steps, batch_size=options.batch, log_every=1, quiet=True,
            knn_every=0.0, loggers=["none"], precision="32" if options.float32 else "bf16", **given,
        )  # fmt: skip
        with run.layout.metrics.open(newline="") as file:
            rates = [float(row["per_second"]) for row in csv.DictReader(file)][warm:]
    print(len(rates) / sum(1 / rate for rate in rates))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("side", 224), ("batch", 64), ("steps", 3), ("rounds", 7), ("threads", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--encoder", default="vit_small_patch16_224")
    parser.add_argument("--decoder", default="512-8-16")
    parser.add_argument("--float32", action="store_true")
    parser.add_argument("--no-train", action="store_true", help="leave the run end to end out")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.child:
        train(options)
        return
    before = machine()
    rates = rounds(dict(contenders(options)), options.rounds)
    seconds = {name: [1 / rate for rate in found] for name, found in rates.items()}
    whole, masked, mae = (seconds[name] for name in ("encoder, nothing hidden", "encoder, 75 % hidden", OURS))
    result = compared(rates, OURS)
    shares = {
        "masked encoder over whole encoder (at most 0.40)": spread([m / w for m, w in zip(masked, whole, strict=True)]),
        "MAE step over whole encoder": spread([m / w for m, w in zip(mae, whole, strict=True)]),
        "decoder's share of the MAE step": spread([1 - m / a for m, a in zip(masked, mae, strict=True)]),
    }
    show("MAE, steps in memory", result, "img/s")
    for name, found in shares.items():
        print(f"  {name}: {found['median']:.2f} ({found['min']:.2f}-{found['max']:.2f})")
    content = {"work": "images per second of MAE's steps", "options": vars(options), **result, "shares": shares}
    if not options.no_train:
        done = subprocess.run([sys.executable, *sys.argv, "--child"], capture_output=True, text=True, check=True)
        end_to_end = float(done.stdout.split()[-1])
        bare = content["rates"]["bare"]["median"]
        content["end to end"] = {"selftaught train": end_to_end, "of the bare step": end_to_end / bare}
        print(f"  selftaught train: {end_to_end:.1f} img/s, {end_to_end / bare:.2f} of the bare step")
    store("mae_step", content | {"machine": before})


if __name__ == "__main__":
    main()
