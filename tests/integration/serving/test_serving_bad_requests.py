"""Ten thousand generated requests that break the API, at a running transformer: each is refused (4xx), none fails.

"None hangs" is the client's own limit of a minute.
"""

import asyncio
import json
from dataclasses import dataclass, field
from http import HTTPStatus
from urllib.parse import quote

import aiohttp
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.serving_process import TAGS, Predictor, transformer

REQUESTS, TOGETHER = 10_000, 32
"""So many, and so many of them at once."""
ATTRIBUTES = TAGS.names
JSON = {"content-type": "application/json"}


@dataclass(frozen=True)
class Bad:
    """One request that no server should take."""

    body: bytes
    headers: dict[str, str] = field(default_factory=lambda: JSON)
    method: str = "POST"
    path: str = ""
    """Empty: the model's own."""


texts = st.text(max_size=12)
scalars = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | texts
values = (
    scalars
    | st.lists(scalars, max_size=3)
    | st.dictionaries(texts, scalars | st.lists(scalars, max_size=2), max_size=3)
)


def other_than(*kinds):
    """JSON of another kind than these; true and false are no numbers."""
    return values.filter(lambda value: type(value) not in kinds)


def one_of_a_list(broken, good):
    """A list with one broken entry among good ones."""
    return st.tuples(st.lists(good, max_size=2), broken, st.lists(good, max_size=2)).map(lambda v: [*v[0], v[1], *v[2]])


def instance(**given):
    return {"user_id": "u1", **given}


unknown = st.text(min_size=1, max_size=20).filter(lambda name: name not in {"user_id", "features", *ATTRIBUTES})
blank = st.text(" \t\n\u2003\x00\x1f", max_size=5).filter(lambda text: not text.strip())
features = st.one_of(
    other_than(dict, type(None)),
    unknown.map(lambda name: {f"my {name}": "x"}),
    st.tuples(st.sampled_from(["watch", "search", "submit"]), other_than(list, type(None))).map(lambda kv: dict([kv])),
    st.tuples(st.sampled_from(["watch", "search"]), one_of_a_list(other_than(str), texts)).map(lambda kv: dict([kv])),
    st.tuples(st.sampled_from(["self_age", "signature", "region"]), other_than(str, type(None))).map(
        lambda kv: dict([kv])
    ),
    st.integers(1001, 1200).map(lambda count: {"watch": [""] * count}),
).map(lambda given: {**given, "consent": True} if isinstance(given, dict) else given)
instances = st.one_of(
    other_than(dict),
    st.builds(dict, user_id=other_than(str) | blank | st.integers(513, 2000).map(lambda n: "u" * n)),
    unknown.map(lambda name: instance(**{name: 1})),
    features.map(lambda given: instance(features=given)),
    st.just({}),
)
thresholds = st.one_of(
    other_than(dict).filter(bool),
    unknown.map(lambda name: {name: 3}),
    st.tuples(st.sampled_from(ATTRIBUTES), values.filter(lambda v: type(v) is not int or not 1 <= v <= 5)).map(
        lambda kv: dict([kv])
    ),
)
parameters = st.one_of(
    other_than(dict).filter(bool),
    st.builds(dict, thresholds=thresholds),
    st.builds(dict, samples=values.filter(lambda v: type(v) is not int or not 1 <= v <= 16)),
    st.builds(dict, explain=other_than(bool)),
    unknown.map(lambda name: {name: 1}),
)
payloads = st.one_of(
    other_than(dict),
    st.builds(dict, instances=other_than(list) | st.just([]) | one_of_a_list(instances, st.just(instance()))),
    st.builds(dict, instances=st.just([instance()]), parameters=parameters),
    st.just({"instances": [instance()] * 257}),
)


def event(data):
    """A payload in a structured CloudEvent, which KServe takes."""
    return {"specversion": "1.0", "id": "1", "source": "s", "type": "t", "time": "now", "data": data}


def encoded(payload):
    return json.dumps(payload).encode()


