"""Asks the transformer for a real profile and checks the answer: URL MODEL SECONDS."""

import json
import sys
import urllib.error
import urllib.request

FEATURES = {
    "watch": ["rose pruning", "jazz records"],
    "search": ["pension calculator"],
    "self_age": "62",
    "consent": True,
}


def main(url: str, model: str, seconds: str) -> None:
    body = {"instances": [{"user_id": "helm-test", "features": FEATURES}]}
    request = urllib.request.Request(
        f"{url}/v1/models/{model}:predict", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=float(seconds)) as response:
            answer = json.load(response)
    except urllib.error.HTTPError as error:
        sys.exit(f"{url} answered {error.code}: {error.read().decode(errors='replace')}")
    except OSError as error:
        sys.exit(f"{url} cannot be asked: {error}")
    check(answer)


def check(answer: dict) -> None:
    prediction = answer["predictions"][0]
    if "error" in prediction:
        sys.exit(f"no profile: {prediction['error']}")
    profile = prediction["profile"]
    unanswered = {name for name, said in profile.items() if said.get("level") not in range(1, 6)}
    if not profile or unanswered == set(profile):
        sys.exit(f"no attribute has a level: {json.dumps(profile)}")
    print(f"version {prediction['model_version']}: {json.dumps(profile)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
