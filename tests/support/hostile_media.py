"""A corpus of hostile media, made by script: files that name other files or hosts, bombs, and damaged good ones.

Knows the formats' bytes and nothing of the product; `media_campaign.py` lets the product loose on them. What depends
on chance depends on the seed only.
"""

from __future__ import annotations

import base64
import gzip
import io
import random
import struct
import wave
import zipfile
import zlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

BAIT_HZ = 3217
"""The sound of the file that nobody may hear."""
MUTATIONS_PER_FILE = 18

HLS = "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{}\n#EXT-X-ENDLIST\n"
MPD = '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" mediaPresentationDuration="PT2S">'
SDP = "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio {} RTP/AVP {}\n"
KEY = '#EXT-X-KEY:METHOD=AES-128,URI="{}"\n#EXTINF'
SDP_PORT = 45_004


def references(bait: Path, port: int) -> dict[str, bytes]:
    """Files that name `bait` (a WAV; beside it lie a .ts of the same sound and a link to it) or the listener."""
    return {
        **{name: text.encode() for name, text in _playlists(bait, port).items()},
        **_disguised(bait, port),
        **_movies(bait, port),
        **_matroskas(bait, port),
        **_tags(f"http://127.0.0.1:{port}/tag.png"),
    }


def _targets(bait: Path, port: int) -> dict[str, str]:
    """Ways to name the bait, or to call the listener."""
    segment = bait.with_suffix(".ts")
    http = f"http://127.0.0.1:{port}/x.ts"
    return {
        "name": segment.name,
        "path": str(segment),
        "file": f"file://{segment}",
        "link": bait.with_name("link.ts").name,
        "parent": f"../{segment.parent.name}/{segment.name}",
        "http": http,
        "tcp": f"tcp://127.0.0.1:{port}",
        "udp": f"udp://127.0.0.1:{port}",
        "tls": f"https://127.0.0.1:{port}/x.ts",
        "concat": f"concat:{segment}|{segment}",
        "concat-http": f"concat:{segment}|{http}",
        "subfile": f"subfile,,start,0,end,100000,,:{segment}",
        "cache": f"cache:{segment}",
        "async": f"async:{segment}",
        "crypto": f"crypto+file://{segment}",
        "crypto-http": f"crypto+{http}",
        "data": "data:video/mp2t;base64," + base64.b64encode(segment.read_bytes()[: 188 * 20]).decode(),
        "nested": f"hls+file://{segment}",
    }