GOOD = encoded({"instances": [instance(features={"consent": True})]})
raw = st.one_of(
    st.binary(max_size=100),
    texts.map(lambda text: text.encode("utf-16")),
    st.integers(0, len(GOOD) - 1).map(lambda length: GOOD[:length]),
    st.integers(1, 20_000).map(lambda depth: b"[" * depth),
    st.integers(1, 20_000).map(lambda depth: b'{"instances":' * depth),
    st.sampled_from([b'{"instances": NaN}', b'{"instances": [{"user_id": "\\ud800"}]}', GOOD + b"x"]),
)
cloud_event = st.fixed_dictionaries(
    {f"ce-{name}": st.text("abc1.:/", max_size=9) for name in ("specversion", "id", "source", "type")}
)
bad_requests = st.one_of(
    st.builds(Bad, payloads.map(encoded)),
    st.builds(Bad, raw),
    st.builds(Bad, payloads.map(event).map(encoded)),
    st.builds(Bad, raw, st.builds(lambda more: {**JSON, **more}, cloud_event)),
    st.builds(Bad, st.just(GOOD), st.text("abc/;=", max_size=12).map(lambda kind: {"content-type": f"x/{kind}"})),
    st.builds(
        Bad,
        st.just(GOOD),
        st.sampled_from(["nan", "-1", "inf", "1e999", "", "ten", "0x1", "-inf"]).map(
            lambda ms: {**JSON, "x-deadline-ms": ms}
        ),
    ),
    st.builds(Bad, st.just(GOOD), method=st.sampled_from(["GET", "PUT", "DELETE", "PATCH"])),
    st.builds(
        Bad, st.just(GOOD), path=st.text(min_size=1, max_size=20).map(lambda m: f"/v1/models/{quote(m, '')}:predict")
    ),
)


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    predictor = Predictor()
    predictor.start()
    try:
        with transformer(tmp_path_factory.mktemp("bad"), predictor.url) as made:
            yield made
    finally:
        predictor.kill()


@pytest.fixture(scope="module")
def send(running):
    """Sends requests at once; their statuses and bodies."""

    async def one(http, bad):
        url = running.url + (bad.path or running.path)
        async with http.request(bad.method, url, data=bad.body, headers=bad.headers) as answer:
            return answer.status, await answer.text()

    async def session():
        return aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(60))

    async def all_of(http, requests):
        return await asyncio.gather(*(one(http, bad) for bad in requests))

    with asyncio.Runner() as runner:
        http = runner.run(session())
        yield lambda requests: runner.run(all_of(http, requests))
        runner.run(http.close())


def generated():
    """Different bad requests. Drawn one by one: in a long list Hypothesis repeats itself."""
    found = {}

    @settings(
        max_examples=REQUESTS + REQUESTS // 10,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(bad_requests)
    def collect(bad):
        found[repr(bad)] = bad

    collect()
    return list(found.values())


def test_what_breaks_the_api_is_refused_and_never_fails(running, send):
    requests = generated()
    assert len(requests) >= REQUESTS
    seen = set()
    for start in range(0, len(requests), TOGETHER):
        chunk = requests[start : start + TOGETHER]
        for bad, (status, body) in zip(chunk, send(chunk), strict=True):
            assert HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR, (status, body, bad)
            assert "Traceback" not in body and 'File "' not in body and len(body) < 10_000, bad
            seen.add(status)
    assert {400, 404, 405} <= seen
    assert running.is_ready() and running.child.process.poll() is None
    assert "Traceback" not in running.child.log.read_text()


def test_every_documented_route_takes_nonsense_without_failing(running, send):
    paths = running.http.get("/openapi.json").json()["paths"]
    requests = [
        Bad(body, JSON, method.upper(), path.replace("{model_name}", name).replace("{model_version}", name))
        for path, methods in paths.items()
        for method in methods
        for name in (running.name, "nobody", "..", "%00", "x" * 3000)
        for body in (b"", b"{", b"[]", b'{"inputs": 1}', GOOD)
    ]
    assert len(requests) > 100
    for bad, (status, body) in zip(requests, send(requests), strict=True):
        assert status < HTTPStatus.INTERNAL_SERVER_ERROR and "Traceback" not in body, (status, bad)
