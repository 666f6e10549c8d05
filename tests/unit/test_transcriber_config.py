from __future__ import annotations

import subprocess
import sys

import pytest
from pydantic import ValidationError

from deployments.transcriber.config import TranscriberConfig, has_word_times, languages, model_version


def test_what_the_edge_asks() -> None:
    """Languages, version and word times of the embedded engine are told without loading it."""
    config = TranscriberConfig()
    assert languages(config) == {"en"}
    assert model_version(config).startswith("pocketsphinx-5.")
    assert model_version(config).endswith("-en-us")
    assert has_word_times(config)


def test_asking_loads_no_model_library() -> None:
    """The HTTP edge's questions import neither the recogniser nor torch."""
    program = (
        "import sys; from deployments.transcriber.config import TranscriberConfig, languages, model_version\n"
        "languages(TranscriberConfig()); model_version(TranscriberConfig())\n"
        "print({'pocketsphinx', 'torch', 'ray', 'numpy'} & set(sys.modules))"
    )
    assert subprocess.check_output([sys.executable, "-c", program], text=True).strip() == "set()"


@pytest.mark.parametrize("fields", [{"engine": "none"}, {"max_chunk_s": 0}, {"max_chunk_s": 31}, {"chunk": 8}])
def test_wrong_settings_are_refused(fields: dict[str, object]) -> None:
    """Unknown engines and fields, and lengths that no engine takes, fail at start and not in a job."""
    with pytest.raises(ValidationError):
        TranscriberConfig.model_validate(fields)
