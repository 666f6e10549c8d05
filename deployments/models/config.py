"""Settings of the model store. Importing this loads nothing heavy: the HTTP edge does it too."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, SecretStr

Kind = Literal["asr", "aligner", "diarizer", "emotion"]
"""What a model is for: it says which files of a repository are needed."""


class ModelsConfig(BaseModel):
    """Where models lie, and which may be used."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    offline: bool = False
    """Nothing is fetched at a start. Else `ml-server up` and `demo` fetch what is missing before they start anything,
    with the profile `local` only. Replicas fetch nothing in any case, nor does `serve deploy`."""

    allow_unpinned: bool = False
    """Models whose digests are not in the lock are used as they are found. Production refuses to start with this."""

    lock: Path | None = None
    """The lock file; default: configs/models.lock.yaml. Every node of a cluster needs the same."""

    cache_dir: Path | None = None
    """Where downloaded models lie; default: the hub library's own place (HF_HUB_CACHE, HF_HOME).
    What came out of packages lies there too, as if the hub had sent it."""

    memory_dir: Path = Path("~/.local/state/ml-server")
    """Where the digests of large files are remembered; the server's state directory, unless set."""

    hf_token: SecretStr | None = None
    """Token of the Hugging Face hub, for gated models; default: the hub library's own (HF_TOKEN, its login)."""
