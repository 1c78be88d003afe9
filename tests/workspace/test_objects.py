"""What is asked of an object store, and claims on steps in it."""

import importlib
import json
import sys
import threading
import time

import pytest

from object_stores import SERVERS, new_url
from refeed.core.errors import MissingExtra, NotAWorkspace, WorkspaceError
from refeed.workspace import claims as module
from refeed.workspace import open_workspace
from refeed.workspace.claims import Claims
from refeed.workspace.objects import ObjectStore

fsspec = pytest.importorskip("fsspec")
DIGEST = "ab" * 16


@pytest.fixture(scope="module")
def server():
    with SERVERS["s3"]():
        yield


@pytest.fixture(scope="module")
def google():
    with SERVERS["gs"]():
        yield


@pytest.fixture(params=["s3", "gs", "file", "memory"])
def store(request, tmp_path):
    if name := {"s3": "server", "gs": "google"}.get(request.param):
        request.getfixturevalue(name)
    return ObjectStore(new_url(request.param, tmp_path))


@pytest.fixture
def memory(tmp_path):
    return ObjectStore(new_url("memory", tmp_path))


@pytest.fixture
def quick(monkeypatch):
    """Claims that count every twentieth of a second and are taken over after 0.4 seconds of silence."""
    for name, seconds in {"BEAT": 0.05, "PATIENCE": 0.4, "LOOK": 0.02}.items():
        monkeypatch.setattr(module, name, seconds)


def test_a_name_is_created_once(store, tmp_path):
    assert store.create("a/b", b"one")
    assert not store.create("a/b", b"two")
    assert store.read("a/b") == b"one"
    assert store.create("a/b", b"one")  # the same request, sent again
    store.write("a/b", b"three")
    assert store.read("a/b") == b"three"
    assert store.read("a/c") is None
    assert store.read_many(["a/b", "a/c"]) == {"a/b": b"three"}
    store.write("a/d/e", b"four")
    assert store.names("a") == ["a/b", "a/d/e"]
    assert store.names("") == ["a/b", "a/d/e"]
    assert store.names("nothing") == []
    (tmp_path / "file").write_bytes(b"five")
    store.upload(tmp_path / "file", "f")
    store.download("f", tmp_path / "deep" / "copy")
    assert (tmp_path / "deep" / "copy").read_bytes() == b"five"
    with pytest.raises(FileNotFoundError):
        store.download("g", tmp_path / "none")
    store.remove(["a/b", "nothing", "a/d/e", "f"])
    assert store.names("") == []


