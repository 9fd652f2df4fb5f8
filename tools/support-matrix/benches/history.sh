#!/usr/bin/env bash
# How long support-matrix takes over a large history, and how much memory: building the index from nothing, adding a run,
# the full matrix, a question, the site for the first time and after one more run; beside jq over the same records, which
# is what there is without an index. Medians of N rounds, the commands taking turns; jq reads a part and is scaled up.
# Ends with 1 if a limit of 50,000 runs of 1,000 tests is missed; for fewer the limits are the same.
# usage: benches/history.sh [RUNS [TESTS [N]]]; BIN is the folder of the program (target/release), WORK where the made
# history is kept and used again (a temporary folder, removed at the end). 50,000 runs of 1,000 tests need 12 GB.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
bin=${BIN:-$here/../../../target/release}
if [ -z "${WORK:-}" ]; then
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
else
    work=$WORK
    mkdir -p "$work"
fi
python3 - "$bin/support-matrix" "$work" "${1:-50000}" "${2:-1000}" "${3:-5}" "$here/../../../ci" <<'PYTHON'
import datetime, hashlib, json, os, random, shutil, statistics, subprocess, sys, time

tool, work, runs, tests, rounds, ci = sys.argv[1:]
runs, tests, rounds = int(runs), int(tests), int(rounds)
history, index, site = (os.path.join(work, name) for name in ("history", "index", "site"))
components = [f"component-{i}" for i in range(10)]
platforms = ["linux/" + arch for arch in ("amd64", "arm64", "s390x", "ppc64le", "arm/v7", "riscv64", "loong64", "386")]
sha = lambda data: "sha256:" + hashlib.sha256(data).hexdigest()
stamp = lambda at: at.strftime("%Y-%m-%dT%H:%M:%SZ")
# Three years that end yesterday, so that the newest evidence is fresh.
end = datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0) - datetime.timedelta(hours=6)
span = datetime.timedelta(days=3 * 365)
names = [f"TestOf{random.Random(i).choice('PipelineTaskRunResolverWebhook')}Thing{i:05}" for i in range(tests)]

