"""Settings of audio extraction."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from deployments.net.policy import DownloadLimits, VideoPolicy


class MediaLimits(BaseModel):
    """Bounds of reading one file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_duration_s: float = 3600.0
    """Longest sound, and longest picture, by counting; one more second is tolerated."""
    probe_s: float = 60.0
    """Most wall-clock time of opening a file."""
    decode_s: float = 600.0
    """Most wall-clock time, and most CPU time, of the child that decodes."""
    decodes_at_once: int = 3
    """Most decodes at once in one replica; the longest video's audio takes 115 MB until it is stored, with `channels:
    separate` so much for each channel."""
    address_space_mb: int = 1024
    """Address space of the child, program code included."""
    max_alloc_mb: int = 256
    """Without effect, since the ffmpeg program is not run any more; accepted for one release."""


class ExtractorConfig(BaseModel):
    """Settings of audio extraction."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    engine: Literal["ffmpeg"] = "ffmpeg"
    """The decoder."""
    net: VideoPolicy = VideoPolicy()
    """Where videos may come from."""
    download: DownloadLimits = DownloadLimits()
    """Bounds of the download."""
    media: MediaLimits = MediaLimits()
    """Bounds of decoding."""
    scratch_url: str = "/tmp/ecg-ml-server/scratch"  # noqa: S108 - the app's settings put it into the state folder
    """Where the extracted audio of running jobs is stored: a folder, or an fsspec URL that all nodes share."""
    temp_dir: Path | None = None
    """Where a video is stored while it is decoded; None: the system's folder for temporary files."""