def test_of_many_that_create_a_name_one_does(store):
    won = []
    threads = [threading.Thread(target=lambda n=n: won.append(n) if store.create("x", f"{n}".encode()) else None) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert store.read("x") == f"{won[0]}".encode()


def test_claims_keep_order_between_those_that_work_at_once(store, quick, monkeypatch):
    monkeypatch.setattr(module, "PATIENCE", 60.0)
    inside, most, done = [], [], []

    def work(name):
        with Claims(store).hold(DIGEST):
            inside.append(name)
            most.append(len(inside))
            time.sleep(0.1)
            inside.remove(name)
        done.append(name)

    threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(done) == [0, 1, 2, 3]
    assert max(most) == 1
    assert store.names("claims") == []


def test_a_claim_that_counts_is_waited_for_however_long(memory, quick, monkeypatch):
    monkeypatch.setattr(module, "PATIENCE", 1.0)  # 20 counts, so that a machine that stands still for a moment does no harm
    waited, got = [], threading.Event()

    def wait():
        with Claims(memory).hold(DIGEST, on_wait=lambda: waited.append(True)):
            got.set()

    with Claims(memory).hold(DIGEST):
        thread = threading.Thread(target=wait)
        thread.start()
        assert not got.wait(1.5)
    thread.join()
    assert got.is_set()
    assert waited == [True]


def test_a_claim_of_a_machine_that_was_lost_is_taken_over_by_one_of_all_that_wait(store, quick, monkeypatch):
    lost = {"token": "t", "number": 7, "machine": "elsewhere", "process": 1}
    store.write(f"claims/{DIGEST}/000004", json.dumps(lost).encode())
    inside, started = [], time.monotonic()

    def work():
        with Claims(store).hold(DIGEST):
            inside.append(store.names(f"claims/{DIGEST}")[-1])
            time.sleep(0.1)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert time.monotonic() - started > 0.4
    assert inside[0] == f"claims/{DIGEST}/000005"
    assert len(inside) == 3
    assert store.names("claims") == []


def test_a_claim_of_a_process_of_this_machine_that_is_gone_is_not_waited_for(memory, monkeypatch):
    monkeypatch.setattr(module, "_machine", lambda: "here")
    gone = {"token": "t", "number": 0, "machine": "here", "process": 2**22 + 1}
    memory.write(f"claims/{DIGEST}/000001", json.dumps(gone).encode())
    with Claims(memory).hold(DIGEST):
        assert memory.names("claims")[-1].endswith("000002")


def test_a_holder_that_comes_back_does_not_take_the_claim_of_another_with_it(memory, quick):
    claims = Claims(memory)
    with claims.hold(DIGEST), claims._guard:  # frozen: it counts no more
        with Claims(memory).hold(DIGEST):
            pass
        memory.write(f"claims/{DIGEST}/000001", b'{"token": "of a third"}')
    assert memory.read(f"claims/{DIGEST}/000001") == b'{"token": "of a third"}'


def test_a_holder_that_comes_back_does_not_count_in_the_claim_of_another(memory, quick):
    claims = Claims(memory)
    with claims.hold(DIGEST):
        with claims._guard:  # frozen, until its claim is another's
            memory.write(f"claims/{DIGEST}/000001", b'{"token": "of a third"}')
        time.sleep(4 * module.BEAT)
        assert memory.read(f"claims/{DIGEST}/000001") == b'{"token": "of a third"}'


def test_half_a_claim_is_waited_for_and_taken_over(memory, quick):
    memory.write(f"claims/{DIGEST}/000001", b'{"tok')
    with Claims(memory).hold(DIGEST):
        assert memory.names("claims")[-1].endswith("000002")


def test_a_store_that_lets_a_name_be_written_twice_is_refused(server, tmp_path, monkeypatch):
    old = new_url("s3", tmp_path)  # a server that does not know the condition, and so leaves it out of account
    monkeypatch.setattr(ObjectStore, "_ask", lambda self, path, content: self._fs.pipe_file(path, content))
    with pytest.raises(NotAWorkspace, match="does not refuse to write a name that exists"):
        open_workspace(old)
    assert ObjectStore(old).names("") == []


def test_what_is_no_workspace_is_one_error(tmp_path, server, monkeypatch):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    with pytest.raises(NotAWorkspace, match=r"holds objects but is not a refeed workspace"):
        open_workspace(f"file://{tmp_path}/full")
    with pytest.raises(NotAWorkspace, match=r"it is not known that a name is written only once at ftp://"):
        open_workspace("ftp://host/folder")
    with pytest.raises(NotAWorkspace, match=r"s3:// names no bucket\.\n.*s3://BUCKET/PREFIX"):
        open_workspace("s3://")
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "gcsfs", None)
        without.delitem(importlib.import_module("fsspec.registry")._registry, "gs", raising=False)
        with pytest.raises(MissingExtra, match=r"needs a package that is not installed") as caught:
            open_workspace("gs://bucket/prefix")
    assert caught.value.hint == "Type: pip install 'refeed[google]'"
    with pytest.raises(WorkspaceError, match=r"cannot work with s3://no-such-bucket/w: .*bucket does not exist"):
        open_workspace("s3://no-such-bucket/w")


def test_a_bucket_that_google_does_not_have_is_one_error(google):
    with pytest.raises(WorkspaceError, match=r"cannot work with gs://no-such-bucket/w: there is no such bucket"):
        open_workspace("gs://no-such-bucket/w")


def test_a_store_that_cannot_be_reached_is_one_error(server, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    with pytest.raises(WorkspaceError, match=r"cannot work with s3://refeed/w: Could not connect"):
        open_workspace("s3://refeed/w")
    fsspec.get_filesystem_class("s3").clear_instance_cache()
