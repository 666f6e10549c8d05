"""The console in a browser: the short essence. JobMetrics and the rest are behind the marker `full`."""

from __future__ import annotations

import json
import re
import wave
from contextlib import contextmanager

import pytest
from sqlalchemy import update

from serve_app.api import event_stream
from serve_app.jobs.job import Outcome
from serve_app.jobs.stages import Stage
from serve_app.storage.api_keys import KeyStore
from serve_app.storage.tables import jobs
from serve_app.warning_sentences import sentence
from tests.support import console_pictures
from tests.support.console_world import WARNING, World, a_talk
from tests.support.live_server import serving
from tests.support.process import until
from tests.support.result_warnings import ONE_OF_EACH

WORDS = 300


@pytest.fixture
def database_url(sqlite_url):
    return sqlite_url


@pytest.fixture
def world(database):
    world = World(database)
    world.running = world.populate(words=WORDS)
    return world


@pytest.fixture
def url(world):
    with serving(world.app) as url:
        yield f"{url}/console/"


@pytest.fixture
def page(browser):
    """A tab in English; what goes wrong in it fails the test."""
    with tab(browser, locale="en-US", viewport={"width": 1280, "height": 860}) as page:
        yield page


@contextmanager
def tab(browser, **options):
    context = browser.new_context(**options)
    page = context.new_page()
    page.set_default_timeout(10_000)
    wrong = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda said: wrong.append(said.text) if is_wrong(said) else None)
    try:
        yield page
    finally:
        context.close()
    assert not wrong


def is_wrong(said):
    """An answer that is an error is told by the page itself."""
    return said.type == "error" and not said.text.startswith("Failed to load resource")


def text(page, selector):
    return " ".join(page.locator(selector).inner_text().split())


def checked(page, part=None):
    """What axe-core finds wrong with the page, or with what a selector finds on it: WCAG 2.1 A and AA."""
    from axe_playwright_python.sync_playwright import Axe

    rules = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]}
    found = Axe().run(page, context=part, options=rules).response["violations"]
    return {rule["id"]: [node["target"] for node in rule["nodes"]][:5] for rule in found}


def test_e1_the_jobs_are_seen_as_they_go(world, url, page):
    """E1: a page of jobs, filtered by a deep link; what a job does shows without a reload, and a new one comes in."""
    page.goto(f"{url}#/jobs?state=processing")
    page.wait_for_selector(".connection.live")
    page.wait_for_selector("tbody tr")
    assert page.locator("tbody tr").count() == 1
    assert "Running Speakers 46 %" in text(page, "tbody tr")
    world.tell(world.running, 65, Stage.TRANSCRIPTION)
    page.wait_for_selector("text=Transcription")
    assert "65 %" in text(page, "tbody tr")
    page.click(".tabs >> text=All")
    page.wait_for_selector("tbody tr >> nth=5")
    assert "Completed 100 % 30 min ago" in re.sub("30m", "30 min", text(page, "tr.completed"))
    assert "pending" in text(page, "tr.completed")
    world.submit("new-one")
    world.store.attempts.finish_job(world.running, Outcome(error_code="X", error_message="no"))
    page.wait_for_selector("text=new-one")
    page.wait_for_selector("tr.failed >> text=running")
    page.wait_for_selector(".announced >> text=Job running: Failed")
    assert page.locator("tbody th").all_inner_texts()[0] == "new-one"


def test_e1_what_enters_a_filter_is_seen_whatever_its_age(world, url, page):
    """E1: an old job that fails comes in below the newer ones; whose callback is owed has a list of its own."""
    page.goto(f"{url}#/jobs?state=failed")
    page.wait_for_selector(".connection.live")
    page.wait_for_selector("tr.failed")
    world.ago_s = 3600
    world.submit("oldest")
    oldest = world.begin("oldest")
    world.ago_s = 0
    world.store.attempts.finish_job(oldest, Outcome(error_code="X", error_message="no"))
    page.wait_for_selector("tr.failed >> text=oldest", timeout=8000)  # a whole new list comes after 15 s
    assert page.locator("tbody th").all_inner_texts()[-1] == "oldest"
    page.click(".tabs >> text=Callback pending")
    page.wait_for_selector("tr.completed")
    assert set(page.locator("tbody td.callback").all_inner_texts()) == {"pending"}