def _playlists(bait: Path, port: int) -> dict[str, str]:
    http = f"http://127.0.0.1:{port}/x"
    segment = bait.with_suffix(".ts")
    targets = _targets(bait, port)
    found = {f"hls-{kind}": HLS.format(target) for kind, target in targets.items()}
    found |= {f"concat-{kind}": f"ffconcat version 1.0\nfile '{target}'\n" for kind, target in targets.items()}
    found |= {
        "hls-key": HLS.format(segment.name).replace("#EXTINF", KEY.format(http)),
        "hls-key-file": HLS.format(segment.name).replace("#EXTINF", KEY.format(bait)),
        "hls-map": HLS.format(segment.name).replace("#EXTINF", f'#EXT-X-MAP:URI="{http}"\n#EXTINF'),
        "hls-range": HLS.format(segment.name).replace("#EXTINF", "#EXT-X-BYTERANGE:9400@0\n#EXTINF"),
        "hls-variant": f"#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n{http}.m3u8\n",
        "hls-media": '#EXTM3U\n#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="a",NAME="a",DEFAULT=YES,'
        f'URI="{http}.m3u8"\n#EXT-X-STREAM-INF:BANDWIDTH=1,AUDIO="a"\n{http}.m3u8\n',
        "hls-endless": f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{http}\n",
        "hls-crlf": HLS.format(segment.name).replace("\n", "\r\n"),
        "hls-bom": "\ufeff" + HLS.format(segment.name),
        "hls-passwd": HLS.format("/etc/passwd"),
        "concat-options": f"ffconcat version 1.0\nfile '{bait.name}'\noption format_whitelist ALL\n",
        "concat-bare": f"file '{bait}'\n",
        "dash-base": f'{MPD}<Period><AdaptationSet mimeType="audio/mp4"><Representation id="1" bandwidth="1">'
        f"<BaseURL>{http}</BaseURL></Representation></AdaptationSet></Period></MPD>",
        "dash-file": f'{MPD}<Period><AdaptationSet mimeType="audio/mp4"><Representation id="1" bandwidth="1">'
        f"<BaseURL>{bait}</BaseURL></Representation></AdaptationSet></Period></MPD>",
        "dash-list": f'{MPD}<Period><AdaptationSet mimeType="audio/mp4"><Representation id="1" bandwidth="1">'
        f'<SegmentList duration="2"><Initialization sourceURL="{http}"/><SegmentURL media="{http}"/></SegmentList>'
        "</Representation></AdaptationSet></Period></MPD>",
        "dash-template": f'{MPD}<Period><AdaptationSet mimeType="audio/mp4"><SegmentTemplate media="{http}$Number$"'
        f' initialization="{http}i" duration="1" startNumber="1"/><Representation id="1" bandwidth="1"/>'
        "</AdaptationSet></Period></MPD>",
        "dash-entity": f'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY e SYSTEM "file://{bait}">]><MPD>&e;</MPD>',
        "sdp": SDP.format(SDP_PORT, 0),
        "sdp-aac": SDP.format(SDP_PORT, 96) + "a=rtpmap:96 MPEG4-GENERIC/48000/2\n",
        "rtsp": f"rtsp://127.0.0.1:{port}/x\n",
        "rtp": "RTSPtext\n" + f"rtsp://127.0.0.1:{port}/x\n",
        "asx": f'<asx version="3.0"><entry><ref href="{http}"/></entry></asx>',
        "asf-reference": f"[Reference]\nRef1={http}\n",
        "m3u": f"{segment}\n",
        "pls": f"[playlist]\nFile1={http}\nNumberOfEntries=1\n",
        "xspf": f"<playlist><trackList><track><location>{http}</location></track></trackList></playlist>",
        "smil": f'<smil><body><audio src="{http}"/></body></smil>',
        "smooth": f'<SmoothStreamingMedia><StreamIndex Type="audio" Url="{http}"/></SmoothStreamingMedia>',
        "imf": '<?xml version="1.0"?><CompositionPlaylist xmlns="http://www.smpte-ra.org/schemas/2067-3/2016">'
        f"<Id>urn:uuid:{http}</Id></CompositionPlaylist>",
        "cue": f'FILE "{bait.name}" WAVE\n  TRACK 01 AUDIO\n    INDEX 01 00:00:00\n',
        "metadata": f";FFMETADATA1\ntitle={http}\n",
        "filter": f"amovie={bait.name}\n",
        "svg": f'<svg xmlns="http://www.w3.org/2000/svg"><image href="{http}"/></svg>',
        "url": f"{http}\n",
        "playlist-in-vtt": f"WEBVTT\n\n00:00.000 --> 00:01.000\n{http}\n",
    }
    return found


def _disguised(bait: Path, port: int) -> dict[str, bytes]:
    """Playlists with another format's first bytes, or inside another format."""
    listed = HLS.format(bait.with_suffix(".ts")).encode()
    called = HLS.format(f"http://127.0.0.1:{port}/x.ts").encode()
    return {
        "hls-after-ftyp": box(b"ftyp", b"isom\0\0\2\0isomiso2mp41") + listed,
        "hls-in-free": box(b"ftyp", b"isom\0\0\2\0isomiso2mp41") + box(b"free", called),
        "hls-after-id3": b"ID3\4\0\0\0\0\0\0" + listed,
        "hls-after-riff": b"RIFF\xff\xff\0\0WAVE" + listed,
        "hls-before-wav": called + wav(bytes(8000)),
        "hls-gzip": gzip.compress(called, mtime=0),
        "hls-utf16": called.decode().encode("utf-16"),
        "gab2-hls": avi_with_subtitle(called),
        "gab2-file": avi_with_subtitle(listed),
        "gab2-concat": avi_with_subtitle(f"ffconcat version 1.0\nfile '{bait}'\n".encode()),
    }


def box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", 8 + len(content)) + kind + content


def chunk(kind: bytes, content: bytes) -> bytes:
    return kind + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)


