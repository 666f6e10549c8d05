"""The server around the stages: HTTP edge, jobs, callbacks, configuration and command line.

Imports go one way: `serve_app` → `deployments` → `deployments.types`.
"""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("ecg-ml-server")
except PackageNotFoundError:  # the source tree, used as it lies there (tests/benchmarks/gpu.py)
    __version__ = "0+source"
