"""How much a download may take. Imports nothing heavy: settings are read in every process."""

from pydantic import BaseModel, ConfigDict

MIB = 1 << 20
GIB = 1 << 30


class DownloadLimits(BaseModel):
    """Bounds of one download."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_bytes: int = 2 * GIB
    """Largest file. 2 GB is counted as 2 · 1024³, so that whatever is shown as 2 GB anywhere passes."""

    deadline_s: float = 900.0
    """For the whole, with all its tries."""

    connect_s: float = 10.0
    """For opening a connection, names and TLS included."""

    stall_s: float = 30.0
    """Longest silence of the server."""

    min_bytes_per_s: float = 20_000.0
    """Slowest speed, measured over each `pace_window_s`."""

    pace_window_s: float = 30.0
    """Over how long the speed is measured."""

    max_redirects: int = 3
    """Hops in a row, each checked like the first URL."""

    max_tries: int = 4
    """Tries in a row that bring no further byte. A cut after new bytes starts the count again."""

    max_cuts: int = 100
    """Cuts in one download, progress or not."""

    pause_s: float = 0.5
    """Before the second try; doubled from one try without progress to the next."""

    disk_reserve_bytes: int = 512 * MIB
    """What must stay free on the disk."""
