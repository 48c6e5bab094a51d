# The recipes are also the help: `just` lists them.

default:
    @just --list

# Formatting and lints
check:
    scripts/layers
    cargo fmt --check
    cargo clippy --release --all-targets --features faults -- -D warnings
    cargo clippy --release -- -D warnings

# The dbt models by sqlfluff (about 30 s)
lint-sql *ARGS:
    scripts/lint-sql {{ARGS}}

# All tests
test:
    scripts/test

# Everything on one machine
demo *ARGS:
    cargo run --release -- demo {{ARGS}}

# A Kafka of three brokers, schema registry, S3 and Toxiproxy on this machine, without containers; `scripts/cluster --help`
up *ARGS:
    scripts/cluster up {{ARGS}}

# Ends all that `just up` started; `just down --wipe` deletes its data too
down *ARGS:
    scripts/cluster down {{ARGS}}

# The commit chain's model, all configurations (about 100 s)
model:
    TICKMINT_FULL_MODEL=1 cargo test --release --features faults model:: -- --nocapture

# Makes the trading calendar's seed anew; `just calendar --check` tells whether it is as it should be, and reaches far enough
calendar *ARGS:
    scripts/calendar {{ARGS}}

# What the pipeline costs, and how long a frame waits (about 40 s)
bench:
    cargo bench --bench pipeline

# From Kafka to S3 beside a tuned Python consumer, Kafka Connect and Benthos, on one machine (11 minutes to an hour); `scripts/bench-archive --help`
bench-archive *ARGS:
    cargo build --release
    scripts/bench-archive {{ARGS}}

# Two daemons on a cluster of this machine, in the end everything is counted (a minute and a half)
cluster-demo *ARGS:
    cargo build --release
    scripts/cluster-demo {{ARGS}}

# The cluster's fault campaign: two daemons, three brokers, registry and bucket, whatever can happen to them for 10 minutes (or `just chaos 5000 7 2500`: seconds, seed, trades a second)
chaos SECONDS="600" SEED="1" RATE="2000":
    TICKMINT_CHAOS_SECONDS={{SECONDS}} TICKMINT_SEED={{SEED}} TICKMINT_CHAOS_RATE={{RATE}} cargo test --release --features faults --test it -- --nocapture cluster::campaign

# The same campaign with a rule of the protocol left out, three times a minute of it: each must fail, and says by what (10 minutes)
chaos-controls:
    #!/usr/bin/env bash
    set -u
    cargo test --release --features faults --test it --no-run || exit 1
    control() {  # a flaw, the faults that show it, what the daemons' disks do
        echo "--- without $1, under $2"
        if TICKMINT_FLAW=$1 TICKMINT_CHAOS_ONLY=$2 TICKMINT_FAULTS=${3:-} TICKMINT_REQUIRE_PARTS=1 TICKMINT_CHAOS_SECONDS=60 TICKMINT_SEED=13 \
            cargo test --release --features faults --test it -- --nocapture cluster::campaign::whatever >target/control.log 2>&1; then
            echo "nobody noticed: see target/control.log"; exit 1
        fi
        grep -m1 "chaos FAILED" target/control.log || { tail -20 target/control.log; exit 1; }
    }
    control AckBeforeFsync power "spool.before-fsync=10%sleep(30)"
    control NoResend retention
    control NoOrigin kill,power,retention,topic

# The long form of the fault campaign on one machine: 30 points x 8 deaths, 200 kills, 2,000 worlds of racing writers
chaos-local:
    TICKMINT_ABORTS=8 TICKMINT_KILLS=200 TICKMINT_WORLDS=2000 TICKMINT_LONG=1 cargo test --release --features faults --test it -- --nocapture --test-threads 2 pipeline::campaign pipeline::kills pipeline::power pipeline::actors races

# The long form of the warehouse's tests: whole days in five ways, 50 deaths at named points, all seeds and points
warehouse:
    TICKMINT_LONG=1 cargo test --release --features faults --test it -- --nocapture --test-threads 2 warehouse:: snowflake::

# What the warehouse costs beside 1 and 10 million trades (about 10 min); `--fresh DIR` tells how fresh Gold is
measure *ARGS:
    scripts/measure {{ARGS}}

# The warehouse's tables, columns and lineage as one page, target/docs.html
docs:
    scripts/docs
