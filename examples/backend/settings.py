"""The settings of the backend, from its environment, by the names of the integration guide."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """URLs and secrets."""

    model_server_url: str = "http://localhost:8080"
    """`MODEL_SERVER_URL`, else `ml_api_server_url`: the ML Server."""

    fastapi_base_url: str = "http://localhost:8000"
    """`FASTAPI_BASE_URL`: the URL at which the ML Server reaches this backend. Callbacks arrive here."""

    ml_api_timeout_s: float = 300
    """`ML_API_TIMEOUT`: timeout of a call to the ML Server."""

    video_base_url: str = "http://localhost:9000"
    """`VIDEO_BASE_URL`: the URL of the videos' folder. A real backend presigns URLs of S3: see `ml_video.video_url`."""

    ml_api_key: str | None = None
    """`ML_API_KEY`: sent as `Authorization: Bearer`, if the ML Server requires a key."""

    webhook_secret: str | None = None
    """`ML_WEBHOOK_SECRET` (`whsec_…`): if set, a callback without a valid signature is refused."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Settings:
        """Read the variables; an empty one counts as absent."""

        def read(name: str, default: str) -> str:
            return environment.get(name) or default

        return cls(
            model_server_url=read("MODEL_SERVER_URL", read("ml_api_server_url", cls().model_server_url)).rstrip("/"),
            fastapi_base_url=read("FASTAPI_BASE_URL", cls().fastapi_base_url).rstrip("/"),
            ml_api_timeout_s=float(read("ML_API_TIMEOUT", "300")),
            video_base_url=read("VIDEO_BASE_URL", cls().video_base_url).rstrip("/"),
            ml_api_key=environment.get("ML_API_KEY") or None,
            webhook_secret=environment.get("ML_WEBHOOK_SECRET") or None,
        )