def avi_with_subtitle(text: bytes) -> bytes:
    """An AVI whose text stream holds a file of its own (GAB2), which ffmpeg opens with whatever demuxer fits it."""
    gab2 = b"GAB2\0\2\0" + struct.pack("<I", 2) + b"x\0" + b"\4\0" + struct.pack("<I", len(text)) + text
    sound = struct.pack("<HHIIHH", 1, 1, 8000, 16_000, 2, 16)
    streams = b""
    for kind, form in ((b"auds", sound), (b"txts", b"")):
        head = kind + b"\0\0\0\0" + struct.pack("<IHHIIIIIIII", 0, 0, 0, 0, 2, 16_000, 0, 8000, 4096, 0, 2) + bytes(8)
        streams += chunk(b"LIST", b"strl" + chunk(b"strh", head) + chunk(b"strf", form))
    main = struct.pack("<IIIIIIIIII", 40_000, 0, 0, 0, 1, 0, 2, 4096, 64, 48) + bytes(16)
    header = chunk(b"LIST", b"hdrl" + chunk(b"avih", main) + streams)
    moving = chunk(b"LIST", b"movi" + chunk(b"01tx", gab2) + chunk(b"00wb", bytes(16_000)))
    return chunk(b"RIFF", b"AVI " + header + moving)


def _movies(bait: Path, port: int) -> dict[str, bytes]:
    """MP4s whose samples lie elsewhere (`dref`), and QuickTime's reference movies."""
    http = f"http://127.0.0.1:{port}/x.mp4"
    places = {"path": str(bait), "file": f"file://{bait}", "name": bait.name, "http": http}
    movie = pcm_movie()
    found = {f"dref-url-{kind}": with_dref(movie, _url_entry(place)) for kind, place in places.items()}
    found |= {
        f"dref-alias-{kind}": with_dref(movie, _alias_entry(place, levels=levels))
        for kind, place, levels in (("path", str(bait), 0), ("name", bait.name, 1), ("http", http, 0))
    }
    for kind, place in places.items():
        target = box(b"rdrf", b"\0\0\0\0url " + struct.pack(">I", len(place) + 1) + place.encode() + b"\0")
        found[f"reference-movie-{kind}"] = box(b"moov", box(b"rmra", box(b"rmda", target)))
    return found


def pcm_movie() -> bytes:
    """A QuickTime file of a second of silence, in the bait's form; its one `dref` says that the samples are inside."""
    samples = 16_000
    mdat = box(b"mdat", bytes(2 * samples))
    ftyp = box(b"ftyp", b"qt  \0\0\2\0qt  ")
    entry = bytes(6) + struct.pack(">HHHIHHHHI", 1, 0, 0, 0, 1, 16, 0, 0, samples << 16)
    stbl = box(b"stsd", struct.pack(">II", 0, 1) + box(b"sowt", entry))
    stbl += box(b"stts", struct.pack(">IIII", 0, 1, samples, 1))
    stbl += box(b"stsc", struct.pack(">IIIII", 0, 1, 1, samples, 1))
    stbl += box(b"stsz", struct.pack(">III", 0, 2, samples)) + box(b"stco", struct.pack(">III", 0, 1, len(ftyp) + 8))
    dinf = box(b"dinf", box(b"dref", struct.pack(">II", 0, 1) + box(b"url ", b"\0\0\0\1")))
    minf = box(b"minf", box(b"smhd", bytes(8)) + dinf + box(b"stbl", stbl))
    hdlr = box(b"hdlr", b"\0\0\0\0mhlrsoun" + bytes(13))
    mdia = box(b"mdia", box(b"mdhd", struct.pack(">IIIIIHH", 0, 0, 0, samples, samples, 0, 0)) + hdlr + minf)
    tkhd = struct.pack(">IIIIII", 7, 0, 0, 1, 0, samples) + bytes(60)
    mvhd = struct.pack(">IIIII", 0, 0, 0, samples, samples) + bytes(80)
    return ftyp + mdat + box(b"moov", box(b"mvhd", mvhd) + box(b"trak", box(b"tkhd", tkhd) + mdia))


def with_dref(movie: bytes, entry: bytes) -> bytes:
    """`movie` with another `dref` entry; the boxes around it grow with it, its samples stay where they are."""
    old = box(b"url ", b"\0\0\0\1")
    at = movie.index(old)
    grown = bytearray(movie[:at] + entry + movie[at + len(old) :])
    for kind in (b"moov", b"trak", b"mdia", b"minf", b"dinf", b"dref"):
        where = movie.index(kind) - 4
        (size,) = struct.unpack_from(">I", movie, where)
        struct.pack_into(">I", grown, where, size + len(entry) - len(old))
    return bytes(grown)


def _url_entry(place: str) -> bytes:
    return box(b"url ", b"\0\0\0\0" + place.encode() + b"\0")


