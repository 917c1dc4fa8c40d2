"""The stand-in hub answers the real client of the hub: what it says there is what was put into it."""

from __future__ import annotations

import hashlib
import http.client
import urllib.error
import urllib.request
from collections.abc import Iterator

import huggingface_hub
import numpy as np
import pytest

from tests.hub.server import LARGE, Fault, Hub, Repository, serving

WEIGHTS = np.random.default_rng(0).bytes(3 * LARGE)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    for name in ("HF_TOKEN", "HF_ENDPOINT", "HTTP_PROXY", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    with serving() as served:
        files = {"model.safetensors": WEIGHTS, "config.json": b"{}", "sub/a.bin": b"abc"}
        served.add(Repository("timm/net", files, "image-classification", older={"v1": {"config.json": b"[]"}}))
        yield served


def test_hffilesystem_lists_and_reads(hub: Hub) -> None:
    files = huggingface_hub.HfFileSystem(endpoint=hub.endpoint, token=False, skip_instance_cache=True)
    assert sorted(files.find("timm/net")) == [
        "timm/net/config.json",
        "timm/net/model.safetensors",
        "timm/net/sub/a.bin",
    ]
    assert files.info("timm/net/model.safetensors")["size"] == len(WEIGHTS)
    assert files.cat_file("timm/net/model.safetensors", start=100, end=1000) == WEIGHTS[100:1000]
    assert files.cat_file("timm/net@v1/config.json") == b"[]"
    assert hub.count("^cdn/") >= 1


def test_hfapi_resolves_and_lists_in_pages(hub: Hub) -> None:
    for number in range(150):
        hub.add(Repository(f"org/net-{number:03d}", {"config.json": b"{}"}, card={"license": "mit"}))
    api = huggingface_hub.HfApi(endpoint=hub.endpoint, token=False)
    info = api.model_info("timm/net", files_metadata=True)
    assert info.sha == hub.repositories["timm/net"].resolve("main")
    weights = next(file for file in info.siblings if file.rfilename == "model.safetensors")
    assert (weights.size, weights.lfs.sha256) == (len(WEIGHTS), hashlib.sha256(WEIGHTS).hexdigest())
    listed = list(api.list_models(author="org", expand=["cardData", "pipeline_tag", "sha"]))
    assert [model.id for model in listed] == [f"org/net-{number:03d}" for number in range(150)]
    assert listed[0].card_data["license"] == "mit"
    assert hub.count("^hub/api/models[?]") == 2


def test_a_private_repository_needs_its_token(hub: Hub) -> None:
    hub.add(Repository("org/secret", {"a": b"1"}, token="hf_right"))
    for token, is_there in ((False, False), ("hf_wrong", False), ("hf_right", True)):
        api = huggingface_hub.HfApi(endpoint=hub.endpoint, token=token)
        assert api.repo_exists("org/secret") is is_there


def get(url: str, **headers: str) -> tuple[int, bytes, str]:
    """Return status, body and ETag of an answer."""
    request = urllib.request.Request(url, headers={name.replace("_", "-"): value for name, value in headers.items()})
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.status, answer.read(), answer.headers["ETag"]
    except urllib.error.HTTPError as error:
        return error.code, b"", ""


def test_faults_happen_as_often_as_they_are_told(hub: Hub) -> None:
    hub.static["a"] = b"0123456789"
    hub.faults += [Fault("web/a", status=503), Fault("web/a", cut=3), Fault("web/a", etag='"other"')]
    assert get(f"{hub.web}/a")[0] == 503
    with pytest.raises(http.client.IncompleteRead):
        get(f"{hub.web}/a")
    assert get(f"{hub.web}/a")[2] == '"other"'
    assert get(f"{hub.web}/a", Range="bytes=2-4")[:2] == (206, b"234")
    assert get(f"{hub.web}/a", Range="bytes=2-4", If_Range='"other"')[:2] == (200, b"0123456789")
    assert hub.asked[1].sent == 3
