"""Settings of audio extraction."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from deployments.net.limits import DownloadLimits
from deployments.net.policy import VideoPolicy


class MediaLimits(BaseModel):
    """Bounds of probing and decoding one file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_duration_s: float = 3600.0
    """Longest video; a second more passes."""

    probe_s: float = 60.0
    """Wall clock and CPU of the probe."""

    decode_s: float = 600.0
    """Wall clock and CPU of ffmpeg."""

    decodes_at_once: int = 3
    """In one replica; the longest video's sound takes 115 MB there until it is kept."""

    address_space_mb: int = 1024
    """Address space of each child process, the programs themselves included."""

    max_alloc_mb: int = 256
    """Largest single allocation of ffmpeg."""


class ExtractorConfig(BaseModel):
    """How videos become audio, within which bounds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    engine: Literal["ffmpeg"] = "ffmpeg"
    """What decodes."""

    net: VideoPolicy = VideoPolicy()
    """Where videos may come from."""

    download: DownloadLimits = DownloadLimits()
    """Bounds of the download."""

    media: MediaLimits = MediaLimits()
    """Bounds of probing and decoding."""

    scratch_url: str = "/tmp/ecg-ml-server/scratch"  # noqa: S108 - the app's settings put it into the state folder
    """Where the extracted audio of running jobs is kept: a folder, or any fsspec URL that all nodes share."""

    temp_dir: Path | None = None
    """Where a video lies while it is read; None: the system's folder for temporary files."""
