from __future__ import annotations

import signal

signal.signal(signal.SIGINT, signal.default_int_handler)  # jobs in a shell's background inherit "ignored"
