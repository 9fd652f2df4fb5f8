#!/usr/bin/env bash
# How long `image-build verify` takes for a release of 8 images on 4 platforms, and how much memory, beside what else
# looks at images: the medians of N rounds in which all take turns, and the ratio to ours.
# usage: benches/verify.sh [N]; BIN is the folder of the programs (target/release), RELEASE a release.yaml whose images
# a registry has. Without it a registry of our own serves 32 made images, each with a program of 60 MB in a gzip layer.
# crane and skopeo are measured where they are on the PATH; what they do is less, or the whole. To a registry that
# speaks plain HTTP crane loses half a second a call, for it tries HTTPS first.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
bin=${BIN:-$here/../../../target/release}
release=${RELEASE:-}
work=$(mktemp -d)
trap 'rm -rf "$work"; [ -z "${server:-}" ] || kill "$server"' EXIT

if [ -z "$release" ]; then
    release=$work/release.yaml
    "$bin/examples/registry" "$release" >"$work/host" &
    server=$!
    timeout 120 sh -c "until [ -s '$work/host' ]; do sleep 0.1; done"
fi
OTHER_ARCH_CACHE=$work/cache python3 - "$bin/image-build" "$release" "${1:-5}" <<'PYTHON'
import os, re, shlex, shutil, statistics, sys, time

tool, release, rounds = sys.argv[1:]
platforms = ["linux/amd64", "linux/arm64", "linux/s390x", "linux/ppc64le"]
images = sorted(set(re.findall(r"image: (\S+)", open(release).read())))

def each(command):
    lines = [command.format(image=shlex.quote(image), platform=platform, arch=platform.split("/")[1])
             for image in images for platform in platforms]
    return ["bash", "-c", "set -e\n" + "\n".join(line + " >/dev/null" for line in lines)]

verify = [tool, "--quiet", "verify", release, "--platform", ",".join(platforms)]
commands = {
    "image-build verify": verify,
    "image-build verify --deep, layers known": verify + ["--deep"],
}
if shutil.which("crane"):
    commands["crane config (what each says)"] = each("crane config --platform {platform} {image}")
    commands["crane export | head (what the program is)"] = each(
        "crane export --platform {platform} {image} - 2>{devnull} | tar -xO --wildcards 'ko-app/*' 2>{devnull} | head -c 64 || true"
        .replace("{devnull}", "/dev/null"))
    commands["crane validate (every layer's digest)"] = ["bash", "-c", "\n".join(
        f"crane validate --remote {shlex.quote(image)} >/dev/null 2>&1 || true" for image in images)]
if shutil.which("skopeo"):
    commands["skopeo inspect --config (what each says)"] = each(
        "skopeo inspect --tls-verify=false --config --override-arch {arch} docker://{image}")

def run(command):
    began = time.monotonic()
    child = os.posix_spawnp(command[0], command, os.environ, file_actions=[
        (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)])
    _, status, usage = os.wait4(child, 0)
    if status != 0:
        sys.exit(f"{' '.join(command)[:200]} ended with {os.waitstatus_to_exitcode(status)}")
    return time.monotonic() - began, usage.ru_maxrss / 1024

# The cache of layers is filled once, and everything is read once.
run(verify + ["--deep"])
found = {name: [] for name in commands}
for _ in range(int(rounds)):
    for name, command in commands.items():
        found[name].append(run(command))
print(f"{len(images)} images on {len(platforms)} platforms, medians of {rounds} rounds")
ours = None
for name, results in found.items():
    seconds, memory = (statistics.median(values) for values in zip(*results))
    ours = ours or seconds
    print(f"{name:45} {seconds:7.2f} s {memory:6.0f} MB   {seconds / ours:6.1f} times ours")
# What has to hold for 32 images: of 8 names on 4 platforms.
seconds, memory = (statistics.median(values) for values in zip(*found["image-build verify"]))
if len(images) <= 8 and (seconds > 2 or memory > 100):
    sys.exit(f"image-build verify may take 2 s and 100 MB, and took {seconds:.2f} s and {memory:.0f} MB")
PYTHON
