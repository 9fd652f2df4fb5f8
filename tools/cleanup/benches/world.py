"""What the benchmarks need beside kubectl: leftovers, a floor, and a proxy that adds latency."""

import asyncio, base64, json, os, ssl, subprocess, sys, tempfile, threading, time
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPSConnection
from urllib.parse import urlsplit


def load(path):
    text = subprocess.run(["kubectl", "config", "view", "--raw", "-o", "json", "--kubeconfig", path],
                          check=True, capture_output=True).stdout
    return json.loads(text)


def leftovers(namespaces, each, runs):
    """Namespaces of tests; in each one run with a pod, and others that have ended without one."""
    items = []
    for n in range(namespaces):
        name = f"bench-{n}"
        items.append({"apiVersion": "v1", "kind": "Namespace",
                      "metadata": {"name": name, "labels": {"tekton.dev/test-e2e": "true"}}})
        for r in range(each):
            metadata = {"name": f"run-{r}", "namespace": name}
            if runs == "none":
                items.append({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"a": "x" * 200}})
                continue
            # The image that every node of a lab has; it runs until it is stopped.
            steps = [{"name": "s", "image": "other-arch.lab/pause:1", "command": ["/pause"]}]
            task = {"taskSpec": {"steps": steps}} if r == 0 else {"taskRef": {"name": "nowhere"}}
            items.append({"apiVersion": "tekton.dev/v1", "kind": "PipelineRun", "metadata": metadata,
                          "spec": {"pipelineSpec": {"tasks": [{"name": "t", **task}]}}})
    print(json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))


class Api:
    def __init__(self, path):
        config = load(path)
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        self.url = urlsplit(cluster["server"])
        self.local = threading.local()
        self.context = ssl.create_default_context()
        self.context.check_hostname = False

        def file(of, name):
            if of.get(name):
                return of[name]
            out = tempfile.NamedTemporaryFile(delete=False)
            out.write(base64.b64decode(of[name + "-data"]))
            out.close()
            return out.name
        self.context.load_verify_locations(file(cluster, "certificate-authority"))
        self.context.load_cert_chain(file(user, "client-certificate"), file(user, "client-key"))

    def ask(self, method, path, body=None):
        for attempt in range(3):
            connection = getattr(self.local, "connection", None)
            if connection is None:
                connection = HTTPSConnection(self.url.hostname, self.url.port, context=self.context, timeout=60)
                self.local.connection = connection
            try:
                connection.request(method, path, body and json.dumps(body), {"Content-Type": "application/json"})
                answer = connection.getresponse()
                return answer.status, json.loads(answer.read() or b"{}")
            except OSError:
                self.local.connection = None
        raise SystemExit(f"{method} {path}: no answer")


def floor(config, release):
    """Asks for everything at once, then waits until it is gone."""
    api = Api(config)
    text = subprocess.run(["kubectl", "create", "--dry-run=client", "-f", release, "-o", "json", "--kubeconfig", config],
                          capture_output=True).stdout.decode()
    decoder, objects = json.JSONDecoder(), []
    while text.strip():
        value, end = decoder.raw_decode(text.lstrip())
        text = text.lstrip()[end:]
        objects.extend(value.get("items", [value]))
    # Where each kind is served.
    versions = [version["groupVersion"] for group in api.ask("GET", "/apis")[1]["groups"] for version in group["versions"]]
    paths = {}
    for version, base in [("v1", "/api/v1")] + [(version, "/apis/" + version) for version in versions]:
        for resource in api.ask("GET", base)[1].get("resources", []):
            if "/" not in resource["name"]:
                paths[version, resource["kind"]] = (base, resource)
    gone, pods = [], []
    for item in api.ask("GET", "/api/v1/namespaces?labelSelector=tekton.dev/test-e2e=true")[1]["items"]:
        gone.append("/api/v1/namespaces/" + item["metadata"]["name"])
    namespaces = {o["metadata"]["name"] for o in objects if o["kind"] == "Namespace"} | {p.rsplit("/", 1)[1] for p in gone}
    for o in objects:
        found = paths.get((o["apiVersion"], o["kind"]))
        namespace = o["metadata"].get("namespace")
        if not found or (found[1]["namespaced"] and namespace in namespaces):
            continue
        where = f"/namespaces/{namespace or 'default'}" if found[1]["namespaced"] else ""
        gone.append(f"{found[0]}{where}/{found[1]['name']}/{o['metadata']['name']}")
    for pod in api.ask("GET", "/api/v1/pods")[1]["items"]:
        if pod["metadata"]["namespace"] in namespaces:
            pods.append(f"/api/v1/namespaces/{pod['metadata']['namespace']}/pods/{pod['metadata']['name']}")
    began = time.time()
    with ThreadPoolExecutor(24) as pool:
        list(pool.map(lambda path: api.ask("DELETE", path, {"propagationPolicy": "Background"}), gone))
        list(pool.map(lambda path: api.ask("DELETE", path, {"gracePeriodSeconds": 1}), pods))
        while gone:
            there = pool.map(lambda path: api.ask("GET", path)[0] != 404, gone)
            gone = [path for path, there in zip(gone, there) if there]
            time.sleep(0.1)
    print(f"{time.time() - began:.1f}")


def proxy(source, target, latency):
    """Passes bytes on, each half a round trip later."""
    delay = latency / 2000

    async def pump(reader, writer):
        queue = asyncio.Queue()

        async def late():
            while True:
                due, data = await queue.get()
                await asyncio.sleep(max(0, due - time.monotonic()))
                if data is None:
                    break
                writer.write(data)
                await writer.drain()
            writer.close()
        sender = asyncio.create_task(late())
        try:
            while data := await reader.read(1 << 16):
                queue.put_nowait((time.monotonic() + delay, data))
        except OSError:
            pass
        queue.put_nowait((time.monotonic() + delay, None))
        await asyncio.gather(sender, return_exceptions=True)

    async def main():
        config = load(source)
        cluster = config["clusters"][0]["cluster"]
        url = urlsplit(cluster["server"])

        async def accept(reader, writer):
            # A connection is made in one round trip.
            await asyncio.sleep(2 * delay)
            up_reader, up_writer = await asyncio.open_connection(url.hostname, url.port)
            await asyncio.gather(pump(reader, up_writer), pump(up_reader, writer), return_exceptions=True)
        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        cluster["server"] = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        cluster["tls-server-name"] = url.hostname
        with open(target + ".new", "w") as out:
            json.dump(config, out)
        os.rename(target + ".new", target)
        await server.serve_forever()
    asyncio.run(main())


if __name__ == "__main__":
    verb, args = sys.argv[1], sys.argv[2:]
    if verb == "leftovers":
        leftovers(int(args[0]), int(args[1]), args[2])
    elif verb == "floor":
        floor(*args)
    elif verb == "proxy":
        proxy(args[0], args[1], float(args[2]))
