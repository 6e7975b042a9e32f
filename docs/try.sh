#!/usr/bin/env bash
# Follows the README from an empty directory: clones the repository, runs its first command word for word, checks the
# output, and says how long it took until the first message was printed. `docs/try.sh [REPOSITORY]`, by default this one.
set -euo pipefail
repository=${1:-$(cd "$(dirname "$0")/.." && pwd)}
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
cd "$place"

# A checkout that belongs to somebody else is cloned all the same.
export GIT_CONFIG_GLOBAL=$place/gitconfig
printf '[safe]\n\tdirectory = *\n' >"$GIT_CONFIG_GLOBAL"

begin=$SECONDS
git clone --quiet "$repository" logmill
cd logmill
command=$(docs/readme-command main)
printf '%s\n' "$command"
bash -euo pipefail -c "$command" >output
first=$((SECONDS - begin))
lines=$(wc -l <LICENSE-APACHE)
tail -n "$lines" output | cmp - LICENSE-APACHE
echo "from git clone to the first message: $first s"

verified=$(target/release/logmill --dir target/demo verify)
printf '%s\n' "$verified"
total=$((SECONDS - begin))
[ "$total" -lt 600 ] || { echo "it took $total s, ten minutes were promised" >&2; exit 1; }
echo "everything: $total s"
