"""Writes docs/openapi.json: `python -m serve_app.api.write_openapi > docs/openapi.json` (`make openapi`)."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace
from typing import Any

from serve_app.api.app import create_api
from serve_app.settings import Settings


def committed() -> str:
    """Return the document of a server with the default settings, as JSON."""
    unused: Any = SimpleNamespace(changes=None)  # no route is called
    app = create_api(Settings(profile="local"), unused, unused)
    return json.dumps(app.openapi(), ensure_ascii=False, indent=1) + "\n"


if __name__ == "__main__":
    sys.stdout.write(committed())
