"""What a caller adds to its job: metadata and headers of the callbacks, and names of the speakers."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Add the columns; the jobs that are there have none."""
    op.add_column("jobs", sa.Column("custom_metadata", sa.Text))
    op.add_column("jobs", sa.Column("callback_headers", sa.JSON))
    op.add_column("jobs", sa.Column("speakers", sa.JSON))
    op.add_column("callbacks", sa.Column("speakers", sa.JSON))
