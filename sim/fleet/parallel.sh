#!/usr/bin/env bash
# A campaign on all cores of this machine with GNU parallel: one process for each shard.
#
#   sim/fleet/parallel.sh SEEDS SHARDS DIR [OPTION of `cargo sim run`]...
#   sim/fleet/parallel.sh 0..1000000 64 /data/storm --canary 0.0001
#
# Type it again to go on after a stop, whatever stopped it. Ends with the summary of all shards and
# its exit code. JOBS=N sets how many shards run at once; JSON=1 prints one object instead.
set -euo pipefail

if [ $# -lt 3 ]; then
    echo "usage: $0 SEEDS SHARDS DIR [OPTION]..., such as: $0 0..100000 16 out" >&2
    exit 64
fi
seeds=$1 shards=$2 dir=$3
shift 3
sim=${STORMKV_SIM:-}
if [ -z "$sim" ]; then
    root=$(cd "$(dirname "$0")/../.." && pwd)
    cargo build --quiet --release --manifest-path "$root/Cargo.toml" -p stormkv-sim --features bugs
    sim=${CARGO_TARGET_DIR:-$root/target}/release/stormkv-sim
fi

# A shard ends with its verdict, 0 to 3, which the merge tells again: only what is above is an error
# of the shard itself. Then the others go on, and the merge names what is missing.
shard() {
    local got=0
    "$sim" run --seeds "$seeds" --jobs 1 --shard "$1/$shards" --out "$dir" "${@:2}" \
        >/dev/null || got=$?
    [ "$got" -le 3 ] || return "$got"
}
export -f shard
export sim seeds shards dir

failed=0
seq "$shards" | parallel --will-cite --quote --jobs "${JOBS:-100%}" shard {} "$@" || failed=$?
if [ "$failed" -ne 0 ]; then
    echo "$0: $failed of $shards shards ended with an error" >&2
fi
exec "$sim" merge "$dir" ${JSON:+--json}
