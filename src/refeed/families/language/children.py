"""Processes that we start with `python -m`: what they are told, and that they end when we do."""

from __future__ import annotations

import os
import sys
import threading

from refeed.core import devices


def environment(num_threads: int) -> dict[str, str]:
    """Ours, with so many threads, and with the modules that we find."""
    return (
        os.environ
        | devices.threads(num_threads)
        | {
            "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
            "PYTHONSAFEPATH": "1",  # `-m` would put the current folder first, and a random.py in it before Python's own
        }
    )


def end_with_parent() -> None:
    """Called by a process whose input is a pipe from us: it closes when we die, however we die."""
    threading.Thread(target=_end_with_input, daemon=True).start()


def _end_with_input() -> None:
    os.read(0, 1)  # not sys.stdin, whose lock would abort an interpreter that ends by an error
    os._exit(1)
