"""A rollout's requests to an API server that is busy or loses its answers for a while.

The server is a small one that knows one InferenceService and one Lease; tests/cluster has a real one, which is steady.
"""

import json
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import yaml

from conf_profile import transient
from conf_profile.errors import RolloutConflictError, RolloutError, RolloutLostError
from conf_profile.rollout.serving_cluster import RolloutLock, ServingCluster
from support.unsteady_proxy import LOST, PASS, UNREACHED, UnsteadyProxy, at_retry

OLD, NEW = "conf-profile://b/m@v1", "conf-profile://b/m@v2"


def refused(status):
    return status, {"kind": "Status", "message": f"status {status}"}


class ApiServer(BaseHTTPRequestHandler):
    """Create, read, replace with resourceVersion, and JSON patches whose tests must hold."""

    def do_GET(self):
        found = self.server.objects.get(self.path)
        self.reply(*((200, found) if found else refused(404)))

    def do_POST(self):
        body = self.body()
        path = f"{self.path}/{body['metadata']['name']}"
        self.reply(*(refused(409) if path in self.server.objects else self.keep(path, body)))

    def do_PUT(self):
        body, found = self.body(), self.server.objects[self.path]
        same = body["metadata"].get("resourceVersion") == found["metadata"]["resourceVersion"]
        self.reply(*(self.keep(self.path, body) if same else refused(409)))

    def do_PATCH(self):
        path = self.path.partition("?")[0]
        found = json.loads(json.dumps(self.server.objects[path]))
        for step in self.body():
            *way, last = step["path"].strip("/").split("/")
            place = found
            for name in way:
                place = place[int(name)] if isinstance(place, list) else place[name]
            if step["op"] == "test" and place[last] != step["value"]:
                return self.reply(*refused(422))
            place[last] = step["value"]
        return self.reply(*self.keep(path, found))

    def keep(self, path, body):
        self.server.written += 1
        body["metadata"]["resourceVersion"] = str(self.server.written)
        self.server.objects[path] = body
        return 200, body

    def body(self):
        return json.loads(self.rfile.read(int(self.headers["Content-Length"])))

    def reply(self, status, content):
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Not into the tests' output."""


SERVICE = "/apis/serving.kserve.io/v1beta1/namespaces/default/inferenceservices/prod"
LEASE = "/apis/coordination.k8s.io/v1/namespaces/default/leases/prod-rollout"


@pytest.fixture
def api():
    server = ThreadingHTTPServer(("127.0.0.1", 0), ApiServer)
    model = {"env": [{"name": "CONF_PROFILE_MODEL_URI", "value": OLD}]}
    spec = {"predictor": {"model": {"storageUri": OLD}}, "transformer": {"containers": [{"name": "t", **model}]}}
    metadata = {"name": "prod", "uid": "1", "resourceVersion": "0"}
    kind = {"apiVersion": "serving.kserve.io/v1beta1", "kind": "InferenceService"}
    server.objects, server.written = {SERVICE: {**kind, "metadata": metadata, "spec": spec}}, 0
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def proxy(api):
    made = UnsteadyProxy(f"http://127.0.0.1:{api.server_port}")
    yield made
    made.shut()


@pytest.fixture
def connected(proxy, tmp_path, monkeypatch):
    monkeypatch.setattr(transient, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(transient, "LONGEST_PAUSE", 0.05)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    named = {"clusters": {"server": proxy.url}, "users": {}, "contexts": {"cluster": "c", "user": "c"}}
    config = {kind: [{"name": "c", kind[:-1]: content}] for kind, content in named.items()}
    (tmp_path / "config").write_text(yaml.safe_dump({"current-context": "c", **config}))

    def connect(seconds="60"):
        monkeypatch.setenv(transient.RETRY_SECONDS, seconds)
        return ServingCluster("default", "prod")

    return connect


def served(api):
    spec = api.objects[SERVICE]["spec"]
    return spec["predictor"]["model"]["storageUri"], spec["transformer"]["containers"][0]["env"][0]["value"]


def roll_out(cluster):
    with cluster.rollout("v2") as lock:
        lock.note(OLD)
        cluster.pin(NEW)
        lock.hold()


def test_an_api_server_that_is_away_is_waited_for(connected, proxy, api):
    cluster = connected()
    proxy.shut()
    with at_retry(2, proxy.open):
        roll_out(cluster)
    assert served(api) == (NEW, NEW)


@pytest.mark.parametrize("seconds", ["60", ""], ids=["budget", "none"])
def test_every_second_answer_to_a_method_may_be_lost(connected, proxy, api, seconds):
    counts = Counter()

    def behave(method, path):
        counts[method] += 1
        return LOST if counts[method] % 2 else PASS

    # The client itself repeats what it reads or replaces; new leases and patches it does not.
    proxy.behave = behave if seconds else lambda method, path: behave(method, path) if method in "GET PUT" else PASS
    roll_out(connected(seconds))
    assert served(api) == (NEW, NEW)
    assert api.objects[LEASE]["spec"]["holderIdentity"] == ""


def test_without_a_budget_an_outage_is_told_at_once(connected, proxy):
    proxy.behave = lambda method, path: UNREACHED
    with pytest.raises(RolloutError, match="the API server does not answer"):
        connected("").read()


def test_another_rollout_is_a_conflict_after_a_lost_answer_too(connected, proxy):
    lock, other = RolloutLock(connected(), "v2"), RolloutLock(connected(), "v3")
    other._holder = "another-pod"
    other.take()
    proxy.fail(LOST)
    with pytest.raises(RolloutConflictError, match="another-pod is rolling out"):
        lock.take()


def test_a_lease_that_somebody_else_wrote_meanwhile_is_a_conflict(connected, api):
    lock = RolloutLock(connected(), "v2")
    lock.take()
    lock._lease["metadata"]["resourceVersion"] = "0"
    api.objects[LEASE]["spec"]["holderIdentity"] = "another-pod"
    with pytest.raises(RolloutConflictError, match="at the same moment"):
        lock.note(OLD)


def test_nothing_is_changed_after_an_outage_in_which_another_rollout_began(connected, proxy, api):
    cluster = connected()

    def behave(method, path):
        if method == "PATCH":
            api.objects[LEASE]["spec"]["holderIdentity"] = "another-pod"
            return UNREACHED
        return PASS

    with pytest.raises(RolloutLostError), cluster.rollout("v2"):
        proxy.behave = behave
        cluster.pin(NEW)
    assert served(api) == (OLD, OLD)
