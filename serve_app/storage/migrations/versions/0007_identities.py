"""Each run gets a random token, its identity; each callback its receiver; the newest start is noted."""

from __future__ import annotations

from urllib.parse import urlsplit

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Add the columns.

    The runs that are there have no token, nor have those that a process of the release before begins: they are known by
    their numbers as before, since their actors and their audio are.
    """
    op.add_column("jobs", sa.Column("token", sa.String(32), nullable=False, server_default=""))
    op.add_column("callbacks", sa.Column("origin", sa.String(300), nullable=False, server_default=""))
    op.add_column("server_state", sa.Column("started_at", sa.Float, nullable=False, server_default="0"))
    db = op.get_bind()
    callbacks = sa.table("callbacks", sa.column("id"), sa.column("url"), sa.column("origin"))
    for row in db.execute(sa.select(callbacks.c.id, callbacks.c.url)).all():
        parts = urlsplit(row.url)
        db.execute(callbacks.update().where(callbacks.c.id == row.id).values(origin=f"{parts.scheme}://{parts.netloc}"))
