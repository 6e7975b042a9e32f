# The steps of `.ci/run` under short names; each recipe is a plain command that can be typed without `just`.

# Everything that CI runs.
check:
    .ci/run

fmt:
    cargo fmt --all

clippy:
    .ci/run clippy

doc:
    .ci/run doc

test:
    .ci/run test

# Faults and planted bugs; `just torture-nightly` has ten times as many states and faults.
torture:
    .ci/run torture

torture-nightly:
    cargo run --release --package logmill-torture -- sim --states 10000000
    LOGMILL_FAULTS=500000 .ci/run torture

deny:
    .ci/run deny

# Counts instructions on the hot paths; `just instructions --write` keeps the counts that the gate compares with.
instructions *ARGUMENTS:
    .ci/instructions {{ARGUMENTS}}

# Runs logmill and its rivals in turns, five rounds each, and writes the tables and plots of docs/benchmarks.md.
bench-compare *ROWS:
    cargo run --release --manifest-path benches/compare/Cargo.toml -- {{ROWS}} --rounds 5 --json benches/compare/results.json
    cargo run --release --manifest-path benches/compare/Cargo.toml -- --report benches/compare/results.json
