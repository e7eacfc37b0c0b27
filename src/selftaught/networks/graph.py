"""Message passing: embeddings of a batch look at their neighbours in a graph before they are compared."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from selftaught.errors import UserError

__all__ = ["MessagePassing"]


def normalised_adjacency(edges: Tensor, size: int) -> Tensor:
    """A~ = D^-1/2 (A + I) D^-1/2, D the degrees of A + I (Kipf and Welling, ICLR 2017, arXiv 1609.02907, eq. 2).

    Args:
        edges: (E, 2) int64, (i, j) for an entry A_ij; both directions of an undirected edge. Repeated ones count once.
        size: number of vertices N.

    Returns:
        (N, N) float32, dense: graphs are batches of some hundred vertices at most.

    Raises:
        UserError: edges of another shape, or beyond the vertices.
    """
    if edges.ndim != 2 or edges.shape[1] != 2:
        raise UserError(f"edges must be (E, 2), got {tuple(edges.shape)}")
    if len(edges) and (int(edges.min()) < 0 or int(edges.max()) >= size):
        raise UserError(f"edges must join vertices among 0 .. {size - 1}")
    matrix = torch.eye(size, device=edges.device)
    matrix[edges[:, 0], edges[:, 1]] = 1
    scale = matrix.sum(1).rsqrt()
    return scale[:, None] * matrix * scale[None, :]


class MessagePassing(nn.Module):
    """Two graph convolutions with a residual: A~ relu(A~ Z W1) W2 + Z, the vertex network g of LVM-Med.

    A graph without edges makes it an ordinary residual layer, A~ = I.

    Args:
        dim: width F of the embeddings.
        hidden: width between the layers; None takes F.

    Raises:
        UserError: a width below one.
    """

    def __init__(self, dim: int, hidden: int | None = None) -> None:
        super().__init__()
        hidden = dim if hidden is None else hidden
        if dim < 1 or hidden < 1:
            raise UserError(f"message passing of width {dim} and {hidden}: both must be 1 or more")
        self.first = nn.Linear(dim, hidden, bias=False)
        self.second = nn.Linear(hidden, dim, bias=False)

    def forward(self, z: Tensor, edges: Tensor) -> Tensor:
        """Pass messages twice.

        Args:
            z: (N, F) embeddings of the vertices.
            edges: (E, 2) int64, both directions of every edge.

        Returns:
            (N, F).
        """
        adjacency = normalised_adjacency(edges, len(z)).to(z.dtype)
        return adjacency @ self.second(torch.relu(adjacency @ self.first(z))) + z
