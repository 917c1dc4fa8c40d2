"""Models of the hub: hf:// URLs, the choice of the file, commits, tokens. The stand-in is what is asked."""

from __future__ import annotations

import hashlib
import json
import time
import traceback
from pathlib import Path

import huggingface_hub
import pytest

import filterdb as fdb
from filterdb.errors import InputError, StoreError
from filterdb.models.catalog import ModelSource
from filterdb.models.hub_files import choose, pinned
from filterdb.store import hub as hub_store
from tests.commands.running import run
from tests.hub.nets import filter_bytes, resnet50, safetensors
from tests.hub.server import SIGNATURE, Fault, Hub, Repository
from tests.hub.test_ranged import DIVISOR, FILE, TENSORS, assert_stored
from tests.models import chain, weights

pytestmark = pytest.mark.slow

TOKEN = "hf_" + "aB3dE5gH7jK9" * 3


def test_a_repository_is_read_in_parts(hub: Hub, tmp_path: Path) -> None:
    hub.add(Repository("timm/net", {"model.safetensors": FILE, "config.json": b"{}"}))
    done = fdb.ingest(tmp_path / "db", "hf://timm/net", kernels="3x3")
    assert done.added == ["hf://timm/net"]
    assert_stored(done.database, TENSORS)
    # The hub says what the SHA-256 of a large file is: that of the same file on a disk.
    assert list(done.database.models["file_hash"].values) == [hashlib.sha256(FILE).hexdigest()]
    assert filter_bytes(DIVISOR) <= hub.sent("cdn") < 0.55 * len(FILE)
    again = fdb.ingest(tmp_path / "db", "hf://timm/net", kernels="3x3")
    assert again.present == ["hf://timm/net"]


def test_a_file_on_disk_and_on_the_hub_are_duplicates(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "net.safetensors").write_bytes(FILE)
    hub.add(Repository("timm/net", {"model.safetensors": FILE}))
    done = fdb.ingest(tmp_path / "db", ["hf://timm/net", tmp_path / "net.safetensors"], kernels="3x3")
    assert len(done.duplicates) == 1


def test_revisions_are_pinned_to_a_commit(hub: Hub, tmp_path: Path) -> None:
    other = resnet50(DIVISOR, seed=1)
    old = {"model.safetensors": safetensors(other)}
    repository = hub.add(Repository("timm/net", {"model.safetensors": FILE}, older={"v1": old, "refs/pr/1": old}))
    for revision in ("v1", "refs/pr/1", repository.commit(old)):
        done = fdb.ingest(tmp_path / revision.replace("/", "-"), f"hf://timm/net@{revision}", kernels="3x3")
        assert done.added == [f"hf://timm/net@{revision}"]
        assert_stored(done.database, other)
    source = pinned(ModelSource("x", "hf://timm/net"))
    assert source.url == f"hf://timm/net@{repository.commit(repository.files)}/model.safetensors"
    asked = len(hub.asked)
    assert pinned(source) == source
    assert len(hub.asked) == asked


def test_what_the_hub_says_is_what_its_client_says(hub: Hub) -> None:
    """huggingface_hub is the oracle of how the hub is asked."""
    hub.add(Repository("timm/net", {"model.safetensors": FILE, "a b/c+d.bin": b"1"}, older={"feature/x": {"f": b"2"}}))
    api = huggingface_hub.HfApi(endpoint=hub.endpoint, token=False)
    for revision in ("main", "feature/x"):
        info = api.model_info("timm/net", revision=revision, files_metadata=True)
        place, files = hub_store.pin(hub_store.Place("timm/net", revision))
        assert place.revision == info.sha
        assert files == {file.rfilename: file.size for file in info.siblings}
        for name in files:
            address = hub_store.file_address(f"hf://timm/net@{revision.replace('/', '%2F')}/{name}")
            assert address == huggingface_hub.hf_hub_url("timm/net", name, revision=revision, endpoint=hub.endpoint)


@pytest.mark.parametrize(("names", "chosen"), [
    (["pytorch_model.bin", "model.safetensors", "model.onnx"], "model.safetensors"),
    (["pytorch_model.bin", "model.safetensors.index.json", "model-00001-of-00002.safetensors",
      "model-00002-of-00002.safetensors"], "model.safetensors.index.json"),
    (["pytorch_model.bin", "open_clip_model.safetensors"], "open_clip_model.safetensors"),
    (["pytorch_model.bin", "training_args.bin", "tf_model.h5"], "pytorch_model.bin"),
    (["net.pth", "optimizer.pt", "README.md"], "net.pth"),
    (["onnx/model.onnx", "config.json"], "onnx/model.onnx"),
    (["a.onnx"], "a.onnx"),
])  # fmt: skip
def test_the_weights_are_chosen(names: list[str], chosen: str) -> None:
    assert choose(names, "", "x") == chosen


