"""How many warnings a result carries: lists show it without a look into the result."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add the column."""
    op.add_column("results", sa.Column("warnings", sa.Integer))
