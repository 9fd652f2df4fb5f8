#!/usr/bin/env bash
# How much slower nodes are than this machine, for a small fixed piece of work: the ratio of the medians
# of all rounds of N probes, for each node. The lab must be up, for instance: lab up --node linux/s390x
# usage: benches/slowdown.sh [N]; LAB names the lab, BIN the folder of the programs.
set -euo pipefail
bin=${BIN:-$(dirname "$0")/../../../target/debug}
lab=${LAB:-default}
runs=${1:-3}

ask() { "$bin/lab" --quiet --name "$lab" status --output json | python3 -c "import json, sys; lab = json.load(sys.stdin); print($1)"; }
platforms=$(ask '",".join(node["platform"] for node in lab["nodes"])')
registry=$(ask 'lab["registry"]')
# The program for this machine is in the same image.
image=$("$bin/image-build" --quiet probe --repo "$registry" --platform "linux/$(go env GOHOSTARCH),$platforms")

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
