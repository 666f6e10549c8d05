"""What a caller asks to hear of a file, and which of its tracks that leaves to choose from."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import av

from deployments.extraction.child.sound import WHOLE, Window
from deployments.extraction.child.tracks import Track

MAX_RATE_HZ = 768_000
MAX_CHANNELS = 64
MAX_TRACKS = 16
MOST_APART = 8
"""Channels of a track that are kept apart."""
PROTECTED = frozenset({"enca", "encv", "drms", "drmi"})
"""Sample entries of encrypted streams (ISO/IEC 14496-12 and Apple's)."""


class RefusedError(Exception):
    """The file is not decoded; the message is the reason, and after a space the container, or what the file has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the caller chose; the defaults: nothing."""

    track: int | None = None
    """A number, from 1, in the file's order."""
    languages: frozenset[str] = frozenset()
    """Codes of the only language whose tracks are listened to."""
    separate: bool = False
    """Keep channels apart."""
    window: Window = field(default=WHOLE)

    @classmethod
    def of(cls, told: dict[str, Any]) -> Asked:
        """Return what stands in a JSON object; absent and null are the same."""
        edges = {name: told[name] for name in ("start_s", "end_s") if told.get(name) is not None}
        return cls(
            track=told.get("track"),
            languages=frozenset(told.get("languages") or ()),
            separate=bool(told.get("separate")),
            window=Window(**edges) if edges else WHOLE,
        )


NOTHING = Asked()


def tracks_of(container: Any) -> list[Track]:
    """Return the audio tracks that can be decoded. Raises RefusedError where there is none."""
    streams = list(container.streams.audio)
    if not streams:
        raise RefusedError("no_audio")
    tracks = [_track(number, stream) for number, stream in enumerate(streams[:MAX_TRACKS], 1) if is_decodable(stream)]
    if not tracks:
        raise _refused(streams)
    return tracks


def _track(number: int, stream: Any) -> Track:
    return Track(
        number=number,
        stream=stream.index,
        language=str(stream.metadata.get("language", ""))[:8].lower(),
        default=bool(stream.disposition & av.stream.Disposition.default),
    )


def _refused(streams: list[Any]) -> RefusedError:
    protected = any(tag_of(stream) in PROTECTED for stream in streams)
    return RefusedError("protected" if protected else "unsupported")


def asked_tracks(container: Any, asked: Asked) -> list[Track]:
    """Return the tracks that the caller left to choose from. Raises RefusedError where there is none."""
    streams = list(container.streams.audio)
    if asked.track is None and not asked.languages:
        return tracks_of(container)
    if not streams:
        raise RefusedError("no_audio")
    numbered = list(enumerate(streams, 1))
    if asked.track is not None:
        found = [_track(*each) for each in numbered if each[0] == asked.track]
    else:
        found = [_track(*each) for each in numbered if language_of(each[1]) in asked.languages]
    if not found:
        tags = ", ".join(sorted({language_of(stream) for stream in streams} - {""}))
        raise RefusedError(f"no_track {len(streams)}" if asked.track else f"no_language {tags or 'none'}")
    decodable = [track for track in found if is_decodable(container.streams[track.stream])]
    if not decodable:
        raise _refused([container.streams[track.stream] for track in found])
    return decodable[:MAX_TRACKS]


def language_of(stream: Any) -> str:
    """Return the language of a stream's tag without region or script ("zh" of `zh-Hant`), "" where it names none."""
    code = re.split("[-_]", str(stream.metadata.get("language", "")).strip().lower())[0]
    return code if re.fullmatch("[a-z]{2,3}", code) and code != "und" else ""


def tag_of(stream: Any) -> str:
    """Return the four characters that the container calls the codec."""
    codec = stream.codec_context
    try:
        return "" if codec is None else str(codec.codec_tag)
    except UnicodeDecodeError:  # PyAV: a number, as AVI has, and no four characters
        return ""


def is_decodable(stream: Any) -> bool:
    """Return whether there is a decoder, and the stream is neither encrypted nor beyond what anybody records."""
    codec = stream.codec_context
    if codec is None or tag_of(stream) in PROTECTED:
        return False
    return bool(codec.sample_rate <= MAX_RATE_HZ and codec.channels <= MAX_CHANNELS)


def channels_apart(stream: Any) -> int:
    """Return the number of a track's channels. Raises RefusedError where they are too many to be kept apart."""
    count = int(stream.codec_context.channels)
    if count > MOST_APART:
        raise RefusedError(f"too_many_channels {count}")
    return max(1, count)
