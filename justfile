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

deny:
    .ci/run deny
