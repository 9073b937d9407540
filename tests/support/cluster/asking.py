"""Asks the transformer from inside the cluster; runs in a pod, with Python alone. One JSON object a line on each side.

asking.py URL             answers each request body of standard input
asking.py URL RATE USER.. asks for one user after the other, RATE requests a second, until standard input ends
"""

import itertools
import json
import sys
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

THREADS = 128
TIMEOUT_SECONDS = 60


def ask(url, body):
    """Each request has a connection of its own, as a new caller's would."""
    started = time.time()
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:
            found = {"status": answer.status, "body": json.load(answer)}
    except urllib.error.HTTPError as error:
        found = {"status": error.code, "body": error.read().decode(), "retry_after": error.headers.get("Retry-After")}
    except OSError as error:
        found = {"status": 0, "body": repr(error)}
    return {**found, "at": started, "seconds": time.time() - started}


def tell(answer):
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def load(url, rate, users):
    over = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
    began = time.monotonic()
    with ThreadPoolExecutor(THREADS) as pool:
        for number, user in enumerate(itertools.cycle(users)):
            if over.wait(max(0.0, began + number / rate - time.monotonic())):
                return
            pool.submit(lambda user=user: tell(ask(url, {"instances": [{"user_id": user}]})))


def main(url, rate=None, *users):
    if rate is not None:
        return load(url, float(rate), users)
    for line in sys.stdin:
        tell(ask(url, json.loads(line)))


if __name__ == "__main__":
    main(*sys.argv[1:])
