"""What the documents say is so: each block, command, name, path and table. Running them is test_documents_run.py's."""

from __future__ import annotations

import json
import re
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args
from urllib.parse import unquote

import click
import pytest
import yaml
from pydantic import ValidationError
from ray.serve.schema import ServeDeploySchema

from deployments.errors import JobError
from deployments.warnings import WarningCode
from serve_app.api import schemas
from serve_app.api.errors import ApiError
from serve_app.api.write_openapi import committed
from serve_app.callbacks import payloads
from serve_app.cli.main import main
from serve_app.environment import PREFIX, unknown_names
from serve_app.jobs.progress import SENTENCES, Progress
from serve_app.jobs.stages import Stage
from serve_app.settings import CALLBACK_PATHS, Settings
from serve_app.warning_sentences import amounts_of
from tests.support.contract import Completed, SegmentObject, checked
from tests.support.pages import ROOT, Block, Page, page, pages, split
from tests.unit.test_structure import ROOMS

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGES = pages()
BLOCKS = [block for each in PAGES for block in each.blocks]
GUIDES = ("docs/integration.md", "docs/integration.ko.md")
PAIRS = (GUIDES, ("docs/codes.md", "docs/codes.ko.md"), ("docs/settings.md", "docs/settings.ko.md"))
LANGUAGES = {"sh", "bash", "python", "json", "yaml", "diff", ""}
OTHERS = {
    ".", "apt-get", "cd", "chromium", "cp", "ct2-transformers-converter", "docker", "echo", "git", "grep", "helm",
    "install", "journalctl", "kubectl", "mkdir", "mv", "pg_dump", "pg_restore", "pip", "promtool", "psql", "ray",
    "redis-cli", "rm", "sqlite3", "ssh", "sudo", "systemctl", "tar", "useradd", "uv",
}  # fmt: skip
"""Programs that are not ours: a test runs what matters of them. Add one where a page needs it."""
"""What the command line reads, a code of the client, and where real weights lie for benchmarks and optional tests."""
FOLDERS = ("serve_app/", "deployments/", "docs/", "tests/", "configs/", "examples/", "ml_server_client/")
ROUTES = {
    (method.upper(), path) for path, operations in json.loads(committed())["paths"].items() for method in operations
} | {("GET", path) for path in ("/", "/docs", "/openapi.json", "/console", "/console/")}


