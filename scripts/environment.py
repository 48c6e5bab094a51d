"""The Python environments of these scripts: hash-pinned packages in the user's cache, made once, found again by the hash of
their requirements. The daemon names its own alike: src/warehouse/python.rs."""

import contextlib
import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def place(requirements: Path) -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tickmint"
    return cache / f"python-{hashlib.sha256(requirements.read_bytes()).hexdigest()[:12]}"


def python(requirements: Path, program: str) -> Path:
    """The Python that has the packages; made now if it is not there yet. Ends the `program` with 3 if they are not to be had,
    with 1 if they are not what was pinned."""
    found = place(requirements)
    if not (found / "complete").exists():
        say(program, f"installing the packages of {requirements.relative_to(ROOT)} into {found} (once)")
        found.parent.mkdir(parents=True, exist_ok=True)
        # Two at once: each builds its own, and the first to rename wins.
        with tempfile.TemporaryDirectory(prefix="python-building-", dir=found.parent, ignore_cleanup_errors=True) as folder:
            building = Path(folder) / "venv"
            run(program, requirements, sys.executable, "-m", "venv", str(building))
            pip = (str(building / "bin/python"), "-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check")
            run(program, requirements, *pip, "--only-binary", ":all:", "--require-hashes", "-r", str(requirements))
            (building / "complete").touch()
            with contextlib.suppress(OSError):
                building.rename(found)
        if not (found / "complete").exists():
            say(program, f"{found} is half made: remove it")
            sys.exit(3)
    return found / "bin/python"


def say(program: str, text: str) -> None:
    print(f"{program}: {text}", file=sys.stderr)


def run(program: str, requirements: Path, *command: str) -> None:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return
    said = done.stdout + done.stderr
    sys.stderr.write(said)
    if "DO NOT MATCH THE HASHES" in said:
        say(program, "what was downloaded is not what was pinned")
        sys.exit(1)
    say(program, f"the packages of {requirements.relative_to(ROOT)} could not be installed: {(said.strip() or 'no reason given').splitlines()[-1]}")
    sys.exit(3)
