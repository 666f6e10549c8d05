"""The environment names with the server's prefix: which are known, and which name is nearest to an unknown one.

A misspelled or renamed setting would be ignored silently, and a whitelist that is ignored lets everything through.
Knows names, and no values.
"""

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from types import UnionType
from typing import Union, get_args, get_origin

from pydantic import BaseModel

from deployments.logs import LOG_FILE_VARIABLE
from deployments.replica import PRIORITY_VARIABLE

PREFIX = "ML_SERVER_"
READ_ELSEWHERE = {
    "ML_SERVER_API_KEY": "`ml-server submit` and all commands that send requests (serve_app/cli/main.py)",
    LOG_FILE_VARIABLE: "every process of `ml-server up` (deployments/logs.py)",
    PRIORITY_VARIABLE: "every process that computes (deployments/replica.py)",
    "ML_SERVER_REAL_MODELS": "tests and benchmarks (tests/support/real_models.py)",
    "ML_SERVER_TEST_MONOLOGUE_MIN": "a test (tests/integration/production/test_bad_sound.py)",
}
"""Names that are no settings, and what reads them."""


def unknown_names(environment: Mapping[str, str], settings: type[BaseModel]) -> dict[str, str]:
    """Return the names with our prefix that nothing reads, each with the known name that is nearest to it.

    Case does not matter, as for pydantic. Names that Kubernetes sets for a Service called `ml-server…` are left out.
    """
    known = {PREFIX + name for name in setting_names(settings)} | READ_ELSEWHERE.keys()
    links = tuple(
        name.removesuffix("SERVICE_HOST") + kind
        for name in environment
        if name.endswith("_SERVICE_HOST")
        for kind in ("SERVICE_", "PORT")
    )
    mappings = tuple(name for name in known if name.endswith("__"))
    return {
        name: PREFIX + _nearest(name.upper(), known - set(mappings))
        for name in environment
        if name.upper().startswith(PREFIX)
        and name.upper() not in known
        and not name.startswith(links)
        and not name.upper().startswith(mappings)
    }


def setting_names(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Yield the environment names of a model's fields at every depth, without our prefix.

    Below a mapping any name is allowed: it yields its own name, and that with `__` at the end.
    """
    for field_name, field in model.model_fields.items():
        name = prefix + field_name.upper()
        yield name
        is_union = get_origin(field.annotation) in {Union, UnionType}
        for kind in get_args(field.annotation) if is_union else (field.annotation,):
            if get_origin(kind) is dict:
                yield f"{name}__"
            elif isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from setting_names(kind, f"{name}__")


def _nearest(name: str, known: set[str]) -> str:
    """Compare without the prefix, which all of them share."""
    bare = [each.removeprefix(PREFIX) for each in known]
    return get_close_matches(name.removeprefix(PREFIX), bare, n=1, cutoff=0)[0]