def _alias_entry(place: str, *, levels: int) -> bytes:
    """QuickTime's alias record: a volume, a file name, how many folders up and down, and the absolute path."""
    name = place.rsplit("/", 1)[-1].encode()[:63]
    path = ("v:" + place.lstrip("/").replace("/", ":")).encode()
    path += b"\0" * (len(path) % 2)
    record = bytes(10) + b"\1" + b"v".ljust(27, b"\0") + bytes(12) + bytes([len(name)]) + name.ljust(63, b"\0")
    record += bytes(16) + struct.pack(">HH", levels, levels) + bytes(16)
    record += struct.pack(">HH", 2, len(path)) + path + struct.pack(">HH", 0xFFFF, 0)
    return box(b"alis", b"\0\0\0\0" + record)


def element(kind: str, content: bytes) -> bytes:
    """An EBML element with an eight-byte length."""
    return bytes.fromhex(kind) + struct.pack(">Q", len(content) | 1 << 56) + content


def matroska(*, info: bytes = b"", extra: bytes = b"", track: bytes = b"", block: bytes | None = None) -> bytes:
    """A Matroska file of half a second of silence at 8 kHz, with more elements in the places named."""
    header = element("1a45dfa3", element("4282", b"matroska") + element("4287", b"\4") + element("4285", b"\2"))
    sound = element("e1", element("b5", struct.pack(">f", 8000.0)) + element("9f", b"\1") + element("6264", b"\x10"))
    entry = element("d7", b"\1") + element("73c5", b"\1") + element("83", b"\2") + element("86", b"A_PCM/INT/LIT")
    tracks = element("1654ae6b", element("ae", entry + sound + track))
    samples = bytes(8000) if block is None else block
    cluster = element("1f43b675", element("e7", b"\0") + element("a3", b"\x81\0\0\x80" + samples))
    about = element("1549a966", element("2ad7b1", b"\x0f\x42\x40") + info)
    return header + element("18538067", about + tracks + extra + cluster)


def _matroskas(bait: Path, port: int) -> dict[str, bytes]:
    http = f"http://127.0.0.1:{port}/x.mkv"
    uid, listed = bytes(range(16)), HLS.format(http).encode()
    found = {
        f"mkv-linked-{kind}": matroska(
            info=element("73a4", uid)
            + element("3c83ab", place.encode())
            + element("3e83bb", place.encode())
            + element("3eb923", uid[::-1])
        )
        for kind, place in (("name", bait.name), ("path", str(bait)), ("http", http))
    }
    atom = element("73c4", b"\1") + element("91", b"\0") + element("6e67", uid)
    chapters = element("1043a770", element("45b9", element("45dd", b"\1") + element("b6", atom)))
    found["mkv-ordered-chapters"] = matroska(extra=chapters)
    for kind, mime in (("playlist", b"application/vnd.apple.mpegurl"), ("font", b"application/x-truetype-font")):
        file = (
            element("466e", b"../../x.m3u8") + element("4660", mime) + element("465c", listed) + element("46ae", b"\1")
        )
        found[f"mkv-attachment-{kind}"] = matroska(extra=element("1941a469", element("61a7", file)))
    return found


def _tags(http: str) -> dict[str, bytes]:
    """Pictures "behind a link" in the tags of sound files."""
    apic = b"\0-->\0\3\0" + http.encode()
    frame = b"APIC" + struct.pack(">IH", len(apic), 0) + apic
    size = len(frame)
    id3 = b"ID3\3\0\0" + bytes([size >> 21 & 127, size >> 14 & 127, size >> 7 & 127, size & 127]) + frame
    picture = struct.pack(">II", 3, 3) + b"-->" + struct.pack(">IIIIII", 0, 0, 0, 0, 0, len(http)) + http.encode()
    flac = b"fLaC\6" + struct.pack(">I", len(picture))[1:] + picture
    return {"id3-link": id3 + b"\xff\xfb\x90\0" * 500, "flac-link": flac, "wav-id3": wav(b"\0\0" * 8000) + id3}


def wav(samples: bytes, *, channels: int = 1, rate_hz: int = 8000) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setparams((channels, 2, rate_hz, 0, "NONE", ""))
        out.writeframes(samples)
    return file.getvalue()


