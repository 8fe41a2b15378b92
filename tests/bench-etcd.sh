#!/usr/bin/env bash
# Measures a 3-node stormkv beside a 3-node etcd on this machine, over loopback, with fsync on, and
# prints medians and ratios. All clients talk to the leader; the two take turns, and while one is
# measured the other is stopped.
#
# Needs etcd (Debian: apt-get install etcd-server etcd-client), curl and cargo.
# Settings: ROUNDS=3 SECONDS_EACH=8 CLIENTS=1,32,256 SIZES=128 (bytes of a value, a list such as
# 128,1024,16384,131072) MIXES=put,get CONNS=0 (etcd: connections that the clients share; 0 for one
# each) KILLS=5 ONLY=etcd|stormkv (leaves the other one out).
set -euo pipefail
cd "$(dirname "$0")/.."

rounds=${ROUNDS:-3}
seconds=${SECONDS_EACH:-8}
clients=${CLIENTS:-1,32,256}
sizes=${SIZES:-128}
mixes=${MIXES:-put,get}
conns=${CONNS:-0}
kills=${KILLS:-5}
systems=${ONLY:-etcd stormkv}

for tool in etcd curl cargo; do
    command -v "$tool" >/dev/null || { echo "$tool is not installed" >&2; exit 69; }
done
cargo build --release --quiet --features tcp --bin stormkv
cargo build --release --quiet --manifest-path tests/etcd-bench/Cargo.toml \
    --target-dir target/etcd-bench
stormkv=$PWD/target/release/stormkv
etcd_bench=$PWD/target/etcd-bench/release/etcd-bench

scratch=$(mktemp -d)
declare -A pids
gone() { # process; the shell reaps it, so it is gone once it cannot be signalled
    while kill -0 "$1" 2>/dev/null; do sleep 0.05; done
}
stop_all() {
    local pid
    for pid in "${pids[@]}"; do kill -9 "$pid" 2>/dev/null || true; done
    for pid in "${pids[@]}"; do gone "$pid"; done
    pids=()
}
trap 'stop_all; rm -rf "$scratch"' EXIT

# Ports far from the defaults of both.
etcd_port() { echo $((23790 + $1)); }
etcd_urls=http://127.0.0.1:23791,http://127.0.0.1:23792,http://127.0.0.1:23793
storm_port() { echo $((24380 + $1)); }
storm_urls=http://127.0.0.1:24381,http://127.0.0.1:24382,http://127.0.0.1:24383
storm_peers=http://127.0.0.1:24391,http://127.0.0.1:24392,http://127.0.0.1:24393

start_node() { # system, number
    local system=$1 n=$2 dir=$scratch/$1-$2
    if [ "$system" = etcd ]; then
        local cluster="1=http://127.0.0.1:23801,2=http://127.0.0.1:23802,3=http://127.0.0.1:23803"
        etcd --name "$n" --data-dir "$dir" --log-level error \
            --listen-client-urls "http://127.0.0.1:$(etcd_port "$n")" \
            --advertise-client-urls "http://127.0.0.1:$(etcd_port "$n")" \
            --listen-peer-urls "http://127.0.0.1:2380$n" \
            --initial-advertise-peer-urls "http://127.0.0.1:2380$n" \
            --initial-cluster "$cluster" --initial-cluster-state new \
            >"$scratch/$system-$n.log" 2>&1 &
    else
        "$stormkv" --id "$n" --cluster "$storm_peers" --port "$(storm_port "$n")" \
            --data-dir "$dir" >"$scratch/$system-$n.log" 2>&1 &
    fi
    pids[$n]=$!
    disown # or the shell would remark on each one that is killed
}

# The number of the node that leads, once there is one.
leader() { # system
    local system=$1 n answer own led tries
    for tries in $(seq 200); do
        for n in 1 2 3; do
            if [ "$system" = etcd ]; then
                answer=$(curl -sf -m 1 -X POST -d '{}' \
                    "http://127.0.0.1:$(etcd_port "$n")/v3/maintenance/status" || true)
                own=$(sed -n 's/.*"member_id":"\([0-9]*\)".*/\1/p' <<<"$answer")
                led=$(sed -n 's/.*"leader":"\([0-9]*\)".*/\1/p' <<<"$answer")
            else
                own=$n
                led=$(curl -sf -m 1 "http://127.0.0.1:$(storm_port "$n")/v1/status" |
                    sed -n 's/.*"leader": *\([0-9]*\).*/\1/p' || true)
            fi
            if [ -n "$own" ] && [ "$own" = "$led" ]; then echo "$n"; return; fi
        done
        sleep 0.1
    done
    echo "$system has no leader after $tries tries; its logs:" >&2
    tail -n 5 "$scratch/$system"-*.log >&2
    return 1
}

start() { # system
    local n
    rm -rf "$scratch/$1"-[123]
    for n in 1 2 3; do start_node "$1" "$n"; done
    leader "$1" >/dev/null
}

measure() { # system, mix, bytes of a value
    local common=(--mix "$2" --clients "$clients" --seconds "$seconds" --warmup 2
        --value-bytes "$3" --keys 1000 --json)
    if [ "$1" = etcd ]; then
        local port
        port=$(etcd_port "$(leader etcd)")
        "$etcd_bench" run --endpoints "http://127.0.0.1:$port" --conns "$conns" "${common[@]}"
    else
        "$stormkv" bench --endpoints "$storm_urls" "${common[@]}"
    fi
}

failover() { # system; prints milliseconds, one line for each kill
    local system=$1 n kill survivors urls
    for kill in $(seq "$kills"); do
        n=$(leader "$system")
        survivors=$(seq 3 | grep -v "$n")
        urls=$(for s in $survivors; do echo "http://127.0.0.1:$("${system/stormkv/storm}_port" "$s")"; done |
            paste -sd,)
        "$etcd_bench" failover --kill "${pids[$n]}" --endpoints "$urls" \
            $([ "$system" = stormkv ] && echo --stormkv)
        gone "${pids[$n]}"
        start_node "$system" "$n"
        sleep 3 # the next round begins with all three up to date
    done
}

for round in $(seq "$rounds"); do
    for system in $systems; do
        for size in ${sizes//,/ }; do
            start "$system"
            for mix in ${mixes//,/ }; do
                echo "round $round: $system, $mix, $size bytes" >&2
                measure "$system" "$mix" "$size" >>"$scratch/reports.jsonl"
            done
            stop_all
        done
    done
done
"$etcd_bench" summary "$scratch/reports.jsonl"
[ "$kills" -gt 0 ] || exit 0
echo
for system in $systems; do
    start "$system"
    failover "$system" >"$scratch/$system.failover"
    stop_all
    sort -n "$scratch/$system.failover" | awk -v who="$system" \
        '{ ms[NR] = $1 } END { printf "%s: first put accepted %d ms after kill -9 (median of %d, %d to %d)\n",
           who, ms[int((NR + 1) / 2)], NR, ms[1], ms[NR] }'
done
