"""The real extraction without Ray: the class behind the deployment, on folders of its own."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from deployments import replica
from deployments.extraction.config import ExtractorConfig, MediaLimits
from deployments.net.policy import DownloadLimits, VideoPolicy

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def extractor_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Fetches from this machine by http; keeps audio in `folder`/scratch, works in `folder`/temp."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray's own, at its import
        from deployments.extraction.deployment import AudioExtractor
    monkeypatch.setattr(replica, "prepare", lambda **_: None)
    config = ExtractorConfig(
        net=VideoPolicy(schemes={"http"}, networks=("127.0.0.0/8",), ports="*"),
        download=DownloadLimits(max_tries=1, disk_reserve_bytes=0),
        media=MediaLimits(max_duration_s=1200),
        scratch_url=str(folder / "scratch"),
        temp_dir=folder / "temp",
    )
    return AudioExtractor.func_or_class(config)
