#!/usr/bin/env bash
# How much slower nodes are than this machine, for a small fixed piece of work: the ratio of the medians
# of all rounds of N probes, for each node. The lab must be up, for instance: lab up --node linux/s390x
# usage: benches/slowdown.sh [N]; LAB names the lab, BIN the folder of the programs.
set -euo pipefail
bin=${BIN:-$(dirname "$0")/../../../target/debug}
lab=${LAB:-default}
runs=${1:-3}

platforms=$("$bin/lab" --quiet --name "$lab" status --output json | grep -o '"platform": *"[^"]*"' | cut -d'"' -f4 | sort -u)
registry=$("$bin/lab" --quiet --name "$lab" status --output json | grep -o '"registry": *"[^"]*"' | cut -d'"' -f4)
# The program for this machine is in the same image.
here="linux/$(go env GOHOSTARCH)"
image=$("$bin/image-build" --quiet probe --repo "$registry" --platform "$(echo $here $platforms | tr ' ' ',')")

for _ in $(seq "$runs"); do
    "$bin/cluster-install" --quiet probe --lab "$lab" --image "$image" --output json
done | python3 -c '
import json, statistics, sys
rounds, text, decoder = {}, sys.stdin.read(), json.JSONDecoder()
while text.strip():
    probe, end = decoder.raw_decode(text.lstrip())
    text = text.lstrip()[end:]
    rounds.setdefault("", []).extend(probe["hereNanoseconds"])
    for node in probe["nodes"]:
        name = "{name} ({platform}, {nature})".format(**node)
        rounds.setdefault(name, []).extend(node["workNanoseconds"])
here = statistics.median(rounds.pop(""))
print(f"here: {here / 1e6:.1f} ms")
for name, times in sorted(rounds.items()):
    median = statistics.median(times)
    print(f"{name}: {median / 1e6:.1f} ms, {median / here:.1f} times as slow, of {len(times)} rounds")
'
