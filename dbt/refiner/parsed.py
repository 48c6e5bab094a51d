"""dbt's own record of the parsed project, kept beside the Python that runs it: parsing takes five seconds of CPU, and a
new warehouse has nothing to parse that the one before has not. dbt itself decides what of it still holds."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from .origin import ROOT

NAME = "partial_parse.msgpack"

#: So many stay, of other projects or variables.
KEEP = 4


class Parsed:
    """The record of this project with these variables. Where it cannot be kept, each new warehouse parses."""

    def __init__(self, target: Path, variables: dict[str, Any]) -> None:
        self.of = json.dumps({"project": str(ROOT), "variables": variables}, sort_keys=True)
        self.here, self.whose = target / NAME, target / "parsed_of"
        self.kept = Path(sys.prefix) / "parsed" / f"{hashlib.sha256(self.of.encode()).hexdigest()[:16]}.msgpack"

    def bring(self) -> None:
        """What another project left here goes, were its files the same to the byte: dbt would find no seed changed, and
        go on reading each where it lay then."""
        with suppress(OSError):
            self.here.parent.mkdir(parents=True, exist_ok=True)
            if not self.whose.exists() or self.whose.read_text() != self.of:
                self.here.unlink(missing_ok=True)
                self.whose.write_text(self.of)
            if not self.here.exists():
                place(self.kept, self.here)
                os.utime(self.kept)

    def keep(self) -> None:
        """Call it after a parse that went well. A Python that is not an environment of its own is not ours to write to."""
        if sys.prefix == sys.base_prefix:
            return
        with suppress(OSError):
            if self.kept.exists() and self.kept.stat().st_mtime >= self.here.stat().st_mtime:
                return
            self.kept.parent.mkdir(exist_ok=True)
            place(self.here, self.kept)
            others = sorted(self.kept.parent.iterdir(), key=lambda path: path.stat().st_mtime)
            for old in others[:-KEEP]:
                old.unlink(missing_ok=True)


def place(source: Path, destination: Path) -> None:
    """Copies a file with its time, so that none reads half of it."""
    temporary = destination.with_suffix(f".{os.getpid()}")
    shutil.copy2(source, temporary)
    os.replace(temporary, destination)