def test_a_choice_that_is_not_clear_is_an_error() -> None:
    with pytest.raises(InputError, match=r"found 2, such as a.onnx and b.onnx; name one: hf://org/repository/a.onnx"):
        choose(["a.onnx", "b.onnx"], "", "x")
    with pytest.raises(InputError, match="expected a file with weights"):
        choose(["README.md"], "", "x")
    assert choose(["unet/model.safetensors", "model.safetensors"], "unet", "x") == "unet/model.safetensors"


@pytest.mark.parametrize("url", ["hf://org", "hf://", "hf://org/na me", "hf://org/net@", "hf://org/net/../x"])
def test_other_forms_are_errors(url: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected hf://org/repository"):
        fdb.ingest(tmp_path / "db", url, kernels="3x3")


def test_a_private_repository(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    hub.add(Repository("org/secret", {"model.safetensors": FILE}, token=TOKEN))
    with pytest.raises(StoreError, match=r"HTTP 401.*needs a token with access in HF_TOKEN"):
        fdb.ingest(tmp_path / "db", "hf://org/secret", kernels="3x3")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with caplog.at_level("DEBUG"):
        done = fdb.ingest(tmp_path / "db", "hf://org/secret", kernels="3x3")
    assert_stored(done.database, TENSORS)
    assert {asked.authorization for asked in hub.asked if asked.host == "cdn"} == {""}
    assert TOKEN not in caplog.text
    for path in (tmp_path / "db").rglob("*"):
        assert not path.is_file() or TOKEN.encode() not in path.read_bytes()


def test_a_token_is_in_no_message(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub.add(Repository("org/net", {"model.safetensors": FILE}))
    for fault in (Fault("", times=99, status=403), Fault("", times=99, status=500), Fault("cdn", times=99, status=403)):
        hub.faults = [fault]
        done = run("check", "hf://org/net", code=74)
        assert len(done.stderr.splitlines()) == 1
        with pytest.raises(StoreError) as error:
            fdb.check("hf://org/net", kernel="3x3")
        texts = [done.stderr, done.stdout, "".join(traceback.format_exception(error.value))]
        assert not any(secret in text for secret in (TOKEN, "5ec7e7") for text in texts)


def test_a_signature_that_expires_is_asked_for_again(hub: Hub, tmp_path: Path) -> None:
    hub.add(Repository("org/net", {"model.safetensors": FILE}))
    hub.faults.append(Fault("cdn", status=403, times=2, skip=2))
    assert_stored(fdb.ingest(tmp_path / "db", "hf://org/net", kernels="3x3").database, TENSORS)


def test_a_missing_repository_or_revision(hub: Hub, tmp_path: Path) -> None:
    hub.add(Repository("org/net", {"model.safetensors": FILE}))
    with pytest.raises(InputError, match="found none"):
        fdb.ingest(tmp_path / "db", "hf://org/net@none", kernels="3x3")
    with pytest.raises(InputError, match="expected a file or folder of the repository"):
        fdb.ingest(tmp_path / "db", "hf://org/net/none.safetensors", kernels="3x3")


def test_answers_that_are_nonsense(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add(Repository("org/net", {"model.safetensors": FILE}))
    monster = json.dumps({"sha": "../../x", "siblings": []}).encode()
    hub.static["api/models/org/net/revision/main"] = monster
    monkeypatch.setenv("HF_ENDPOINT", hub.web)
    with pytest.raises(StoreError, match="expected the hub's answer, got something else"):
        fdb.check("hf://org/net", kernel="3x3")


def test_errors_of_the_client_are_of_the_store(hub: Hub) -> None:
    """Data sets and Spaces are read with fsspec, whose hf:// raises errors of httpx."""
    with pytest.raises(StoreError) as error:
        fdb.open("hf://datasets/org/none/db")
    assert error.value.exit_code == 74
    assert "\n" not in str(error.value)


def test_the_hub_may_ask_to_wait(hub: Hub) -> None:
    hub.add(Repository("org/net", {"model.safetensors": FILE}))
    hub.faults += [Fault("hub/api", status=429, headers={"Retry-After": "1"}), Fault("hub/org", status=503, times=2)]
    began = time.monotonic()
    fdb.check("hf://org/net", kernel="3x3")
    assert time.monotonic() - began >= 1
    assert not any(fault.times for fault in hub.faults)


def test_a_file_is_what_the_hub_says_that_it_is(hub: Hub, tmp_path: Path) -> None:
    path = chain(tmp_path / "a.onnx", weights(64, 64))
    hub.add(Repository("org/net", {"model.onnx": path.read_bytes()}))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    lie = {"X-Linked-ETag": f'"{"0" * 64}"', "Location": f"{hub.cdn}/{digest}?{SIGNATURE}"}
    hub.faults.append(Fault("hub/org", status=302, headers=lie, times=9))
    with pytest.raises(StoreError, match=r"expected content with SHA-256 0000"):
        fdb.ingest(tmp_path / "db", "hf://org/net", kernels="3x3")
    hub.faults.clear()
    assert fdb.ingest(tmp_path / "db", "hf://org/net", kernels="3x3").added