def test_e1_a_cancel_that_comes_too_late_deletes_nothing(world, url, page):
    """E1: the job ends while the question is open: the question goes, and a Yes that was on its way does no harm."""
    page.goto(f"{url}#/jobs/running")
    page.click("text=Cancel")
    page.wait_for_selector("dialog[open]")
    world.store.attempts.finish_job(world.running, Outcome(error_code="X", error_message="no"))
    page.wait_for_selector("dialog[open]", state="detached")
    page.goto(f"{url}#/jobs/waiting-2")
    page.click("text=Cancel")
    refusal = {"error": {"code": "JOB_CONFLICT", "message": "no", "job_id": "waiting-2"}, "message": "no"}
    page.route("**/jobs/waiting-2/cancel", lambda route: route.fulfill(status=409, json=refusal))
    sent = []
    page.on("request", lambda request: sent.append(request.method))
    page.click("dialog[open] >> text=Yes")
    page.wait_for_selector(".announced >> text=The job has ended meanwhile.")
    assert "DELETE" not in sent
    assert world.store.jobs.fetch_job("waiting-2") is not None
    page.unroute_all(behavior="ignoreErrors")  # the page asks again and again, also while it is closed


def test_e1_a_job_is_read_and_acted_upon(world, url, page):
    """E1: stages, callbacks and transcript; the playhead by word, ruler and key; cancel and delete after a question."""
    page.goto(f"{url}#/jobs/completed")
    page.wait_for_selector(".segments[data-complete]")
    assert page.locator(".segments p span").count() == WORDS
    assert page.locator(".stages li .unseen").all_inner_texts()[2] == "Speakers: began after 3.1 s, took 24.4 s"
    assert "pending, tries: 1 last answer: http_500" in text(page, "section:has(#callbacks)")
    result = json.loads(world.store.jobs.fetch_result("completed"))
    word = result["segments"][3]["words"][1]
    page.locator(".segment >> nth=3").locator("p span >> nth=1").click()
    assert page.get_attribute(".ruler", "aria-valuenow") == f"{word['start']:.1f}"
    assert f"“{word['word']}”" in text(page, ".controls .word")
    page.focus(".ruler")
    page.keyboard.press("ArrowRight")
    after = result["segments"][3]["words"][2]
    assert page.locator(".now").inner_text() == after["word"]
    assert after["word"] in page.get_attribute(".ruler", "aria-valuetext")
    page.click("text=Send the callback again")
    page.click("dialog[open] >> text=Yes")
    page.wait_for_selector("section:has(#callbacks) >> text=asked for again")
    assert page.locator(".now").inner_text() == after["word"]
    page.focus(".ruler")
    page.keyboard.press("End")
    assert float(page.get_attribute(".ruler", "aria-valuenow")) == pytest.approx(result["duration"], abs=0.1)
    assert page.locator(".player .main").is_disabled()
    with page.expect_download() as file:
        page.click("button >> text=SRT")
    assert file.value.suggested_filename == "completed.srt"
    assert "-->" in file.value.path().read_text()
    assert "The server keeps no media" in text(page, "summary >> text=Sound")

    page.goto(f"{url}#/jobs/waiting-3")
    page.click("text=Cancel")
    page.click("dialog[open] >> text=Yes")
    page.wait_for_selector(".state.failed")
    page.click("text=Delete")
    page.wait_for_selector("dialog[open]")
    page.keyboard.press("Escape")
    page.wait_for_selector("dialog[open]", state="detached")
    assert world.store.jobs.fetch_job("waiting-3") is not None
    page.click("text=Delete")
    page.click("dialog[open] >> text=Yes")
    page.wait_for_selector("table.jobs")
    assert world.store.jobs.fetch_job("waiting-3") is None


