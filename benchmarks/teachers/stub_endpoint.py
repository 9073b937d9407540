"""An endpoint that gives every answer after the same delay, for as little processor time as asyncio can do it with.

    python benchmarks/teachers/stub_endpoint.py DELAY TEXT

Prints its port. It reads no more of a request than its length and `n`.
"""

from __future__ import annotations

import asyncio
import json
import sys
from functools import lru_cache


@lru_cache
def response(samples: int, text: str) -> bytes:
    """Head and body of an answer with so many choices."""
    choices = [
        {"index": index, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
        for index in range(samples)
    ]
    usage = {"prompt_tokens": 700, "completion_tokens": 60 * samples}
    body = json.dumps({"object": "chat.completion", "model": "stub", "choices": choices, "usage": usage}).encode()
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
    return head + body


class StubEndpoint(asyncio.Protocol):
    """One connection; one request at a time."""

    transport: asyncio.Transport

    def __init__(self, delay: float, text: str) -> None:
        self._delay, self._text, self._received = delay, text, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keeps the connection's transport."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Answers when the whole request is there."""
        self._received += data
        head, complete, body = self._received.partition(b"\r\n\r\n")
        if not complete:
            return
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        if len(body) < length:
            return
        self._received = body[length:]
        samples = int(body[:200].partition(b'"n": ')[2].partition(b",")[0] or 1)
        asyncio.get_running_loop().call_later(self._delay, self.transport.write, response(samples, self._text))


async def serve(delay: float, text: str) -> None:
    """Serves until it is killed."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: StubEndpoint(delay, text), "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(float(sys.argv[1]), sys.argv[2]))
