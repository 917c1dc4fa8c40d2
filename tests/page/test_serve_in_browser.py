"""The served page in Chromium: a model file is dropped, a snapshot is new, links hold."""

from __future__ import annotations

import base64
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import dask
import pytest
from playwright.sync_api import Browser

import filterdb as fdb
from filterdb.server import app, serve
from tests.page.conftest import HOSTILE, Opened
from tests.page.served import Client, make_database, serving

pytestmark = pytest.mark.slow

Open = Callable[..., Opened]

DROP = """([name, data]) => {
  const bytes = Uint8Array.from(atob(data), (mark) => mark.charCodeAt(0)), transfer = new DataTransfer();
  transfer.items.add(new File([bytes], name));
  for (const kind of ["dragover", "drop"])
    document.body.dispatchEvent(new DragEvent(kind, { dataTransfer: transfer, bubbles: true, cancelable: true }));
}"""


@pytest.fixture(scope="module")
def db(tmp_path_factory: pytest.TempPathFactory) -> fdb.Database:
    with dask.config.set(scheduler="threads"):
        return make_database(tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="module")
def client(db: fdb.Database) -> Iterator[Client]:
    with serving(db) as client:
        yield client


@pytest.fixture
def visit(browser: Browser) -> Iterator[Open]:
    """Opens an address, and waits for the page unless told otherwise."""
    contexts = []

    def open_address(address: str, *, width: int = 1280, waits: bool = True) -> Opened:
        context = browser.new_context(viewport={"width": width, "height": 900})
        contexts.append(context)
        opened = Opened(context.new_page())
        opened.page.set_default_timeout(30_000)
        opened.watch()
        opened.page.goto(address)
        if waits:
            opened.page.wait_for_selector("html[data-ready]")
        return opened

    yield open_address
    for context in contexts:
        context.close()


def test_the_page_shows_every_figure_and_asks_nobody_else(visit: Open, client: Client) -> None:
    opened = visit(client.server.url)
    assert opened.page.url == f"http://{client.host}/snapshot/0/"  # without the token
    opened.draw_all()
    assert opened.page.locator("[data-figure] .none").count() == 0
    assert opened.complaints == []
    assert {url.split("/")[2] for url in opened.requests if not url.startswith("data:")} == {client.host}
    links = opened.page.eval_on_selector_all("a[href^='tables/'][href$='.csv']", "all => all.map(a => a.href)")
    with opened.page.expect_download() as download:
        opened.page.evaluate("address => { location.href = address; }", links[0])
    assert Path(download.value.path()).read_bytes() == client.send(links[0].partition(client.host)[2]).body


@pytest.mark.parametrize("how", ["chosen", "dropped"])
def test_where_is_mine(visit: Open, client: Client, db: fdb.Database, how: str) -> None:
    model = Path(db.url).parent / "2.onnx"
    opened = visit(client.server.url, width=390 if how == "chosen" else 1280)
    page = opened.page
    if how == "chosen":
        page.set_input_files("#mine-file", model)
    else:
        page.evaluate(DROP, [HOSTILE[1], base64.b64encode(model.read_bytes()).decode()])
    page.wait_for_selector("#mine table")
    text = page.inner_text("#mine")
    assert "It is in the database: dog net." in text and "= the same file" in text and "passed" in text
    assert (HOSTILE[1] if how == "dropped" else "2.onnx") in text
    assert page.locator("#mine tbody tr").count() == 4
    assert page.get_attribute("#mine tbody a >> nth=0", "href") == "model.html#2"
    address = page.url
    assert "?file=" in address
    page.goto("about:blank")
    page.goto(address)
    page.wait_for_selector("#mine table")
    assert page.inner_text("#mine") == text
    assert page.evaluate("window.hit") is None and opened.complaints == []
    inner, whole = page.evaluate("[innerWidth, document.documentElement.scrollWidth]")
    assert whole <= inner


def test_what_is_no_model_is_said_in_a_line(visit: Open, client: Client) -> None:
    opened = visit(client.server.url)
    for name, data, words in (
        ("junk.onnx", b"junk" * 100, "junk.onnx: "),
        ("empty.onnx", b"", "expected the bytes of a model file"),
    ):
        opened.page.evaluate(DROP, [name, base64.b64encode(data).decode()])
        line = opened.page.locator("#mine .wrong", has_text=words).first
        line.wait_for()
        assert "\n" not in line.inner_text()
    opened.page.goto(f"http://{client.host}/snapshot/0/?file=0123456789abcdef")
    opened.page.wait_for_selector("#mine .wrong")
    assert "drop the file again" in opened.page.inner_text("#mine .wrong")


def test_a_new_snapshot_is_announced_and_links_hold(
    visit: Open, db: fdb.Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve, "LOOK_SECONDS", 0.2)
    monkeypatch.setattr(app, "LOOK_SECONDS", 0.0)
    shutil.copytree(db.url, tmp_path / "db")
    copy = fdb.open(tmp_path / "db")
    with serving(copy, token=False) as client:
        opened = visit(client.server.url)
        page, before = opened.page, opened.page.url
        assert page.locator(".notice").is_hidden()
        number = fdb.remove(copy, "cat net").snapshot
        page.wait_for_selector(".notice:not([hidden])")
        assert f"Snapshot {number} is available" in page.inner_text(".notice")
        page.click(".notice a")
        page.wait_for_url(f"**/snapshot/{number}/")
        page.wait_for_selector("html[data-ready]")
        assert f"snapshot {number}" in page.inner_text("header.top") and "cat net" not in page.inner_text("main")
        page.goto(before)
        page.wait_for_selector("html[data-ready]")
        opened.draw_all()
        assert "cat net" in page.inner_text("[data-figure=models]")
        client.server.stop()
        page.evaluate(DROP, ["x.onnx", "AAAA"])
        page.wait_for_selector("#mine .wrong")
        assert "has stopped" in page.inner_text("#mine .wrong")


def test_an_address_without_its_token_says_what_to_do(visit: Open, client: Client) -> None:
    opened = visit(f"http://{client.host}/", waits=False)
    assert "open that address" in opened.page.inner_text("body")
    opened = visit(f"http://{client.host}/?snapshot=99&token={client.token}", waits=False)
    assert "99" in opened.page.inner_text("body")
    opened = visit(f"http://{client.host}/snapshot/99/?token={client.token}", waits=False)
    assert "99" in opened.page.inner_text("body")
