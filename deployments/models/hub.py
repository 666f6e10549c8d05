"""The only module that connects to a hub of models. Knows the Hugging Face hub's library and nothing of locks.

Only files that a loader needs are fetched, never code: models are loaded by our own packages' classes from local
folders (`trust_remote_code` is never true), and `torch.hub` is not used at all.
"""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Protocol

from deployments.errors import ModelLoadError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from deployments.models.config import Kind

WHISPER = ("config.json", "preprocessor_config.json", "model.bin", "tokenizer.json", "vocabulary.*")
"""Files that faster-whisper reads."""
READ = ("*.json", "*.txt", "*.yaml", "*.npz", "*.model", "*.safetensors", "*.bin", "*.ckpt", "*.pt")
"""Files that transformers and pyannote read, without code."""
UNREAD = (
    ".*",
    "runs/*",
    "language_model/*",
    "onnx/*",
    "training_args.bin",
    "trainer_state.json",
    "optimizer.*",
    "sched*",
)
"""Files of training, and weights for other programs."""
NEWEST = "main"
"""The revision that is used for unpinned models."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """A repository's newest revision."""

    revision: str
    """The commit, 40 hexadecimal digits."""
    files: Mapping[str, str | None]
    """Names, with the SHA-256 if the hub states it (for large files)."""
    licence: str
    gated: bool


class Hub(Protocol):
    """A hub, and the local folder of models from it and from packages."""

    @property
    def root(self) -> Path:
        """The folder of all models on this machine."""

    def place(self, repository: str, revision: str) -> Path:
        """Return the folder of a revision, whether it exists or not, below the repository's folder in `root`."""

    def folder(self, repository: str, revision: str) -> Path | None:
        """Return the folder of a revision that exists on this machine, without connecting."""

    def look_up(self, repository: str) -> Listing:
        """Return the newest revision. Raises `ModelLoadError`."""

    def download(self, repository: str, revision: str, files: Collection[str], *, again: Collection[str] = ()) -> Path:
        """Download these files, those of `again` even if they exist; return their folder. Raises `ModelLoadError`."""


def needed(kind: Kind, names: Collection[str]) -> Sequence[str]:
    """Return the files of a repository that the loaders of a kind read, in order.

    Where weights come in two forms, safetensors are taken: they cannot hold code.
    """
    if kind == "asr":
        return sorted(name for name in names if _matches(name, WHISPER))
    readable = {name for name in names if _matches(name, READ) and not _matches(name, UNREAD)}
    safe = {PurePosixPath(name).parent for name in readable if name.endswith(".safetensors")}
    return sorted(name for name in readable if not (name.endswith(".bin") and PurePosixPath(name).parent in safe))


def _matches(name: str, patterns: Collection[str]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)


class HuggingFace:
    """The Hugging Face hub, through its own library and cache."""

    def __init__(self, *, cache_dir: Path | None, token: str | None, endpoint: str | None = None) -> None:
        self._cache_dir = cache_dir.expanduser() if cache_dir else None
        self._token = token
        self._endpoint = endpoint

    @property
    def root(self) -> Path:
        """See `Hub`."""
        from huggingface_hub.constants import HF_HUB_CACHE

        return self._cache_dir or Path(HF_HUB_CACHE)

    def place(self, repository: str, revision: str) -> Path:
        """See `Hub`."""
        from huggingface_hub.file_download import repo_folder_name

        return self.root / repo_folder_name(repo_id=repository, repo_type="model") / "snapshots" / revision

    def folder(self, repository: str, revision: str) -> Path | None:
        """See `Hub`."""
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import LocalEntryNotFoundError

        try:
            found = snapshot_download(
                repository, revision=revision, cache_dir=self._cache_dir, local_files_only=True, token=False
            )
        except LocalEntryNotFoundError:
            return None
        return Path(found)

    def look_up(self, repository: str) -> Listing:
        """See `Hub`."""
        from huggingface_hub import HfApi

        with _refusals(repository):
            api = HfApi(endpoint=self._endpoint, token=self._token)
            info = api.model_info(repository, files_metadata=True)
        card: Any = info.card_data or {}
        return Listing(
            revision=str(info.sha),
            files={file.rfilename: file.lfs.sha256 if file.lfs else None for file in info.siblings or ()},
            licence=str(card.get("license") or ""),
            gated=bool(info.gated),
        )

    def download(self, repository: str, revision: str, files: Collection[str], *, again: Collection[str] = ()) -> Path:
        """See `Hub`. An interrupted download continues where it stopped."""
        from huggingface_hub import snapshot_download
        from huggingface_hub.utils.tqdm import disable_progress_bars

        disable_progress_bars()  # one bar shows all sources
        for name in again:  # the library does not replace a plain file, from packages, by its link
            (self.place(repository, revision) / name).unlink(missing_ok=True)
        found = None
        for names, force in ((set(again), True), (set(files) - set(again), False)):
            if names:
                with _refusals(repository):
                    found = snapshot_download(
                        repository,
                        revision=revision,
                        cache_dir=self._cache_dir,
                        allow_patterns=[_literally(name) for name in names],
                        force_download=force,
                        token=self._token,
                        endpoint=self._endpoint,
                    )
        if found is None:
            raise ModelLoadError(f"the repository {repository} has no file that a loader would read")
        if not all((Path(found) / name).is_file() for name in files):  # the library accepts incomplete folders
            raise ModelLoadError(f"{repository}: the hub cannot be reached")
        return Path(found)


def _literally(name: str) -> str:
    """Return a pattern that matches this name only."""
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)


@contextmanager
def _refusals(repository: str) -> Iterator[None]:
    """Turn the library's errors into sentences for the operator, without its own messages or the token."""
    try:
        yield
    except Exception as error:
        raise ModelLoadError(f"{repository}: {_why(error)}") from error


def _why(error: Exception) -> str:
    from huggingface_hub import errors

    answers = [getattr(cause, "response", None) for cause in (error, error.__cause__)]
    status = next((answer.status_code for answer in answers if answer is not None), None)
    if isinstance(error, errors.GatedRepoError):
        return (
            "the hub gives it only to accounts that have accepted its conditions: accept them on the model's page, and"
            " name a token of that account in models.hf_token (ML_SERVER_MODELS__HF_TOKEN)"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return "the hub no longer has the revision that the lock names: pin it again"
    if isinstance(error, errors.RepositoryNotFoundError):
        return "the hub has no such repository, or the token may not see it"
    if status:
        return f"the hub answered HTTP {status}"
    if isinstance(error, OSError) and error.errno is not None:
        return f"it could not be stored: {os.strerror(error.errno)}"
    return "the hub cannot be reached"


def go_offline() -> None:
    """Keep all libraries of this process from connecting to the hub from now on."""
    os.environ["HF_HUB_OFFLINE"] = os.environ["TRANSFORMERS_OFFLINE"] = "1"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    for module in _loaded("huggingface_hub.constants"):
        module.HF_HUB_OFFLINE = module.HF_HUB_DISABLE_TELEMETRY = True
    for module in _loaded("huggingface_hub.utils._http"):
        module.reset_sessions()
    for module in _loaded("transformers.utils.hub"):
        module._is_offline_mode = True  # noqa: SLF001 - read once, when it is imported


def _loaded(name: str) -> Iterator[Any]:
    if name in sys.modules:
        yield sys.modules[name]
