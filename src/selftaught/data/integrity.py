"""What a decoder might pass over in silence: files cut short, checksums that fail; and the size in a JPEG's header."""

from __future__ import annotations

import struct
import zlib

from selftaught.errors import SampleError

PNG = b"\x89PNG\r\n\x1a\n"
"""What PNG files begin with."""
_NOTES = {b"iCCP", b"sRGB", b"gAMA", b"cHRM", b"tEXt", b"zTXt", b"iTXt", b"tIME", b"pHYs", b"bKGD", b"hIST", b"sPLT"}


def jpeg_size(data: bytes) -> tuple[int, int, int] | None:
    """(height, width, components) from the frame header of a JPEG, or None where there is none."""
    at = 2
    while at + 9 < len(data):
        if data[at] != 0xFF:
            at += 1
            continue
        marker = data[at + 1]
        if marker == 0xFF or marker == 0x01 or 0xD0 <= marker <= 0xD8:
            at += 1 if marker == 0xFF else 2
            continue
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack(">HH", data[at + 5 : at + 9])
            return height, width, data[at + 9]
        if marker == 0xDA:
            return None
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None


def pixels_alone(data: bytes) -> bytes:
    """A PNG without the notes before its pixels (profiles, gamma, texts), which change no pixel here; any other file as
    it is. The decoder prints what it takes exception to in them straight to the terminal.
    """
    at, kept = 8, [PNG]
    while data[:8] == PNG and at + 12 <= len(data):
        kind, end = data[at + 4 : at + 8], at + 12 + int.from_bytes(data[at : at + 4], "big")
        if kind == b"IDAT":
            break
        if kind not in _NOTES:
            kept.append(data[at:end])
        at = end
    return b"".join([*kept, data[at:]]) if at > 8 and sum(map(len, kept)) < at else data


def check_whole(data: bytes, name: str) -> None:
    """What a decoder might pass over in silence: the end of the file missing, or a PNG whose checksums don't hold."""
    if data[:8] == PNG:
        _check_png(data, name)
    elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        if len(data) < 8 + int.from_bytes(data[4:8], "little"):
            raise SampleError(name, "truncated WebP")
    elif data[:2] == b"BM" and len(data) < 26:
        raise SampleError(name, "truncated BMP")


def _check_png(data: bytes, name: str) -> None:
    at, view = 8, memoryview(data)
    while at + 12 <= len(data):
        length = int.from_bytes(view[at : at + 4], "big")
        kind = bytes(view[at + 4 : at + 8])
        end = at + 8 + length
        if end + 4 > len(data):
            break
        if (
            kind.isalpha()
            and kind[:1].isupper()
            and zlib.crc32(view[at + 4 : end]) != int.from_bytes(view[end : end + 4], "big")
        ):
            raise SampleError(name, f"damaged PNG (checksum of {kind.decode()})")
        if kind == b"IEND":
            return
        at = end + 4
    raise SampleError(name, "truncated PNG")