def made(number, at, folder):
    """A run directory as the tools leave it: one component, built, installed and tested on one platform."""
    dice = random.Random(number)
    component, platform = components[number % 10], platforms[number // 10 % 8]
    # A release every month, as a project has them.
    version = f"v1.{number * 36 // runs}.0"
    run = f"{at:%Y%m%d-%H%M%S}-{number:06x}"
    release = sha(f"{component} {version}".encode())
    def head(tool, begin, finish, cause=None):
        both = {"schemaVersion": "1.0", "tool": tool, "toolVersion": "0.1.0", "run": run,
                "started": stamp(at + datetime.timedelta(minutes=begin)),
                "finished": stamp(at + datetime.timedelta(minutes=finish)),
                "outcome": "failed" if cause else "passed"}
        return both | ({"cause": cause, "message": "made"} if cause else {})
    row = {"platform": platform, "manifest": release, "config": platform, "size": 1000,
           "program": {"path": "/ko-app/c", "format": "elf", "machine": platform.split("/")[1], "class": 64, "byteOrder": "little"}}
    image = {"name": f"example.com/{component}/cmd/c", "kind": "built", "reference": "r", "digest": release, "base": "b", "platforms": [row]}
    skipped, excluded = tests * 3 // 100, tests // 200
    counts = lambda bad: {"asked": tests, "passed": tests - bad - skipped - excluded, "failed": bad, "flaky": 0,
                          "skipped": skipped, "excluded": excluded, "notRun": 0}
    lost, bad = dice.random() < 0.1, 1 if dice.random() < 0.1 else 0
    nodes = [{"name": "n", "platform": platform, "nature": "native", "kubelet": "v1.37.2", "kernel": "6", "ready": True}]
    cluster = {"uid": "u", "name": "c", "kubernetes": "v1.37.2", "nodes": nodes}
    def test(i, status, seconds, more=""):
        return (f'    {{\n      "name": "{names[i]}",\n      "package": "example.com/{component}/test",\n'
                f'      "status": "{status}",\n      "seconds": {seconds:.2f},\n{more}      "attempts": 1\n    }}')
    left = '      "line": "needs what is not here",\n      "skippedBy": "%s",\n'
    rows = [test(i, "skipped", 0, left % ("test" if i < skipped else "ledger")) for i in range(skipped + excluded)]
    rows += [test(i, "passed", dice.random() * 9) for i in range(skipped + excluded, tests)]
    if bad:
        i = dice.randrange(skipped + excluded, tests)
        rows[i] = test(i, "failed", 1, '      "cause": "product",\n      "line": "x_test.go:1: made",\n      "log": "logs/x.log",\n')
    cell = f"{component}/{platform.replace('/', '-')}/lab"
    files = {
        "run.json": head("nightly", 0, 0) | {"components": [component], "platforms": [platform], "testOn": [platform], "cluster": "lab"},
        "stages.json": head("nightly", 0, 30) | {"stages": [
            {"name": name, "component": component, "platform": platform, "started": stamp(at + datetime.timedelta(minutes=a)),
             "finished": stamp(at + datetime.timedelta(minutes=b)), "outcome": "passed", "exit": 0, "command": name}
            for name, a, b in (("build", 0, 5), ("install", 5, 6), ("test", 6, 30))]},
        f"{component}/images.json": head("image-build", 0, 5) | {
            "component": component, "version": version, "source": {"module": {"path": component, "version": version, "sum": ""}},
            "origin": "built-here", "platforms": [platform], "images": [image], "replacements": [], "release": {"digest": release, "objects": 7}},
        f"{cell}/install.json": head("cluster-install", 5, 6, "cluster-unreachable" if lost else None) | {
            "component": component, "version": version, "release": release, "platform": platform, "nature": "native",
            "cluster": cluster, "objects": 7, "changed": 7, "namespaces": [component], "running": []},
    }
    if not lost:
        results = head("e2e-runner", 6, 30, "product" if bad else None) | {
            "component": component, "version": version, "kind": "e2e", "suite": "full", "platform": platform, "nature": "native",
            "cluster": "u", "release": release, "counts": counts(bad), "allCounts": counts(bad), "tests": [], "shard": [1, 1]}
        # Python takes its time over a thousand rows.
        made_rows = "\"tests\": [\n" + ",\n".join(rows) + "\n  ]"
        files[f"{cell}/results.json"] = json.dumps(results, indent=2).replace('"tests": []', made_rows) + "\n"
    if bad and not lost:
        files[f"{cell}/logs/x.log"] = "=== RUN\n" + "    a line of a log that somebody may want to read\n" * 400 + "x_test.go:1: made\n"
    listed = []
    for path, value in sorted(files.items()):
        data = (value if isinstance(value, str) else json.dumps(value, indent=2) + "\n").encode()
        os.makedirs(os.path.dirname(os.path.join(folder, path)), exist_ok=True)
        with open(os.path.join(folder, path), "wb") as file:
            file.write(data)
        listed.append({"path": path, "size": len(data), "digest": sha(data)})
    return (json.dumps({"schemaVersion": "1.0", "run": run, "files": listed}, indent=2) + "\n").encode()

def at(number):
    return end - span + span * number / runs

done = os.path.join(work, f"made-3-{runs}-{tests}")
if not os.path.exists(done):
    shutil.rmtree(history, ignore_errors=True)
    os.makedirs(history)
    for number in range(runs):
        folder = os.path.join(history, ".new-made")
        listed = made(number, at(number), folder)
        with open(os.path.join(folder, "bundle.json"), "wb") as file:
            file.write(listed)
        os.rename(folder, os.path.join(history, sha(listed).replace(":", "-")))
    open(done, "w").close()

def run(*command, out=None):
    """Seconds and peak memory in MB."""
    began = time.monotonic()
    target = out or os.devnull
    child = os.posix_spawnp(command[0], command, os.environ, file_actions=[
        (os.POSIX_SPAWN_OPEN, 1, target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)])
    _, status, usage = os.wait4(child, 0)
    if status != 0:
        sys.exit(f"{' '.join(command)[:300]} ended with {os.waitstatus_to_exitcode(status)}")
    return time.monotonic() - began, usage.ru_maxrss / 1024

common = ["--history", history, "--index", index]
question = common + ["--ci", ci]
if os.path.exists(index):
    os.remove(index)
found = {}
found["index from nothing"] = [run(tool, "--quiet", "render", *question, "--format", "json")]
found["site, first time"] = []
shutil.rmtree(site, ignore_errors=True)
found["site, first time"].append(run(tool, "--quiet", "site", *question, "--out", site))
extra = []
for number in range(rounds):
    folder = os.path.join(work, f"run-{number}")
    shutil.rmtree(folder, ignore_errors=True)
    made(runs + number * 80 + 7, end + datetime.timedelta(minutes=number), folder)
    extra.append(folder)
turns = {
    "add a run": lambda n: run(tool, "--quiet", "record", extra[n], *common),
    "full matrix (JSON)": lambda n: run(tool, "--quiet", "render", *question, "--format", "json"),
    "can (yes or no)": lambda n: run("sh", "-c", 'out=$1; shift; "$@" >/dev/null || [ $? = 1 ]', "sh", "x", tool, "--quiet", "can", "component-3", "linux/s390x", *question),
    "log of one cell": lambda n: run(tool, "--quiet", "log", "component-3@v1.2.0/linux-s390x", *question),
    "site after one more run": lambda n: run(tool, "--quiet", "site", *question, "--out", site),
}
part = min(runs, 500)
some = subprocess.run(["sh", "-c", f"find '{history}' -name results.json | head -n {part}"], capture_output=True, text=True, check=True).stdout
listing = os.path.join(work, "some")
open(listing, "w").write(some)
if shutil.which("jq"):
    turns[f"jq over all results.json (from {part})"] = lambda n: (lambda t: (t[0] * runs / part, t[1]))(
        run("sh", "-c", f"xargs jq -c '[.component, .version, .platform, .finished, .outcome, .counts]' < '{listing}'"))
for number in range(rounds):
    for name, turn in turns.items():
        found.setdefault(name, []).append(turn(number))
# Seconds that a command may take in the median, and MB that any may have in memory.
limits = {
    "index from nothing": 600,
    "add a run": 0.05,
    "full matrix (JSON)": 1,
    "site after one more run": 5,
}
most_memory, most_index = 200, 2000
missed = []
def held(what, value, limit, unit):
    if limit is None:
        return ""
    if value > limit:
        missed.append(f"{what}: {value:.3f} {unit}, more than {limit}")
    return f"{limit:g}{'' if value <= limit else ' MISSED'}"

one = statistics.median(t for t, _ in found["full matrix (JSON)"])
print(f"{runs} runs of {tests} tests, 10 components on 8 platforms, 36 versions in 3 years")
print(f"{'':42} {'seconds':>9} {'limit':>12} {'MB':>6} {'limit':>12} {'to the matrix':>14}")
for name, values in found.items():
    seconds, memory = statistics.median(t for t, _ in values), max(m for _, m in values)
    ours = not name.startswith("jq")
    time_limit = held(name, seconds, limits.get(name), "s")
    memory_limit = held(f"{name}, memory", memory, most_memory if ours else None, "MB")
    print(f"{name:42} {seconds:9.3f} {time_limit:>12} {memory:6.0f} {memory_limit:>12} {seconds / one:13.1f}x")
size = os.path.getsize(index) / 1e6
print(f"{'the index on disk':42} {'':9} {'':12} {size:6.0f} {held('the index on disk', size, most_index, 'MB'):>12}")
if missed:
    sys.exit("limits missed:\n  " + "\n  ".join(missed))
PYTHON
