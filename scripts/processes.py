"""What a process takes of the machine, and what a daemon says of itself: for the scripts that start some."""

import contextlib
import os
import random
import socket
import urllib.request
from pathlib import Path


def stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the state on: 0 is the state, 19 the time of its start."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()


def cpu_seconds(pid: int) -> float:
    """User and system time of all its threads."""
    return sum(int(ticks) for ticks in stat(pid)[11:13]) / os.sysconf("SC_CLK_TCK")


def peak(pid: int) -> float:
    """MiB that it held at most; 0 of one that has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), 0)


def free_port() -> int:
    """One that nobody listens on now, below the range of outgoing connections, which could snatch it before its server is there."""
    while True:
        port = random.randrange(10_000, 32_000)
        with socket.socket() as listener, contextlib.suppress(OSError):
            listener.bind(("127.0.0.1", port))
            return port


def metrics(port: int) -> dict[str, float]:
    """Of a daemon of this machine; none while it does not answer."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            text = answer.read().decode()
    except OSError:
        return {}
    pairs = (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#") and " " in line)
    return {name: float(value) for name, value in pairs}
