"""The page in headless Chromium: the real transformer over a real online store, with a predictor that is scripted.

Chromium loads a deep link, runs the page's script against the server and prints the document that comes of it.
"""

import html
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlencode

import httpx
import pytest
import yaml

from conf_profile import tables
from conf_profile.config import FeaturesConfig
from conf_profile.consensus import confidence
from conf_profile.consensus.confidence import Calibration, Partition
from conf_profile.dialogue import task as tasks
from feature_repo import store as feature_store
from serving.local import processes

MOMENT = datetime(2025, 6, 1, 12, tzinfo=UTC)
HOSTILE = "<img src=x onerror=document.title='owned'>"
QUOTED = "‹img src=x onerror=document.title='owned'›"
TAGS = tasks.parse(
    {"attributes": {"age": ["young", "old"], "gender": ["female", "male"], "life_stage": ["single", "parent"]}}
)
EVEN = Calibration("greedy", {name: Partition((0.2, 0.4, 0.6, 0.8)) for name in TAGS.names})
RATIONALE = f"rose pruning; {QUOTED}; never said"
ANSWER = [
    f"<rationale>{RATIONALE}</rationale><age>old<level>", {"3": 0.5, "4": 0.5},
    "</level></age><gender>male<level>", {"2": 0.9, "1": 0.1},
    "</level></gender><life_stage>unknown<level>", {"1": 1.0}, "</level></life_stage>",
]  # fmt: skip
"""Age has the score 0.7 and level 4, gender 0.38 and level 2; of the life stage the evidence says nothing."""
SWEEP = [
    {"tau": tau, "precision": 0.4 + tau / 10, "recall": 1 - tau / 10, "coverage": 1 - tau / 20} for tau in range(1, 6)
]
SFT = {"sweep_per_attribute": {"age": SWEEP, "gender": SWEEP}, "confusion": {}}
EVALUATION = {"candidate": "sft", "arms": {"sft": SFT}}


# ---- what the transformer stands on


def completion():
    """ANSWER as vLLM sends it: the likeliest digit is said, the others are its alternatives."""
    tokens = []
    for piece in ANSWER:
        probabilities = {piece: 1.0} if isinstance(piece, str) else piece
        said = max(probabilities, key=probabilities.get)
        top = [{"token": token, "logprob": math.log(share)} for token, share in probabilities.items()]
        tokens.append({"token": said, "top_logprobs": top})
    message = {"role": "assistant", "content": "".join(token["token"] for token in tokens)}
    return {"choices": [{"index": 0, "message": message, "logprobs": {"content": tokens}}]}