def test_e1_a_segments_language_is_told(world, url, page):
    """Its words are marked as its language for readers of the screen; another than the result's is written beside."""
    result = json.loads(world.store.jobs.fetch_result("completed"))
    for number, each in enumerate(result["segments"]):
        each["language"] = "ko" if number == 1 else result["language"]

    def answer(route):
        response = route.fetch()
        route.fulfill(response=response, json={**response.json(), "result": result})

    page.route("**/status/completed", answer)
    page.goto(f"{url}#/jobs/completed")
    page.wait_for_selector(".segments[data-complete]")
    assert page.locator(".segment p[lang=ko]").count() == 1
    assert page.locator(".segment >> nth=1").locator("p[lang=ko]").count() == 1
    assert page.locator(".segment .language").all_inner_texts() == ["ko"]
    assert page.locator(f".segment p[lang={result['language']}]").count() == len(result["segments"]) - 1
    page.unroute_all(behavior="ignoreErrors")


def test_e1_warnings_are_told_in_the_readers_language(world, url, browser):
    """E1: with their amounts, whatever the server wrote; its own sentences for unknown codes and for older results."""
    codes = [{"code": each.code, **each.amounts} for each in ONE_OF_EACH]
    theirs = [f"server {each.code}" for each in ONE_OF_EACH]
    results = {
        "known": {"warnings": theirs, "warning_codes": codes},
        "new": {"warnings": ["one", "two"], "warning_codes": [{"code": "NEW"}, {"code": "SPEECH_UNCERTAIN"}]},
        "old": {"warnings": ["one", "two"]},
    }
    with tab(browser, locale="ko-KR") as page:

        def shown(meta):
            def answer(route):
                body = route.fetch().json()
                del body["result"]["metadata"]["warning_codes"]
                body["result"]["metadata"] |= meta
                route.fulfill(json=body)

            page.unroute_all()
            page.route("**/status/completed", answer)
            page.goto(f"{url}?{len(meta)}{meta['warnings'][0]}#/jobs/completed")
            page.wait_for_selector(".segments[data-complete]")
            return page.locator(".warnings li").all_inner_texts()

        assert shown(results["known"]) == [sentence(each, "ko") for each in ONE_OF_EACH]
        page.click("text=English")
        page.wait_for_selector("text=What ran when")
        assert page.locator(".warnings li").all_inner_texts() == [sentence(each, "en") for each in ONE_OF_EACH]
        with page.expect_download() as file:
            page.click("button >> text=TXT")
        assert file.value.path().read_text().startswith(f"[{sentence(WARNING, 'en')}]\n")
        assert shown(results["new"]) == shown(results["old"]) == ["one", "two"]


def test_the_quality_is_told_in_the_readers_language(url, browser):
    """The verdict with its reasons in words; a code of a later release as it is; nothing where a result has none."""
    with tab(browser, locale="ko-KR") as page:

        def shown(quality):
            def answer(route):
                body = route.fetch().json()
                body["result"]["metadata"] |= {"quality": quality} if quality else {}
                route.fulfill(json=body)

            page.unroute_all()
            page.route("**/status/completed", answer)
            page.goto(f"{url}?{len(str(quality))}#/jobs/completed")
            page.wait_for_selector(".segments[data-complete]")
            return text(page, ".summary dl")

        told = shown({"verdict": "doubtful", "reasons": ["LOW_SNR", "NEW_CODE"]})
        assert "품질 확인 필요 (말소리가 주변 소음에 묻혀 있습니다, NEW_CODE)" in told
        page.click("text=English")
        page.wait_for_selector("text=What ran when")
        told = text(page, ".summary dl")
        assert "Quality doubtful (the speech is hardly louder than the noise, NEW_CODE)" in told
        assert "Quality good Device" in shown({"verdict": "good", "reasons": []})
        assert "Quality" not in shown(None)


