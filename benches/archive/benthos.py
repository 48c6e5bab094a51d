"""The Benthos engine as a peer, built once of its module and our two ends, peers of neither Redpanda nor Kafka Connect."""

import hashlib
import os
import shutil
import subprocess
import time
from pathlib import Path

from connect import CACHE
from contenders import ZSTD_LEVEL, Bench, Result, patience
from daemon import Preloaded
from processes import cpu_seconds, peak
from servers import ACCESS, BUCKET, SECRET, Skipped, end, wait

SOURCE = Path(__file__).resolve().parent / "benthos-peer"


def built() -> Path:
    """The program, from the cache if it has been built of the same source."""
    go = shutil.which("go")
    files = [SOURCE / name for name in ("go.mod", "go.sum", "main.go")]
    program = CACHE / f"benthos-peer-{hashlib.sha256(b''.join(file.read_bytes() for file in files)).hexdigest()[:12]}"
    if program.exists():
        return program
    if not go:
        raise Skipped("there is no Go here, and it is built of a Go module")
    program.parent.mkdir(parents=True, exist_ok=True)
    new = program.with_name(f"{program.name}.{os.getpid()}")
    # -mod=readonly: go.sum says what each module must be.
    environment = os.environ | {"GOTOOLCHAIN": "local", "GOWORK": "off", "CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly -buildvcs=false"}
    command = [go, "build", "-trimpath", "-ldflags", "-s -w", "-o", new, "."]
    done = subprocess.run(command, cwd=SOURCE, env=environment, capture_output=True, text=True, check=False)
    if "SECURITY ERROR" in done.stderr or "checksum mismatch" in done.stderr:
        raise RuntimeError(f"what was downloaded is not what go.sum has pinned:\n{done.stderr}")
    if done.returncode != 0:
        raise Skipped(f"it does not build here: {done.stderr.strip().splitlines()[-1]}")
    new.rename(program)
    return program


def benthos(bench: Bench, topic: Preloaded) -> Result:
    program = built()

    def run(prefix: str) -> dict:
        log = bench.work / "benthos.log"
        settings = {
            "BROKERS": bench.servers.brokers, "TOPIC": topic.topic, "GROUP": prefix, "ENDPOINT": bench.servers.endpoint, "ACCESS": ACCESS,
            "SECRET": SECRET, "BUCKET": BUCKET, "PREFIX": prefix, "BATCH": str(bench.batch), "LEVEL": str(ZSTD_LEVEL),
        }  # fmt: skip
        total, begun = sum(topic.ends.values()), time.monotonic()
        with log.open("w") as out:
            process = subprocess.Popen([program, "run", SOURCE / "pipeline.yaml"], env=os.environ | settings, stdout=out, stderr=out)
        try:
            wait("Benthos", lambda: bench.servers.committed(prefix, topic.topic, topic.partitions) >= total, process, log, patience(topic))
            return {"seconds": time.monotonic() - begun, "cpu": cpu_seconds(process.pid), "peak": peak(process.pid)}
        finally:
            end(process)

    return bench.measured("benthos", topic, run)