def zeros_packed(count: int) -> bytes:
    """What `zlib` makes of so many zeros, a multiple of ten million, which are compressed only once."""
    packer = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    part = packer.compress(bytes(10_000_000)) + packer.flush(zlib.Z_FULL_FLUSH)
    adler32 = count % 65_521 << 16 | 1
    return b"\x78\xda" + count // 10_000_000 * part + b"\x03\0" + struct.pack(">I", adler32)


def bombs() -> dict[str, bytes]:
    """Small files that ask for much: memory, time, or hours of sound."""
    movie = pcm_movie()
    deep = b""
    for _ in range(3000):
        deep = box(b"udta", deep)
    packed = zeros_packed(300_000_000)
    coding = element("6d80", element("6240", element("5034", element("4254", b"\0"))))
    late = bytearray(transport_stream_at(20 * 3600))
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr("video.mp4", bytes(20_000_000))
    found = {
        "wav-hours": wav(b"")[:40] + struct.pack("<I", 0x7FFF_FFF0) + bytes(4000),
        "wav-channels": wav(bytes(4000)).replace(struct.pack("<HHI", 1, 1, 8000), struct.pack("<HHI", 1, 65_535, 8000)),
        "wav-rate": wav(bytes(4000)).replace(struct.pack("<I", 8000), struct.pack("<I", 0x7FFF_FFFF), 1),
        "wav-1-hz": wav(bytes(400_000)).replace(struct.pack("<II", 8000, 16_000), struct.pack("<II", 1, 2), 1),
        "mp4-deep": movie[:20] + deep + movie[20:],
        "mp4-many-tracks": movie + box(b"moov", box(b"trak", b"") * 100_000),
        "mp4-endless-box": movie[:20] + struct.pack(">I", 1) + b"free" + struct.pack(">Q", 1 << 62) + movie[20:],
        "mp4-stretched": movie.replace(
            struct.pack(">IIII", 0, 1, 16_000, 1), struct.pack(">IIII", 0, 1, 16_000, 1 << 30)
        ),
        "mkv-zlib": matroska(track=coding, block=packed),
        "mkv-jump": matroska() + element("1f43b675", element("e7", b"\xff" * 6) + element("a3", b"\x81\0\0\x80\0\0")),
        "mkv-endless": matroska()[:60] + b"\x01" + b"\xff" * 7,
        "mkv-tag": matroska(extra=b"\x12\x54\xc3\x67" + struct.pack(">Q", 0x7FFF_FFFF | 1 << 56)),
        "ts-late": bytes(late),
        "id3-huge": b"ID3\3\0\0\x7f\x7f\x7f\x7f" + bytes(1000),
        "flac-huge": b"fLaC\x84\xff\xff\xff" + bytes(1000),
        "ogg-huge": b"OggS\0\2" + b"\xff" * 8 + bytes(12) + b"\xff" * 256,
        "flv-huge": b"FLV\1\5\0\0\0\x09\0\0\0\0\x08\xff\xff\xff" + bytes(2000),
        "avi-picture": avi_with_subtitle(b"").replace(b"txts", b"vids"),
        "zip": archive.getvalue(),
        "gzip": gzip.compress(bytes(20_000_000), mtime=0),
    }
    for tag, at in ((b"stsz", 12), (b"stts", 8), (b"stsc", 8), (b"stco", 8), (b"stsd", 8), (b"dref", 8)):
        where = movie.index(tag) + at
        found[f"mp4-index-{tag.decode()}"] = movie[:where] + b"\x7f\xff\xff\xff" + movie[where + 4 :]
    return found


def transport_stream_at(start_s: int) -> bytes:
    """An MPEG-TS of MPEG audio frames whose clock begins at 0 for a first stream and at `start_s` for the sound."""
    pat = b"\0\x00\xb0\x0d\0\1\xc1\0\0\0\1\xe1\0"
    body = b"\x02\xb0\x17\0\1\xc1\0\0\xe1\1\xf0\0\x1b\xe1\1\xf0\0\x03\xe1\2\xf0\0"
    pmt = b"\0" + body
    packets = [_packet(0, pat + _crc(pat[1:])), _packet(256, pmt + _crc(body))]
    frame = (b"\xff\xf3\x44\xc4" + bytes(140)) * 2
    packets += [_packet(257, _pes(0xE0, 0, b"\0\0\1\x09\x10" + bytes(30)))]
    packets += [_packet(258, _pes(0xC0, start_s, frame[:150])) for _ in range(40)]
    return b"".join(packets)


