"""All outgoing connections: address rules, downloads and callbacks. Knows nothing about jobs, Ray or the API.

Logs of the HTTP libraries carry URLs and headers, and with them the signatures of presigned URLs: they are
limited to warnings here, whatever the root logger is set to.
"""

import logging

for _name in ("httpx", "httpcore"):
    logging.getLogger(_name).setLevel(logging.WARNING)
