#!/usr/bin/env python3
"""How long it takes to apply a release: cluster-install beside kubectl, on one lab, alternating.

usage: benches/apply.py [--release FILE | --tekton FOLDER | --objects N] [--rounds N] [--latency MS] [--lab NAME]
                        [--require N]

  --release   a file of objects
  --tekton    the folder `config` of Tekton Pipelines' sources; what ko would build is named by an image that
              nobody has, for applying is measured and not starting
  --objects   so many ConfigMaps
  --latency   milliseconds that a proxy before the API server adds to each round trip, connecting included
  --require   exit code 1 unless each of the others takes at least so many times as long as ours, new and same,
              and ours stays below 100 MB

Each round applies to an empty cluster (new) and then again (same), with each tool; medians are printed, and how
many times as long the others take as `cluster-install apply`. BIN names the folder of the programs [default:
target/release if they are there, otherwise target/debug], and KUBECTL another kubectl. The lab must be up, and nobody
else may use it.
"""

import argparse, json, os, re, socket, statistics, subprocess, sys, tempfile, threading, time
from pathlib import Path

TARGET = Path(__file__).resolve().parent / "../../../target"
BUILT = [TARGET / kind for kind in ("release", "debug") if all((TARGET / kind / name).exists() for name in ("lab", "cluster-install"))]
BIN = Path(os.environ.get("BIN") or (BUILT or [TARGET / "debug"])[0])
MEMORY = 100


