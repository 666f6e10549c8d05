"""`python -m tests.simulation`: see `command.py`. A worker replaces the clocks before it imports the product."""

from __future__ import annotations

import sys

if sys.argv[1:2] == ["worker"]:
    from tests.simulation import virtual_time

    virtual_time.install()
    from tests.simulation.worker import work

    work(sys.argv[2:])
else:
    from tests.simulation.command import main

    sys.exit(main(sys.argv[1:]))
