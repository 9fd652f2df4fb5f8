#!/usr/bin/env bash
# How much processor time and memory reading `go test -json` takes, with a record and JUnit written: `e2e-runner parse`
# beside gotestsum, on the same stream of SIZE MB in a file; both take turns, medians of N rounds, totals compared.
# Two streams are made here, always the same: one of tests that print much, and one of many small subtests, as those of
# tables are. It fails where ours needs more than 60 MB, or gotestsum less than 5 times our processor time.
# usage: benches/parse.sh [N [SIZE]]; BIN is the folder of the programs (target/release), GOTESTSUM the other program:
#   go install gotest.tools/gotestsum@v1.13.0
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
bin=${BIN:-$here/../../../target/release}
other=${GOTESTSUM:-$(command -v gotestsum || echo "$(go env GOPATH)/bin/gotestsum")}
[ -x "$bin/e2e-runner" ] || { echo "$bin/e2e-runner is missing: cargo build --release -p e2e-runner" >&2; exit 5; }
[ -x "$other" ] || { echo "gotestsum is missing: go install gotest.tools/gotestsum@v1.13.0" >&2; exit 5; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 - "$bin/e2e-runner" "$other" "$work" "${1:-3}" "${2:-1000}" <<'PYTHON'
import json, os, re, statistics, sys, time

tool, other, work, rounds, size = sys.argv[1:]
stream = os.path.join(work, "stream.json")
MEMORY, TIMES = 60, 5

def make(path, limit, small):
    """Sixteen packages run at a time. Of 100 tests each prints 120 lines, every tenth has three subtests, every fiftieth
    fails, every fortieth skips itself; or else each of ten tests has 500 subtests that print nothing, and every tenth
    fails. All that varies follows from counting."""
    clock = 0
    def event(action, package, test=None, output=None, elapsed=None):
        nonlocal clock
        clock += 1
        time = f"2026-01-01T{clock // 3600000 % 24:02d}:{clock // 60000 % 60:02d}:{clock // 1000 % 60:02d}.{clock % 1000:03d}000001Z"
        fields = {"Time": time, "Action": action, "Package": package}
        for name, value in (("Test", test), ("Output", output), ("Elapsed", elapsed)):
            if value is not None:
                fields[name] = value
        return json.dumps(fields, separators=(",", ":")) + "\n"

    def of_small(number):
        package = f"example.com/component/pkg/reconciler/table{number:04d}"
        yield event("start", package)
        for index in range(10):
            name = f"TestTable_{index:03d}"
            word = "fail" if (number, index) == (0, 7) else "pass"
            yield event("run", package, name)
            yield event("output", package, name, f"=== RUN   {name}\n")
            for row in range(500):
                sub = f"{name}/case_{row:03d}:_a_name_as_tables_have_them"
                yield event("run", package, sub)
                yield event("output", package, sub, f"=== RUN   {sub}\n")
                yield event("output", package, sub, f"    --- PASS: {sub} (0.00s)\n")
                yield event("pass", package, sub, elapsed=0)
            if word == "fail":
                yield event("output", package, name, f"    table_test.go:9: wanted 2, got {index}\n")
            yield event("output", package, name, f"--- {word.upper()}: {name} (0.25s)\n")
            yield event(word, package, name, elapsed=0.25)
        end = "pass" if number else "fail"
        yield event("output", package, output=f"{end.upper()}\n")
        yield event(end, package, elapsed=2.5)

    def of_large(number):
        package = f"example.com/component/pkg/reconciler/area{number:04d}"
        yield event("start", package)
        bad = False
        for index in range(100):
            name = f"TestReconcile_{index:03d}"
            yield event("run", package, name)
            yield event("output", package, name, f"=== RUN   {name}\n")
            for line in range(120):
                yield event("output", package, name,
                    f"    reconcile_test.go:{line}: \"msg\"=\"step {line} of {name}\" <waiting> condition=Unknown attempt={line % 7}\n")
            if index % 10 == 3:
                for inner in ("first", "second case", "third/deeper"):
                    sub = f"{name}/{inner}"
                    yield event("run", package, sub)
                    yield event("output", package, sub, f"=== RUN   {sub}\n")
                    yield event("output", package, sub, f"    --- PASS: {sub} (0.01s)\n")
                    yield event("pass", package, sub, elapsed=0.01)
            word = "fail" if index % 50 == 7 else "skip" if index % 40 == 11 else "pass"
            bad |= word == "fail"
            if word != "pass":
                yield event("output", package, name, f"    reconcile_test.go:999: wanted 2, got {index}\n")
            yield event("output", package, name, f"--- {word.upper()}: {name} (0.25s)\n")
            yield event(word, package, name, elapsed=0.25)
        end = "fail" if bad else "pass"
        yield event("output", package, output=f"{end.upper()}\n")
        yield event(end, package, elapsed=25.0)

    written, number, running = 0, 0, []
    with open(path, "w") as out:
        while running or written < limit:
            while len(running) < 16 and written < limit:
                running.append((of_small if small else of_large)(number))
                number += 1
            for package in list(running):
                # As many lines in a row as a pipe's buffer holds.
                lines = [line for _, line in zip(range(24), package)]
                if not lines:
                    running.remove(package)
                text = "".join(lines)
                written += len(text)
                out.write(text)
    return number

def run(name, command):
    out = os.path.join(work, name + ".out")
    actions = [(os.POSIX_SPAWN_OPEN, 0, stream, os.O_RDONLY, 0),
               (os.POSIX_SPAWN_OPEN, 1, out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600),
               (os.POSIX_SPAWN_DUP2, 1, 2)]
    began = time.monotonic()
    child = os.posix_spawn(command[0], command, os.environ, file_actions=actions)
    _, status, usage = os.wait4(child, 0)
    # There are failures in the stream, which are nothing to gotestsum where `cat` ended well.
    if os.waitstatus_to_exitcode(status) != (0 if name == "gotestsum" else 1):
        sys.exit(f"{name} ended with {os.waitstatus_to_exitcode(status)}:\n{open(out).read()[-2000:]}")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, time.monotonic() - began, open(out).read()

def cat():
    """gotestsum reads its stream from a program of its own: what `cat` takes for it is not gotestsum's."""
    read, write = os.pipe()
    child = os.posix_spawn("/bin/cat", ["cat", stream], os.environ, file_actions=[
        (os.POSIX_SPAWN_DUP2, write, 1), (os.POSIX_SPAWN_CLOSE, read)])
    os.close(write)
    while os.read(read, 1 << 16):
        pass
    os.close(read)
    usage = os.wait4(child, 0)[2]
    return usage.ru_utime + usage.ru_stime

junit = os.path.join(work, "gotestsum.xml")
commands = {
    "e2e-runner parse": [tool, "parse", "--out", os.path.join(work, "ours")],
    "gotestsum": [other, "--raw-command", "--format", "none", "--hide-summary", "all", "--junitfile", junit, "--", "/bin/cat", stream],
}

def compare(shape, small):
    packages = make(stream, int(size) * 1_000_000, small)
    found, feeding = {name: [] for name in commands}, []
    for _ in range(int(rounds)):
        for name, command in commands.items():
            found[name].append(run(name.split()[0], command))
        feeding.append(cat())
    theirs = found["gotestsum"][0][3]
    print(f"{shape}: {os.path.getsize(stream) / 1e6:.0f} MB, {packages} packages, medians of {rounds} rounds")
    all_cpu, all_memory = {}, {}
    for name, results in found.items():
        cpu, memory, wall = (statistics.median(values) for values in list(zip(*results))[:3])
        cpu -= statistics.median(feeding) if name == "gotestsum" else 0
        all_cpu[name], all_memory[name] = cpu, memory
        times = cpu / all_cpu["e2e-runner parse"]
        print(f"{name:20} {cpu:7.2f} s of CPU {memory:6.0f} MB {wall:7.2f} s   {times:5.1f} times ours")
    said = re.search(r"DONE (\d+) tests(?:, (\d+) skipped)?(?:, (\d+) failures?)?", theirs)
    # The totals stand before the tests.
    head = open(os.path.join(work, "ours", "results.json")).read(1 << 16)
    record = json.loads(re.search(r'"allCounts": (\{[^}]*\})', head).group(1))
    mine = (record["asked"], record["skipped"], record["failed"] + record["notRun"])
    print("totals (tests, skipped, failed):", mine, "and", tuple(int(part or 0) for part in said.groups()))
    if mine != tuple(int(part or 0) for part in said.groups()):
        sys.exit("the totals differ")
    def cases(path):
        return sum(line.count("<testcase ") for line in open(path))
    print("test cases in JUnit:", cases(os.path.join(work, "ours", "junit.xml")), "and", cases(junit))
    if all_memory["e2e-runner parse"] > MEMORY:
        sys.exit(f"it needs more than {MEMORY} MB")
    if all_cpu["gotestsum"] < TIMES * all_cpu["e2e-runner parse"]:
        sys.exit(f"gotestsum needs less than {TIMES} times our processor time")

compare("tests that print much", False)
compare("many small subtests", True)
PYTHON