def test_e1_a_file_is_heard_where_the_playhead_is(url, page, tmp_path):
    """E1: a chosen file plays and takes the playhead along; a dead URL is told; nothing is sent anywhere."""
    with wave.open(str(tmp_path / "talk.wav"), "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes(bytes(16_000 * 20))
    page.goto(f"{url}#/jobs/completed")
    page.click("summary >> text=Sound")
    page.fill("[name=url]", "http://127.0.0.1:9/gone.mp4?X-Amz-Signature=s")
    page.click("form >> text=Use")
    page.wait_for_selector("text=does not play")
    asked = []
    page.on("request", lambda request: asked.append(request.method))
    page.set_input_files("input[type=file]", tmp_path / "talk.wav")
    page.locator(".segment >> nth=1").locator("p span >> nth=0").click()
    before = float(page.get_attribute(".ruler", "aria-valuenow"))
    page.click(".player .main")
    page.wait_for_function("at => Number(document.querySelector('.ruler').ariaValueNow) > at + 0.3", arg=before)
    page.click(".player .main")
    page.wait_for_selector(".player .main >> text=Play")
    assert set(asked) <= {"GET"}


DRAWN = """
    window.drawn = [];
    const fillText = CanvasRenderingContext2D.prototype.fillText;
    CanvasRenderingContext2D.prototype.fillText = function (text, ...rest) {
        window.drawn.push(text);
        return fillText.call(this, text, ...rest);
    };
"""


def test_e1_speakers_are_named(world, url, page):
    """E1: by keyboard and by click; names in transcript, ruler, lanes and exports; one name is one speaker."""
    page.add_init_script(DRAWN)
    page.goto(f"{url}#/jobs/completed")
    page.wait_for_selector(".segments[data-complete]")
    result = json.loads(world.store.jobs.fetch_result("completed"))
    ids = [segment["speaker"]["speaker_id"] for segment in result["segments"]]

    def labels(selector=".segment .who"):
        return page.locator(selector).all_inner_texts()

    def names():
        return world.store.jobs.fetch_job("completed").speakers

    assert labels(".speakers button") == ["Speaker 1", "Speaker 2", "Speaker 3"]
    assert labels() == [f"Speaker {int(each[-1]) + 1}" for each in ids]
    place = ids.index("SPEAKER_01")
    page.locator(f".segment >> nth={place}").locator("p span >> nth=1").click()
    word, height = page.locator(".now").inner_text(), page.locator(".detail").bounding_box()["height"]

    page.focus(".speakers button >> nth=1")
    page.keyboard.press("Enter")
    page.wait_for_selector("[name=name]:focus")
    page.keyboard.type(" 김철수 ")
    page.keyboard.press("Enter")
    page.wait_for_selector(".announced >> text=This speaker is called 김철수 now.")
    assert names() == {"SPEAKER_01": "김철수"}
    assert labels(".speakers button") == ["Speaker 1", "김철수", "Speaker 3"]
    assert labels() == ["김철수" if each == "SPEAKER_01" else f"Speaker {int(each[-1]) + 1}" for each in ids]
    assert page.evaluate("document.activeElement.textContent") == "김철수"
    assert page.locator(".now").inner_text() == word
    assert "김철수" in page.get_attribute(".ruler", "aria-valuetext")
    until(lambda: page.evaluate("drawn.includes('김철수')"))

    colours = page.evaluate("[...document.querySelectorAll('.segment')].map((item) => item.className)")
    page.locator(f".segment >> nth={ids.index('SPEAKER_00')}").locator(".who").click()
    page.fill("dialog [name=name]", "김철수")
    page.click("dialog >> text=Save")
    page.wait_for_selector(".speakers li >> nth=1 >> text=Speaker 3")
    page.wait_for_selector("dialog[open]", state="detached")
    assert labels(".speakers button") == ["김철수", "Speaker 3"]
    assert page.locator(".detail").bounding_box()["height"] == height - 20
    merged = page.evaluate("[...document.querySelectorAll('.segment')].map((item) => item.className)")
    assert len(set(colours)) == 3
    assert merged == ["segment s1" if each == "SPEAKER_02" else "segment s0" for each in ids]
    with page.expect_download() as file:
        page.click("button >> text=TXT")
    assert "\n김철수: " in file.value.path().read_text()


def test_e1_a_name_is_refused_changed_and_removed(world, url, page):
    """E1: what is no name is told in the dialog, which Escape closes; what another tab did meanwhile stays."""

    def named(names):
        assert world.store.jobs.name_speakers(world.store.jobs.fetch_job("completed"), names)

    def names():
        return world.store.jobs.fetch_job("completed").speakers

    named({"SPEAKER_00": "김철수", "SPEAKER_01": "김철수"})
    page.goto(f"{url}#/jobs/completed")
    page.wait_for_selector(".speakers >> text=김철수")
    page.click(".speakers button >> nth=0")
    page.fill("dialog [name=name]", "a\u202eb")
    page.click("dialog >> text=Save")
    page.wait_for_selector("dialog [role=alert] >> text=This is no name")
    page.keyboard.press("Escape")
    page.wait_for_selector("dialog[open]", state="detached")
    assert names() == {"SPEAKER_00": "김철수", "SPEAKER_01": "김철수"}
    named(names() | {"SPEAKER_02": "Anna"})
    page.click(".speakers button >> nth=0")
    page.fill("dialog [name=name]", "")
    page.click("dialog >> text=Save")
    page.wait_for_selector(".announced >> text=no name now")
    assert names() == {"SPEAKER_02": "Anna"}  # what another tab did stays
    assert page.locator(".speakers button").all_inner_texts() == ["Speaker 1", "Speaker 2", "Anna"]


def test_e1_speakers_are_named_on_a_phone(world, url, browser):
    """E1: in Korean, in the dark, on a narrow screen: axe finds nothing, in the dialog too, and nothing sticks out."""
    phone = {"viewport": {"width": 360, "height": 740}, "is_mobile": True, "has_touch": True, "color_scheme": "dark"}
    long = {"SPEAKER_00": "가" * 100, "SPEAKER_01": "x" * 100}
    world.store.jobs.name_speakers(world.store.jobs.fetch_job("completed"), long)
    with tab(browser, locale="ko-KR", **phone) as page:
        page.goto(f"{url}#/jobs/completed")
        page.wait_for_selector(".segments[data-complete]")
        assert page.locator(".speakers button").all_inner_texts() == [*long.values(), "화자 3"]
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert checked(page, ".speakers") == checked(page, ".about") == {}
        page.tap(".speakers >> text=화자 3")
        page.wait_for_selector("dialog[open] >> text=화자 3의 이름")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert checked(page, "dialog[open]") == {}
        page.fill("dialog [name=name]", "영희")
        page.tap("dialog >> text=저장")
        page.wait_for_selector(".speakers >> text=영희")


def test_e1_a_job_is_submitted(world, url, page):
    """E1: the form does what a POST does, shows a refusal, and leads to the job."""
    page.goto(f"{url}#/submit")
    page.fill("[name=video_url]", "https://v.example/new.mp4?X-Amz-Signature=s")
    page.fill("[name=fastapi_base_url]", "https://elsewhere.example")
    page.click("form >> text=Submit")
    assert "whitelist" in text(page, "[role=alert]")
    page.fill("[name=fastapi_base_url]", "")
    page.fill("[name=job_id]", "by-hand")
    page.uncheck("[name=emotion_detection]")
    page.click("form >> text=Submit")
    page.wait_for_selector("h1 >> text=by-hand")
    job = world.store.jobs.fetch_job("by-hand")
    assert (job.options.emotion_detection, job.options.enable_gpu, job.options.language) == (False, True, "auto")


def test_e1_a_job_is_run_again(world, url, page):
    """E1: the form on an ended job's page sends what was filled in, shows a refusal, and keeps the old transcript."""
    with world.database.write() as db:
        db.execute(update(jobs).where(jobs.c.job_id == "completed").values(callback_url=None))
    page.goto(f"{url}#/jobs/completed")
    page.wait_for_selector(".segments[data-complete]")
    page.click("text=Run again with other settings")
    page.fill("details [name=num_speakers]", "2")
    page.select_option("details [name=emotion_detection]", "false")
    page.click("form >> text=Run again")
    assert "video_url is required" in text(page, "details [role=alert]")
    stored = world.store.jobs.fetch_job("completed")
    page.fill("details [name=video_url]", f"{stored.video_url}?X-Amz-Signature=s")
    page.click("form >> text=Run again")
    page.wait_for_selector("text=This is the result of an earlier run.")
    job = world.store.jobs.fetch_job("completed")
    assert (job.run, job.options.num_speakers, job.options.emotion_detection) == (stored.run + 1, 2, False)
    assert job.options.enable_gpu == stored.options.enable_gpu
    assert page.locator(".segments p span").count() == WORDS


def test_e1_the_key_stays_in_the_tab(database, browser):
    """E1: a server with keys is asked with one that is typed in once; it is nowhere but in this tab's session."""
    world = World(database, auth={"mode": "keys"})
    world.submit("secret-job")
    key = KeyStore(database).add("operator")
    with serving(world.app) as url, tab(browser, locale="en-US") as page:
        page.goto(f"{url}/console/")
        page.fill("dialog [name=key]", "mls_wrong")
        page.click("dialog >> text=Use")
        page.wait_for_selector("dialog >> text=not valid")
        asked = []
        page.on("request", lambda request: asked.append(request.url))
        page.wait_for_timeout(300)
        assert len(asked) < 3  # who has no key does not keep asking
        page.fill("dialog [name=key]", key)
        page.click("dialog >> text=Use")
        page.wait_for_selector("tbody >> text=secret-job")
        page.wait_for_selector(".connection.live")
        assert page.evaluate("[JSON.stringify(localStorage), document.cookie, location.href].join()").count(key) == 0
        page.click("text=Forget the key")
        page.wait_for_selector("dialog[open]")


def test_e1_both_languages_and_all_readers(world, url, browser):
    """E1: Korean where the browser is Korean, every word in both; axe finds nothing, in light and dark, on a phone."""
    phone = {"viewport": {"width": 360, "height": 740}, "is_mobile": True, "has_touch": True}
    for options in ({"color_scheme": "light"}, {"color_scheme": "dark", **phone}):
        with tab(browser, locale="ko-KR", **options) as page:
            page.goto(f"{url}#/submit")
            page.wait_for_selector("[name=video_url]")
            assert checked(page) == {}
            page.goto(f"{url}#/jobs")
            page.wait_for_selector("tbody >> text=화자 식별")
            assert page.evaluate("document.documentElement.lang") == "ko"
            assert checked(page) == {}
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), options
            page.goto(f"{url}#/jobs/completed")
            page.wait_for_selector(".segments[data-complete]")
            assert checked(page) == {}
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), options
            page.click("text=English")
            page.wait_for_selector("text=What ran when")
            assert page.evaluate("import('./i18n.js').then((words) => words.missing())") == []


