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

# All that looks for broken promises, with one table at the end; what needs root or tools that are not here is skipped.
torture:
    .ci/torture ci

# The same with ten times as many of each. Hours.
torture-nightly:
    .ci/torture nightly

deny:
    .ci/run deny

# Before a release: what of the API of BASELINE, a tag or any commit, this tree breaks.
semver BASELINE *RELEASE:
    .ci/semver {{BASELINE}} {{RELEASE}}

# Changes recovery and the codec in each of a thousand ways (.cargo/mutants.toml), and says which no quick test notices. A build for each:
# hours. `just mutants --list` names them, `just mutants --file crates/storage/src/varint.rs` or `--shard 0/20` runs a part.
mutants *ARGUMENTS:
    CARGO_PROFILE_DEV_DEBUG=0 cargo mutants --package logmill-storage --timeout 300 {{ARGUMENTS}} -- --lib --test it -- --skip bitflip:: --skip crash:: --skip model::

# Counts instructions on the hot paths; `just instructions --write` keeps the counts that the gate compares with.
instructions *ARGUMENTS:
    .ci/instructions {{ARGUMENTS}}

# Runs logmill and its rivals in turns, five rounds each, and writes the tables and plots of docs/benchmarks.md.
bench-compare *ROWS:
    cargo run --release --manifest-path benches/compare/Cargo.toml --features brokers -- {{ROWS}} --rounds 5 --json benches/compare/results.json
    cargo run --release --manifest-path benches/compare/Cargo.toml -- --report benches/compare/results.json
