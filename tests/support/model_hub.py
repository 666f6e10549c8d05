"""Hubs of models for tests: one in memory behind the store's own seam, and the HTTP side of the Hugging Face hub."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request, Response

from deployments.errors import ModelLoadError
from deployments.models.hub import NEWEST, Listing

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

REPOSITORY = "example/tiny-whisper"
REVISION = "1f" * 20
LATER = "2e" * 20
FILES = {"config.json": b"{}", "model.bin": b"weights" * 1000, "tokenizer.json": b'{"model": 1}', "README.md": b"read"}


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def snapshot(cache: Path, repository: str, revision: str) -> Path:
    """Where the hub's library keeps a revision."""
    return cache / f"models--{repository.replace('/', '--')}" / "snapshots" / revision


def place(cache: Path, repository: str, revision: str, files: dict[str, bytes], *, ref: str | None = None) -> Path:
    """Put a revision into the cache as the hub's library does: blobs by digest, links to them."""
    folder = snapshot(cache, repository, revision)
    blobs = folder.parents[1] / "blobs"
    blobs.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        blob = blobs / sha256(content)
        blob.write_bytes(content)
        link = folder / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(blob)
    if ref:
        (folder.parents[1] / "refs").mkdir(exist_ok=True)
        (folder.parents[1] / "refs" / ref).write_text(revision)
    return folder


@dataclass
class FakeHub:
    """The store's seam, with one repository whose newest revision is `revision`."""

    cache: Path
    files: dict[str, bytes] = field(default_factory=lambda: dict(FILES))
    revision: str = REVISION
    stated: dict[str, str] = field(default_factory=dict)
    """Digests that the hub states in place of the true ones."""
    refuses: bool = False
    calls: list[Any] = field(default_factory=list)

    @property
    def root(self) -> Path:
        return self.cache

    def place(self, repository: str, revision: str) -> Path:
        return snapshot(self.cache, repository, revision)

    def folder(self, repository: str, revision: str) -> Path | None:
        known = snapshot(self.cache, repository, revision)
        if revision == NEWEST:
            ref = known.parents[1] / "refs" / NEWEST
            known = snapshot(self.cache, repository, ref.read_text()) if ref.exists() else known
        return known if known.exists() else None

    def look_up(self, repository: str) -> Listing:
        self.calls.append("look_up")
        self._refuse(repository)
        digests = {name: self.stated.get(name, sha256(content)) for name, content in self.files.items()}
        return Listing(revision=self.revision, files=digests, licence="mit", gated=False)

    def download(self, repository: str, revision: str, files: Collection[str], *, again: Collection[str] = ()) -> Path:
        self.calls.append((revision, sorted(files), sorted(again)))
        self._refuse(repository)
        ref = NEWEST if revision == NEWEST else None
        revision = self.revision if revision == NEWEST else revision
        folder = snapshot(self.cache, repository, revision)
        fetched = {name: self.files[name] for name in files if name in again or not (folder / name).exists()}
        return place(self.cache, repository, revision, fetched, ref=ref)

    def _refuse(self, repository: str) -> None:
        if self.refuses:
            raise ModelLoadError(f"{repository}: the hub cannot be reached")


def http_hub(files: dict[str, bytes], *, gated: bool = False, status: int = 200) -> FastAPI:
    """What the Hugging Face library asks of its hub, for `REPOSITORY` at `REVISION`."""
    app = FastAPI()
    app.state.requests = []

    @app.middleware("http")
    async def remember(request: Request, call_next: Any) -> Response:
        app.state.requests.append((request.method, request.url.path, request.headers.get("authorization")))
        refused = Response(status_code=status, headers={"X-Error-Code": "RepoNotFound"} if status in (401, 404) else {})
        return refused if status != 200 else await call_next(request)

    @app.get(f"/api/models/{REPOSITORY}")
    @app.get(f"/api/models/{REPOSITORY}/revision/{{revision}}")
    async def info() -> dict[str, Any]:
        siblings = [
            {"rfilename": name, "size": len(data), "lfs": {"sha256": sha256(data), "size": len(data), "pointerSize": 1}}
            for name, data in files.items()
        ]
        known = {"id": REPOSITORY, "sha": REVISION, "siblings": siblings, "gated": "auto" if gated else False}
        return known | {"private": False, "tags": [], "downloads": 0, "likes": 0, "cardData": {"license": "mit"}}

    @app.api_route(f"/{REPOSITORY}/resolve/{{revision}}/{{name:path}}", methods=["GET", "HEAD"])
    async def file(name: str, request: Request) -> Response:
        if gated:
            return Response(status_code=403, headers={"X-Error-Code": "GatedRepo"})
        content = files[name]
        headers = {"ETag": f'"{sha256(content)}"', "X-Repo-Commit": REVISION, "Content-Length": str(len(content))}
        return Response(b"" if request.method == "HEAD" else content, headers=headers)

    return app
