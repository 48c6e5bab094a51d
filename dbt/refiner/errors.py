"""Why a run did not come to its end."""

from __future__ import annotations

from typing import Any


class RunFailed(Exception):
    """`phase` is where it failed, if that is known better than by the last progress; `failing` is the series of
    failures that it belongs to, if that is in the book already."""

    def __init__(self, message: str, *, retryable: bool, phase: str | None = None) -> None:
        super().__init__(message)
        self.retryable, self.phase = retryable, phase
        self.failing: dict[str, Any] | None = None


class Refused(RunFailed):
    """Trying again cannot mend it: slots contradict what is stored, or the project is broken."""

    def __init__(self, message: str) -> None:
        super().__init__(message, retryable=False)
