"""A warning of each code, with its amounts."""

from __future__ import annotations

from deployments.warnings import ResultWarning, WarningCode
from serve_app.warning_sentences import amounts_of

AMOUNTS = {"seconds": 12.34, "share": 0.256, "count": 3, "track": 2, "language": "fr"}
ONE_OF_EACH = [
    ResultWarning(code=code, **{name: AMOUNTS[name] for name in amounts_of(code)})  # type: ignore[arg-type]
    for code in WarningCode
]
