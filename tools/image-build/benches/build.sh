#!/usr/bin/env bash
# How long `image-build build` takes beside `ko resolve` for the same images: from scratch, and with --reuse when nothing
# and when one command's source has changed. All take turns; medians, and the ratio of ko's time to ours. The digests of
# all images have to be the same in every round, or the bench fails; so it does where Tekton Pipelines on four platforms is
# slower than it has to be.
# usage: benches/build.sh REGISTRY [ROUNDS [SCRATCH_ROUNDS]]; BIN is the folder of the program (target/release), COMPONENT
# (pipeline) and PLATFORMS (four of linux) what is built, CHANGE the file that is changed. The registry is one to which
# plain HTTP is spoken, as a lab's. Everyone has a Go cache of their own; bases and modules are there before. A WORK that
# exists is kept, with its go-ours: a Go cache to prepare from.
# ko is measured as it is called, and with KOCACHE, which lets it keep programs.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../../.." && pwd)
work=${WORK:-$(mktemp -d)}
[ -n "${WORK:-}" ] || trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT
export BIN=${BIN:-$root/target/release} COMPONENT=${COMPONENT:-pipeline} ROOT=$root WORK=$work
export PLATFORMS=${PLATFORMS:-linux/amd64,linux/arm64,linux/s390x,linux/ppc64le}
export CHANGE=${CHANGE:-cmd/events/main.go}
python3 - "$1" "${2:-5}" "${3:-1}" <<'PYTHON'
import glob, json, os, re, shutil, statistics, subprocess, sys, time

registry, rounds, scratch = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
work, root, component = os.environ["WORK"], os.environ["ROOT"], os.environ["COMPONENT"]
platforms, change = os.environ["PLATFORMS"], os.environ["CHANGE"]
tool = os.environ["BIN"] + "/image-build"
cache, stamp = work + "/cache", str(int(time.time()))
logs = open(work + "/log", "a")

def measure(command, env, cwd=None, out=None):
    # Nobody waits for what the one before left to be written.
    os.sync()
    began = time.monotonic()
    with open(out or os.devnull, "w") as output:
        child = subprocess.Popen(command, env=env, cwd=cwd, stdout=output, stderr=logs)
        _, status, usage = os.wait4(child.pid, 0)
    if status != 0:
        logs.flush()
        sys.exit(f"{' '.join(command)} ended with {os.waitstatus_to_exitcode(status)}:\n" + open(work + "/log").read()[-3000:])
    return time.monotonic() - began, usage.ru_utime + usage.ru_stime

def ours(repo, gocache, name, reuse=True):
    env = dict(os.environ, OTHER_ARCH_CACHE=cache, GOCACHE=gocache)
    run = f"{work}/run-{name}"
    shutil.rmtree(run, ignore_errors=True)
    command = [tool, "build", "--component", component, "--ci", work + "/ci", "--repo", f"{registry}/{repo}",
               "--platform", platforms, "--run-dir", run, "--tag", "bench"] + bases + ["--reuse"] * reuse
    took = measure(command, env)
    return took, digests(f"{run}/{component}/release.yaml", repo)

def ko(repo, gocache, kocache):
    env = {name: value for name, value in os.environ.items() if not name.startswith("KO_")}
    env |= dict(GOFLAGS="-buildvcs=false", GOTOOLCHAIN="local", GOCACHE=gocache, KO_DOCKER_REPO=f"{registry}/{repo}",
                KO_CONFIG_PATH=work + "/ko.yaml")
    if kocache:
        env["KOCACHE"] = kocache
    files = [word for path in config for word in ("-f", path)]
    command = [program, "resolve", "-P", "-R", "--tags=bench", "--platform=" + platforms] + files
    took = measure(command, env, work + "/src", work + "/ko.out")
    return took, digests(work + "/ko.out", repo)

def digests(path, repo):
    text = open(path).read()
    found = set(re.findall(re.escape(f"{registry}/{repo}/") + r"([^\s:@\"']+):bench@(sha256:[0-9a-f]+)", text))
    assert found, f"{path} names no image in {repo}"
    return dict(found)

# The component from a folder, so that its sources can be changed: taken from where a first build puts a module's.
bases, config = [], None
shutil.copytree(root + "/ci", work + "/ci", dirs_exist_ok=True)
real = os.environ | {"OTHER_ARCH_CACHE": cache}
text = open(work + "/ci/components.toml").read()
head = re.search(rf"(?ms)^\[{component}\]$.*?(?=^\[)", text).group(0)
config = json.loads(re.search(r"(?m)^config = (\[.*\])$", head).group(1))
module, version = (re.search(rf'(?m)^{key} = "(.*)"$', head) for key in ("module", "version"))
if module:
    said = subprocess.run(["go", "mod", "download", "-json", f"{module.group(1)}@{version.group(1)}"], cwd=work,
                          stdout=subprocess.PIPE, check=True).stdout
    source = json.loads(said)["Dir"]
