# The recipes are also the help: `just` lists them.

default:
    @just --list

# Formatting and lints
check:
    cargo fmt --check
    cargo clippy --release --all-targets --features faults -- -D warnings

# All tests
test:
    scripts/test

# Everything on one machine
demo *ARGS:
    cargo run --release -- demo {{ARGS}}

# The commit chain's model, all configurations (about 100 s)
model:
    TICKMINT_FULL_MODEL=1 cargo test --release --features faults model:: -- --nocapture
