#!/bin/sh
# Fuzzes: `tests/fuzz/run.sh [seconds per target] [target ..]`. See Cargo.toml.
#
# New inputs go below target/, so that the committed corpus changes only on purpose; to take over
# what is worth keeping: cargo fuzz cmin --fuzz-dir . TARGET CORPUS
set -eu
cd "$(dirname "$0")"

seconds=${1:-60}
[ $# -eq 0 ] || shift
[ $# -gt 0 ] || set -- frame wal snapshot node key

target_dir=$(cd ../.. && pwd)/target/fuzz
# Says to rustc that cargo-fuzz's flags are all right on a stable compiler.
export RUSTC_BOOTSTRAP=1

for target in "$@"; do
    features=
    [ "$target" != key ] || features="--features tcp"
    mkdir -p "$target_dir/corpus/$target"
    # A hang and an allocation without bound are finds, too.
    # shellcheck disable=SC2086
    cargo fuzz run --fuzz-dir . --sanitizer none --target-dir "$target_dir" $features "$target" \
        "$target_dir/corpus/$target" "corpus/$target" -- \
        -max_total_time="$seconds" -max_len=4096 -timeout=10 -rss_limit_mb=1024 -print_final_stats=1
done