else:
    source = root + "/" + re.search(r'(?m)^path = "(.*)"$', head).group(1)
shutil.rmtree(work + "/src", ignore_errors=True)
shutil.copytree(source, work + "/src")
subprocess.run(["chmod", "-R", "u+w", work + "/src"], check=True)
folder = re.sub(r"(?m)^(module|version|path) = .*\n", "", head).replace(f"[{component}]", f'[{component}]\npath = "{work}/src"', 1)
open(work + "/ci/components.toml", "w").write(text.replace(head, folder))

# Bases, stand-ins, modules and ko itself are there before anything is measured.
print("preparing", file=sys.stderr)
_, expected = ours(f"bench-{stamp}/first", work + "/go-ours", "first")
shutil.copy(f"{work}/run-first/{component}/ko.yaml", work + "/ko.yaml")
# Their names stand in the images: everyone builds on the same.
for line in open(work + "/ko.yaml"):
    path, _, reference = line.strip().partition(": ")
    if reference and "@sha256:" in reference:
        bases += ["--base", f"{'default' if path == 'defaultBaseImage' else path}={reference}"]
# What is compiled is the same for everyone, and linked to, since it is large; what is linked and kept is not.
for name in "ko", "kept":
    shutil.rmtree(f"{work}/go-{name}", ignore_errors=True)
    shutil.copytree(work + "/go-ours", f"{work}/go-{name}", dirs_exist_ok=True, copy_function=os.link)
program = os.environ.get("OTHER_ARCH_KO") or (glob.glob(cache + "/bin/ko/*/ko") or [shutil.which("ko")])[0]
_, found = ko(f"bench-{stamp}/ko", work + "/go-ko", None)
assert found == expected, "the digests differ from the beginning"
_, found = ko(f"bench-{stamp}/kept", work + "/go-kept", work + "/kocache")

# From scratch there is nothing to reuse, and a release never does.
table, ours_is = {}, {"from scratch": "image-build", "nothing changed": "image-build --reuse"}
ours_is["one command changed"] = ours_is["nothing changed"]
def note(case, who, took):
    table.setdefault(case, {}).setdefault(who, []).append(took)

def same(case, results):
    for who, (took, found) in results.items():
        note(case, who, took)
        assert found == results["ko resolve"][1], f"{case}: {who} made other digests"

for number in range(scratch):
    print(f"from scratch, round {number + 1}", file=sys.stderr)
    results = {}
    everyone = ["ko resolve", "image-build"]
    for who in everyone if number % 2 == 0 else reversed(everyone):
        gocache, repo = work + "/go-scratch", f"bench-{stamp}/scratch-{number}-{everyone.index(who)}"
        shutil.rmtree(gocache, ignore_errors=True)
        results[who] = ko(repo, gocache, None) if who == "ko resolve" else ours(repo, gocache, "scratch", False)
    same("from scratch", results)
shutil.rmtree(work + "/go-scratch", ignore_errors=True)

for number in range(rounds):
    for case in ["nothing changed", "one command changed"]:
        print(f"{case}, round {number + 1}", file=sys.stderr)
        if case != "nothing changed":
            with open(f"{work}/src/{change}", "a") as file:
                file.write(f"\nvar benchmark{stamp}{number} = {number}\n")
        results = {
            "image-build --reuse": ours(f"bench-{stamp}/first", work + "/go-ours", "ours"),
            "ko resolve": ko(f"bench-{stamp}/ko", work + "/go-ko", None),
            "ko resolve, KOCACHE": ko(f"bench-{stamp}/kept", work + "/go-kept", work + "/kocache"),
        }
        same(case, results)

print(f"{component}: {len(expected)} images for {platforms}; medians of {rounds} rounds ({scratch} from scratch)")
print(f"{'':24}{'':24}{'time':>10}{'processor':>12}{'ko/ours':>10}")
for case, who in table.items():
    mine = statistics.median(seconds for seconds, _ in who[ours_is[case]])
    for name, times in who.items():
        seconds, processor = (statistics.median(values) for values in zip(*times))
        print(f"{case:24}{name:24}{seconds:8.1f} s{processor:10.1f} s{seconds / mine:10.2f}")
# What has to hold for Tekton Pipelines on four platforms: so many times ko's speed at least.
least = {"from scratch": 1 / 1.03, "nothing changed": 20, "one command changed": 4}
if component == "pipeline" and len(platforms.split(",")) == 4:
    median = lambda case, who: statistics.median(seconds for seconds, _ in table[case][who])
    missed = [case for case in table if median(case, "ko resolve") / median(case, ours_is[case]) < least[case]]
    if missed:
        sys.exit("slower than it has to be: " + ", ".join(f"{case} (at least {least[case]:.2f})" for case in missed))
PYTHON
