"""The tables: jobs, their results, events and checkpoints, callbacks, receivers, leases, server state, API keys.

Times are epoch seconds (UTC). This module is the newest form; the steps in `storage/migrations` lead to it.
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    Boolean,
    CheckConstraint,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
)

from serve_app.jobs.states import JobState

metadata = MetaData()

jobs = Table(
    "jobs",
    metadata,
    Column("job_id", String(128), primary_key=True),
    Column("state", String(16), nullable=False),
    Column("run", Integer, nullable=False, doc="What a POST starts; rises with each further one"),
    Column("token", String(32), nullable=False, server_default="", doc="Random: the run's identity"),
    Column("attempt", Integer, nullable=False, doc="Counted before work starts; together with run the fence"),
    Column("fingerprint", String(64), nullable=False, doc="SHA-256 of the content: the URL without query, the options"),
    Column("video_url", Text, nullable=False, doc="Its query signs the download: a secret, gone when the job ends"),
    Column("video_expires_at", Float, nullable=False),
    Column("callback_url", Text, doc="Full URL of the callbacks; NULL for a job without callbacks"),
    Column("options", JSON, nullable=False),
    Column("stage", String(16), nullable=False),
    Column("progress", Integer, nullable=False),
    Column("sequence", Integer, nullable=False, doc="Of the newest callback, over all runs"),
    Column("created_at", Float, nullable=False),
    Column("queued_at", Float, nullable=False, doc="Orders the queue"),
    Column("told_at", Float, nullable=False, doc="When the newest progress callback was made"),
    Column("started_at", Float),
    Column("finished_at", Float),
    Column("spent_s", Float, nullable=False, doc="Processing time of this run's ended attempts"),
    Column("error_code", String(64)),
    Column("error_message", Text),
    Column("cancel_requested", Boolean, nullable=False),
    Column("beats", Integer, nullable=False, server_default="0", doc="Rises while the job actor lives: its lease"),
    Column("custom_metadata", Text, doc="JSON that every callback and the status repeat"),
    Column("callback_headers", JSON(none_as_null=True), doc="Of every callback; values are secrets"),
    Column("speakers", JSON(none_as_null=True), doc="Names that people gave the result's speakers, by speaker id"),
    Column("prefetch", String(16), nullable=False, doc="`Prefetch`: audio extracted before the job has a slot"),
)
Index("jobs_by_state", jobs.c.state, jobs.c.queued_at)
Index("jobs_by_end", jobs.c.finished_at)
Index("jobs_by_age", jobs.c.created_at, jobs.c.job_id)
Index("jobs_by_state_and_age", jobs.c.state, jobs.c.created_at, jobs.c.job_id)

has_ended = jobs.c.state.in_([state for state in JobState if state.ended])
has_not_ended = jobs.c.state.in_([state for state in JobState if not state.ended])
"""The opposite, in a form that the index on the state serves."""

results = Table(
    "results",
    metadata,
    Column("job_id", ForeignKey("jobs.job_id", ondelete="CASCADE"), primary_key=True),
    Column("body", LargeBinary, nullable=False, doc="The result object as JSON, UTF-8"),
    Column("duration_s", Float, nullable=False),
    Column("processing_s", Float, nullable=False),
    Column("warnings", Integer, doc="How many; NULL for results of earlier releases"),
)

callbacks = Table(
    "callbacks",
    metadata,
    Column("id", String(64), primary_key=True, doc="webhook-id"),
    Column("job_id", ForeignKey("jobs.job_id", ondelete="CASCADE"), nullable=False),
    Column("url", Text, nullable=False),
    Column("origin", String(300), nullable=False, server_default="", doc="The receiver: scheme, host, port of the URL"),
    Column("sequence", Integer, nullable=False),
    Column("body", LargeBinary, nullable=False, doc="The exact bytes of every try"),
    Column("speakers", JSON(none_as_null=True), doc="The speakers' names in the body"),
    Column("state", String(16), nullable=False),
    Column("attempts", Integer, nullable=False, doc="Tries since the schedule last began"),
    Column("due_since", Float, nullable=False),
    Column("next_try_at", Float, nullable=False),
    Column("last_error", String(200)),
)
Index("callbacks_due", callbacks.c.state, callbacks.c.next_try_at)
Index("callbacks_of_job", callbacks.c.job_id)

receivers = Table(
    "receivers",
    metadata,
    Column("origin", String(300), primary_key=True),
    Column("failures", Integer, nullable=False, doc="In a row"),
    Column("next_probe_at", Float, nullable=False),
)

checkpoints = Table(
    "checkpoints",
    metadata,
    Column("job_id", ForeignKey("jobs.job_id", ondelete="CASCADE"), primary_key=True),
    Column("run", Integer, primary_key=True, doc="That saved it; of a job's runs the newest row of each stage is left"),
    Column("stage", String(32), primary_key=True),
    Column("digest", String(64), nullable=False, doc="SHA-256 of the body"),
    Column("body", LargeBinary, nullable=False),
)

events = Table(
    "events",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("job_id", ForeignKey("jobs.job_id", ondelete="CASCADE"), nullable=False),
    Column("at", Float, nullable=False),
    Column("run", Integer, nullable=False),
    Column("attempt", Integer, nullable=False, doc="The newest at that time"),
    Column("kind", String(32), nullable=False),
    Column("detail", String(200), doc="A code or a kind of error; never a URL"),
)
Index("events_of_job", events.c.job_id, events.c.id)

leases = Table(
    "leases",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("holder", String(64), nullable=False),
    Column("beats", Integer, nullable=False, doc="Rises while the holder lives"),
)

server_state = Table(
    "server_state",
    metadata,
    Column("id", Integer, CheckConstraint("id = 1"), primary_key=True, doc="Always 1: the table has one row"),
    Column("draining", Boolean, nullable=False, doc="The server is about to stop: nothing new begins"),
    Column("deleted_sequence", Integer, nullable=False, doc="The highest callback number of any deleted job"),
    Column("started_at", Float, nullable=False, server_default="0", doc="When an ingress replica started last"),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("digest", String(64), nullable=False, unique=True, doc="SHA-256 of the key, hex; the key itself is nowhere"),
    Column("created_at", Float, nullable=False),
)
