"""When a terminal callback is tried again. Knows nothing of the outbox."""

from __future__ import annotations

import random
from dataclasses import dataclass

MINUTE_S = 60.0
HOUR_S = 3600.0
FIRST_STEPS_S = (1.0, 5.0, 30.0, 2 * MINUTE_S)
GIVE_UP_AFTER_S = 72 * HOUR_S
LONGEST_RETRY_AFTER_S = HOUR_S
JITTER = 0.2


@dataclass(frozen=True, slots=True)
class RetrySchedule:
    """1 s, 5 s, 30 s, 2 min; every 5 min until 6 h have passed; every 30 min until 72 h; then no more.

    Each wait is spread by ±20 %, so that callbacks that failed together are not tried again together. A receiver's
    `Retry-After` is obeyed where it is longer than the wait, up to an hour.
    """

    spread: float = JITTER

    def wait_s(self, *, attempts: int, age_s: float, retry_after_s: float | None = None) -> float | None:
        """Return the wait after `attempts` failed tries, `age_s` after the first was due. None: give up."""
        if age_s >= GIVE_UP_AFTER_S:
            return None
        if attempts <= len(FIRST_STEPS_S):
            wait = FIRST_STEPS_S[attempts - 1]
        else:
            wait = 5 * MINUTE_S if age_s < 6 * HOUR_S else 30 * MINUTE_S
        wait *= random.uniform(1 - self.spread, 1 + self.spread)  # noqa: S311 - spreads load, keeps no secret
        return max(wait, min(retry_after_s or 0.0, LONGEST_RETRY_AFTER_S))
