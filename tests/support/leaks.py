"""M7: looks through all that the tests' servers let out for what must not come out, while the whole suite runs.

What is looked for: the query of a presigned URL (`Sources` signs all of its URLs), the name and the value of a header
that every job of `RunningServer` adds to its callbacks, Python's tracebacks, and folders of the server. Ray's own logs
hold the latter two by nature, and are looked through for the others only.
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import sqlalchemy
from sqlalchemy.exc import SQLAlchemyError

from serve_app.jobs.states import JobState
from serve_app.storage.tables import metadata
from tests.support.sources import SECRET

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
CALLBACK_HEADERS = {"x-gateway-unheard-of": "Bearer tell-no-gateway"}
"""What a job adds to its callbacks: sent to its backend, stored with the job, and nowhere else."""
SECRETS = (*SECRET.split("="), "gateway-unheard-of", "tell-no-gateway")
QUERY = re.compile("|".join(map(re.escape, SECRETS)))
INSIDE = ("Traceback", "site-packages", "/ecg-extract-", str(ROOT), sys.prefix)
LOGS = ("up.log", "log.jsonl", "logs/*")
EXCERPT = 100


class Watch:
    """Remembers what was found, and how much of each kind was looked at."""

    def __init__(self) -> None:
        self.found: list[str] = []
        self.looked_at: Counter[str] = Counter()

    def look(self, kind: str, where: str, content: bytes | str, *, inside: tuple[str, ...] = INSIDE) -> None:
        """Look through `content`; `inside` is what it must not hold beside the secrets."""
        text = content.decode(errors="replace") if isinstance(content, bytes) else content
        self.looked_at[kind] += 1
        wanted = re.compile("|".join([QUERY.pattern, *map(re.escape, inside)]))
        for match in wanted.finditer(text):
            around = text[max(0, match.start() - EXCERPT) : match.end() + EXCERPT]
            self.found.append(f"{kind} {where}: …{around!r}…")

    def answer(self, response: httpx.Response) -> None:
        """A hook of httpx clients."""
        response.read()
        where = f"{response.request.method} {response.request.url.path} {response.status_code}"
        self.look("answer", where, f"{response.headers} {response.text}")

    def callback(self, path: str, headers: dict[str, str], raw: bytes) -> None:
        """What a backend was sent, but for the headers that its job adds."""
        others = {name: value for name, value in headers.items() if CALLBACK_HEADERS.get(name) != value}
        self.look("callback", path, f"{path} {others} {raw.decode(errors='replace')}")

    def running(self, state_dir: Path) -> None:
        """What a server that runs shows: Ray's logs, which it takes along, and the metrics of all of its nodes."""
        for path in state_dir.glob("ray/session_2*/logs/**/*"):
            with suppress(OSError):
                self.look("log of Ray", path.name, path.read_bytes() if path.is_file() else b"", inside=())
        for target in exporters(state_dir):
            with suppress(httpx.HTTPError):
                text = httpx.get(f"http://{target}/metrics", timeout=5, trust_env=False).text
                shown = text.replace(sys.executable, "python")  # Ray counts memory by program
                self.look("metric", target, shown, inside=(*INSIDE, str(state_dir)))

    def left(self, state_dir: Path, database_url: str | None = None) -> None:
        """What a server has left behind: its logs, and its database."""
        for path in (found for logs in LOGS for found in state_dir.glob(logs)):
            with suppress(OSError):
                self.look("log", path.name, path.read_bytes(), inside=(*INSIDE, str(state_dir)))
        for path in state_dir.glob("*.db"):
            self.database(f"sqlite:///{path}")
        if database_url:
            self.database(database_url)

    def database(self, url: str) -> None:
        """Every value of every row; a job may keep its headers, and one that has not ended its URL."""
        engine = sqlalchemy.create_engine(url)
        try:
            with engine.connect() as connection:
                for table in metadata.tables.values():
                    for row in connection.execute(sqlalchemy.select(table)).mappings():
                        self._row(table.name, dict(row))
        except SQLAlchemyError:  # gone, or broken by the test
            return
        finally:
            engine.dispose()

    def _row(self, table: str, row: dict[str, Any]) -> None:
        if table == "jobs" and row["state"] not in (JobState.COMPLETED, JobState.FAILED):
            row.pop("video_url")
        if table == "jobs":
            row.pop("callback_headers", None)
        for column, value in row.items():
            if isinstance(value, str | bytes | dict):
                self.look("value", f"{table}.{column}", json.dumps(value) if isinstance(value, dict) else value)

    def summary(self) -> str:
        """How much was looked at."""
        return ", ".join(f"{kind} {count}" for kind, count in sorted(self.looked_at.items()))


WATCH = Watch()


def exporters(state_dir: Path) -> Iterator[str]:
    """Where Ray tells Prometheus to look."""
    for path in state_dir.glob("ray/prom_metrics_service_discovery.json"):
        with suppress(OSError, ValueError):
            for group in json.loads(path.read_text()):
                yield from group["targets"]
