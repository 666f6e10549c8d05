"""What survives a crash: the driver's lease, checkpoints, leases by name.

Written when tables of any commit between the two could exist, so each part looks whether it is there.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add one column and two tables."""
    there = sa.inspect(op.get_bind())
    if "beats" not in {column["name"] for column in there.get_columns("jobs")}:
        op.add_column("jobs", sa.Column("beats", sa.Integer, nullable=False, server_default="0"))
    if not there.has_table("checkpoints"):
        op.create_table(
            "checkpoints",
            sa.Column("job_id", sa.String(128), sa.ForeignKey("jobs.job_id", ondelete="CASCADE"), primary_key=True),
            sa.Column("run", sa.Integer, primary_key=True),
            sa.Column("stage", sa.String(32), primary_key=True),
            sa.Column("digest", sa.String(64), nullable=False),
            sa.Column("body", sa.LargeBinary, nullable=False),
        )
    if not there.has_table("leases"):
        op.create_table(
            "leases",
            sa.Column("name", sa.String(64), primary_key=True),
            sa.Column("holder", sa.String(64), nullable=False),
            sa.Column("beats", sa.Integer, nullable=False),
        )
