"""Settings of the model store. Importing this loads nothing heavy: the HTTP edge does it too."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, SecretStr

Kind = Literal["asr", "aligner", "diarizer", "emotion"]
"""The use of a model, which decides which files of a repository are needed."""


class ModelsConfig(BaseModel):
    """Where models are stored, and which may be used."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    offline: bool = False
    """Whether nothing is fetched at a start. If false, `ml-server up` and `demo` fetch missing models before they start
    anything, with the profile `local` only. Replicas and `serve deploy` never fetch."""
    allow_unpinned: bool = False
    """Whether models without digests in the lock are used unchecked. Production refuses to start with this."""
    lock: Path | None = None
    """The lock file; default: configs/models.lock.yaml. Every node of a cluster needs the same."""
    cache_dir: Path | None = None
    """Folder of downloaded models; default: that of the hub's library (HF_HUB_CACHE, HF_HOME). Models from packages are
    stored there as if they came from the hub."""
    memory_dir: Path = Path("~/.local/state/ml-server")
    """Folder of the cache of digests; default: the server's state folder."""
    hf_token: SecretStr | None = None
    """Token of the Hugging Face hub, for gated models; default: the hub library's own (HF_TOKEN, its login)."""
