"""Whether vLLM can answer: its first completion, which loads kernels and compiles what no request should wait for.

    warm_up.py URL MODEL SECONDS

The startup probe of the predictor; the standard library alone, since it runs in vLLM's own image.
"""

import json
import sys
import urllib.request


def main(url: str, model: str, seconds: str) -> None:
    with urllib.request.urlopen(f"{url}/health", timeout=5):
        pass
    body = {
        "model": model,
        "messages": [{"role": "user", "content": "Say yes."}],
        "max_tokens": 4,
        "temperature": 0,
        "logprobs": True,
        "top_logprobs": 5,
        "structured_outputs": {"regex": "(yes|no)"},
    }
    request = urllib.request.Request(
        f"{url}/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=float(seconds)) as response:
        json.load(response)["choices"][0]


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except OSError as error:
        sys.exit(f"vLLM cannot answer yet: {error}")
