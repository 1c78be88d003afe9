"""An object store by its URL: names under a prefix, of which some must be written once. By any file system of fsspec."""

from __future__ import annotations

import os
import random
import threading
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from refeed.core.errors import MissingExtra, NotAWorkspace, WorkspaceError

PACKAGES = {"s3": "'refeed[remote]'", "s3a": "'refeed[remote]'", "gs": "'refeed[google]'", "gcs": "'refeed[google]'"}
ON_DISK, IN_MEMORY = ("file", "local"), threading.Lock()


def is_url(address: str | Path) -> bool:
    """Whether a workspace's address is a URL, and not a folder."""
    return "://" in str(address)


class ObjectStore:
    """Objects by name under the prefix of `url`; what cannot be reached is one `WorkspaceError`.

    Of a store it is asked that an object appears whole or not at all, that whoever reads or lists after a write sees it, and that
    `create` refuses a name that exists, in one act. S3 and Google Cloud Storage do all three. Only URLs are taken whose client is
    known to ask for that: fsspec's own way, which others inherit, is to look first and to write then.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        protocol = url.partition("://")[0]
        self._create = {"file": self._link, "local": self._link, "memory": self._put}.get(protocol, self._ask)
        if protocol not in (*PACKAGES, *ON_DISK, "memory"):
            raise NotAWorkspace(
                f"{url} cannot be a workspace: it is not known that a name is written only once at {protocol}://.",
                f"Known: {', '.join(f'{name}://' for name in PACKAGES)}; or type a folder.",
            )
        if protocol in PACKAGES and not url.partition("://")[2].strip("/"):
            raise NotAWorkspace(f"{url} names no bucket.", f"Type: --workspace {protocol}://BUCKET/PREFIX")
        try:
            import fsspec

            options: dict[str, Any] = {"auto_mkdir": True} if protocol in ON_DISK else {}
            with self._reached():
                self._fs, self._root = fsspec.core.url_to_fs(self.url, use_listings_cache=False, **options)
        except ImportError as error:
            hint = f"Type: pip install {PACKAGES.get(protocol, PACKAGES['s3'])}"
            raise MissingExtra(f"a workspace at {protocol}:// needs a package that is not installed: {error}.", hint) from None

    def create(self, name: str, content: bytes) -> bool:
        """Write an object whose name is new; False, and nothing changed, where it exists. `content` must be unlike any other's."""
        for attempt in range(8):
            try:
                with self._reached(writing=True):
                    self._create(self._path(name), content)
                return True
            except FileExistsError:
                return self.read(name) == content  # a request that was answered by silence and sent again finds itself
            except WorkspaceError as error:
                if "conflict" not in str(error).lower() or attempt == 7:  # two such writes met: one of them is asked to come again
                    raise
                time.sleep(random.random() * 0.1)
        raise AssertionError

    def _ask(self, path: str, content: bytes) -> None:
        """By a condition of the request: If-None-Match, or a generation of 0."""
        self._fs.pipe_file(path, content, mode="create")

    def _link(self, path: str, content: bytes) -> None:
        """A folder: fsspec itself would look first and write then."""
        self._fs.makedirs(path.rpartition("/")[0], exist_ok=True)
        temporary = f"{path.rpartition('/')[0]}/.{uuid.uuid4().hex}"
        try:
            with open(temporary, "xb") as file:
                file.write(content)
            os.link(temporary, path)
        finally:
            os.unlink(temporary)

    def _put(self, path: str, content: bytes) -> None:
        """Memory, for one process: there too, looking and writing are two acts."""
        with IN_MEMORY:
            self._fs.pipe_file(path, content, mode="create")

    def read(self, name: str) -> bytes | None:
        """What an object holds; None where there is none."""
        try:
            with self._reached():
                return bytes(self._fs.cat_file(self._path(name)))
        except FileNotFoundError:
            return None

    def read_many(self, names: Iterable[str]) -> dict[str, bytes]:
        """What those of `names` hold that exist, side by side where the store can."""
        paths = {self._path(name): name for name in names}
        if not paths:
            return {}
        with self._reached():
            found = self._fs.cat(list(paths), on_error="omit")
        return {paths[path]: bytes(content) for path, content in found.items()}

    def names(self, folder: str) -> list[str]:
        """Every name below `folder`, sorted; names are relative to the store's prefix."""
        below = self._path(folder) if folder else self._root
        try:
            with self._reached():
                self._fs.invalidate_cache()
                found = self._fs.find(below)
        except FileNotFoundError:
            return []
        names = (path[len(self._root) :].lstrip("/") for path in found)
        return sorted(name for name in names if not name.rpartition("/")[2].startswith("."))

    def write(self, name: str, content: bytes) -> None:
        """Write an object, in place of what was there."""
        with self._reached(writing=True):
            self._fs.pipe_file(self._path(name), content)

    def upload(self, path: Path, name: str) -> None:
        with self._reached(writing=True):
            self._fs.put_file(str(path), self._path(name))

    def download(self, name: str, path: Path) -> None:
        """Raises FileNotFoundError where there is no such object."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._reached():
            self._fs.get_file(self._path(name), str(path))

    def remove(self, names: Iterable[str]) -> None:
        """Remove what exists of `names`."""
        for name in names:
            try:
                with self._reached():
                    self._fs.rm_file(self._path(name))
            except FileNotFoundError:
                pass

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    @contextmanager
    def _reached(self, *, writing: bool = False) -> Iterator[None]:
        try:
            yield
        except (FileExistsError, ImportError, ValueError, WorkspaceError):
            raise
        except Exception as error:
            if isinstance(error, FileNotFoundError) and not writing:
                raise
            reason = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
            if isinstance(error, FileNotFoundError) and is_url(reason):  # what Google's client says of a bucket
                reason = "there is no such bucket"
            raise WorkspaceError(
                f"cannot work with {self.url}: {reason.rstrip('.')}.",
                hint="Nothing is lost. Check its name, the network and your credentials, then type the same command again.",
            ) from error
