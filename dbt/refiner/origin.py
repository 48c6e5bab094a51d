"""What decides how a trade is judged, and how a bar comes out of Silver. What was made by other rules is made anew."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent

DECIDES_BARS = ("dbt_project.yml", "models/silver/*.sql", "models/gold/*.sql", "macros/*.sql", "seeds/*.csv")

#: Variables that no bar depends on: where the user's positions lie.
DECIDES_NOTHING = {"positions"}


def fingerprint(variables: dict[str, Any]) -> str:
    """Of all that decides it."""
    rules = {name: value for name, value in variables.items() if name not in DECIDES_NOTHING}
    digest = hashlib.sha256(json.dumps(rules, sort_keys=True).encode())
    for pattern in DECIDES_BARS:
        for path in sorted(ROOT.glob(pattern)):
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]
