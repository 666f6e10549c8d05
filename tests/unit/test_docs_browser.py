"""The page of the OpenAPI document in a browser that reaches this server and nobody else."""

from __future__ import annotations

import pytest

from serve_app.storage.database import Database
from tests.support.console_world import World
from tests.support.live_server import serving


@pytest.fixture
def url(tmp_path):
    database = Database(f"sqlite:///{tmp_path / 'jobs.db'}")
    database.create()
    with serving(World(database, docs=True).app) as url:
        yield url
    database.close()


def test_a4_the_page_of_the_api_needs_no_internet(url, browser):
    """A4: every operation shows, one is tried from the page, no other host is asked, and no policy is broken."""
    context = browser.new_context()
    page = context.new_page()
    page.set_default_timeout(20_000)
    wrong, elsewhere = [], []
    page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))

    def only_here(route):
        if route.request.url.startswith((url, "data:")):
            route.continue_()
        else:
            elsewhere.append(route.request.url)
            route.abort()

    page.route("**/*", only_here)
    page.goto(f"{url}/docs")
    page.wait_for_selector(".opblock")
    assert page.locator(".opblock").count() == 12
    page.click("#operations-health-health_health_get .opblock-summary")
    page.click("text=Try it out")
    page.click("text=Execute")
    page.wait_for_selector(".live-responses-table >> text=healthy")
    assert (wrong, elsewhere) == ([], [])
    context.close()
