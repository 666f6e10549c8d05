"""The pages of recommended settings: each request can be posted, and each use says what it asks for."""

from __future__ import annotations

import json
import re
from typing import get_args

import pytest

from serve_app.api.schemas import ProcessVideoRequest
from serve_app.settings import Settings
from tests.support.pages import Block, page
from tests.unit.test_documents import is_setting

NAMES = ("docs/settings.md", "docs/settings.ko.md")
REQUESTS = [block for name in NAMES for block in page(name).blocks if block.language == "json"]
USES = 5
FIELDS = {"language", "languages", "vocabulary", "num_speakers", "min_speakers", "max_speakers", "channels"} | {
    "audio_track", "start_s", "end_s", "emotion_detection", "custom_metadata"
}  # fmt: skip
"""What the uses show between them."""


@pytest.mark.parametrize("block", REQUESTS, ids=str)
def test_each_request_can_be_posted(block: Block):
    """The API takes it as it is, and knows every field of it."""
    body = json.loads(block.content)
    request = ProcessVideoRequest.model_validate(body)
    assert set(body) == request.model_fields_set


@pytest.mark.parametrize("name", NAMES)
def test_every_use_has_a_request(name: str):
    """One per use, in the order of the table; together they show the fields, and each shows those of its row."""
    text = page(name)
    requests = [json.loads(block.content) for block in text.blocks if block.language == "json"]
    rows = text.tables[0][1:]
    assert len(rows) == len(requests) == USES
    for row, request in zip(rows, requests, strict=True):
        assert set(re.findall(r"`(\w+)`", row[1])) <= set(request), row[0]
    assert set().union(*requests) >= FIELDS
    assert len({request["job_id"] for request in requests}) == USES


@pytest.mark.parametrize("name", NAMES)
def test_every_engine_of_the_table_can_be_set(name: str):
    """The table of servers has settings as its head, and below each engine setting only engines that there are."""
    [head, *rows] = page(name).tables[1]
    settings = [re.findall(r"`([\w.]+)`", cell)[0] for cell in head[1:]]
    assert all(is_setting(setting.split(".")) for setting in settings)
    for column, setting in enumerate(settings, start=1):
        stage, field = setting.split(".")
        told = {value for row in rows for value in re.findall(r"`([\w.-]+)`", row[column])}
        config = Settings.model_fields[stage].annotation
        assert isinstance(config, type)
        if field == "engine":
            assert told, setting
            assert told <= set(get_args(config.model_fields[field].annotation)), setting
