"""Limits of a download. Imports nothing heavy: settings are read in every process."""

from pydantic import BaseModel, ConfigDict

MIB = 1 << 20
GIB = 1 << 30


class DownloadLimits(BaseModel):
    """Limits of one download."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_bytes: int = 2 * GIB
    """Largest file: 2 GiB, so that every file that is shown as 2 GB passes."""

    deadline_s: float = 900.0
    """Longest time of the whole download with all tries."""

    connect_s: float = 10.0
    """Longest time to open a connection, name resolution and TLS included."""

    stall_s: float = 30.0
    """Longest wait for the next byte."""

    min_bytes_per_s: float = 20_000.0
    """Slowest speed, measured over each `pace_window_s`."""

    pace_window_s: float = 30.0
    """Interval over which the speed is measured."""

    max_redirects: int = 3
    """Most redirects in a row, each checked like the first URL."""

    max_tries: int = 4
    """Most tries in a row without a new byte. A cut after new bytes resets the count."""

    max_cuts: int = 100
    """Most cuts in one download."""

    pause_s: float = 0.5
    """Pause before the second try; doubled for each further try without progress."""

    disk_reserve_bytes: int = 512 * MIB
    """Disk space that must stay free."""
