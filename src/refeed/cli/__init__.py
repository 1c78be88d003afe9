"""The command line: one small file a verb. Nothing heavy is imported before a verb runs."""

from __future__ import annotations

import os
import signal
import sys
import warnings

from refeed.core.devices import threads

EXIT_FAILED, EXIT_INTERRUPTED = 1, 130


class Interrupted(BaseException):
    """Ctrl-C. A class of our own, since the command-line library ends on KeyboardInterrupt without a word."""


def _print_warning(message: Warning | str, *_: object, **__: object) -> None:
    print(f"warning: {message}", file=sys.stderr)


def _interrupt(*_: object) -> None:
    raise Interrupted


def main() -> None:
    """Entry point of `refeed`. Exit codes: 0 done, 1 a run failed, 2 the user's mistake, 130 interrupted (resumable)."""
    for name, value in threads(1).items():
        os.environ.setdefault(name, value)  # equal bits whatever the engine; processes, not threads, use the cores
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    signal.signal(signal.SIGINT, _interrupt)
    warnings.showwarning = _print_warning
    from refeed.cli.app import app
    from refeed.core.errors import RefeedError

    try:
        app(standalone_mode=True)
    except RefeedError as error:
        kind = type(error).__name__
        print(f"{kind}: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except Interrupted:
        print("\nInterrupted. Every finished step is kept; run the same command again to go on.", file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(EXIT_FAILED)
