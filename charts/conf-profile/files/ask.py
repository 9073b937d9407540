"""Asks the transformer for a real profile and checks the answer: URL MODEL SECONDS."""

import json
import sys
import time
import urllib.error
import urllib.request

FEATURES = {"consent": True}
"""Somebody of whom nothing else is known: which features there are is the model's own matter."""
MALFORMED = "malformed answer"
TEMPORARY = (502, 503, 504)


def main(url: str, model: str, seconds: str) -> None:
    """Asks until there is an answer: to Helm an InferenceService without its transformer is ready already."""
    deadline = time.monotonic() + float(seconds)
    while isinstance(answer := ask(f"{url}/v1/models/{model}:predict", deadline), str):
        if time.monotonic() > deadline:
            sys.exit(f"{url} {answer}")
        time.sleep(1)
    check(answer)


def ask(url: str, deadline: float) -> "dict | str":
    """The answer, or why there is none yet."""
    body = {"instances": [{"user_id": "helm-test", "features": FEATURES}]}
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=max(1.0, deadline - time.monotonic())) as response:
            return json.load(response)
    except urllib.error.HTTPError as error:
        said = f"answered {error.code}: {error.read().decode(errors='replace')}"
        return said if error.code in TEMPORARY else sys.exit(f"{url} {said}")
    except OSError as error:
        return f"cannot be asked: {error}"


def check(answer: dict) -> None:
    prediction = answer["predictions"][0]
    if "error" in prediction:
        sys.exit(f"no profile: {prediction['error']}")
    profile = prediction["profile"]
    if all(said.get("reason") == MALFORMED for said in profile.values()):
        sys.exit(f"no attribute was answered: {json.dumps(profile)}")
    print(f"version {prediction['model_version']}: {json.dumps(profile)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
