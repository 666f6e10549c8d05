"""Takes the console's pictures of docs/pictures anew, with the transcript of a real result.

    ml-server up
    ml-server submit .venv/lib/python3*/site-packages/pyannote/audio/sample/sample.wav --wait --save call.json
    python -m tests.support.console_pictures call.json

The recording is the demo's telephone call. What stands around the result (jobs in each state, a callback that is owed)
is the tests' world; the browser is the system's Chromium. The picture of a phone is in Korean, so it wants a font for
that, such as Debian's fonts-nanum.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
import uuid
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from serve_app.storage.database import Database
from tests.support.browser import chromium
from tests.support.console_world import World, a_talk
from tests.support.live_server import serving
from tests.support.process import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, Page

PICTURES = ROOT / "docs" / "pictures"
PHONE = {"width": 390, "height": 760}
PAST_JOBS = 11
AT_WORD = 12
"""Which word the playhead stands at: of the third segment or so, where all curves are in view."""


def take(result: dict[str, Any], folder: Path, browser: Browser) -> None:
    """Write the three pictures into `folder`."""
    with tempfile.TemporaryDirectory() as scratch:
        database = Database(f"sqlite:///{scratch}/jobs.db")
        database.create()
        world = World(database)
        _past(world)
        world.populate(result=result)
        with serving(world.app) as url:
            for name, picture in _pictures(browser, f"{url}/console/"):
                colours = Image.open(BytesIO(picture)).convert("RGB").quantize(256)
                colours.save(folder / f"console-{name}.png", optimize=True)
        database.close()


def _past(world: World) -> None:
    """Jobs of the hours before, told to their backend."""
    chance = random.Random(5)  # noqa: S311 - no secret
    for number in range(PAST_JOBS, 0, -1):
        world.ago_s = 3600 + 600 * number
        talk = a_talk(chance.randint(200, 2500), seed=number)
        talk["metadata"]["processing_time"] = round(talk["duration"] / chance.uniform(4, 9), 1)
        if number % 3:
            talk["metadata"]["warnings"] = []
        due = world.run(str(uuid.UUID(int=chance.getrandbits(128), version=4)), talk)
        assert due is not None
        claimed = world.outbox.claim(due)
        assert claimed is not None
        world.outbox.mark_delivered(claimed)


def _pictures(browser: Browser, url: str) -> Iterator[tuple[str, bytes]]:
    with _tab(browser, locale="en-US", viewport={"width": 1200, "height": 720}) as page:
        page.goto(f"{url}#/jobs")
        page.wait_for_selector(".connection.live")
        page.wait_for_selector("tbody tr >> nth=10")
        yield "jobs", page.screenshot()
    with _tab(browser, locale="en-US", viewport={"width": 1200, "height": 1180}) as page:
        _open(page, url)
        yield "job", page.screenshot()
    with _tab(browser, locale="ko-KR", color_scheme="dark", viewport=PHONE, has_touch=True) as page:
        _open(page, url)
        page.evaluate("scrollBy(0, document.querySelector('.segments').getBoundingClientRect().top - 340)")
        page.wait_for_timeout(500)
        yield "phone", page.screenshot()


@contextmanager
def _tab(browser: Browser, **options: Any) -> Iterator[Page]:
    context = browser.new_context(**options)
    try:
        yield context.new_page()
    finally:
        context.close()


def _open(page: Page, url: str) -> None:
    """The job's page, with the playhead at a word and the curves a little closer."""
    page.goto(f"{url}#/jobs/completed")
    page.wait_for_selector(".segments[data-complete]")
    page.wait_for_selector(".connection.live")
    page.locator(".segments p span").nth(AT_WORD).click()
    page.evaluate("scrollTo(0, 0)")
    page.mouse.move(0, 0)
    page.wait_for_timeout(500)


if __name__ == "__main__":
    with chromium() as browser:
        take(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")), PICTURES, browser)
