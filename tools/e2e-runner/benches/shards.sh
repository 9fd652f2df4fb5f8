#!/usr/bin/env bash
# How much sooner a suite of tests that wait has ended when two clusters run a part of it each, and whether the parts
# are the whole: one run on one lab beside two runs on two labs, N rounds in turn, medians and the ratio.
# usage: benches/shards.sh [N]; BIN is the folder of the programs (target/debug, with `lab` and `e2e-runner`). LABS names
# two labs that are up; without it shards-1 and shards-2 are brought up and taken down again.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
bin=$(cd "${BIN:-$here/../../../target/debug}" && pwd)
work=$(mktemp -d)
ours=()
end() {
    for name in "${ours[@]}"; do "$bin/lab" --name "$name" down --purge >"$work/down" 2>&1 || cat "$work/down" >&2; done
    rm -rf "$work"
}
trap end EXIT
if [ -z "${LABS:-}" ]; then
    LABS="shards-1 shards-2"
    for name in $LABS; do
        ours+=("$name")
        "$bin/lab" --name "$name" up >"$work/up" 2>&1 || { cat "$work/up" >&2; exit 3; }
    done
fi

# Twelve tests, one after the other, that wait for 1, 2 … 6 seconds, each length twice.
mkdir -p "$work/ci" "$work/src/test"
printf 'module waits\n\ngo 1.24\n' >"$work/src/go.mod"
{
    printf 'package test\n\nimport (\n\t"flag"\n\t"testing"\n\t"time"\n)\n\nvar _ = flag.String("kubeconfig", "", "")\n'
    for n in 1 2 3 4 5 6; do
        for twin in A B; do
            printf '\nfunc TestWaits%s%s(t *testing.T) { time.Sleep(%s * time.Second) }\n' "$n" "$twin" "$n"
        done
    done
} >"$work/src/test/waits_test.go"
cat >"$work/ci/components.toml" <<TOML
[waits]
path = '$work/src'
config = []
[waits.tests]
package = './test'
args = ['-kubeconfig={kubeconfig}']
[waits.suites.all]
default = true
all = true
TOML
: >"$work/ci/skips.toml"
BIN=$bin LABS=$LABS WORK=$work python3 - "${1:-3}" <<'PYTHON'
import json, os, statistics, subprocess, sys, time

bin, labs, work = (os.environ[name] for name in ("BIN", "LABS", "WORK"))
labs = labs.split()
tool = os.path.join(bin, "e2e-runner")

def start(run, number, more=()):
    command = [tool, "--quiet", "run", "--component", "waits", "--ci", f"{work}/ci", "--lab", labs[number - 1],
               "--run-dir", f"{work}/{run}", *more]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL)

def end(children):
    for child in children:
        if child.wait() != 0:
            sys.exit(f"{child.args} ended with {child.returncode}")

def timed(begin):
    began = time.monotonic()
    end(begin())
    return time.monotonic() - began

end([start("first", 1)])  # compiles the tests, and knows how long they take
whole, parts = [], []
for n in range(int(sys.argv[1])):
    whole.append(timed(lambda: [start(f"whole-{n}", 1)]))
    part = lambda i: start(f"part-{n}-{i}", i, ["--shard", f"{i}/2", "--durations", f"{work}/first"])
    parts.append(timed(lambda: [part(1), part(2)]))
    merged = subprocess.run([tool, "--output", "json", "merge", f"{work}/part-{n}-1", f"{work}/part-{n}-2", "--out",
                             f"{work}/merged-{n}"], capture_output=True, text=True)
    counts = json.loads(merged.stdout)["counts"]
    if merged.returncode != 0 or counts["passed"] != 12:
        sys.exit(f"the parts are not the whole: {merged.stderr} {counts}")
one, two = statistics.median(whole), statistics.median(parts)
print(f"12 tests that wait, medians of {sys.argv[1]} rounds; the merged parts are the whole")
print(f"one lab   {one:6.1f} s")
print(f"two labs  {two:6.1f} s   {one / two:5.2f} times sooner")
PYTHON
