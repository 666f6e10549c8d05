"""An index for lists of the jobs in one state, newest first."""

from __future__ import annotations

from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Make the index."""
    op.create_index("jobs_by_state_and_age", "jobs", ["state", "created_at", "job_id"])
