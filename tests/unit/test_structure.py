from __future__ import annotations

import ast
import re
import sys
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = sorted(
    path.relative_to(ROOT)
    for folder in ("serve_app", "deployments", "ml_server_client")
    for path in (ROOT / folder).rglob("*.py")
)
CLIENT = "ml_server_client/"
RAY = {
    "deployments/metrics.py",
    "serve_app/app.py",
    "serve_app/ingress.py",
    "serve_app/jobs/actor.py",
    "serve_app/testing.py",
    "serve_app/pipeline/stage_calls.py",
    "serve_app/orchestration/job_actor.py",
    "serve_app/orchestration/placement.py",
    "serve_app/orchestration/spare_processes.py",
    "serve_app/orchestration/job_runner.py",
    "serve_app/orchestration/manager.py",
    "serve_app/orchestration/manager_client.py",
    "serve_app/cli/local.py",
}
OUTWARDS = {"httpx", "httpcore", "requests", "urllib.request", "urllib3", "http.client", "aiohttp", "websockets"}
OUTWARDS |= {"socket", "ssl", "ftplib", "smtplib", "xmlrpc", "telnetlib", "boto3", "s3fs"}


STAGES = ("aligner", "diarizer", "emotion", "extraction", "prosody", "speech_detector", "transcriber")
ROOMS = {
    "jobs": set(),
    "storage": {"jobs"},
    "observability": {"jobs", "storage"},
    "callbacks": {"jobs", "storage", "observability"},
    "pipeline": {"jobs", "storage", "observability"},
    "orchestration": {"jobs", "storage", "observability", "callbacks", "pipeline"},
    "api": {"jobs", "storage", "observability", "callbacks", "pipeline"},
}
"""The rooms of `serve_app`, and which of the others each may import from."""


@cache
def tree(module: Path) -> ast.Module:
    return ast.parse((ROOT / module).read_text(encoding="utf-8"))


@cache
def import_statements(module: Path, *, types: bool) -> list[ast.Import | ast.ImportFrom]:
    """Those that run; with `types` also those for type checkers only."""
    found: list[ast.Import | ast.ImportFrom] = []

    def visit(node: ast.AST) -> None:
        if not types and isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        if isinstance(node, ast.Import | ast.ImportFrom):
            found.append(node)
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.stmt | ast.ExceptHandler | ast.match_case):  # what may hold statements
                visit(child)

    visit(tree(module))
    return found


@cache
def imports(module: Path, *, types: bool = False) -> set[str]:
    """What a module imports when it runs; with `types` also what it imports for type checkers only."""
    found: set[str] = set()
    for node in import_statements(module, types=types):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif node.module:
            found.add(node.module)
    return found


@cache
def edges(*, types: bool) -> set[tuple[str, str]]:
    """Pairs of our modules by dotted name, of which the first one imports the second one."""
    names = {module: ".".join(module.with_suffix("").parts).removesuffix(".__init__") for module in MODULES}
    ours = set(names.values())
    found = set()
    for module, name in names.items():
        for node in import_statements(module, types=True):
            if isinstance(node, ast.ImportFrom) and node.module in imports(module, types=types):
                parts = {f"{node.module}.{alias.name}" for alias in node.names} & ours
                found |= {(name, other) for other in parts or {node.module} & ours}
        found |= {(name, other) for other in imports(module, types=types) & ours}  # `import serve_app.x`, and packages
    return found


def circle(pairs: set[tuple[str, str]]) -> list[str]:
    """The names along one circle of `pairs`; empty where there is none."""
    graph: dict[str, set[str]] = {}
    for name, other in pairs:
        graph.setdefault(name, set()).add(other)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def users_of(*packages: str) -> set[str]:
    return {
        str(module)
        for module in MODULES
        if any(name == package or name.startswith(package + ".") for name in imports(module) for package in packages)
    }


def test_imports_go_one_way():
    """Stages know nothing of the server around them, and the shared words know nothing of the stages."""
    assert not {module for module in users_of("serve_app") if module.startswith("deployments/")}
    known = {name for name in imports(Path("deployments/types.py")) if name.startswith("deployments")}
    assert known == {"deployments.warnings"}
    assert not any(name.startswith("deployments") for name in imports(Path("deployments/warnings.py")))


def test_no_import_goes_round_in_a_circle():
    """Neither between modules when they run, nor between the parts of `deployments`, types among it."""
    assert circle(edges(types=False)) == []
    parts = {tuple(name.split(".")[1] for name in pair) for pair in edges(types=True) if _under("deployments.", *pair)}
    assert circle({(part, other) for part, other in parts if part != other}) == []


def _under(package: str, *names: str) -> bool:
    return all(name.startswith(package) for name in names)