@pytest.mark.full
def test_e1_without_a_stream_the_page_asks_again_and_again(world, url, page, monkeypatch):
    """E1: where no stream is to be had the list is polled, and the page says so; later the stream is back."""
    monkeypatch.setattr(event_stream, "LISTENERS", 0)
    page.goto(f"{url}#/jobs")
    page.wait_for_selector("text=every 3 s")
    world.submit("polled")
    page.wait_for_selector("tbody >> text=polled")
    monkeypatch.setattr(event_stream, "LISTENERS", 32)
    page.wait_for_selector(".connection.live")
    world.submit("streamed")
    page.wait_for_selector("tbody >> text=streamed")


@pytest.mark.full
def test_e1_a_server_that_is_away_is_told_of_until_it_is_back(world, page):
    """E1: the page stays, says that nobody answers, and goes on by itself; a job's page, too."""
    with serving(world.app) as url:
        page.goto(f"{url}/console/#/jobs")
        page.wait_for_selector("tbody >> text=running")
    page.wait_for_selector(".connection.offline")
    page.wait_for_selector("[role=alert] >> text=does not answer")
    page.evaluate("location.hash = '#/jobs/completed'")
    page.wait_for_selector("[role=alert] >> text=does not answer")
    with serving(world.app, port=int(url.rpartition(":")[2])):
        page.wait_for_selector(".connection.live")
        page.wait_for_selector(".segments[data-complete]")


@pytest.mark.full
def test_the_pictures_of_the_documents_can_be_taken_anew(browser, tmp_path):
    """All that docs/pictures has of the console, in the same sizes."""
    console_pictures.take(a_talk(WORDS), tmp_path, browser)
    taken, kept = (
        {path.name: path.read_bytes()[16:24] for path in folder.glob("console-*.png")}  # width and height of a PNG
        for folder in (tmp_path, console_pictures.PICTURES)
    )
    assert taken == kept
