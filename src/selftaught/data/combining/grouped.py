"""Samples that belong together, made one."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

import numpy as np

from selftaught.data.files import natural
from selftaught.data.kinds import kind_of
from selftaught.data.scaling import ValueRange
from selftaught.data.source import PER_SAMPLE, Source, digest
from selftaught.errors import SampleError, UserError

__all__ = ["Grouped"]


class Grouped(Source):
    """Samples that belong together, made one: the slices of a volume, the frames of a clip.

    Sample i is the stack of all images of group i, in the natural order of their names ("slice2" before "slice10").
    """

    def __init__(self, source: Source, by: str = "group", kind: str = "volume") -> None:
        """Group the images of a source.

        Args:
            source: of images.
            by: "group" for the source's own groups, "folder" for the folder that the names lie in, or a regular
                expression, whose first group (or whole match) in a name is the key.
            kind: of the result: "volume" (D, H, W, C) or "clip" (T, H, W, C).

        Raises:
            UserError: samples other than images, no groups, or a name that the expression doesn't match.
        """
        if kind not in ("volume", "clip") or source.modality != "image":
            plural = kind_of(source.modality).plural
            raise UserError(f"{source.name}: {plural} can't be grouped to {kind}; images can, to volume or clip")
        self.source, self.by, self.modality = source, by, kind
        self.name, self.channels, self.generated = source.name, source.channels, source.generated
        found: dict[str, list[int]] = {}
        for i, group in enumerate(_keys(source, by)):
            found.setdefault(group, []).append(i)
        self.names = list(found)
        self.members = [np.array(sorted(rows, key=lambda i: natural(source.names[i]))) for rows in found.values()]
        self.classes, self.notes, self.depth = source.classes, source.notes, source.depth
        for attribute in PER_SAMPLE:
            setattr(self, attribute, self._common(getattr(source, attribute)))
        self.groups = None if by == "group" else self.groups
        kept = {name: self._common(rows) for name, rows in source.values.items()}
        self.values = {name: rows for name, rows in kept.items() if rows is not None}

    def _common(self, rows: np.ndarray | None) -> np.ndarray | None:
        """What holds for each group, or None where the samples of some group differ in it."""
        if rows is None or not all((rows[m] == rows[m[0]]).all() for m in self.members):
            return None
        return rows[[m[0] for m in self.members]]

    def read(self, i: int, min_side: int | None = None, frames: np.ndarray | None = None) -> np.ndarray:
        """One group (D, H, W, C), or of it the images at the positions `frames`; see `Source.read`."""
        members = self.members[i] if frames is None else self.members[i][frames]
        images = [self.source.read(int(k), min_side) for k in members]
        odd = next((k for k, image in enumerate(images) if image.shape != images[0].shape), None)
        if odd is not None:
            sizes = ["x".join(map(str, image.shape)) for image in (images[0], images[odd])]
            raise SampleError(self.names[i], f"{self.source.names[members[odd]]} is {sizes[1]}, the first {sizes[0]}")
        return np.stack(images)

    def frames(self, i: int) -> int:
        """Images in the group."""
        return len(self.members[i])

    def any_depth(self) -> None:
        """Of the source."""
        super().any_depth()
        self.source.any_depth()

    @property
    def value_range(self) -> ValueRange | None:
        """The images'."""
        return self.source.value_range

    def origin(self) -> str:
        """The source's, grouped."""
        return f"{self.source.origin()} by {self.by}"

    def fingerprint(self) -> str:
        """Of the source and of who belongs together."""
        return digest("grouped", self.source.fingerprint(), self.modality, *self.members)


def _keys(source: Source, by: str) -> list[str]:
    """The key of the group of each sample.

    Raises:
        UserError: the source has no groups, the expression is none, or it doesn't match a name.
    """
    if by == "group":
        if source.groups is None:
            raise UserError(f"{source.name} has no groups; use by=folder or a regular expression of the names")
        return [f"{group:05d}" for group in source.groups.tolist()]
    if by == "folder":
        return [str(PurePosixPath(name).parent) for name in source.names]
    try:
        matches = [re.search(by, name) for name in source.names]
    except re.error as error:
        raise UserError(
            f"{source.name}: by={by!r} is neither group, folder nor a regular expression ({error})"
        ) from None
    odd = next((i for i, match in enumerate(matches) if match is None), None)
    if odd is not None:
        raise UserError(f"{source.name}: by={by!r} doesn't match the name {source.names[odd]!r}")
    return [match[1] if match.re.groups else match[0] for match in matches if match is not None]