def blocks(*languages: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("block", [each for each in BLOCKS if each.language in languages], ids=str)


on_each_page = pytest.mark.parametrize("text", PAGES, ids=lambda text: text.name)


# Blocks


def test_every_block_is_of_a_kind_that_is_checked():
    """A new kind of block wants a test of its own."""
    assert {block.language for block in BLOCKS} <= LANGUAGES


@blocks("python")
def test_python_compiles(block: Block):
    """Whether it also does what the page says: `test_documents_run.py` and below."""
    compile(block.content, block.at, "exec")


@blocks("json")
def test_json_is_what_the_contract_says(block: Block):
    """It parses, and a body has the fields of its kind, no other, with their types."""
    assert fault_of(json.loads(block.content)) is None


def fault_of(body: dict[str, Any]) -> str | None:
    """What is wrong with a body of the contract; None where it is right, or is none of it."""
    try:
        if set(body) <= set(schemas.RerunRequest.model_fields):
            schemas.RerunRequest.model_validate(body)
        elif "video_url" in body:
            schemas.ProcessVideoRequest.model_validate(body)
            assert set(body) <= set(schemas.ProcessVideoRequest.model_fields)
        elif "estimated_time" in body:
            schemas.ProcessVideoResponse.model_validate(body)
            assert set(body) == set(schemas.ProcessVideoResponse.model_fields)
        elif isinstance(body.get("error"), dict):
            schemas.ErrorResponse.model_validate(body)
            assert body["error"]["code"] in refusal_codes()
            assert body["message"] == body["error"]["message"]
        elif "start_time" in body:
            SegmentObject.model_validate_json(json.dumps(body))
        elif "result" in body:
            Completed.model_validate_json(json.dumps(body))
            checked(body["result"])
        elif "error_code" in body:
            assert set(body) == set(json.loads(payloads.failed("j", 0, code="C", message="m")))
            assert body["error_code"] in job_codes()
        elif "progress" in body:
            assert set(body) == set(
                json.loads(payloads.progress("j", Progress(percent=0, stage=Stage.QUEUED), locale="ko"))
            )
            assert body["message"] in {sentence for both in SENTENCES.values() for sentence in both.values()}
    except (AssertionError, ValidationError) as fault:
        return str(fault) or repr(fault)
    return None


@pytest.mark.parametrize("change", [
    {"video_url": 1}, {"languages": "en"}, {"error": {"code": "NO"}, "message": "m"}, {"result": {}},
    {"error_code": "NO"}, {"progress": 1}, {"start_time": 1.0},
])  # fmt: skip
def test_a_wrong_body_would_be_found(change):
    """The check above looks."""
    base = (
        {"job_id": "j", "video_url": "http://v"} if "languages" in change else {"job_id": "j", "status": "processing"}
    )
    assert fault_of(base | change)


@blocks("yaml")
def test_yaml_holds_settings_that_there_are(block: Block):
    """A Serve config is one; of a part of one, each name is a setting's."""
    content = yaml.safe_load(block.content)
    if "applications" in content:
        ServeDeploySchema.model_validate(content)
        Settings(**content["applications"][0]["args"])
    elif set(content) & set(Settings.model_fields):
        assert [name for name in names_in(content) if not is_setting(name.split("."))] == []


def names_in(content: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in content.items():
        yield prefix + name
        if isinstance(value, dict):
            yield from names_in(value, f"{prefix}{name}.")


@blocks("sh", "bash")
def test_commands_can_be_given(block: Block):
    """Each program is known; ours take these arguments, and name files and routes that there are."""
    for words in block.commands:
        assert fault_in(words) is None, (words, fault_in(words))


@on_each_page
def test_commands_in_the_text_can_be_given(text: Page):
    """Inline `ml-server …`, `make …` and `python -m …`, too."""
    for code in text.codes:
        if code.startswith(("ml-server ", "make ", "python -m ")):
            words = split(code.replace("…", "").replace("CONFIG", "configs/local.yaml").split())[0]
            fault = fault_in(words)
            assert fault is None or fault.startswith("Missing argument"), (code, fault)


def fault_in(words: list[str]) -> str | None:
    """What is wrong with a command."""
    words = [*words]
    while words and re.fullmatch(r"\w+=.*", words[0], re.DOTALL):
        words.pop(0)
    if not words:
        return None
    program, *arguments = words
    checks = {
        "ml-server": command_fault, "make": make_fault, "curl": curl_fault, "serve": serve_fault,
        "python": python_fault, "python3": python_fault, "export": export_fault,
    }  # fmt: skip
    if check := checks.get(program.rpartition("/")[2]):
        return check(arguments)
    return None if program in OTHERS else f"{program}: a program that the tests do not know"


def command_fault(arguments: list[str], command: click.Command = main) -> str | None:
    """What click says of the arguments, through the groups down to the command, which is not run."""
    if missing := [each for each in arguments if each.startswith("configs/") and not (ROOT / each).exists()]:
        return f"no file {missing}"
    try:
        context = command.make_context(command.name, [*arguments])
        if isinstance(command, click.Group) and (rest := [*context._protected_args, *context.args]):
            _, inner, rest = command.resolve_command(context, rest)
            return command_fault(rest, inner)
    except (click.exceptions.Exit, click.exceptions.NoArgsIsHelpError):
        return None
    except click.UsageError as error:
        return error.format_message()
    return None


def make_fault(arguments: list[str]) -> str | None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    unknown = {each for each in arguments if "=" not in each} - targets
    return f"no target {unknown}" if unknown else None


def curl_fault(arguments: list[str]) -> str | None:
    """Where it asks our server: a route with this method, and a body that it takes."""
    [url] = [each for each in arguments if re.match(r"(https?://)?[\w.-]+:\d+/", each)]
    match = re.fullmatch(r"(?:https?://)?[\w.-]+:8080(/[^?]*)(?:\?.*)?", url)
    if not match:
        return None
    method = arguments[arguments.index("-X") + 1] if "-X" in arguments else "GET"
    if not is_route(method, match[1]):
        return f"no route {method} {match[1]}"
    bodies = [after for flag, after in pairwise(arguments) if flag in ("-d", "--data")]
    return next((fault for body in bodies if (fault := fault_of(json.loads(body)))), None)


def is_route(method: str, path: str) -> bool:
    known = [route for way, route in ROUTES if way == method]
    return path in known or any(re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", route), path) for route in known)


def serve_fault(arguments: list[str]) -> str | None:
    files = [each for each in arguments if each.endswith(".yaml")]
    return None if all((ROOT / each).exists() for each in files) else f"no file {files}"


def python_fault(arguments: list[str]) -> str | None:
    module = arguments[arguments.index("-m") + 1] if "-m" in arguments else None
    return f"no module {module}" if module and find_spec(module) is None else None


def export_fault(arguments: list[str]) -> str | None:
    return None if all(re.match(r"\w+=", each) for each in arguments) else "export wants NAME=value"


@pytest.mark.parametrize("words", [
    "ml-server subit x", "ml-server up --prot 1", "ml-server keys add", "ml-server up --config configs/no.yaml",
    "make tset", "curl http://127.0.0.1:8080/helth", "curl -X POST http://127.0.0.1:8080/health",
    "python -m serve_app.no", "frobnicate", "serve deploy configs/no.yaml",
    'curl -X POST http://a:8080/api/upload-video/process-video -d {"video_url":1}',
])  # fmt: skip
def test_a_wrong_command_would_be_found(words):
    """The checks above see it."""
    assert fault_in(words.split())


# Names


@on_each_page
def test_dotted_names_are_settings(text: Page):
    """`limits.running_jobs` and its like lead to a field."""
    named = [code.partition(":")[0].strip() for code in text.codes]
    dotted = [
        name for name in named if re.fullmatch(r"[a-z_]+(\.[a-z0-9_]+)+", name) and not name.endswith((".yaml", ".py"))
    ]
    ours = [name for name in dotted if name.partition(".")[0] in Settings.model_fields]
    assert [name for name in ours if not is_setting(name.split("."))] == []


def is_setting(path: list[str]) -> bool:
    """Whether the fields lead there. Whatever is in a mapping is its own."""
    return not unknown_names({PREFIX + "__".join(path): ""}, Settings)


def test_a_wrong_name_would_be_found():
    """The checks above see it, and see through options and mappings."""
    assert is_setting(["cpu_pool", "transcriber", "model"])
    assert is_setting(["aligner", "models", "ko"])
    assert not is_setting(["limits", "runing_jobs"])
    assert not is_setting(["cpu_pool", "prosody"])


@on_each_page
def test_paths_and_links_lead_somewhere(text: Page):
    """Files, folders, and headings of pages."""
    for link in text.links:
        if link.startswith(("http://", "https://")):
            continue
        name, _, anchor = unquote(link).partition("#")
        target = (text.path.parent / name).resolve() if name else text.path
        assert target.exists(), link
        assert not anchor or anchor in Page(target).anchors, link
    for code in text.codes:
        if code.startswith(FOLDERS) and re.fullmatch(r"[\w./*-]+", code) and "<" not in code:
            assert list(ROOT.glob(code.rstrip("/"))), code


@on_each_page
def test_routes_in_the_text_are_routes(text: Page):
    """`GET /api/…` is one of the server's, or a callback's path."""
    for code in text.codes:
        if match := re.fullmatch(r"(GET|POST|DELETE|PUT|PATCH) (\{\w+\})?(/[^?\s]*)(\?\S*)?", code):
            path = match[3].replace("<id>", "{job_id}")
            assert path in CALLBACK_PATHS.values() if match[2] else is_route(match[1], path), code


# Tables


def every(kind: type) -> Iterator[Any]:
    for child in kind.__subclasses__():
        yield child
        yield from every(child)


def refusal_codes() -> set[str]:
    return {refusal.code for refusal in every(ApiError)}


def job_codes() -> set[str]:
    return {error.code for error in every(JobError)}


def table(name: str, head: str) -> list[list[str]]:
    """The rows below the head of the one table whose head begins so."""
    [rows] = [rows for rows in page(name).tables if " | ".join(rows[0]).startswith(head)]
    return rows[1:]


@pytest.mark.parametrize(("name", "head"), [(GUIDES[0], "HTTP | code"), (GUIDES[1], "HTTP | 코드")])
def test_the_guides_tell_every_refusal(name: str, head: str):
    """The table of refusals is the code's closed set, with its statuses."""
    told = {(int(row[0]), row[1].strip("`")) for row in table(name, head)}
    assert told == {(refusal.status, refusal.code) for refusal in every(ApiError)}


@pytest.mark.parametrize(("name", "head"), [(GUIDES[0], "code | cause"), (GUIDES[1], "코드 | 원인")])
def test_the_guides_tell_every_failure(name: str, head: str):
    """The table of a job's error codes is the code's closed set."""
    assert {row[0].strip("`") for row in table(name, head)} == job_codes()


def test_the_api_page_tells_every_code():
    """docs/api.md names each refusal beside its status, and each failure."""
    told = {
        (int(status), code)
        for row in table("docs/api.md", "HTTP | code")
        for status, part in zip(row[0].split(", "), row[1].split(";") if ";" in row[1] else [row[1]], strict=False)
        for code in re.findall(r"`([A-Z][A-Z_]+)`", part)
    }
    assert told == {(refusal.status, refusal.code) for refusal in every(ApiError)}
    failures = page("docs/api.md").text.partition("- Failed:")[2].partition("\n\n")[0]
    assert set(re.findall(r"`([A-Z][A-Z_]+)`", failures)) == job_codes()


def test_the_api_page_tells_every_warning():
    """docs/api.md has each code in the code's order, its meaning word for word, and its amounts."""
    source = (ROOT / "deployments/warnings.py").read_text(encoding="utf-8")
    told = [
        (row[0].strip("`"), row[1], tuple(re.findall(r"`(\w+)`", row[2])))
        for row in table("docs/api.md", "code | meaning")
    ]
    assert told == [
        (code, re.search(rf'= "{code}"\n    """(.+?)\."""', source)[1], amounts_of(code)) for code in WarningCode
    ]


@pytest.mark.parametrize("name", GUIDES)
def test_the_guides_tell_every_field_of_a_request(name: str):
    """The table of fields is the schema's, with its defaults; the JSON beside it has those of both contracts."""
    fields = schemas.ProcessVideoRequest.model_fields
    rows = {field: row[2].strip("`") for row in page(name).tables[0][1:] for field in re.findall(r"`(\w+)`", row[0])}
    assert list(rows) == list(fields)
    for field, shown in rows.items():
        default = fields[field].default
        if isinstance(default, bool | int) or default == "auto":
            assert shown == json.dumps(default).strip('"'), field
    assert set(
        json.loads(page(name).block('{"job_id": "550e8400-e29b-41d4-a716-446655440000",\n "video').content)
    ) == set(schemas.ProcessVideoRequestV10.model_fields)


@pytest.mark.parametrize("names", PAIRS, ids=lambda names: names[0])
def test_the_two_languages_are_one(names: tuple[str, str]):
    """Korean and English: the same sections, blocks, tables, lists and codes."""
    english, korean = map(page, names)
    assert [level for level, _ in english.headings] == [level for level, _ in korean.headings]
    assert [(b.language, b.content) for b in english.blocks] == [(b.language, b.content) for b in korean.blocks]
    assert len(english.tables) == len(korean.tables)
    for ours, theirs in zip(english.tables, korean.tables, strict=True):
        assert [codes_in(row) for row in ours] == [codes_in(row) for row in theirs]
    lists = [re.findall(r"^(?:- |\d\. )", text.text, re.MULTILINE) for text in (english, korean)]
    assert lists[0] == lists[1]
    assert sorted(set(english.codes)) == sorted(set(korean.codes))
    words = [re.sub(r"`\w+`", "", text) for _, text in korean.headings]
    assert all(re.search("[가-힣]", text) or not re.search("[A-Za-z]{3}", text) for text in words)


def codes_in(row: list[str]) -> list[list[str]]:
    return [sorted(set(re.findall(r"`[^`]+`", cell))) for cell in row]


@pytest.mark.parametrize(
    ("name", "head", "column"), [("docs/operations.md", "what | value", 2), ("README.md", "what | value", 2)]
)
def test_limits_are_the_settings_defaults(name: str, head: str, column: int):
    """Each value in a table of limits is the default of the setting beside it."""
    for row in table(name, head):
        for setting in re.findall(r"`([a-z_.]+)`", row[column]):
            if setting == "heartbeat_s" and name == "README.md":
                continue  # the promise is told there, and the setting keeps it with room
            shown, spellings = row[1], spelled(default_of(setting))
            assert any(re.search(rf"(?<![\d.]){re.escape(each)}(?![\d.])", shown) for each in spellings), (
                setting,
                shown,
            )


def default_of(setting: str) -> Any:
    value: Any = Settings(profile="local")
    for name in setting.split("."):
        value = getattr(value, name)
    return value


def spelled(value: float | None) -> list[str]:
    if value is None:
        return ["none"]
    units = {"": 1, " s": 1, " min": 60, " days": 1, " kB": 1024, " MB": 1e6, " GB": 1e9, " GB ": 2**30}
    return [f"{value / size:g}{unit}".strip() for unit, size in units.items()]


def test_gpu_memory_adds_up():
    """The table of GPU sizes follows from the configs' replicas and the estimates that the page states."""
    text = page("docs/operations.md").text
    each = {"Transcriber": 5.0, "Aligner": 2.0, "Diarizer": 1.5, "EmotionAnalyzer": 1.0}
    stated = re.search(r"takes (\d) GB, the aligner (\d), a diarizer\s+([\d.]+), the emotions (\d)", text)
    assert stated is not None
    assert [float(number) for number in stated.groups()] == [*each.values()]
    for row in table("docs/operations.md", "GPU | config"):
        file = row[1].split("`")[1]
        content = yaml.safe_load((ROOT / file).read_text(encoding="utf-8"))
        replicas = {d["name"]: replicas_of(d) for d in content["applications"][0]["deployments"]}
        if changed := re.search(r"max_replicas: (\d)", row[1]):
            replicas["Transcriber"] = int(changed[1])
        need = sum(gb * replicas[name] for name, gb in each.items())
        assert (row[2], row[3]) == (str(replicas["Transcriber"]), f"{need:g} GB")
        assert need <= int(row[0].split()[0])


def replicas_of(deployment: dict[str, Any]) -> int:
    return int(deployment.get("autoscaling_config", {}).get("max_replicas", deployment.get("num_replicas", 1)))


def test_every_engine_is_told():
    """docs/engines.md has a row per stage, with the engines that its config can name and its protocol."""
    for stage, protocol, engines, _ in table("docs/engines.md", "stage | protocol"):
        name = stage.strip("`")
        config = Settings.model_fields[name].annotation
        assert isinstance(config, type)
        assert re.findall(r"`([^`]+)`", engines) == list(get_args(config.model_fields["engine"].annotation))
        assert f"class {protocol.strip('`')}(Protocol)" in (ROOT / "deployments" / name / "protocol.py").read_text()


def test_the_map_shows_the_house():
    """docs/architecture.md: each place in its tree exists; each room of the server and each stage is in it."""
    shown, folder = set(), Path()
    for line in page("docs/architecture.md").block("serve_app/  ").content.splitlines():
        name = line.split()[0]
        folder = folder if line.startswith(" ") else Path(name)
        shown.add(folder / name if line.startswith(" ") else folder)
    assert [str(path) for path in sorted(shown) if not (ROOT / path).exists()] == []
    rooms = {init.parent for top in ("serve_app", "deployments") for init in (ROOT / top).glob("*/__init__.py")}
    assert {room.relative_to(ROOT) for room in rooms} - shown == set()


def test_the_map_draws_the_arrows_that_are_kept():
    """The table of what may import what is the one that `test_structure.py` checks the code against."""
    shown = {
        room.removeprefix("serve_app/"): set(re.findall(r"`(\w+)`", row[1]))
        for row in table("docs/architecture.md", "room | may import")
        for room in re.findall(r"`([\w/]+)`", row[0])
    }
    assert shown == ROOMS


def test_the_map_says_where_to_change_what():
    """Twelve typical changes, each with a place to start that exists (`test_paths_and_links_lead_somewhere`)."""
    rows = table("docs/architecture.md", "change | start here")
    assert len(rows) == 12
    assert all("`" in row[1] for row in rows)


# Words

PROSE = [
    path
    for place in ("serve_app", "deployments", "ml_server_client", "examples", "docs", "README.md", "SECURITY.md")
    for path in ([ROOT / place] if (ROOT / place).is_file() else sorted((ROOT / place).rglob("*")))
    if path.suffix in {".py", ".js", ".md"} and "vendor" not in path.parts
]
HISTORY = {"docs/decisions.md", "docs/glossary.md"}
"""What was is told in the words of its day."""
ALIASES = {"doorkeeper": {"serve_app/api/doorkeeper.py", "serve_app/api/proxy_guard.py"}}
"""Where a word stays, since a released version has it."""


def texts() -> dict[str, str]:
    """Code and documents by name, in lower case, the history left out."""
    named = {str(path.relative_to(ROOT)): path for path in PROSE}
    return {name: path.read_text(encoding="utf-8").lower() for name, path in named.items() if name not in HISTORY}


def glossary(head: str) -> list[str]:
    """The first column of the glossary's tables with this head."""
    tables = [rows for rows in page("docs/glossary.md").tables if rows[0][0] == head]
    return [row[0] for rows in tables for row in rows[1:]]


def test_each_term_of_the_glossary_is_used():
    """A term occurs in code or documents, once in the glossary, with a Korean word and a meaning."""
    everything = re.sub(r"[\s_-]+", " ", "\n".join(texts().values()))
    terms = glossary("term")
    assert len(terms) == len(set(terms)) > 60
    assert [term for term in terms if not re.search(rf"\b{re.sub('[ -]', ' ?', term.lower())}", everything)] == []
    rows = [row for rows in page("docs/glossary.md").tables if rows[0][0] == "term" for row in rows[1:]]
    assert [row for row in rows if not all(cell.strip() for cell in row)] == []


def test_words_of_no_field_are_gone():
    """What the glossary names as not used occurs in no code and no document, except an alias of a released name."""
    assert [
        (word, name)
        for word in glossary("not")
        for name, text in texts().items()
        if re.search(rf"\b{re.escape(word)}s?\b", text) and name not in ALIASES.get(word, ())
    ] == []


# Files


def test_the_openapi_document_is_the_servers():
    """docs/openapi.json is what the routes say; `make openapi` writes it."""
    assert (ROOT / "docs" / "openapi.json").read_text(encoding="utf-8") == committed()


def test_the_documents_stay_with_us():
    """No page names a place of the machine that it was written on: this tree's, or a home's."""
    ours = (str(ROOT), f"{Path.home()}/")
    for each in PAGES:
        assert not [place for place in ours if place in each.text], each.name


@pytest.mark.parametrize("path", [Path("docs/pictures/graph.svg")], ids=str)
def test_pictures_are_legible_by_day_and_by_night(path: Path):
    """A picture has a ground of its own, and colours for both; each stage of the graph is in it."""
    text = (ROOT / path).read_text(encoding="utf-8")
    assert "prefers-color-scheme: dark" in text
    assert '<rect class="paper"' in text
    for deployment in yaml.safe_load((ROOT / "configs/gpu.yaml").read_text())["applications"][0]["deployments"]:
        assert deployment["name"].removesuffix("Cpu") in text
