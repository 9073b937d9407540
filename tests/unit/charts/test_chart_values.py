"""What values may say: defaults and presets pass, everything else is refused with the key that is wrong."""

import json
import runpy
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import jsonschema
import pytest
import yaml

from charts.chart import CHART, EVERY_OPTION, EXAMPLE
from conf_profile.config_layers import merge
from conf_profile.dialogue.reasons import Reason
from pipelines.commands.submit import submit
from support.chart_manifests import EXTERNAL, MATRIX, PRESETS, chart, notes, refusal, render
from support.chart_refusals import REFUSED_BY_THE_CHART, REFUSED_BY_THE_SCHEMA, last_key

SCHEMA = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
S3 = {"s3": {"endpoint": "https://s3.example.com"}}


@pytest.mark.parametrize(("values", "message"), REFUSED_BY_THE_SCHEMA, ids=last_key)
def test_the_schema_names_the_key(values, message):
    assert message in refusal(values)


@pytest.mark.parametrize(("values", "message"), REFUSED_BY_THE_CHART, ids=last_key)
def test_a_bad_combination_names_the_keys(values, message):
    assert message in refusal(values)


@pytest.mark.parametrize("name", MATRIX)
def test_good_values_are_accepted(name):
    assert render(*MATRIX[name])


def test_the_schema_is_one_and_the_defaults_follow_it():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    defaults = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    for values in (defaults, *(merge(defaults, preset) for preset in PRESETS.values())):
        jsonschema.Draft202012Validator(SCHEMA).validate(values)


def test_the_defaults_alone_say_what_is_missing():
    assert "s3.endpoint is empty: give the object store's address" in refusal(example={})
    assert "s3.existingSecret is empty" in refusal(example=S3)


def test_a_parent_chart_may_hand_down_its_globals():
    assert render({"global": {"imageRegistry": "registry.example.com"}})


def test_large_numbers_stay_numbers():
    layer = {"serving": {"maxInstances": 12345678}, "features": {"materialise": {"timeoutSeconds": 12345678}}}
    assert "e+0" not in json.dumps(render(layer)).replace("\\n", "")


def test_a_release_named_like_the_chart_has_its_name_once():
    rendered = chart().render(EXAMPLE, name="conf-profile", namespace="profiles")
    service = yaml.safe_load(rendered["conf-profile/templates/serving/inferenceservice.yaml"])
    assert service["metadata"]["name"] == "conf-profile"


@pytest.mark.parametrize(
    ("layer", "name"),
    [
        ({"fullnameOverride": "profiles"}, "profiles"),
        ({"nameOverride": "p"}, "prod"),
        ({"nameOverride": "x"}, "prod-x"),
    ],
)
def test_names_can_be_chosen(layer, name):
    (service,) = (document for document in render(layer) if document["kind"] == "InferenceService")
    assert service["metadata"]["name"] == name


def test_every_object_says_where_it_belongs():
    for layers in MATRIX.values():
        for document in render(*layers):
            labels = document["metadata"]["labels"]
            assert labels["app.kubernetes.io/instance"] == "prod"
            cluster_wide = document["kind"].startswith("Cluster")
            assert ("namespace" in document["metadata"]) is not cluster_wide


def test_notes_say_what_to_do_next():
    text = notes()
    assert "helm test prod" in text
    assert "no champion yet, run the pipeline" in text
    assert "kubectl create job -n profiles prod-conf-profile-materialise-now" in text
    assert "--from-literal=users=USER_ID" in text
    assert "There is one predictor" in text
    assert "There is one predictor" not in notes({"serving": {"predictor": {"replicas": 2}}})
    assert "whoever reaches it can ask for anybody's profile" in notes(EXTERNAL)
    assert "kubectl get events -n profiles --field-selector type=Warning" in text
    assert "kubectl get nodes" not in text
    gpu = notes(PRESETS["gpu"])
    assert "Predictors need 1 of nvidia.com/gpu" in gpu
    assert "kubectl get nodes -l nvidia.com/gpu.present=true" in gpu
    assert "prod-conf-profile-runner" in notes({"pipelines": {"enabled": True, "s3Secret": {"name": "s3"}}})


def test_notes_say_how_a_recurring_run_ends():
    everything = notes(EVERY_OPTION)
    assert 'runs at "0 3 * * 0"' in everything
    (line,) = (line for line in everything.splitlines() if "--end-schedule" in line)
    given = submit.make_context("submit", line.split()[2:]).params
    assert (given["preset"], given["dataset"]) == ("tiny", "parquet")
    assert given["overrides"] == ("storage.bucket=conf-profile", "storage.model=conf-profile")
    ended = notes(EVERY_OPTION, {"pipelines": {"schedule": {"enabled": False}}})
    assert "a recurring run of this model and preset, if there was one, has been disabled" in ended
    assert "--end-schedule" not in ended


ASK = runpy.run_path(str(CHART / "files" / "ask.py"))
GOOD = {"age": {"tag": "25-34", "level": 4, "accepted": True}, "gender": {"tag": None, "level": None}}


def test_helm_test_is_content_with_a_real_profile(capsys):
    ASK["check"]({"predictions": [{"model_version": "v1", "profile": GOOD}]})
    assert "version v1" in capsys.readouterr().out


@pytest.mark.parametrize(
    "prediction",
    [
        {"model_version": "v1", "profile": {}},
        {"model_version": "v1", "profile": {"age": {"tag": None, "level": None, "reason": "malformed answer"}}},
        {"error": {"code": 503, "message": "the predictor gave no answer"}, "profile": GOOD},
    ],
)
def test_helm_test_is_not_content_with_less(prediction):
    with pytest.raises(SystemExit):
        ASK["check"]({"predictions": [prediction]})


def test_helm_test_knows_a_malformed_answer():
    assert ASK["MALFORMED"] == Reason.MALFORMED


def test_helm_test_says_why_nobody_answered():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(SystemExit, match=rf"{url} cannot be asked: .*refused"):
            ASK["main"](url, "conf-profile", "0")


def test_helm_test_asks_again_while_the_transformer_is_not_there(capsys):
    answers = [(503, {}), (200, {"predictions": [{"model_version": "v1", "profile": GOOD}]})]

    class Transformer(BaseHTTPRequestHandler):
        def do_POST(self):
            status, body = answers.pop(0)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

    with ThreadingHTTPServer(("127.0.0.1", 0), Transformer) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            ASK["main"](f"http://127.0.0.1:{server.server_port}", "conf-profile", "30")
        finally:
            server.shutdown()
    assert "version v1" in capsys.readouterr().out
