"""Prompts that are learnt, and prompts that are made of an image's style and content (GOPro, arXiv 2308.11605)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from selftaught.errors import UserError
from selftaught.networks.clip_towers import CLIPTowers

__all__ = ["MetaNet", "PromptContext", "StyleContent", "token_statistics"]

EPSILON = 2.3e-8


def token_statistics(tokens: Tensor, eps: float = EPSILON) -> tuple[Tensor, Tensor]:
    """Mean and deviation over the tokens of a block, the class token among them.

        mu = mean_n h_n,      sigma = sqrt( (sum_n (h_n - mu)^2 + eps) / N )

    Args:
        tokens: (B, N, W).
        eps: within the sum, so that the gradient at equal tokens is finite.

    Returns:
        mu and sigma, (B, W) each.

    Raises:
        UserError: another shape.
    """
    if tokens.dim() != 3 or not tokens.shape[1] or not tokens.is_floating_point():
        raise UserError(f"tokens are (B, N, W), got {tuple(tokens.shape)}")
    mean = tokens.mean(1)
    squares = (tokens - mean.unsqueeze(1)).square().sum(1)
    return mean, ((squares + eps) / tokens.shape[1]).sqrt()


class StyleContent(nn.Module):
    """From the tokens of all image blocks to one shift t of the context vectors.

        s_l = A_l (mu_l + sigma_l) / 2 + a_l,   c_l = C_l mu_l + d_l,   u_l = (s_l + c_l) / 2,   t = sum_l w_l u_l + b

    Args:
        widths: W of each block.
        dim: width D of the text tower's tokens.
        style: whether s takes part.
        content: whether c takes part; u is s or c where one is off.
        views: number of rho's (w, b): one for all views (the code), or one for each (the paper's figure).

    Raises:
        UserError: neither style nor content.
    """

    def __init__(
        self, widths: Sequence[int], dim: int = 512, *, style: bool = True, content: bool = True, views: int = 1
    ) -> None:
        super().__init__()
        if not (style or content):
            raise UserError("a prompt is made of style, content or both: both are off")
        self.style = nn.ModuleList(nn.Linear(w, dim) for w in widths) if style else None
        self.content = nn.ModuleList(nn.Linear(w, dim) for w in widths) if content else None
        self.rho = nn.ModuleList(nn.Linear(len(widths), 1) for _ in range(views))

    def forward(self, hidden: Sequence[Tensor], view: int = 0) -> Tensor:
        """Tokens (B, N_l, W_l) of every block -> t (B, D); ``view`` chooses the rho where there are several."""
        rows = []
        for level, tokens in enumerate(hidden):
            mean, deviation = token_statistics(tokens.float())
            parts = []
            if self.style is not None:
                parts.append(self.style[level]((mean + deviation) / 2))
            if self.content is not None:
                parts.append(self.content[level](mean))
            rows.append(torch.stack(parts).mean(0))
        rho = self.rho[min(view, len(self.rho) - 1)]
        return rho(torch.stack(rows, dim=2)).squeeze(2)


class MetaNet(nn.Sequential):
    """CoCoOp's network (arXiv 2203.05557): an image embedding (B, dim) -> a shift t (B, width), through dim / 16.

    Args:
        dim: of the embeddings.
        width: of the text tower's tokens.
    """

    def __init__(self, dim: int = 512, width: int = 512) -> None:
        hidden = max(1, dim // 16)
        super().__init__(nn.Linear(dim, hidden), nn.ReLU(), nn.Linear(hidden, width))


class PromptContext(nn.Module):
    """Learnt context vectors before the names of classes: ``[start] (V_1 + t) ... (V_M + t) [name .] [end]``.

    Args:
        towers: the frozen CLIP.
        tokens: (K, L) int64, the prompts of the classes, such as "a photo of a cat.", tokenised.
        count: M, the tokens after the start that V replaces.
        random: V from N(0, 0.02^2); else it starts at the embeddings of the first prompt's words.

    Raises:
        UserError: prompts shorter than the context.
    """

    tokens: Tensor

    def __init__(self, towers: CLIPTowers, tokens: Tensor, count: int = 4, *, random: bool = False) -> None:
        super().__init__()
        if count < 1 or int(tokens.argmax(1).min()) <= count:
            raise UserError(f"{count} context vectors leave no place for a class name in the prompts")
        self.count = count
        self.register_buffer("tokens", tokens, persistent=False)
        self.vectors = nn.Parameter(torch.empty(count, towers.width))
        if random:
            nn.init.normal_(self.vectors, std=0.02)
        else:
            self.begin(towers)

    @torch.no_grad()
    def begin(self, towers: CLIPTowers) -> None:
        """Start at the embeddings of the words in the prompts: all classes share them."""
        self.vectors.copy_(towers.token_embedding(self.tokens[:1, 1 : 1 + self.count])[0])

    def forward(self, towers: CLIPTowers, shift: Tensor | None = None, tokens: Tensor | None = None) -> Tensor:
        """Embeddings of all classes' prompts.

        Args:
            towers: the frozen CLIP.
            shift: t (B, width), one for each image; None: one set of prompts for all.
            tokens: (K, L) of other classes; None: those it was made with.

        Returns:
            (B, K, dim) of length 1; B is 1 without a shift.
        """
        tokens = self.tokens if tokens is None else tokens
        end = tokens.argmax(1)
        if not torch.compiler.is_exporting():  # a graph knows no longest prompt; what stands behind an end has no part
            tokens = tokens[:, : int(end.max()) + 1]
        embedded = towers.token_embedding(tokens)
        context = self.vectors if shift is None else self.vectors + shift.unsqueeze(1)
        context = context.reshape(-1, 1, self.count, self.vectors.shape[1]).expand(-1, len(tokens), -1, -1)
        around = embedded.unsqueeze(0).expand(context.shape[0], -1, -1, -1)
        whole = torch.cat([around[:, :, :1], context, around[:, :, 1 + self.count :]], dim=2)
        images = context.shape[0]  # len() of it would fix a graph's batch
        return towers.text(whole.flatten(0, 1), end.repeat(images)).unflatten(0, (images, len(tokens)))
