"""Object stores for tests: an S3 server in this process, folders, and memory; and another machine, as far as refeed can tell."""

from __future__ import annotations

import logging
import os
import uuid
from contextlib import contextmanager

import pytest

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
    before = {name: os.environ.get(name) for name in (*KEYS, "AWS_ENDPOINT_URL")}
    os.environ.update(KEYS | {"AWS_ENDPOINT_URL": f"http://{host}:{port}"})
    try:
        import fsspec

        fsspec.get_filesystem_class("s3").clear_instance_cache()  # of another server
        fsspec.filesystem("s3").makedirs("refeed", exist_ok=True)
        yield
    finally:
        server.stop()
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)


def new_url(kind, folder):
    name = uuid.uuid4().hex[:8]
    return {"s3": f"s3://refeed/{name}", "file": f"file://{folder}/{name}", "memory": f"memory://{name}"}[kind]