def test_the_rooms_of_the_server_import_downwards_only():
    """Each room imports from those below it, types among it."""
    rooms = {tuple(name.split(".")[1] for name in pair) for pair in edges(types=True) if _under("serve_app.", *pair)}
    crossing = {(room, other) for room, other in rooms if room in ROOMS and other in ROOMS and room != other}
    assert {(room, other) for room, other in crossing if other not in ROOMS[room]} == set()


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_has_the_same_files(stage):
    """Who knows one stage's folder knows all: settings, protocol, registry and Ray class."""
    names = {path.name for path in (ROOT / "deployments" / stage).glob("*.py")}
    assert {"config.py", "protocol.py", "registry.py", "deployment.py"} <= names


def test_the_client_stands_alone():
    """The backend's client and the server know nothing of each other, and only the router knows a web framework."""
    assert not {module for module in users_of("serve_app", "deployments", "ray") if module.startswith(CLIENT)}
    assert all(module.startswith(CLIENT) for module in users_of("ml_server_client"))
    assert {module for module in users_of("fastapi", "starlette") if module.startswith(CLIENT)} == {
        CLIENT + "router.py"
    }


def test_ray_stays_at_the_edge():
    """Only deployment classes, the app builder, the job actors and what counts for its exporter know Ray."""
    assert {module for module in users_of("ray") if not module.endswith("/deployment.py")} == RAY


def test_one_door_to_ffmpeg():
    """One script opens media files, the ffmpeg program only makes the demo's picture. Children have one door, too."""
    assert users_of("av") == {f"deployments/extraction/child/{name}.py" for name in ("choice", "decode")}
    assert users_of("ffmpeg", "imageio_ffmpeg") == {"deployments/extraction/samples.py"}
    assert users_of("subprocess") == {
        "deployments/extraction/limited_process.py",
        "deployments/models/packages.py",
        "serve_app/cli/child_process.py",
    }
    for module in MODULES:
        text = (ROOT / module).read_text(encoding="utf-8")
        assert not re.search(r"create_subprocess|os\.(?:exec|spawn|popen|system|posix_spawn)|open_connection", text), (
            module
        )


def test_m2_no_stage_takes_a_path():
    """M2: beyond the extractor, no method of a deployment has a parameter for a file's name or a URL."""
    for path in MODULES:
        if path.name != "deployment.py" or path.parent.name == "extraction":
            continue
        for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name != "__init__":
                taken = [ast.unparse(argument) for argument in node.args.args + node.args.kwonlyargs]
                assert not re.findall(r"\b(?:\w*path|\w*url|file\w*|Path|PathLike)\b", " ".join(taken)), (
                    path,
                    node.name,
                )


def test_one_door_to_the_model_hub():
    """One module knows the hub's library, and nobody loads code or weights by torch.hub or with remote code."""
    assert users_of("huggingface_hub") == {"deployments/models/hub.py"}
    for module in MODULES:
        text = (ROOT / module).read_text(encoding="utf-8").replace("`torch.hub`", "")
        assert "torch.hub" not in text, module
        assert not re.search(r"trust_remote_code\W+True", text), module


def test_one_door_outwards():
    """Outbound connections are opened in one package; the command line and the client are clients of the server."""
    doors = ("deployments/net/", "serve_app/cli/", CLIENT)
    outside = {module for module in users_of(*OUTWARDS) if not module.startswith(doors)}
    assert outside == set()


def test_what_security_md_promises_has_tests_named_after_it():
    """Each id in its table, ranges spelled out, is in the name of a test."""
    table = (ROOT / "SECURITY.md").read_text(encoding="utf-8").partition("## What is not")[0]
    ids = set(re.findall(r"`([a-z]\d+)`", table))
    for kind, first, last in re.findall(r"`([a-z])(\d+)`-`\1(\d+)`", table):
        ids |= {f"{kind}{number}" for number in range(int(first), int(last) + 1)}
    names = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    assert len(ids) > 30
    assert {each for each in ids if not re.search(rf"def test_(?:[a-z]\d+_)*{each}_", names)} == set()


def test_exports_are_pure():
    """A result becomes a file without HTTP, Ray, jobs or settings."""
    known = {
        "deployments.types",
        "deployments.errors",
        "deployments.sentence_ends",
        "serve_app.warning_sentences",
        "numpy",
        "pydantic",
    }
    known |= sys.stdlib_module_names
    for module in MODULES:
        if "exports" in module.parts:
            assert {name for name in imports(module) if not name.startswith("serve_app.exports")} <= known, module


def test_one_door_to_the_collector_of_traces():
    """OpenTelemetry is known to one module, which others import only where a collector is named, not on top."""
    assert users_of("opentelemetry") == {"deployments/net/traces.py"}
    top = {node.module for module in MODULES for node in tree(module).body if isinstance(node, ast.ImportFrom)}
    assert "deployments.net.traces" not in top


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_every_module_says_what_it_is(module):
    """A docstring on top, a size that one can read, and loggers that Serve captures."""
    text = (ROOT / module).read_text(encoding="utf-8")
    assert ast.get_docstring(tree(module)), f"{module} has no docstring"
    assert text.count("\n") <= 450
    assert "logging.getLogger(__name__)" not in text
