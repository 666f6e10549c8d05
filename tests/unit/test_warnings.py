from __future__ import annotations

import re
import string
from dataclasses import fields
from pathlib import Path

import pytest

from deployments.warnings import ResultWarning, WarningCode, from_mapping, merged
from serve_app.warning_sentences import SENTENCES, amounts_of, sentence, sentences_of
from tests.support.result_warnings import ONE_OF_EACH

ROOT = Path(__file__).parents[2]


def placeholders(text: str) -> list[str]:
    return sorted(name for _, name, _, _ in string.Formatter().parse(text) if name)


def test_warnings_of_many_chunks_are_one() -> None:
    """In the order of their first, seconds and counts added up; languages apart, and so do other shares."""
    loop = ResultWarning(code=WarningCode.LOOP_CUT, count=1)
    french = ResultWarning(code=WarningCode.ALIGNER_MISSING, language="fr", seconds=1.5)
    german = ResultWarning(code=WarningCode.ALIGNER_MISSING, language="de", seconds=2.0)
    rules = ResultWarning(code=WarningCode.EMOTION_BY_RULES)
    assert merged([french, loop, french, rules, german, loop, loop, rules]) == [
        ResultWarning(code=WarningCode.ALIGNER_MISSING, language="fr", seconds=3.0),
        ResultWarning(code=WarningCode.LOOP_CUT, count=3),
        rules,
        german,
    ]
    shares = [ResultWarning(code=WarningCode.AUDIO_INCOMPLETE, seconds=1.0, share=share) for share in (0.1, 0.2)]
    assert merged(shares) == shares
    assert merged([]) == []


def test_the_list_of_sentences_is_the_list_of_codes() -> None:
    """Each code has a sentence in both languages, with the same amounts, which its docstring names and nothing else."""
    assert list(SENTENCES) == list(WarningCode)
    source = (ROOT / "deployments/warnings.py").read_text(encoding="utf-8")
    amounts = {field.name for field in fields(ResultWarning)} - {"code"}
    for code, sentences in SENTENCES.items():
        assert set(sentences) == {"ko", "en"}
        assert placeholders(sentences["ko"]) == placeholders(sentences["en"]) == sorted(amounts_of(code)), code
        docstring = re.search(rf'    {code} = "{code}"\n    """(.+?)"""', source)
        assert docstring, code
        assert set(re.findall(r"`(\w+)`", docstring[1])) == set(amounts_of(code)) <= amounts, code
        assert re.search("[가-힣]", sentences["ko"])
        assert sentences["en"].isascii()
        assert all(text.endswith(".") for text in sentences.values()), code


@pytest.mark.parametrize("code", WarningCode)
def test_a_code_is_not_kept_for_nothing(code: WarningCode) -> None:
    """The list holds what may come: some stage makes each."""
    stages = [path for folder in ("deployments", "serve_app") for path in (ROOT / folder).rglob("*.py")]
    makers = [path for path in stages if path.name not in {"warnings.py", "warning_sentences.py"}]
    assert any(f"WarningCode.{code}" in path.read_text(encoding="utf-8") for path in makers)


@pytest.mark.parametrize("warning", ONE_OF_EACH, ids=lambda warning: warning.code)
def test_a_warning_is_written_in_both_languages(warning: ResultWarning) -> None:
    """With its amounts as people read them: seconds with a decimal, shares in per cent."""
    written = {"seconds": "12.3", "share": "26", "count": "3", "track": "2", "language": "fr"}
    for locale in ("ko", "en"):
        text = sentence(warning, locale)  # type: ignore[arg-type]
        assert "{" not in text
        assert all(written[name] in text for name in warning.amounts)


def test_a_reader_gets_his_own_language() -> None:
    """Whatever the server wrote: from the codes, amounts included."""
    codes = [{"code": each.code.value, **each.amounts} for each in ONE_OF_EACH]
    told = {"warnings": [sentence(each, "ko") for each in ONE_OF_EACH], "warning_codes": codes}
    assert sentences_of(told, "en") == [sentence(each, "en") for each in ONE_OF_EACH]
    assert sentences_of(told, "ko") == told["warnings"]


@pytest.mark.parametrize(
    "codes",
    [
        None,
        [],
        [{"code": "LOOP_CUT", "count": 1}],
        [{"code": "OF_TOMORROW"}, {"code": "LOOP_CUT"}],
        [{"code": "LOOP_CUT", "pages": 1}, {"count": 1}],
        [{"code": "SPEECH_UNCERTAIN", "seconds": "x"}, {"code": "SPEECH_UNCERTAIN", "seconds": None}],
    ],
    ids=["none", "empty", "too few", "unknown", "other amounts", "no numbers"],
)
def test_what_is_not_known_is_shown_as_the_server_wrote_it(codes: object) -> None:
    """Results of earlier releases have sentences only; those of later ones may have codes that are new."""
    assert sentences_of({"warnings": ["하나", "둘"], "warning_codes": codes}, "en") == ["하나", "둘"]
    assert sentences_of({"warnings": ["하나", "둘"]}, "en") == ["하나", "둘"]
    assert sentences_of({}, "en") == []


@pytest.mark.parametrize("values", [{}, {"code": "x"}, {"code": "LOOP_CUT", "pages": 1}, "LOOP_CUT"])
def test_what_is_no_warning_is_not_read_as_one(values: object) -> None:
    """An error, and nothing half read."""
    with pytest.raises((KeyError, TypeError, ValueError)):
        from_mapping(values)  # type: ignore[arg-type]
