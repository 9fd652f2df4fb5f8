#!/usr/bin/env bash
# How long it takes to get a cluster back to where it was, each way from the same state: a release that is installed
# and ready, and leftovers of tests.
#   floor    everything is asked for at once, straight at the API: what the namespace controller and the pods' own
#            shutdown take
#   ours     cleanup run
#   kubectl  kubectl delete -f release.yaml (it leaves the tests' namespaces)
#   script   what people use: namespaces by label, all objects of the release's own kinds, the release, wait
# usage: benches/speed.sh RELEASE.yaml [ROUNDS]
#   LAB names a lab that is up and empty, BIN the folder of the programs (target/release if they are there, otherwise
#   target/debug), WAYS which of the ways;
#   LATENCY=100 puts a proxy that adds so many ms a round trip in between;
#   NAMESPACES and EACH say how many namespaces with how many runs (20 and 5; one of each namespace has a pod);
#   RUNS=none makes ConfigMaps of them, for a load without pods.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
target=$here/../../../target
built=$target/debug
if [ -x "$target/release/cleanup" ] && [ -x "$target/release/lab" ]; then built=$target/release; fi
bin=$(cd "${BIN:-$built}" && pwd)
echo "programs: $bin" >&2
lab=${LAB:-default}
release=$1
rounds=${2:-1}
ways=${WAYS:-floor ours kubectl script}
namespaces=${NAMESPACES:-20} each=${EACH:-5} runs=${RUNS:-pipelineruns}
work=$(mktemp -d)
proxy=
trap '[ -z "$proxy" ] || kill "$proxy"; rm -rf "$work"' EXIT

# The lab's own kubectl, also for the helper.
mkdir "$work/bin"
printf '#!/bin/sh\nexec "%s/lab" --quiet --name "%s" kubectl -- "$@"\n' "$bin" "$lab" >"$work/bin/kubectl"
chmod +x "$work/bin/kubectl"
PATH=$work/bin:$PATH
direct=$("$bin/lab" --quiet --name "$lab" kubeconfig)
config=$direct
# What is measured goes through the proxy, if there is one.
measured() { kubectl --kubeconfig "$config" "$@"; }
if [ -n "${LATENCY:-}" ]; then
    config=$work/kubeconfig
    python3 "$here/world.py" proxy "$direct" "$config" "$LATENCY" &
    proxy=$!
    until [ -s "$config" ]; do sleep 0.1; done
fi

run=$work/run
cleanup() { "$bin/cleanup" --quiet "$@" --run-dir "$run" --component bench --kubeconfig "$direct"; }
uid=$(kubectl get namespace kube-system -o 'jsonpath={.metadata.uid}')
python3 "$here/world.py" leftovers "$namespaces" "$each" "$runs" >"$work/leftovers.json"

restore() {
    rm -rf "$run"
    cleanup snapshot >/dev/null
    kubectl apply --server-side -f "$release" >/dev/null
    kubectl wait --for=condition=Available --timeout=300s deployments --all -A >/dev/null
    # The webhook of a release may answer some moments after its pod is ready.
    for _ in $(seq 60); do
        if kubectl apply --server-side -f "$work/leftovers.json" >/dev/null 2>"$work/refused"; then break; fi
        sleep 1
    done
    if [ "$runs" = pipelineruns ]; then
        for _ in $(seq 180); do
            [ "$(kubectl get pods -A -l tekton.dev/pipelineRun --field-selector=status.phase=Running -o name | wc -l)" -lt "$namespaces" ] || break
            sleep 1
        done
    fi
}

way() {
    case $1 in
        # It measures itself: what it has to find out before is not part of it.
        floor) python3 "$here/world.py" floor "$config" "$release" >"$work/itself" ;;
        ours) "$bin/cleanup" --quiet run --run-dir "$run" --component bench --kubeconfig "$config" --cluster-uid "$uid" >/dev/null ;;
        kubectl) measured delete --ignore-not-found -f "$release" >/dev/null 2>&1 ;;
        script)
            measured delete namespace -l tekton.dev/test-e2e=true --wait=false >/dev/null
            for kind in $(measured api-resources --api-group=tekton.dev --verbs=delete -o name); do
                measured delete "$kind" --all -A --ignore-not-found >/dev/null 2>&1
            done
            measured delete --ignore-not-found -f "$release" >/dev/null 2>&1
            measured wait --for=delete namespace -l tekton.dev/test-e2e=true --timeout=600s >/dev/null 2>&1
            ;;
    esac
}

for round in $(seq "$rounds"); do
    for way in $ways; do
        restore
        rm -f "$work/itself"
        began=$(date +%s.%N)
        way "$way"
        took=$(echo "$(date +%s.%N) $began" | awk '{ printf "%.1f", $1 - $2 }')
        [ ! -s "$work/itself" ] || took=$(cat "$work/itself")
        left=$(cleanup diff 2>/dev/null | tail -n 1) || true
        echo "$way $took" >>"$work/times"
        echo "round $round: $way $took s; afterwards: $left" >&2
        # A way that is quick because it leaves something is none.
        case $way:$left in
            ours:"at the baseline"*) ;;
            ours:*) cleanup diff >&2 || true; echo "ours did not get back to the baseline" >&2; exit 1 ;;
        esac
        # Back to the same beginning, untimed.
        cleanup run --force-finalizers --cluster-uid "$uid" >/dev/null
        kubectl wait --for=delete namespace/other-arch --timeout=60s >/dev/null 2>&1 || true
    done
done
python3 - "$work/times" <<'PY'
import statistics, sys
times = {}
for line in open(sys.argv[1]):
    way, took = line.split()
    times.setdefault(way, []).append(float(took))
ours = statistics.median(times.get("ours", [0])) or None
for way, all in times.items():
    median = statistics.median(all)
    ratio = f"{median / ours:6.2f} of ours" if ours else ""
    print(f"{way:8} {median:7.1f} s  {ratio}  ({min(all):.1f} to {max(all):.1f}, of {len(all)})")
PY
