"""The pages of codes: a section for each code of the server, in both languages, and for no other."""

from __future__ import annotations

import re
from collections import defaultdict

import pytest

from deployments.errors import AudioExtractionError, DownloadError
from deployments.warnings import WarningCode
from ml_server_client.messages import CLIENT
from serve_app.api.errors import ApiError
from tests.support.pages import page
from tests.unit.test_documents import every, job_codes, refusal_codes

ENGLISH, KOREAN = "docs/codes.md", "docs/codes.ko.md"
PARTS = {ENGLISH: ["Cause", "Backend", "Operator"], KOREAN: ["원인", "백엔드", "운영자"]}
GROUPS = {
    ENGLISH: ("Requests that are refused", "Requests and jobs", "Jobs that fail", "The client's own", "Warnings"),
    KOREAN: ("요청이 거부될 때", "요청과 작업 모두", "작업이 실패할 때", "클라이언트의 코드", "경고"),
}
in_both = pytest.mark.parametrize("name", [ENGLISH, KOREAN])


def sections(name: str) -> dict[str, str]:
    """The text of each section by its code."""
    parts = re.split(r"^#{2,3} (.+)$", page(name).text, flags=re.MULTILINE)[1:]
    return {head.strip("`"): text for head, text in zip(parts[::2], parts[1::2], strict=True) if head.startswith("`")}


def groups(name: str) -> dict[str, list[str]]:
    """The codes below each heading."""
    found: dict[str, list[str]] = defaultdict(list)
    group = ""
    for level, text in page(name).headings:
        if level == 3:
            found[group].append(text.strip("`"))
        else:
            group = text
    return found


@in_both
def test_every_code_has_its_section(name: str):
    """Refusals, failures, the client's own and warnings, each once and in its place; no code that does not exist."""
    refused, failed = refusal_codes(), job_codes()
    expected = (refused - failed, refused & failed, failed - refused, set(CLIENT), set(WarningCode))
    found = groups(name)
    assert [set(found.pop(group)) for group in GROUPS[name]] == [set(codes) for codes in expected]
    assert not found
    headings = [text for level, text in page(name).headings if level == 3]
    assert len(headings) == len(set(headings))


@in_both
def test_every_section_says_what_to_do(name: str):
    """What it means; then cause, backend and operator, each in at least a sentence."""
    for code, text in sections(name).items():
        meaning, *told = re.split(r"^- \*\*(\S+):\*\* ", text, flags=re.MULTILINE)
        assert len(meaning.strip()) > 10, code
        assert told[::2] == PARTS[name], code
        assert all(each.strip() for each in told[1::2]), code


@in_both
def test_statuses_are_those_of_the_answers(name: str):
    """The status at the beginning of a section is the one that the code is answered with."""
    for refusal in every(ApiError):
        assert re.findall(r"HTTP (\d{3})", sections(name)[refusal.code])[:1] == [str(refusal.status)], refusal.code


@pytest.mark.parametrize("error", [DownloadError, AudioExtractionError], ids=lambda error: error.code)
@pytest.mark.parametrize(("name", "locale"), [(ENGLISH, 1), (KOREAN, 0)])
def test_every_reason_is_told(name: str, locale: int, error: type[DownloadError | AudioExtractionError]):
    """The words in parentheses of `error_message`, as the server writes them."""
    told = re.findall(r"^\| ([^|]+) \|", sections(name)[error.code], flags=re.MULTILINE)
    assert told[1:] == [words[locale] for words in error.REASONS.values()]


def test_the_api_page_leads_to_the_sections():
    """From its tables of refusals, failures and warnings to both languages."""
    assert {"codes.md", "codes.ko.md", "codes.md#warnings", "codes.md#jobs-that-fail"} <= set(page("docs/api.md").links)