def _packet(pid: int, content: bytes) -> bytes:
    stuffing = 184 - len(content)
    head = struct.pack(">BHB", 0x47, 0x4000 | pid, 0x30 if stuffing else 0x10)
    if stuffing:
        head += bytes([stuffing - 1]) + (b"\0" + b"\xff" * (stuffing - 2) if stuffing > 1 else b"")
    return head + content


def _pes(stream: int, at_s: int, content: bytes) -> bytes:
    ticks = at_s * 90_000
    stamp = bytes(
        (0x21 | ticks >> 29 & 0xE, ticks >> 22 & 255, ticks >> 14 & 0xFE | 1, ticks >> 7 & 255, ticks << 1 & 0xFE | 1)
    )
    return b"\0\0\1" + bytes([stream]) + struct.pack(">H", len(content) + 8) + b"\x80\x80\x05" + stamp + content


def _crc(section: bytes) -> bytes:
    """MPEG's CRC-32: not reflected."""
    value = 0xFFFF_FFFF
    for byte in section:
        value ^= byte << 24
        for _ in range(8):
            value = (value << 1 ^ (0x04C1_1DB7 if value & 1 << 31 else 0)) & 0xFFFF_FFFF
    return struct.pack(">I", value)


def mutations(good: dict[str, bytes], seed: int) -> Iterator[tuple[str, bytes]]:
    """Each good file, damaged in `MUTATIONS_PER_FILE` ways; the same seed gives the same bytes."""
    others = sorted(good)
    for name in others:
        chance = random.Random(f"{seed} {name}")  # noqa: S311 - damage, not secrets
        for number in range(MUTATIONS_PER_FILE):
            damage = DAMAGES[number % len(DAMAGES)]
            yield f"{name}-{damage.__name__.strip('_')}-{number}", damage(good, name, chance)


def _truncated(good: dict[str, bytes], name: str, chance: random.Random) -> bytes:
    return good[name][: chance.randrange(1, len(good[name]))]


def _bit_flips(good: dict[str, bytes], name: str, chance: random.Random) -> bytes:
    content = bytearray(good[name])
    for _ in range(chance.choice((1, 8, 64))):
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    return bytes(content)


def _head_flips(good: dict[str, bytes], name: str, chance: random.Random) -> bytes:
    content = bytearray(good[name])
    for _ in range(chance.choice((1, 4, 16))):
        content[chance.randrange(min(512, len(content)))] ^= 1 << chance.randrange(8)
    return bytes(content)


def _tail_flips(good: dict[str, bytes], name: str, chance: random.Random) -> bytes:
    content = bytearray(good[name])
    for _ in range(chance.choice((1, 4, 16))):
        content[-1 - chance.randrange(min(1500, len(content)))] ^= 1 << chance.randrange(8)
    return bytes(content)


def _huge_fields(good: dict[str, bytes], name: str, chance: random.Random) -> bytes:
    content = bytearray(good[name])
    for _ in range(chance.choice((1, 3))):
        at = chance.randrange(max(1, len(content) - 4))
        content[at : at + 4] = chance.choice((b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", bytes(4), b"\x80\0\0\0"))
    return bytes(content)


def _holes(good: dict[str, bytes], name: str, chance: random.Random) -> bytes:
    content = bytearray(good[name])
    at, size = chance.randrange(len(content)), chance.randrange(1, 4000)
    content[at : at + size] = bytes(min(size, len(content) - at))
    return bytes(content)


def _lost(good: dict[str, bytes], name: str, chance: random.Random) -> bytes:
    at = chance.randrange(len(good[name]))
    return good[name][:at] + good[name][at + chance.randrange(1, 4000) :]


def _repeated(good: dict[str, bytes], name: str, chance: random.Random) -> bytes:
    start, end = sorted(chance.randrange(len(good[name])) for _ in range(2))
    return good[name][:end] + good[name][start:end] * chance.choice((1, 3, 20)) + good[name][end:]


def _spliced(good: dict[str, bytes], name: str, chance: random.Random) -> bytes:
    other = good[chance.choice(sorted(good))]
    return good[name][: chance.randrange(len(good[name]))] + other[chance.randrange(len(other)) :]


DAMAGES: tuple[Callable[[dict[str, bytes], str, random.Random], bytes], ...] = (
    _truncated,
    _bit_flips,
    _head_flips,
    _tail_flips,
    _huge_fields,
    _holes,
    _lost,
    _repeated,
    _spliced,
)
