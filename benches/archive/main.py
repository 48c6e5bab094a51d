"""Archives the same records from Kafka to S3 by several programs, and prints what it took each of them.

    scripts/bench-archive                             5 million trades, JSON and Avro, 4 and 12 partitions (11 minutes to an hour)
    scripts/bench-archive --records 200000            the same in small, to see that it runs
    scripts/bench-archive --formats json --partitions 4 --only tickmint,python
    scripts/bench-archive --rounds 3                  each of them three times, in turn: what a busy machine does to the figures
    scripts/bench-archive --profile --only tickmint   where our own time goes, by `perf`

All contenders read the same topics, one after another, and write into the same bucket: a broker, a schema registry and MinIO
that scripts/cluster starts on this machine. The records come from `tickmint exchange` through the spool of a daemon, which
sends them to Kafka: that is the measurement of spool to Kafka, too. Whatever a contender wrote is read back and counted; if
it is not all of it, or `tickmint verify` finds a fault, the run ends with 1.

    tickmint       roles = ["archive"]: raw JSON lines and typed Parquet, hashes, seen intervals, the commit chain
    python         a tuned consumer (confluent-kafka, pyarrow) that writes the same lines and columns
    python-values  the same consumer with only what stands in the values: no identity, so nothing can be deduplicated
    iceberg        Kafka Connect with Apache Iceberg's sink: Parquet, exactly once, in a table without partitions
    iceberg-by-symbol  the same sink with a table that is partitioned by symbol, as one that is read by symbol would be
    connect-floor  Kafka Connect with our own least sink: a floor for any Connect S3 sink; JSON lines, not compressed
    benthos        the Benthos engine 4.60 with our own Kafka and S3 ends (not Redpanda Connect): JSON lines, zstd

Processor seconds are those of the contender alone, not of broker and store. Ours are counted from the start of the process;
of Python without its imports, of Connect without the worker's start. They are comparable on a busy machine; seconds are not.
A contender that cannot be had here is in the table as SKIPPED, with the reason.

Exit codes: 0 measured, 1 something was lost or failed, 2 wrong use, 3 the servers cannot be had here
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
import traceback
from pathlib import Path

import connect
import latency
import table
from benthos import benthos
from contenders import Bench, Result, python, tickmint
from daemon import Daemons
from servers import ROOT, Servers, Skipped

CONTENDERS = {
    "tickmint": tickmint, "python": python("same"), "python-values": python("values"), "iceberg": connect.iceberg(""),
    "iceberg-by-symbol": connect.iceberg("s"), "connect-floor": connect.floor, "benthos": benthos,
}  # fmt: skip
#: What else reads Avro values would be measured with another decoder than its own.
OF_AVRO = ("tickmint", "python")


def words(of: tuple[str, ...]):
    def parse(text: str) -> list[str]:
        found = text.split(",")
        if unknown := [word for word in found if word not in of]:
            raise argparse.ArgumentTypeError(f"`{unknown[0]}` is none of {', '.join(of)}")
        return found

    return parse


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench-archive", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--records", type=int, default=5_000_000, metavar="N", help="trades in each topic (default 5,000,000)")
    parser.add_argument(
        "--partitions", type=lambda text: [int(word) for word in text.split(",")], default=[4, 12], metavar="N,N", help="default 4,12"
    )
    parser.add_argument("--formats", type=words(("json", "avro")), default=["json", "avro"], metavar="F,F", help="default json,avro")
    parser.add_argument(
        "--only", type=words((*CONTENDERS, "latency")), metavar="NAME,NAME", help="only these contenders; `latency` is spool to Kafka"
    )
    parser.add_argument("--rounds", type=int, default=1, metavar="N", help="runs of each contender, in turn; the table has the median (default 1)")
    parser.add_argument("--tickmint", type=Path, default=ROOT / "target/release/tickmint", metavar="PATH", help="default %(default)s")
    parser.add_argument(
        "--property", action="append", default=[], metavar="N=V", help="an option of librdkafka for our daemons, to try it; may be repeated"
    )
    parser.add_argument("--profile", action="store_true", help="run ours a second time under `perf`, and print where its time goes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="all figures, also those that the table has no room for")
    parser.add_argument(
        "--dir", type=Path, default=None, metavar="D", help="where servers and topics are (default: beside the parts, in your cache)"
    )
    parser.add_argument("--base-port", type=int, default=41000, metavar="P", help="of the servers (default 41000)")
    parser.add_argument("--keep", action="store_true", help="keep topics and spools: the next run of as many records begins at once")
    return parser.parse_args()


def main() -> int:
    args = arguments()
    if not args.tickmint.exists():
        print(f"bench-archive: there is no {args.tickmint}: `cargo build --release` makes one", file=sys.stderr)
        return 2
    folder = (args.dir or connect.CACHE / "bench-archive").absolute()
    servers = Servers(folder / "cluster", args.base_port)
    servers.folder.mkdir(parents=True, exist_ok=True)
    try:
        servers.up()
    except subprocess.CalledProcessError as failure:  # it has said why
        return failure.returncode
    results, code = [], 0
    try:
        bench = Bench(servers, Daemons(args.tickmint.absolute(), servers, folder / "work", args.property), folder / "work", args.profile)
        code = run(args, bench, results)
    finally:
        servers.down(wipe=not args.keep)
        if not args.keep:
            shutil.rmtree(folder / "work", ignore_errors=True)
    return code


def run(args: argparse.Namespace, bench: Bench, results: list[Result]) -> int:
    code, forwards, waits = 0, [], None
    for format in args.formats:
        for partitions in args.partitions:
            say(f"{args.records} records of {format} in {partitions} partitions")
            topic = bench.daemons.preload(args.records, partitions, format)
            forwards.append(topic)
            chosen = [name for name in CONTENDERS if name in (args.only or CONTENDERS) and (format == "json" or name in OF_AVRO)]
            for name in chosen * args.rounds:
                try:
                    result = CONTENDERS[name](bench, topic)
                except Skipped as why:
                    result = Result(name, format, partitions, 0, 0, 0, 0, 0, 0, 0, {}, skipped=str(why))
                except Exception:  # the others are measured all the same, and the run fails
                    traceback.print_exc()
                    result = Result(name, format, partitions, 0, 0, 0, 0, 0, 0, 0, {}, skipped="FAILED, see above")
                    code = 1
                results.append(result)
                say(table.line(result))
    if not args.only or "latency" in args.only:
        waits = latency.measure(bench)
    print(table.text(results, forwards, waits))
    if args.json:
        figures = {
            "results": [result.as_json() for result in results],
            "forward": [table.forward(topic) for topic in forwards],
            "latency": waits,
        }
        args.json.write_text(json.dumps(figures, indent=1) + "\n")
    return code


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
