"""The claim of uni4eye."""

from __future__ import annotations

import torch

from selftaught import objectives
from selftaught.claims._comparison import Arm, Claim
from selftaught.claims._facts import EXACT, Fact, apart, gradient
from selftaught.networks.tokens import patchify, unpatchify
from selftaught.networks.uni4eye import UnifiedPatchEmbedding

__all__ = ["claim", "fact"]


def claim() -> Claim:
    """What the paper says, and the smallest fair comparison that could show it: slices and blocks of one brain."""
    return Claim(
        method="uni4eye",
        says="Images and volumes together, and gradient maps beside intensities, teach better features of images.",
        data="brain-slices",
        arms=(
            Arm("both ranks", "uni4eye"),
            Arm("images alone", "uni4eye", {"ranks": "images"}),
            Arm("intensities alone", "uni4eye", {"branches": "intensity"}),
            Arm("not trained", "uni4eye", {"lr": 0.0, "steps": 1}),
        ),
        common={
            "encoder": "vit-pico-ranks", "image_size": 24, "patch": 6, "volume_size": "12-24-24",
            "volume_patch": "6-6-6", "mix": "batch", "volume_batch": 16, "crop": 0.5, "pool": "avg",
            "decoder": "32-1-2", "lr": 2e-3, "lr_scaling": "none", "warmup_epochs": 1.0, "steps": 300, "batch_size": 64,
        },
        score=("linear", "balanced_accuracy"),
        also=(("knn", "accuracy"), ("run", "seconds")),
        full={"encoder": "vit-nano-ranks", "decoder": "64-2-4", "steps": 5000},
    )  # fmt: skip


def fact() -> Fact:
    """What holds exactly about it, whatever the experiment shows."""
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(2, 1, 12, 8, generator=generator, dtype=torch.float64)
    volume = image[:, :, None].expand(-1, -1, 3, -1, -1)
    embed = UnifiedPatchEmbedding(1, 5, (4, 4), (3, 4, 4)).double()
    with torch.no_grad():
        embed.proj3.bias.copy_(embed.proj2.bias)
        embed.proj3.weight.copy_(embed.proj2.weight.view(5, 1, 1, 4, 4).expand(-1, -1, 3, -1, -1).flatten(1) / 3)
        tokens = apart(embed(image)[0], embed(volume)[0])
    patches = patchify(image, (4, 4), channels_last=True)
    steep = patchify(objectives.gradient_map(image), (4, 4), channels_last=True)
    mask = torch.rand(2, 6, generator=generator) > 0.5
    made = torch.rand(patches.shape, generator=generator, dtype=torch.float64)
    slope = gradient(lambda p: objectives.uni4eye(p, made, patches, steep, mask), made)
    plain = objectives.uni4eye(made, made, patches, steep, mask, beta=0.0)
    back = unpatchify(patchify(volume, (3, 4, 4)), (3, 4, 4), (3, 12, 8))
    off = {
        "tokens of a volume of equal slices": tokens,
        "largest gradient of a visible patch": slope[~mask].abs().max().item(),
        "beta 0 and a masked autoencoder": apart(plain, objectives.mae(made, patches, mask)),
        "gradient map after adding a constant": apart(
            objectives.gradient_map(image + 3), objectives.gradient_map(image)
        ),
        "patches put together": apart(back, volume),
    }
    return Fact(
        "A volume of equal slices has an image's tokens where the kernel is spread over depth, visible patches teach "
        "nothing, beta 0 is a masked autoencoder, and gradient maps don't see brightness.",
        off,
        max(off.values()) < EXACT,
    )
