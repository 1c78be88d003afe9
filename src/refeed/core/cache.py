"""Derived files, made once and made again when they are gone: decoded images, tokens. In the user's cache folder.

A build works in a hidden folder and is renamed when it is whole, so a killed one is never used; about.json, written last, names
every file's size.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

ABOUT = "about.json"


def cache_folder() -> Path:
    """$REFEED_CACHE, else refeed/ in $XDG_CACHE_HOME or ~/.cache."""
    return Path(os.environ.get("REFEED_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "refeed")


def built(place: Path, make: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
    """What `make(folder)` said of the files it wrote, which now lie in `place`: made now, unless they are there and whole."""
    found = _read(place)
    if found is not None:
        return found
    place.parent.mkdir(parents=True, exist_ok=True)
    _clear(place.parent)
    working = Path(tempfile.mkdtemp(dir=place.parent, prefix=f".making-{socket.gethostname()}+{os.getpid()}+"))
    try:
        about = make(working)
        sizes = {}
        for path in sorted(working.iterdir()):
            with path.open("rb") as file:
                os.fsync(file.fileno())
            sizes[path.name] = path.stat().st_size
        (working / ABOUT).write_text(json.dumps({"about": about, "sizes": sizes}))
        if place.exists() and _read(place) is None:  # not whole: a file was cut or lost
            shutil.rmtree(place, ignore_errors=True)
        if not place.exists():
            working.rename(place)
    except OSError:
        if _read(place) is None:  # else another process was first
            raise
    finally:
        shutil.rmtree(working, ignore_errors=True)
    found = _read(place)
    assert found is not None
    return found


def _read(place: Path) -> dict[str, Any] | None:
    try:
        content = json.loads((place / ABOUT).read_text())
        whole = all((place / name).stat().st_size == size for name, size in content["sizes"].items())
    except (OSError, ValueError, KeyError):
        return None
    return dict(content["about"]) if whole else None


def _clear(parent: Path) -> None:
    """Remove what killed processes of this machine left half-made."""
    for path in parent.glob(f".making-{socket.gethostname()}+*"):
        process = path.name.split("+")[1]
        if process.isdigit() and not Path(f"/proc/{process}").exists() and Path("/proc/self").exists():
            shutil.rmtree(path, ignore_errors=True)
