"""What Serve's own HTTP proxy does with requests: the doorkeeper is in it."""

from __future__ import annotations

POST = "/api/upload-video/process-video"


def test_a1_the_proxy_counts_bodies_without_a_length(server):
    """A1: a body over 64 kB in chunks is refused in the proxy itself, which then closes the connection."""
    answer = server.http.post(POST, content=(b"x" * 10_000 for _ in range(20)))
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "REQUEST_TOO_LARGE")
    assert answer.headers["connection"] == "close"  # says the doorkeeper, and not the graph


def test_a0_the_proxy_s_own_answers_have_the_contract_s_form(server):
    """A0: the list of apps is nobody's business; the proxy's health says no more than that."""
    routes = server.http.get("/-/routes")
    assert (routes.status_code, routes.json()["error"]["code"]) == (404, "NOT_FOUND")
    assert server.http.get("/-/healthz").text == "success"
    late = server.http.get("/health", headers={"x-request-timeout-seconds": "0.000001"})
    assert late.status_code == 200  # the header is for Serve's own parts: a client's does not get in
