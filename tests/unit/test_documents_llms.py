"""docs/llms.txt, which a language model reads before it writes a backend: complete, and true."""

from __future__ import annotations

import re

from serve_app.api.schemas import ProcessVideoRequest, ProcessVideoResponse
from serve_app.settings import CALLBACK_PATHS
from tests.support.pages import ROOT, page
from tests.unit.test_documents import is_route, make_fault

TEXT = (ROOT / "docs" / "llms.txt").read_text(encoding="utf-8")
LINK = re.compile(r"- \[([^\]]+)\]\(([^)]+)\): \S.*")
CODES = re.findall(r"`([^`]+)`", TEXT)


def test_it_has_the_form_of_llmstxt_org():
    """One title, then a quotation of what this is; below each second heading nothing but links with a line each."""
    lines = TEXT.splitlines()
    assert [line for line in lines if line.startswith("# ")] == [lines[0]]
    assert lines[2].startswith("> ")
    head, *sections = re.split(r"^## ", TEXT, flags=re.MULTILINE)
    assert not LINK.search(head)
    assert len(sections) == 3
    for section in sections:
        _, *links = filter(None, section.splitlines())
        assert links
        assert [line for line in links if not LINK.fullmatch(line)] == []


def test_every_document_is_linked_and_every_link_leads_somewhere():
    """All pages of docs/ and the OpenAPI document, each once; no link into the void."""
    links = [target for _, target in LINK.findall(TEXT)]
    assert [link for link in links if not (ROOT / "docs" / link).exists()] == []
    documents = {path.name for path in (ROOT / "docs").iterdir() if path.suffix in {".md", ".json"}}
    assert sorted(link for link in links if "/" not in link) == sorted(documents)


def test_what_it_says_of_the_contract_is_so():
    """Its routes, its commands, the path of callbacks, the fields of a request and of the answer."""
    routes = [code.split() for code in CODES if re.fullmatch(r"(GET|POST|PUT|DELETE) /\S+", code)]
    assert len(routes) >= 4
    assert [route for route in routes if not is_route(*route)] == []
    commands = [code.removeprefix("make ").split() for code in CODES if code.startswith("make ")]
    assert commands
    assert [fault for command in commands if (fault := make_fault(command))] == []
    assert f"`POST {{fastapi_base_url}}{CALLBACK_PATHS['1.1']}`" in TEXT
    required = {name for name, field in ProcessVideoRequest.model_fields.items() if field.is_required()}
    told = re.search(r"Required: (.*?)\. Usual: (.*?)\. All", TEXT, flags=re.DOTALL)
    assert told
    assert required == set(re.findall(r"`(\w+)`", told[1])) & set(ProcessVideoRequest.model_fields)
    assert {"fastapi_base_url", "language"} <= set(re.findall(r"`(\w+)`", told[2])) & set(
        ProcessVideoRequest.model_fields
    )
    answer = next(code for code in CODES if code.startswith('{"job_id", "status"'))
    assert re.findall(r'"(\w+)"', answer.replace('"processing"', "")) == [*ProcessVideoResponse.model_fields]


def test_the_readme_leads_to_it():
    """A reader of the README finds it, and the pages of settings and codes."""
    links = set(page("README.md").links)
    assert {
        f"docs/{name}" for name in ("llms.txt", "settings.md", "settings.ko.md", "codes.md", "codes.ko.md")
    } <= links
