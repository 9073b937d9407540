"""What the tests of a running transformer share: a model without weights, an online store, both processes."""

import json
import re
import shutil
import subprocess
import sys
from contextlib import contextmanager
from datetime import UTC, datetime

import httpx
import redis
import yaml

from conf_profile import tables
from conf_profile.config import FeaturesConfig
from conf_profile.consensus import confidence
from conf_profile.consensus.confidence import Calibration, Partition
from conf_profile.dialogue import task as tasks
from feature_repo import store as feature_store
from serving.local import processes
from support.s3 import wait_until

AS_OF = datetime(2025, 6, 1, 12, tzinfo=UTC)
TAGS = tasks.parse({"attributes": {"gender": ["female", "male"]}})
EVEN = Calibration("greedy", {name: Partition((0.2, 0.4, 0.6, 0.8)) for name in TAGS.names})
PEOPLE = {"ada": True, "bob": True, "eve": False}
"""Who the online store knows, and whether they have consented."""
ANSWER = "<rationale>x</rationale><gender>female<level>4</level></gender>"


def model_folder(folder, tags=TAGS):
    """All that the transformer reads of a model."""
    folder.mkdir(parents=True)
    tags.save(folder / "task.yaml")
    even = Calibration("greedy", {name: Partition((0.2, 0.4, 0.6, 0.8)) for name in tags.names})
    confidence.save(even, folder / "calibration.json")
    profile = {"prompt": {"student_style": "brief"}, "max_completion_tokens": 48}
    (folder / "profile.json").write_text(json.dumps(profile))
    return folder


def online_store(folder, config=None):
    """A repository whose online store knows PEOPLE."""
    folder.mkdir(parents=True, exist_ok=True)
    form = dict.fromkeys(("self_age", "self_gender", "signature", "region"))
    behaviour = [
        {"user_id": name, "event_timestamp": AS_OF, "watch": [f"{name} watches"], "search": [], "submit": []}
        for name in PEOPLE
    ]
    sign_ups = [
        {"user_id": name, "event_timestamp": AS_OF, **form, "consent": agreed} for name, agreed in PEOPLE.items()
    ]
    files = folder / "behaviour.parquet", folder / "demographics.parquet"
    tables.write(files[0], tables.from_rows(behaviour, tables.BEHAVIOUR), tables.BEHAVIOUR)
    tables.write(files[1], tables.from_rows(sign_ups, tables.DEMOGRAPHICS), tables.DEMOGRAPHICS)
    store = feature_store.open_store(folder / "features", *files, config or FeaturesConfig())
    feature_store.materialise(store, AS_OF)
    return folder / "features"


class Transformer:
    """`python -m serving` as KServe starts it, on a free port."""

    def __init__(self, folder, url, /, predictor=None, **settings):
        self.folder, port = folder, processes.free_port()
        folder.mkdir(parents=True, exist_ok=True)
        model = str(model_folder(folder / "model"))
        given = {"model": model, "predictor": {"url": url, **(predictor or {})}, **settings}
        (folder / "serving.yaml").write_text(yaml.safe_dump(given))
        command = [sys.executable, "-m", "serving", "--settings", str(folder / "serving.yaml"), "--host", "127.0.0.1"]
        self.url, self.name = f"http://127.0.0.1:{port}", "people"
        flags = ["--http_port", str(port), "--model_name", self.name]
        self.child = processes.start("the transformer", [*command, *flags], {}, folder / "log")
        self.http = httpx.Client(base_url=self.url, timeout=60)

    @property
    def path(self):
        return f"/v1/models/{self.name}:predict"

    def ask(self, *instances, headers=None, **parameters):
        """One request on a connection of its own, so that many may be under way."""
        body = {"instances": list(instances), "parameters": parameters}
        return httpx.post(self.url + self.path, json=body, headers=headers, timeout=60)

    def is_up(self):
        return self.status("/") == 200

    def is_ready(self):
        return self.status(f"/v2/models/{self.name}/ready") == 200

    def status(self, path):
        try:
            return self.http.get(path).status_code
        except httpx.TransportError:
            return None

    def metric(self, name, **labels):
        """The sum of a metric's samples with these labels."""
        wanted = [f'{key}="{value}"' for key, value in labels.items()]
        lines = self.http.get("/metrics").text.splitlines()
        found = [line for line in lines if re.match(rf"{name}[ {{]", line) and all(label in line for label in wanted)]
        return sum(float(line.rsplit(" ", 1)[1]) for line in found)

    def stop(self):
        self.http.close()
        self.child.stop()


@contextmanager
def transformer(folder, url, /, until=Transformer.is_ready, **settings):
    """A transformer that has come so far; stopped at the end of the block."""
    running = Transformer(folder, url, **settings)
    try:
        running.child.wait_until(lambda: until(running), 120)
        yield running
    finally:
        running.stop()


def brought(name="u1", phrase="rose pruning"):
    """A user whose features come with the request."""
    return {"user_id": name, "features": {"watch": [phrase], "consent": True}}


# ---- servers that can be killed


class Predictor:
    """As much of vLLM as the transformer sees, in a process of its own on a port that stays the same."""

    SERVER = """
import http.server, json, sys, threading
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        self.send({})
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        threading.Event().wait(float(sys.argv[2]))
        self.send({"choices": [{"index": 0, "message": {"role": "assistant", "content": sys.argv[3]}}]})
    def send(self, content):
        body = json.dumps(content).encode()
        head = f"HTTP/1.1 200 OK\\r\\nContent-Length: {len(body)}\\r\\n\\r\\n".encode()
        self.wfile.write(head + body)
    def log_message(self, *_):
        pass
class Server(http.server.ThreadingHTTPServer):
    request_queue_size, daemon_threads = 256, True
    def handle_error(self, *_):
        pass
Server(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""

    def __init__(self, seconds=0.0):
        self.port, self.seconds, self.process = processes.free_port(), seconds, None

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def start(self):
        arguments = [str(self.port), str(self.seconds), ANSWER]
        self.process = subprocess.Popen([sys.executable, "-c", self.SERVER, *arguments])
        wait_until(self.answers, "the predictor to listen")

    def answers(self):
        try:
            return httpx.get(self.url).status_code == 200
        except httpx.TransportError:
            return False

    def kill(self):
        if self.process is not None:
            self.process.kill()
            self.process.wait()


class Redis:
    """A real Redis that keeps what it was told over a kill, on a port that stays the same."""

    def __init__(self, folder):
        self.binary = shutil.which("redis-server")
        self.folder, self.port, self.process = folder, processes.free_port(), None

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    def start(self):
        self.folder.mkdir(exist_ok=True)
        kept = ["--save", "", "--appendonly", "yes", "--appendfsync", "always", "--dir", str(self.folder)]
        command = [self.binary, "--port", str(self.port), "--bind", "127.0.0.1", *kept]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        wait_until(self.answers, "Redis to answer")

    def answers(self):
        try:
            with redis.Redis(port=self.port) as client:
                return client.ping()
        except redis.ConnectionError:
            return False

    def signal(self, number):
        self.process.send_signal(number)

    def kill(self):
        if self.process is not None:
            self.process.kill()
            self.process.wait()
