#!/usr/bin/env bash
# How long a warm `lab up` takes until the node is ready: the median of N runs, in seconds.
# usage: benches/up.sh [N]; LAB names the program to measure.
set -euo pipefail
lab=${LAB:-$(dirname "$0")/../../../target/release/lab}
runs=${1:-5}
name=bench$$
trap '"$lab" --quiet --name "$name" down --purge' EXIT

# The programs must be built, and read once.
"$lab" --quiet --name "$name" up >/dev/null
for _ in $(seq "$runs"); do
    "$lab" --quiet --name "$name" down
    began=$(date +%s.%N)
    "$lab" --quiet --name "$name" up >/dev/null
    echo "$(date +%s.%N) $began" | awk '{ printf "%.2f\n", $1 - $2 }'
done | sort -n | awk '{ all[NR] = $1 } END { printf "median %.2f s of %d (%.2f to %.2f)\n", all[int((NR + 1) / 2)], NR, all[1], all[NR] }'
