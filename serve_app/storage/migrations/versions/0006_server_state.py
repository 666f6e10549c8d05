"""The drain flag and the callback numbers of deleted jobs leave the leases for a table of their own.

The number stays among the leases, too: processes of the release before, which run on during a `serve deploy`, read and
write it there (`serve_app/storage/server_state.py`).
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Make the table with its one row, from what the leases hold."""
    op.create_table(
        "server_state",
        sa.Column("id", sa.Integer, sa.CheckConstraint("id = 1"), primary_key=True),
        sa.Column("draining", sa.Boolean, nullable=False),
        sa.Column("deleted_sequence", sa.Integer, nullable=False),
    )
    op.execute(
        "INSERT INTO server_state (id, draining, deleted_sequence)"
        " SELECT 1, EXISTS (SELECT 1 FROM leases WHERE name = 'drain'),"
        " COALESCE((SELECT beats FROM leases WHERE name = 'sequence'), 0)"
    )
    op.execute("DELETE FROM leases WHERE name = 'drain'")