class Predictor(ThreadingHTTPServer):
    """As much of vLLM as the transformer sees, and one answer for everybody; `down`: it refuses everything."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), PredictorHandler)
        self.down, self.prompts = False, []

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}"


class PredictorHandler(BaseHTTPRequestHandler):
    def do_GET(self):
        """/health and /v1/models: it has every version."""
        self.send({"data": [{"id": "v1"}, {"id": "v2"}]})

    def do_POST(self):
        self.server.prompts.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
        self.send(completion())

    def send(self, content):
        body = json.dumps(content).encode()
        self.send_response(500 if self.server.down else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


def model_folder(folder, version, thresholds, evaluation=EVALUATION):
    folder.mkdir(parents=True)
    TAGS.save(folder / "task.yaml")
    confidence.save(EVEN, folder / "calibration.json")
    contents = {
        "profile": {"prompt": {"student_style": "brief"}, "max_completion_tokens": 48},
        "manifest": {"version": version},
        "thresholds": thresholds,
        "evaluation": evaluation,
    }
    for name, content in contents.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def online_store(folder):
    """Two users who consented, one without any behaviour and with a strange id, and one who refused."""

    def behaved(user_id, watch, search):
        return {"user_id": user_id, "event_timestamp": MOMENT, "watch": watch, "search": search, "submit": []}

    def signed_up(user_id, consent, signature):
        form = {"self_age": "61", "self_gender": None, "signature": signature, "region": "north"}
        return {"user_id": user_id, "event_timestamp": MOMENT, **form, "consent": consent}

    behaviour = [
        behaved("gardener", ["rose pruning", HOSTILE], ["pension calculator"]),
        behaved("refused", ["private matter"], []),
    ]
    people = [signed_up("gardener", True, HOSTILE), signed_up("a/b ö?", True, "hello"), signed_up("refused", False, "")]
    files = folder / "behaviour.parquet", folder / "demographics.parquet"
    tables.write(files[0], tables.from_rows(behaviour, tables.BEHAVIOUR), tables.BEHAVIOUR)
    tables.write(files[1], tables.from_rows(people, tables.DEMOGRAPHICS), tables.DEMOGRAPHICS)
    store = feature_store.open_store(folder / "features", *files, FeaturesConfig())
    feature_store.materialise(store, MOMENT)
    return folder / "features"


class Transformer:
    """`python -m serving` on a free port."""

    def __init__(self, folder, **settings):
        self.file, self.settings = folder / "serving.yaml", settings
        self.write()
        port = processes.free_port()
        self.url = f"http://127.0.0.1:{port}"
        program = [sys.executable, "-m", "serving", "--settings", str(self.file), "--host", "127.0.0.1"]
        self.child = processes.start("the transformer", [*program, "--http_port", str(port)], {}, folder / "log")
        try:
            self.child.wait_until(lambda: self.status("/") == 200, 120)
        except BaseException:
            self.child.stop()
            raise

    def write(self, **changed):
        self.file.write_text(yaml.safe_dump({**self.settings, **changed}))

    def reload(self, is_over, **changed):
        self.write(**changed)
        self.child.hang_up()
        self.child.wait_until(is_over, 30)

    def status(self, path):
        try:
            return httpx.get(self.url + path).status_code
        except httpx.ConnectError:
            return None

    def json(self, path):
        return httpx.get(self.url + path).json()


@pytest.fixture(scope="module")
def predictor():
    with Predictor() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def transformer(predictor, tmp_path_factory):
    folder = tmp_path_factory.mktemp("web")
    running = Transformer(
        folder,
        model=str(model_folder(folder / "models" / "v1", "v1", {"age": 4, "gender": 3})),
        predictor={"url": predictor.url},
        features={"repository": str(online_store(folder))},
        web=True,
    )
    yield running
    running.child.stop()


# ---- the document that a browser makes of it


@pytest.fixture
def browse(transformer, tmp_path):
    """Opens /web with these parameters and returns the document after its script has run."""
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("chromium is not installed (Debian: apt-get install chromium)")
    quiet = "no-sandbox disable-gpu disable-quic no-first-run disable-background-networking disable-component-update"
    flags = [f"--{flag}" for flag in (*quiet.split(), "disable-sync", f"user-data-dir={tmp_path / 'chromium'}")]

    def dump(**parameters):
        address = f"{transformer.url}/web?{urlencode(parameters)}"
        # Virtual time stands still while an answer is awaited: the budget is no race against the server.
        command = [program, "--headless", "--dump-dom", "--virtual-time-budget=10000", *flags, address]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True
        )
        try:
            return Document(process.communicate(timeout=60)[0])
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    return dump


class Document:
    """The dumped document, without the template that cards are made from."""

    def __init__(self, dump):
        self.markup = re.sub(r"<template.*?</template>", "", dump, flags=re.S)

    def text(self, element_id):
        """The text of one element that holds no other of its kind."""
        found = re.search(rf'<(\w+)[^>]* id="{element_id}"[^>]*>(.*?)</\1>', self.markup, re.S)
        return plain(found[2])

    def shows(self, section):
        return f'<section id="{section}" aria-labelledby="{section}-title">' in self.markup

    @property
    def marked(self):
        return [plain(found) for found in re.findall(r"<li[^>]*><mark>(.*?)</mark>", self.markup)]

    @property
    def cards(self):
        """Attribute -> (how its card is marked, the card's text)."""
        found = re.findall(r'<article class="attribute ?(\w*)"><?(.*?)</article>', self.markup.replace("\n", " "))
        return {plain(re.search(r"<h3>.*?</h3>", body)[0]): (marked, plain(body)) for marked, body in found}


def plain(markup):
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", markup)).split())


def test_a_user_at_the_models_own_thresholds(browse):
    page = browse(user="gardener")
    assert page.text("model") == "Model conf-profile, version v1"
    assert page.text("message") == ""
    assert "2025-06-01 12:00 UTC" in page.text("as-of")
    assert "search pension calculator submit nothing" in page.text("lists")
    assert "age 61 gender not given" in page.text("scalars")
    assert page.text("all-value") == "each its own"
    age, gender, stage = (page.cards[name] for name in ("age", "gender", "life stage"))
    assert age[0] == "accepted" and "old ✓ accepted level 4, score 0.70" in age[1]
    assert "precision 80 % recall 60 % coverage 80 %" in age[1]
    assert gender[0] == "withheld" and "male ✕ withheld: below τ 3 level 2, score 0.38" in gender[1]
    assert stage[0] == "" and "no tag – the evidence says nothing" in stage[1]
    assert "precision not measured recall not measured" in stage[1]


@pytest.mark.parametrize(
    ("tau", "outcomes", "rates"),
    [
        (2, ("accepted", "accepted"), "precision 60 % recall 80 %"),
        (5, ("withheld", "withheld"), "precision 90 % recall 50 %"),
    ],
)
def test_moving_tau_accepts_and_withholds(browse, tau, outcomes, rates):
    page = browse(user="gardener", tau=tau)
    assert page.text("all-value") == f"τ {tau}"
    assert (page.cards["age"][0], page.cards["gender"][0]) == outcomes
    assert rates in page.cards["age"][1]
    assert f'aria-valuetext="τ {tau}. ' in page.markup


def test_user_text_is_text(browse):
    page = browse(user="gardener")
    assert page.markup.count(html.escape(HOSTILE, quote=False)) == 2  # a keyphrase and the signature
    assert "<img" not in page.markup
    assert "<title>Conf-Profile: one user</title>" in page.markup


def test_evidence_is_marked_as_the_prompt_quotes_it(browse):
    page = browse(user="gardener")
    assert page.marked == ["rose pruning", HOSTILE]
    assert page.text("rationale") == f"rose pruning {QUOTED} never said (not among the keyphrases)"


def test_who_has_not_consented_is_not_shown(browse, predictor, transformer):
    asked = len(predictor.prompts)
    page = browse(user="refused")
    assert "refused has not consented to profiling" in page.text("message")
    assert not page.shows("known") and "private matter" not in page.markup
    assert transformer.json("/web/features/refused") == {"consent": False}
    assert len(predictor.prompts) == asked


def test_an_unknown_user_and_no_user_are_told_what_to_do(browse):
    page = browse(user="<b>nobody</b>")
    assert page.text("message").startswith("There is no answer: the online store knows no user '<b>nobody</b>'.")
    assert page.text("message").endswith("Check the id, then press Show again.")
    assert browse().text("message") == "Type the id of a user and press Show."


def test_any_id_may_be_asked_for_and_a_user_without_behaviour_has_a_page(browse):
    page = browse(user="a/b ö?")
    assert page.text("message") == "" and page.text("as-of") == "No behaviour yet."
    assert "signature hello" in page.text("scalars")


def test_without_the_predictor_the_features_stay_and_the_reason_is_told(browse, predictor):
    predictor.down = True
    try:
        page = browse(user="gardener")
    finally:
        predictor.down = False
    assert "Check that the predictor is running, then press Show again." in page.text("message")
    assert ".." not in page.text("message")
    assert page.shows("known") and page.cards["age"][0] == ""


def test_an_unjudged_model_says_so_on_the_page_and_in_every_answer(browse, transformer):
    body = {"instances": [{"user_id": "gardener"}, {"user_id": "refused"}], "parameters": {"thresholds": {"gender": 1}}}

    def predict():
        return httpx.post(f"{transformer.url}/v1/models/conf-profile:predict", json=body).json()["predictions"]

    assert not any("model_status" in entry for entry in predict())
    given = {"age": 4, "gender": None, "life_stage": None}
    folder = model_folder(transformer.file.parent / "models" / "v2-unjudged", "v2", given, {"judged": False})
    before = transformer.settings["model"]
    try:
        transformer.reload(lambda: transformer.json("/web/state")["version"] == "v2", model=str(folder))
        answers = predict()
        assert [entry["model_status"] for entry in answers] == ["unjudged", "unjudged"]
        gender = answers[0]["profile"]["gender"]
        assert gender["tag"] is None and gender["reason"].startswith("never accepted: the model is unjudged")
        page = browse(user="gardener", tau=1)
        assert page.text("model").endswith("version v2 (unjudged: nobody has measured how often it is right)")
        assert page.text("all-value") == "τ 1"
        assert page.cards["age"][0] == "accepted"
        assert (
            page.cards["gender"][0] == "withheld"
            and "✕ never accepted: the model is unjudged" in page.cards["gender"][1]
        )
    finally:
        transformer.reload(lambda: transformer.json("/web/state")["version"] == "v1", model=before)


def test_the_page_follows_a_change_of_model_and_goes_when_it_is_turned_off(browse, transformer):
    second = model_folder(transformer.file.parent / "models" / "v2", "v2", {"age": 5})
    try:
        transformer.reload(lambda: transformer.json("/web/state")["version"] == "v2", model=str(second))
        page = browse(user="gardener")
        assert page.text("model") == "Model conf-profile, version v2"
        assert (page.cards["age"][0], page.cards["gender"][0]) == ("withheld", "accepted")
        transformer.reload(lambda: transformer.status("/web/state") == 404, web=False)
        assert transformer.status("/web") == transformer.status("/web/features/gardener") == 404
    finally:
        transformer.reload(lambda: transformer.status("/web") == 200)
