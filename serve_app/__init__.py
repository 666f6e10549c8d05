"""The server around the stages: HTTP edge, jobs, callbacks, configuration and command line.

Imports go one way: `serve_app` → `deployments` → `deployments.types`.
"""

from importlib.metadata import version

__version__ = version("ecg-ml-server")
