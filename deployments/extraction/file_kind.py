"""Names what a file is that cannot be decoded, for the error's sentence: one of a closed list, never its content."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

HEAD_BYTES = 4096
_SIGNATURES = {
    "image": (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"BM", b"II*\0", b"MM\0*", b"\0\0\1\0"),
    "archive": (b"PK\x03\x04", b"\x1f\x8b", b"7z\xbc\xaf", b"Rar!", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd"),
    "pdf": (b"%PDF",),
    "playlist": (b"#EXTM3U", b"ffconcat", b"[playlist]"),
}
_IMAGE_BRANDS = frozenset({b"heic", b"heix", b"mif1", b"avif"})
_CONTAINERS = {
    "matroska,webm": "Matroska",
    "mov,mp4,m4a,3gp,3g2,mj2": "MP4",
    "mpegts": "MPEG-TS",
    "mpeg": "MPEG-PS",
}


def look(path: Path) -> str:
    """Return what the file seems to be: "image", "archive", "pdf", "playlist", "text", or "" where nobody knows."""
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    for kind, signatures in _SIGNATURES.items():
        if head.startswith(signatures):
            return kind
    if (head[:4] == b"RIFF" and head[8:12] == b"WEBP") or (head[4:8] == b"ftyp" and head[8:12] in _IMAGE_BRANDS):
        return "image"
    return "text" if is_text(head) else ""


def is_text(head: bytes) -> bool:
    """Return whether the beginning of a file is text: UTF-8, or UTF-16 with its mark, without control characters."""
    encoding = "utf-16" if head.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8"
    text = head.decode(encoding, errors="ignore")
    undecoded = len(head) - len(text.encode(encoding))
    return len(text) > 0 and undecoded <= len(head) // 100 + 3 and all(c.isprintable() or c in "\r\n\t\f" for c in text)


def container_name(name: str) -> str:
    """Return the usual name of a container, from that of ffmpeg's demuxer."""
    return _CONTAINERS.get(name, name.upper())
