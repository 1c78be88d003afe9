"""Every exception refeed raises on purpose: what is wrong, why it matters, what to type."""

from __future__ import annotations


class RefeedError(Exception):
    """An error with a clear message: the first line says what is wrong, `hint` says what to type."""

    exit_code = 1

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message, hint)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message}\n  {self.hint}"


class UserError(RefeedError):
    """A mistake in what was asked for; nothing was started and nothing is lost. Exit code 2."""

    exit_code = 2


class StudyError(UserError):
    """A study file, an override or a name in it is wrong. `at` is the dotted key, so that the line can be found."""

    def __init__(self, message: str, hint: str | None = None, at: str | None = None) -> None:
        super().__init__(message, hint)
        self.at = at


class SourceError(UserError):
    """Real data is missing, empty, unreadable or too small."""


class MissingExtra(UserError):
    """An optional dependency is not installed; the message holds the exact install line."""


class EngineError(UserError):
    """The chosen engine cannot work: no such cluster, a workspace that workers do not see, too few devices, other versions."""


class WorkspaceError(RefeedError):
    """The folder of results cannot be used as it is: another format, read-only, or a full disk."""


class NotAWorkspace(UserError):
    """The folder that was named cannot serve as a workspace: a file, somebody else's folder, or another format."""


class Damaged(WorkspaceError):
    """A stored artefact does not match its checksum. It is set aside, named, and made again."""


class StepFailed(RefeedError):
    """A step raised an unexpected exception: a defect of a plug-in or of refeed. Recorded, never memoised."""


OUTCOMES = {
    "completed": "every generation was fitted and measured",
    "diverged": "training ended without a finite loss",
    "non-finite": "the model or its samples hold NaN or infinite values",
    "empty pool": "the policy left no row to train on",
    "short sample": "a filter let too few rows pass",
    "low real share": "the next training set would hold too few real rows",
    "failed": "a step raised an exception",
}


class Stopped(RefeedError):
    """A lineage ended with a named outcome other than `completed`. A result, not a defect: it is recorded."""

    def __init__(self, outcome: str, sentence: str) -> None:
        super().__init__(f"{outcome}: {sentence}")
        assert outcome in OUTCOMES, outcome
        self.outcome = outcome
        self.recorded = False  # a store sets it once the step to blame is known
        self.sentence = sentence

    def __reduce__(self) -> tuple[type[Stopped], tuple[str, str]]:
        return type(self), (self.outcome, self.sentence)
