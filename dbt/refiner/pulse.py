"""Tells the daemon that a run is at work while no node of it begins or ends.

The daemon takes a run for hung that is silent for `warehouse.run_timeout`. One model over years of trades is
one statement, which says nothing until it is done; that it is at work shows in the time of the processor.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

#: Seconds between two looks, and the processor time in between that is work: an idle process takes a hundredth.
EVERY = 0.5
WORK = 0.01


class Pulse:
    """While it is entered, calls `beat` from a thread of its own as long as the process works."""

    def __init__(self, beat: Callable[[], None]) -> None:
        self.beat, self.over = beat, threading.Event()
        self.thread = threading.Thread(target=self.watch, daemon=True, name="pulse")

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None) -> None:
        self.over.set()
        self.thread.join()

    def watch(self) -> None:
        before = time.process_time()
        while not self.over.wait(EVERY):
            now = time.process_time()
            if now - before >= WORK:
                try:
                    self.beat()
                except OSError:
                    return  # nobody listens any more, which the run finds out at its end
            before = now