def delay(target, milliseconds):
    """A proxy that holds back every byte for half of the time, in each direction; returns its port."""
    server = socket.create_server(("127.0.0.1", 0))
    half = milliseconds / 2000

    def pump(source, sink):
        queue, changed, ended = [], threading.Condition(), []

        def write():
            while True:
                with changed:
                    while not queue:
                        changed.wait()
                    due, data = queue.pop(0)
                time.sleep(max(0, due - time.monotonic()))
                try:
                    if not data:
                        return sink.shutdown(socket.SHUT_WR)
                    sink.sendall(data)
                except OSError:
                    return

        threading.Thread(target=write, daemon=True).start()
        while not ended:
            try:
                data = source.recv(1 << 16)
            except OSError:
                data = b""
            with changed:
                queue.append((time.monotonic() + half, data))
                changed.notify()
            if not data:
                ended.append(True)

    def serve():
        while True:
            client, _ = server.accept()

            def connect(client=client):
                # The handshake of a connection is a round trip too.
                time.sleep(2 * half)
                upstream = socket.create_connection(target)
                for one in (client, upstream):
                    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threading.Thread(target=pump, args=(upstream, client), daemon=True).start()
                pump(client, upstream)

            threading.Thread(target=connect, daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    return server.getsockname()[1]


def run(command, **options):
    return subprocess.run([str(word) for word in command], check=True, capture_output=True, text=True, **options).stdout


def timed(command):
    """Seconds that a command takes, and its peak memory in megabytes."""
    began = time.monotonic()
    child = subprocess.Popen([str(word) for word in command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    said = child.stderr.read()
    _, status, usage = os.wait4(child.pid, 0)
    if status:
        sys.exit(f"{' '.join(map(str, command))}: {said}")
    return time.monotonic() - began, usage.ru_maxrss / 1024


def tekton(folder):
    """Its objects, with an image that nobody has in the place of each that ko would build."""
    files = sorted(path for path in Path(folder).rglob("*.yaml"))
    text = "\n---\n".join(path.read_text() for path in files)
    return re.sub(r"ko://[^\s\"',]+", "registry.invalid/none@sha256:" + "0" * 64, text)


def maps(count):
    head = "{apiVersion: v1, kind: Namespace, metadata: {name: bench, labels: {bench: apply}}}\n"
    row = "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: m{0}, namespace: bench}}\ndata: {{value: '{0}', text: '{1}'}}\n"
    return head + "".join(row.format(number, "x" * 500) for number in range(count))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--release")
    what.add_argument("--tekton")
    what.add_argument("--objects", type=int)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--latency", type=float, default=0)
    parser.add_argument("--lab", default="default")
    parser.add_argument("--require", type=float)
    parser.add_argument("--only", help="tools by their first words, as in: cluster-install,kubectl")
    args = parser.parse_args()

    folder = Path(tempfile.mkdtemp())
    kubectl = [BIN / "lab", "--quiet", "--name", args.lab, "kubectl", "--"]
    config = json.loads(run(kubectl + ["config", "view", "--raw", "-o", "json"]))
    direct = folder / "direct.json"
    direct.write_text(json.dumps(config))
    through = direct
    if args.latency:
        host, port = re.match(r"https://([^:/]+):(\d+)", config["clusters"][0]["cluster"]["server"]).groups()
        cluster = config["clusters"][0]["cluster"]
        cluster["server"] = f"https://127.0.0.1:{delay((host, int(port)), args.latency)}"
        cluster["tls-server-name"] = host
        through = folder / "through.json"
        through.write_text(json.dumps(config))
    os.chmod(direct, 0o600)
    text = Path(args.release).read_text() if args.release else tekton(args.tekton) if args.tekton else maps(args.objects)
    release = folder / "release.yaml"
    release.write_text(text)
    # The lab's own program, without the lab's tool before it.
    cache = Path(os.environ.get("OTHER_ARCH_CACHE", Path.home() / ".cache/other-arch"))
    program = os.environ.get("KUBECTL") or max(cache.glob("bin/kubernetes/*/kubectl"), key=lambda path: path.stat().st_mtime)
    kube = [program, "--cache-dir", folder / "cache", "--kubeconfig", through]
    ours = [BIN / "cluster-install", "--quiet", "apply", "--component", "bench", "--kubeconfig", through,
            "--release", release, "--no-image-check", "--run-dir", folder / "run"]
    tools = {
        "cluster-install apply": ours,
        "kubectl apply": kube + ["apply", "-f", release],
        "kubectl apply --server-side": kube + ["apply", "--server-side", "-f", release],
    }
    if args.only:
        tools = {name: tool for name, tool in tools.items() if name in args.only.split(",")}

    clean = kubectl + ["--kubeconfig", direct]

    def empty():
        subprocess.run([str(word) for word in clean + ["delete", "--ignore-not-found", "--now", "--wait=false", "-f", release]], capture_output=True)
        subprocess.run([str(word) for word in clean + ["wait", "--for=delete", "--timeout=180s", "-f", release]], capture_output=True)
        subprocess.run([str(word) for word in clean + ["delete", "namespace", "other-arch", "--ignore-not-found"]], capture_output=True)

    times = {name: {"new": [], "same": []} for name in tools}
    memory = {name: 0 for name in tools}
    for number in range(args.rounds):
        # Not always in the same order: each may find the API server warm from the one before.
        names = list(tools)
        for name in names[number % len(names):] + names[:number % len(names)]:
            empty()
            for state in ("new", "same"):
                took, peak = timed(tools[name])
                times[name][state].append(took)
                memory[name] = max(memory[name], peak)
                print(f"{name}, {state}: {took:.2f} s, {peak:.0f} MB", file=sys.stderr)
    empty()
    base = {state: statistics.median(times["cluster-install apply"][state]) for state in ("new", "same")} if "cluster-install apply" in times else None
    print(f"{args.rounds} rounds, {args.latency:.0f} ms added to a round trip, medians; programs of {BIN.resolve()}")
    print(f"{'':28} {'new':>9} {'ratio':>6} {'same':>9} {'ratio':>6} {'memory':>8}")
    short = []
    for name, of in times.items():
        cells = ""
        for state in ("new", "same"):
            median = statistics.median(of[state])
            cells += f" {median:7.2f} s {median / base[state]:6.1f}" if base else f" {median:7.2f} s       "
            if args.require and base and name != "cluster-install apply" and median < args.require * base[state]:
                short.append(f"{name}, {state}: {median / base[state]:.1f} times as long, and {args.require:g} are required")
        print(f"{name:28}{cells} {memory[name]:5.0f} MB")
    if args.require and memory.get("cluster-install apply", 0) >= MEMORY:
        short.append(f"{memory['cluster-install apply']:.0f} MB, and less than {MEMORY} are required")
    if short:
        sys.exit("\n".join(short))


main()
