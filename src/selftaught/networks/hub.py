"""Weights from the Hugging Face hub, from its cache at once where it can't be reached, without minutes of retries."""

from __future__ import annotations

import socket
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["hub"]

_SECONDS = 4.0


@contextmanager
def hub() -> Iterator[None]:
    """Within it the hub's clients (timm, transformers, open_clip) take what is cached if the hub is out of reach.

    Without it they ask six times with growing pauses for every file, most of a minute each, before they say so.
    """
    from huggingface_hub import constants

    was = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = was or not _reachable(constants.ENDPOINT)
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = was


def _reachable(address: str) -> bool:
    """Whether somebody answers at an address; behind a proxy that is left to the client."""
    where = urllib.parse.urlsplit(address)
    if where.hostname is None or where.scheme in urllib.request.getproxies():
        return True
    try:
        socket.create_connection((where.hostname, where.port or 443), timeout=_SECONDS).close()
    except OSError:
        return False
    return True
