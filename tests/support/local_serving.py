"""Starts `conf-profile serve` as a user would."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import psutil

from support.running import environment


class Serving:
    """A running `conf-profile serve` and what it printed."""

    def __init__(self, run, *arguments):
        self.log = (run / "serve.log").open("w+b")
        command = [sys.executable, "-m", "conf_profile", "serve", "--port=0", *arguments]
        self.process = subprocess.Popen(
            command, env=environment(), stdout=subprocess.PIPE, stderr=self.log, text=True, start_new_session=True
        )
        self.state = self.next_line()
        self.family = psutil.Process(self.process.pid).children(recursive=True)

    def next_line(self):
        line = self.process.stdout.readline()
        assert line, f"serve ended: {Path(self.log.name).read_text()[-3000:]}"
        return json.loads(line)

    def ask(self, *instances, **parameters):
        body = {"instances": list(instances), "parameters": parameters}
        return httpx.post(f"{self.state['url']}/v1/models/conf-profile:predict", json=body, timeout=60)

    def prompts_seen(self):
        """Requests that vLLM has finished, by its own counter."""
        text = httpx.get(f"{self.state['predictor']}/metrics").text
        lines = [line for line in text.splitlines() if line.startswith("vllm:request_success_total")]
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


def alive(child):
    return child.is_running() and child.status() != psutil.STATUS_ZOMBIE
