"""The stages of a job: for each one its engines (plain functions over arrays) and its thin Ray Serve class.

Every stage's folder has `config.py` (settings), `protocol.py` (what its engines do), `registry.py` (creates the engine
that the config names) and `deployment.py` (the Ray class). This package knows nothing of HTTP requests, jobs, the
database or callbacks; `serve_app` does, and imports from here.

Importing it turns off the telemetry of the libraries that the stages use, before any of them is imported.
"""

import os

os.environ |= {"PYANNOTE_METRICS_ENABLED": "0", "HF_HUB_DISABLE_TELEMETRY": "1", "ORT_DISABLE_TELEMETRY": "1"}
