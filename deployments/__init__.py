"""The stages of a job: for each one its engine (plain functions over arrays) and its thin Ray Serve class.

This package knows nothing of HTTP requests, jobs, the database or callbacks; `serve_app` does, and imports from here.

Every process of ours imports this package before any library that reports home; none may.
"""

import os

os.environ |= {"PYANNOTE_METRICS_ENABLED": "0", "HF_HUB_DISABLE_TELEMETRY": "1", "ORT_DISABLE_TELEMETRY": "1"}
