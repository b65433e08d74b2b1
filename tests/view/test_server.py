"""The server lets in who has the token, and gives away nothing but the project's slides."""

from __future__ import annotations

import re
from hashlib import sha256
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from qprd.qupath.exchange import ExchangeProject
from qprd.view.content import Content
from qprd.view.server import make_app
from tests.helpers.evaluated import evaluate
from tests.view.conftest import ADDRESS, TOKEN

PAGES = ["/", "/project", "/slides/1", "/slides/1/tiles/0/0/0", "/static/view.js", "/nowhere"]


@pytest.fixture
def stranger(client: TestClient) -> TestClient:
    """A client without the token."""
    return TestClient(client.app, base_url=ADDRESS, follow_redirects=False)


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("token", ["", "another", "the tokén"])
def test_without_the_token_nothing_is_shown(stranger: TestClient, page: str, token: str) -> None:
    cookie = f"qprd_view_{sha256(TOKEN.encode()).hexdigest()[:8]}"
    for answer in (
        stranger.get(page),
        stranger.get(page, params={"token": token}),
        stranger.get(page, headers={b"X-Qprd-Token": token.encode()}),
        stranger.get(page, headers={b"Cookie": f"{cookie}={token}".encode()}),
        stranger.post(page),
    ):
        assert answer.status_code == 403
        assert "set-cookie" not in answer.headers


def test_the_token_becomes_a_cookie_and_leaves_the_address(stranger: TestClient) -> None:
    answer = stranger.get("/", params={"token": TOKEN})
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert re.search("HttpOnly.*SameSite=lax", answer.headers["set-cookie"], re.IGNORECASE)
    assert stranger.get("/").status_code == 200
    assert stranger.get("/project").json()["reviewer"] == "Ana"


def test_two_viewers_can_run_at_two_ports(stranger: TestClient, predicted: Path) -> None:
    stranger.get("/", params={"token": TOKEN})
    with ExchangeProject(predicted) as opened:
        other = TestClient(make_app(Content(opened), "another"), base_url=ADDRESS)
        other.cookies = stranger.cookies
        other.get("/", params={"token": "another"})
        assert other.get("/project").status_code == 200
    stranger.cookies = other.cookies
    assert stranger.get("/project").status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8765", "127.0.0.1.evil.example"])
def test_other_names_of_the_server_are_refused(client: TestClient, host: str) -> None:
    assert client.get("/project", headers={"Host": host}).status_code == 400


@pytest.mark.parametrize("host", ["localhost", "localhost:9000", "127.0.0.1:8765"])
def test_it_answers_at_the_other_end_of_a_tunnel(client: TestClient, host: str) -> None:
    assert client.get("/project", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    ("origin", "status"),
    [("http://127.0.0.1:8765", 404), (None, 404), ("http://127.0.0.1:3000", 403), ("null", 403)],
)
def test_another_page_cannot_judge(client: TestClient, origin: str | None, status: int) -> None:
    body = {"region": "none of these", "verdict": "accepted"}
    headers = {} if origin is None else {"Origin": origin}
    answer = client.post("/slides/1/judgments", json=body, headers=headers)
    assert answer.status_code == status


@pytest.mark.parametrize("page", PAGES)
def test_browsers_are_told_to_load_nothing_from_elsewhere(client: TestClient, page: str) -> None:
    headers = client.get(page).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize("page", ["index.html", "evaluation.html"])
def test_pages_of_the_results_run_no_script_but_ours(
    client: TestClient, predicted: Path, page: str
) -> None:
    evaluate(predicted, split="all")
    answer = client.get(f"/results/{page}")
    policy = answer.headers["content-security-policy"]
    assert re.search(r"script-src '(sha256-[^']+)';", policy)
    assert "default-src 'none'" in policy
    assert "connect-src" not in policy
    assert '<html data-served lang="en">' in answer.text
    assert "data-served" not in (predicted.parent / "qprd" / "results" / page).read_text()[:100]
    picture = client.get("/results/1/overview.png")
    assert (picture.status_code, picture.headers["content-type"]) == (200, "image/png")


def test_the_pages_name_no_other_server() -> None:
    for file in (Path(__file__).parents[2] / "qprd" / "view" / "static").iterdir():
        if not file.name.startswith("openseadragon"):
            assert "//" not in re.sub(r"(?m)^\s*//.*|\s// .*$", "", file.read_text()), file.name


@pytest.mark.parametrize(
    "page",
    [
        "/results/nothing.html",
        "/results/..%2f..%2fproject.qpproj",
        "/results/1/score_map.npz",
        "/results/../bundles/overview.png",
        "/results/%2e%2e/overview.png",
        "/results/4/overview.png",
        "/slides/2/heatmap?of=earlier",
        "/static/../server.py",
        "/static/..%2fserver.py",
        "/static/%2e%2e/server.py",
        "/static/index.html%00",
        "/slides/..%2f..%2fproject.qpproj/thumbnail",
        "/slides/%2e%2e/thumbnail",
        "/slides/4/thumbnail",
        "/slides/1/overview.png",
        "/slides/1/tiles/0/0/1",
        "/slides/1/tiles/99/0/0",
        "/slides/1/tiles/-1/0/0",
        "/slides/1/tiles/9/999999999999/0",
        f"/slides/1/tiles/{'9' * 3000}/0/0",
        "/slides/1/contours?threshold=high",
    ],
)
def test_what_is_not_there_is_not_found(client: TestClient, page: str) -> None:
    assert client.get(page).status_code == 404


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'{"region": "1", "verdict": "perhaps"}',
        b'{"region": "1", "verdict": "accepted", "path": "/etc"}',
        b'{"region": "1", "verdict": "accepted", "note": "' + b"a" * 20_000 + b'"}',
        b"a" * 100_000,
    ],
)
def test_what_is_no_judgment_is_refused(client: TestClient, body: bytes) -> None:
    answer = client.post("/slides/1/judgments", content=body)
    assert answer.status_code == 409
    assert answer.json()["problem"].endswith(".")
