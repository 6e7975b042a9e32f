#!/usr/bin/env bash
# Follows the README from an empty directory, word for word: clones the repository, runs its first command, every command of
# its synopsis and of docs/backup.md, and both of its programs; checks what each prints; says how long it took until the first
# message was printed. `docs/try.sh [REPOSITORY]`, by default this one. The README's second command, all tests, is left out.
set -euo pipefail
repository=${1:-$(cd "$(dirname "$0")/.." && pwd)}
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
cd "$place"

# A checkout that belongs to somebody else is cloned all the same.
export GIT_CONFIG_GLOBAL=$place/gitconfig
printf '[safe]\n\tdirectory = *\n' >"$GIT_CONFIG_GLOBAL"

fail() {
    echo "FAILED: $1" >&2
    exit 1
}

# `says WORDS CODE COMMAND...`: the command ends with the code, and what it prints has the words in it.
says() {
    local words=$1 code=$2 output found=0
    shift 2
    output=$("$@" 2>&1 </dev/null) || found=$?
    [ "$found" = "$code" ] || fail "$* ended with $found, not $code: $output"
    [[ $output != *warning:* ]] || fail "$* warned: $output"
    [[ $output == *"$words"* ]] || fail "$* did not say \"$words\": $output"
    printf '%-70s %s\n' "$*" "$(head -n 1 <<<"$output" | cut -c 1-60)"
}

# `silent COMMAND...`: the command does what it is told, and has nothing to say.
silent() {
    local output
    output=$("$@" 2>&1 </dev/null) || fail "$* failed: $output"
    [ -z "$output" ] || fail "$* said: $output"
    echo "$*"
}

begin=$SECONDS
git clone --quiet "$repository" logmill
readme=$place/logmill/docs/readme-command
cd logmill
command=$("$readme" main)
printf '%s\n' "$command"
bash -euo pipefail -c "$command" >"$place/output"
first=$((SECONDS - begin))
lines=$(wc -l <LICENSE-APACHE)
tail -n "$lines" "$place/output" | cmp - LICENSE-APACHE
echo "from git clone to the first message: $first s"

# The synopsis, with a file, names and directories in its place, in an order in which each finds what it needs.
PATH=$PWD/target/release:$PATH
cd "$place"
seq 1000 >numbers
silent logmill --dir store produce numbers --file numbers
[ "$(logmill --dir store consume numbers | md5sum)" = "$(md5sum <numbers)" ] || fail "what was consumed is not what was produced"
says "1000" 0 logmill --dir store consume numbers --group g --from earliest
says "1001" 0 bash -c 'echo 1001 | logmill --dir store produce numbers && logmill --dir store consume numbers --group g'
says "numbers" 0 logmill --dir store topic list
says "numbers" 0 logmill --dir store group describe g
silent logmill --dir store queue create jobs
silent bash -c 'printf "one\ntwo\n" | logmill --dir store queue send jobs'
[ "$(logmill --dir store queue peek jobs)" = "$(printf 'one\ntwo')" ] || fail "what was sent is not what is there"
says "one" 0 logmill --dir store queue receive jobs
says "jobs" 0 logmill --dir store stats
says '"ready"' 0 logmill --dir store top --json --once
says "sound" 0 logmill --dir store verify
says "999" 0 logmill dump store/1/0/00000000000000000000.log
says "partition 0: nothing to remove" 0 logmill --dir store compact numbers
says "file system" 0 logmill doctor store
says "sync" 0 logmill bench . --records 1000 --time 100ms
says "complete" 0 logmill completions bash
says ".TH" 0 logmill man
says "needs --dir" 2 logmill verify
says "no store at" 1 logmill --dir nowhere verify
"$readme" synopsis | grep -oE 'logmill( --dir [A-Z]+)? [a-z|]+( \| [a-z]+)?' | sed -E 's/logmill( --dir [A-Z]+)? //' |
    tr -d ' ' | tr '|' '\n' | sort -u |
    while read -r name; do
        says "Example" 0 logmill "$name" --help
    done

# docs/backup.md, and the damage that it speaks of.
page() {
    "$readme" "$1" logmill/docs/backup.md
}
says "copied" 0 bash -euc "$(page backup)"
says "sound" 0 logmill --dir saved verify
says "is a backup" 1 logmill --dir saved produce numbers
says "restored and verified" 0 bash -euc "$(page restore)"
[ "$(logmill --dir store-new consume numbers | wc -l)" = 1001 ] || fail "the restored store lacks records"
cp -r store damaged
printf 'damage' | dd of=damaged/1/0/00000000000000000000.log bs=1 seek=600 conv=notrunc status=none
says "lost" 3 bash -c "$(page salvage)"
[ "$(logmill --dir rescued consume numbers | wc -l)" -gt 0 ] || fail "nothing was rescued"

# Both programs, in a service of their own beside the checkout.
cargo new --quiet --vcs none service
cd service
sed -i '/^\[dependencies\]/d' Cargo.toml
"$readme" dependencies >>Cargo.toml
"$readme" stream >src/main.rs
says 'record 0 of partition' 0 cargo run --quiet
"$readme" queue >src/main.rs
says 'to do: photo-7.jpg' 0 cargo run --quiet

total=$((SECONDS - begin))
[ "$total" -lt 600 ] || fail "it took $total s, ten minutes were promised"
echo "everything: $total s"
