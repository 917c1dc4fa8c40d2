"""`filterdb serve` as a process, and the server where little is allowed: no rights, a store that is only read, S3."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import dask
import fsspec
import pytest

import filterdb as fdb
from filterdb.commands.serve import has_screen
from filterdb.errors import MissingExtraError
from tests import other_user
from tests.commands.running import run_process
from tests.page.served import make_database, serving
from tests.site import wait_until

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def db(tmp_path_factory: pytest.TempPathFactory) -> fdb.Database:
    with dask.config.set(scheduler="threads"):
        db = make_database(tmp_path_factory.mktemp("served"))
        fdb.pca(db)  # fits the basis
        return fdb.open(db)


@contextmanager
def started(*arguments: object) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """A server in a process of its own, and the line that it prints."""
    command = [sys.executable, "-m", "filterdb", "serve", *map(str, arguments), "--json", "--threads", "1"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process, json.loads(process.stdout.readline())
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_it(db: fdb.Database, tmp_path: Path, number: int, code: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(tmp_path))
        with started(db.url, "--port", 0) as (process, answer):
            assert {"snapshot", "selection", "filters", "layers", "models"} <= answer.keys()
            assert re.fullmatch(r"http://127\.0\.0\.1:\d+/\?token=[\w-]{43}", answer["page"])
            assert [path.name for path in tmp_path.glob("filterdb-serve-*")]
            state = answer["page"].replace("?", f"snapshot/{answer['snapshot']}/state.json?")
            assert "newest" in json.load(urllib.request.urlopen(state))
            if number == signal.SIGINT:
                port = answer["page"].split(":")[2].partition("/")[0]
                taken = run_process("serve", db.url, "--port", port, "--threads", 1, code=2)
                assert taken.stderr.count("\n") == 1 and f"got {port}, which is in use; choose another" in taken.stderr
            process.send_signal(number)
            out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err.strip()) == (code, "", "stopped")
    assert not list(tmp_path.glob("filterdb-serve-*"))


def test_another_host_is_warned_about(db: fdb.Database) -> None:
    with started(db.url, "--port", 0, "--host", "0.0.0.0", "--no-token") as (process, answer):
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
    assert "token" not in answer["page"] and "127.0.0.1" not in answer["page"]
    assert err.startswith("filterdb: warning: listening on 0.0.0.0: anyone who can reach this machine can read")


def test_a_missing_library_names_the_extra(db: fdb.Database, monkeypatch: pytest.MonkeyPatch) -> None:
    for module, extra in (("tornado", "serve"), ("jinja2", "report"), ("matplotlib", "report")):
        with monkeypatch.context() as patch:
            patch.setattr(
                "filterdb.extras.find_spec", lambda name, gone=module: None if name == gone else find_spec(name)
            )
            with pytest.raises(MissingExtraError, match=rf"{module}: .*filterdb\[{extra}\]"):
                fdb.serve(db)


def test_a_browser_opens_only_where_its_user_is(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "SSH_CONNECTION"):
        monkeypatch.delenv(name, raising=False)
    assert not has_screen()
    monkeypatch.setenv("DISPLAY", ":0")
    assert has_screen()
    monkeypatch.setenv("SSH_CONNECTION", "a b")
    assert not has_screen()


BROWSER = """#!{python}
import json, os, stat, sys, urllib.parse
path = urllib.parse.urlsplit(sys.argv[1]).path
modes = [stat.S_IMODE(os.stat(name).st_mode) for name in (path, os.path.dirname(path))]
with open({seen!r} + ".part", "w") as stream:
    json.dump([sys.argv[1:], modes, open(path).read()], stream)
os.rename({seen!r} + ".part", {seen!r})
"""


def test_the_token_is_on_no_command_line(db: fdb.Database, tmp_path: Path) -> None:
    """Every account can read the command line of the browser, but not the file that it opens."""
    seen, program = tmp_path / "seen.json", tmp_path / "browser"
    program.write_text(BROWSER.format(python=sys.executable, seen=str(seen)))
    program.chmod(0o755)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    variables = {name: value for name, value in os.environ.items() if name != "SSH_CONNECTION"}
    variables |= {"DISPLAY": ":0", "BROWSER": f"{program} %s", "TMPDIR": str(temporary)}
    command = [sys.executable, "-m", "filterdb", "serve", db.url, "--port", "0", "--threads", "1"]
    process = subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        address = process.stdout.readline().removeprefix("page: ").strip()
        wait_until(seen.exists)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)
    finally:
        process.kill()
        process.communicate()
    arguments, modes, page = json.loads(seen.read_text())
    token = address.partition("?token=")[2]
    assert len(token) == 43 and token not in "".join(arguments)
    assert f'content="0;url={address}"' in page and modes == [0o600, 0o700]
    assert not list(temporary.glob("filterdb-serve-*"))


READER = """
import sys, urllib.request
sys.modules["numba"] = None  # compiling takes a minute
import filterdb as fdb
with fdb.serve(sys.argv[1], port=0) as server:
    address = server.url.replace("?", "snapshot/" + sys.argv[2] + "/{}?")
    page = urllib.request.urlopen(address.format("data/drift_task.js")).read()
    body = open(sys.argv[3], "rb").read()
    request = urllib.request.Request(address.format("files") + "&name=x.onnx", body, method="POST")
    print(len(page), b'"stored_as": ["cat net"]' in urllib.request.urlopen(request).read())
"""


@pytest.mark.soak
def test_a_user_without_rights_serves_what_it_may_only_read(db: fdb.Database) -> None:
    if why := other_user.missing():
        pytest.skip(why)
    model = Path(db.url).parent / "0.onnx"
    for path in (Path(db.url), *Path(db.url).parents):
        if path.stat().st_uid == os.geteuid() and path != Path("/") and len(path.parts) > 2:
            path.chmod(path.stat().st_mode | 0o055)
    with tempfile.TemporaryDirectory() as own:
        os.chown(own, other_user.USER, other_user.USER)
        command = [sys.executable, "-c", READER, db.url, str(db.snapshot), str(model)]
        done = other_user.run(*command, TMPDIR=own, HOME=None)
    assert done.returncode == 0, done.stderr[-2000:]
    size, is_stored = done.stdout.split()
    assert int(size) > 1_000 and is_stored == "True"


def test_a_database_on_s3(db: fdb.Database, s3: Callable[[], str]) -> None:
    url = s3()
    fsspec.filesystem("s3").put(f"{db.url}/", f"{url}/", recursive=True)
    opened = fdb.open(url)
    with serving(opened) as client:
        page = f"/snapshot/{opened.snapshot}/"
        assert client.send(f"{page}data/models.js").status == 200
        assert url.encode() in client.send(page).body
        fdb.remove(opened, "cat net")
        client.server._site.looked = float("-inf")
        newest = client.json(f"{page}state.json")["newest"]
        assert newest > opened.snapshot
        assert client.send("/").headers["Location"] == f"snapshot/{newest}/"
        assert b"cat net" not in client.send(f"/snapshot/{newest}/data/models.js").body
        assert b"cat net" in client.send(f"{page}data/models.js").body
