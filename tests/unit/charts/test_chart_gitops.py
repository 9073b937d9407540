"""What Argo CD, Flux and `helm template` rely on: the same text each time, no secret in it, hooks that each knows."""

import json
import re
import runpy
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import helm_python
import pytest
import yaml

from charts.chart import CHART, EXAMPLE
from conf_profile.config_layers import merge
from conf_profile.rollout import state as rollout_state
from support.chart_hooks import preparation
from support.chart_manifests import MATRIX, NAME, of_kind, one, pods, render
from support.paths import ROOT

TEMPLATES = sorted((CHART / "templates").rglob("*.*"))
CHANGING = r"\b(rand\w+|gen(CA|PrivateKey|SelfSigned\w*|Signed\w*)|uuidv4|now|ago|htpasswd|bcrypt|shuffle|encryptAES)\b"
RELEASE_STATE = r"\.Release\.(IsInstall|IsUpgrade|Revision)\b"
SCRIPT = CHART / "files" / "prepare.py"
JOB = f"{NAME}-prepare"
RELEASE = "profiles/prod"
OTHER = "elsewhere/prod"


@pytest.mark.parametrize("name", MATRIX)
def test_two_renderings_are_the_same_text(name):
    values = merge(EXAMPLE, *MATRIX[name])
    first, second = (helm_python.Chart.load(CHART).render(values, name="prod", namespace="profiles") for _ in range(2))
    assert first == second
    assert not of_kind(render(*MATRIX[name]), "Secret")


def test_no_template_asks_for_chance_the_clock_or_what_was_there_before():
    for path in TEMPLATES:
        text = re.sub(r"\{\{-?\s*/\*.*?\*/\s*-?\}\}", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
        actions = " ".join(re.findall(r"\{\{(.*?)\}\}", text, flags=re.DOTALL))
        assert not re.search(CHANGING, actions), path
        assert not re.search(RELEASE_STATE, actions), path


def test_what_is_asked_of_the_cluster_can_refuse_and_the_pin_alone_is_rendered():
    asking = set()
    for path in TEMPLATES:
        for part in re.split(r'\{\{-? define "', path.read_text(encoding="utf-8")):
            if re.search(r"\blookup \"", part):
                asking.add(part.partition('"')[0])
    assert "conf-profile.model.uri" in asking
    assert all(name.startswith("conf-profile.checks.") for name in asking - {"conf-profile.model.uri"})


def weight(document):
    return int(document["metadata"]["annotations"]["helm.sh/hook-weight"])


@pytest.mark.parametrize("name", MATRIX)
def test_the_job_before_an_installation_comes_after_its_rights_in_helm_and_argo_cd(name):
    documents = [each for each in render(*MATRIX[name]) if "hook-weight" in json.dumps(each["metadata"])]
    if name == "own-password":
        assert not documents
        return
    (job,) = of_kind(documents, "Job").values()
    assert job["metadata"]["name"] == JOB
    for document in documents:
        notes = document["metadata"]["annotations"]
        assert (notes["helm.sh/hook"], notes["argocd.argoproj.io/hook"]) == ("pre-install,pre-upgrade", "PreSync")
        assert document is job or weight(document) < weight(job)
    bindings = [each for each in documents if each["kind"].endswith("Binding")]
    for binding in bindings:
        assert binding["subjects"] == [{"kind": "ServiceAccount", "name": JOB, "namespace": "profiles"}]
        role = next(each for each in documents if is_role_of(each, binding))
        assert weight(role) < weight(binding)


def is_role_of(document, binding):
    same = document["metadata"].get("namespace") == binding["metadata"].get("namespace")
    return (document["kind"], document["metadata"]["name"]) == (
        binding["roleRef"]["kind"],
        binding["roleRef"]["name"],
    ) and same


def task(documents):
    return preparation(pods(documents)[f"Job/{JOB}"]).task


@pytest.mark.parametrize("name", [name for name in MATRIX if name != "own-password"])
def test_the_job_may_do_what_it_is_told_and_each_object_that_it_looks_at_says_whose_it_is(name):
    documents = render(*MATRIX[name])
    told = task(documents)
    allowed = {
        (document["metadata"]["namespace"], resource, found, verb)
        for document in documents
        if document["kind"] == "Role" and document["metadata"]["name"] == JOB
        for rule in document["rules"]
        for resource in rule["resources"]
        for found in rule.get("resourceNames", ["*"])
        for verb in rule["verbs"]
    }
    wanted = {(*re.fullmatch(r"/api/v1/namespaces/(.+)/(.+)/(.+)", path).groups(), "get") for path in told["objects"]}
    if secret := told["password"]:
        ours = ("profiles", "secrets", secret["name"])
        wanted |= {(*ours, "get"), (*ours, "patch"), ("profiles", "secrets", "*", "create")}
    assert allowed == wanted
    assert bool(told["container"]) == (JOB.replace("prod", "profiles-prod") in of_kind(documents, "ClusterRole"))
    rendered = {
        (each["metadata"].get("namespace"), f"{each['kind'].lower()}s", each["metadata"]["name"]): each
        for each in documents
    }
    claimed = [rendered[place[:3]] for place in wanted if place[3] == "get" and place[1] != "secrets"]
    assert told["release"] == RELEASE
    for document in (*claimed, *of_kind(documents, "ClusterStorageContainer").values()):
        assert document["metadata"]["annotations"]["conf-profile/release"] == RELEASE


def test_after_an_installation_argo_cd_does_not_wait_for_a_champion():
    """Its PostSync would wait until the model serves, which the first run of the uploaded pipeline brings about."""
    jobs = of_kind(render(*MATRIX["everything-gpu"]), "Job")
    later = {name: job for name, job in jobs.items() if "post-install" in str(job["metadata"].get("annotations"))}
    assert set(later) == {f"{NAME}-upload", f"{NAME}-retention"}
    for job in later.values():
        assert job["metadata"]["annotations"]["argocd.argoproj.io/hook"] == "Sync"


def examples():
    """The YAML documents of the page by their kinds."""
    text = (ROOT / "docs" / "gitops.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```yaml\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)
    return {document["kind"]: document for block in blocks for document in yaml.safe_load_all(block)}


def ignored_fields():
    """JSON pointers that each tool's example leaves alone in an InferenceService."""
    argo = [
        rule["jsonPointers"]
        for rule in examples()["Application"]["spec"]["ignoreDifferences"]
        if (rule["group"], rule["kind"]) == ("serving.kserve.io", "InferenceService")
    ]
    flux = [
        rule["paths"]
        for rule in examples()["HelmRelease"]["spec"]["driftDetection"]["ignore"]
        if rule["target"]["kind"] == "InferenceService"
    ]
    return [*argo, *flux]


def test_the_examples_leave_to_a_rollout_what_it_changes_and_no_list_with_it():
    """Argo CD takes a whole list from the cluster for the sake of one of its elements."""
    changed = rollout_state.find_model_references(one(render(), "InferenceService"))
    rules = ignored_fields()
    assert len(rules) == 2
    for pointers in rules:
        assert set(pointers) == set(changed)
    assert not any(re.search(r"/\d+(/|$)", pointer) for pointer in changed)


def test_argo_cd_is_told_to_leave_them_alone_when_it_writes_too():
    spec = examples()["Application"]["spec"]
    assert {"RespectIgnoreDifferences=true", "ServerSideApply=true"} <= set(spec["syncPolicy"]["syncOptions"])
    assert spec["syncPolicy"]["automated"]["prune"] is True


@pytest.mark.parametrize("kind", ["Application", "HelmRelease"])
def test_the_values_of_the_examples_are_accepted(kind):
    spec = examples()[kind]["spec"]
    values = spec["source"]["helm"]["valuesObject"] if kind == "Application" else spec["values"]
    assert one(render(values, example={}), "InferenceService")


class ApiServer(BaseHTTPRequestHandler):
    """Objects by their paths; a POST finds what `meanwhile` has put there."""

    def do_GET(self):
        assert self.headers["Authorization"] == "Bearer of-the-pod"
        found = self.server.objects.get(self.path)
        self.reply(200 if found else 404, found or {"message": "not found"})

    def do_POST(self):
        body = self.body()
        self.server.objects.update(self.server.meanwhile)
        path = f"{self.path}/{body['metadata']['name']}"
        if path in self.server.objects:
            return self.reply(409, {"message": "already exists"})
        self.server.objects[path] = stored(body)
        return self.reply(201, body)

    def do_PATCH(self):
        assert self.headers["Content-Type"] == "application/merge-patch+json"
        found = self.server.objects[self.path]
        self.server.objects[self.path] = stored(merge(found, self.body()))
        self.reply(200, found)

    def body(self):
        return json.loads(self.rfile.read(int(self.headers["Content-Length"])))

    def reply(self, status, content):
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Not into the tests' output."""


def stored(secret):
    """As the API server keeps it, but for base64."""
    given = secret.pop("stringData", {})
    return {**secret, "data": {**secret.get("data", {}), **given}}


@pytest.fixture
def api(tmp_path):
    (tmp_path / "token").write_text("of-the-pod")
    server = ThreadingHTTPServer(("127.0.0.1", 0), ApiServer)
    server.objects, server.meanwhile, server.credentials = {}, {}, tmp_path
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


SECRET = f"/api/v1/namespaces/profiles/secrets/{NAME}-online-store"
SETTINGS = f"/api/v1/namespaces/profiles/configmaps/{NAME}-serving"
CONTAINERS = "/apis/serving.kserve.io/v1alpha1/clusterstoragecontainers"


@pytest.fixture
def prepare(api):
    """Runs the script of the rendering, but over HTTP."""
    given = preparation(pods(render())[f"Job/{JOB}"])
    assert given.script.rstrip() == SCRIPT.read_text(encoding="utf-8").rstrip()
    main = runpy.run_path(str(SCRIPT))["main"]

    def run():
        main({**given.task, "credentials": str(api.credentials)}, f"http://127.0.0.1:{api.server_port}")

    return run


def test_a_password_is_made_once(api, prepare):
    prepare()
    secret = json.loads(json.dumps(api.objects[SECRET]))
    assert re.fullmatch("[A-Za-z0-9]{32}", secret["data"]["password"])
    prepare()
    assert api.objects[SECRET] == secret


def test_two_releases_have_two_passwords(api, prepare):
    prepare()
    first = api.objects.pop(SECRET)["data"]
    prepare()
    assert api.objects[SECRET]["data"] != first


def test_nobody_who_deletes_what_is_in_no_manifest_deletes_the_password(api, prepare):
    """The chart before rendered it; and a label that Argo CD tracks by would make it the application's."""
    api.objects[SECRET] = {"metadata": {"name": "x"}, "data": {"password": "of the chart before"}}
    prepare()
    kept = api.objects[SECRET]
    assert kept["data"] == {"password": "of the chart before"}
    notes = kept["metadata"]["annotations"]
    assert (notes["helm.sh/resource-policy"], notes["argocd.argoproj.io/sync-options"]) == ("keep", "Prune=false")
    del api.objects[SECRET]
    prepare()
    assert api.objects[SECRET]["metadata"]["annotations"].items() >= notes.items()
    assert "app.kubernetes.io/instance" not in api.objects[SECRET]["metadata"]["labels"]


def test_a_secret_without_the_key_gets_it_and_keeps_the_rest(api, prepare):
    api.objects[SECRET] = {"metadata": {"annotations": {"team": "ml"}}, "data": {"other": "x"}}
    prepare()
    assert api.objects[SECRET]["data"].keys() == {"other", "password"}
    assert api.objects[SECRET]["metadata"]["annotations"]["team"] == "ml"


def test_a_password_that_somebody_made_at_the_same_moment_stays(api, prepare):
    api.meanwhile = {SECRET: {"metadata": {"name": "x"}, "data": {"password": "theirs"}}}
    prepare()
    assert api.objects[SECRET]["data"] == {"password": "theirs"}


def container(name, notes, uri="^champion://conf-profile/models/conf-profile(@.+)?$"):
    return {"metadata": {"name": name, "annotations": notes}, "spec": {"supportedUriFormats": [{"regex": uri}]}}


OURS = {"conf-profile/release": RELEASE}
THEIRS = {"conf-profile/release": OTHER}
BY_HELM = {"meta.helm.sh/release-namespace": "elsewhere", "meta.helm.sh/release-name": "prod"}
OWN = f"profiles-{NAME}"


@pytest.mark.parametrize(
    ("path", "found", "message"),
    [
        (SETTINGS, {"metadata": {"annotations": THEIRS}}, f"{SETTINGS} belongs to the release {OTHER}"),
        (SETTINGS, {"metadata": {"annotations": BY_HELM}}, f"belongs to the release {OTHER}, and {RELEASE} would"),
        (CONTAINERS, {"items": [container(OWN, THEIRS, "^x$")]}, f"{OWN} belongs to the release {OTHER}"),
        (CONTAINERS, {"items": [container("another", THEIRS)]}, "another of another release fetches champion://"),
        (CONTAINERS, {"items": [container("another", {})]}, "another of another release fetches champion://"),
    ],
    ids=["name", "name-of-helms", "container", "model", "model-of-nobody"],
)
def test_what_another_release_has_is_refused_for_good_and_nothing_is_made(api, prepare, capsys, path, found, message):
    api.objects[path] = found
    with pytest.raises(SystemExit) as refused:
        prepare()
    (rule,) = one([job_of(render())], "Job")["spec"]["podFailurePolicy"]["rules"]
    assert rule["action"] == "FailJob" and rule["onExitCodes"]["values"] == [refused.value.code]
    assert message in capsys.readouterr().err
    assert SECRET not in api.objects


def job_of(documents):
    return of_kind(documents, "Job")[JOB]


@pytest.mark.parametrize(
    "found",
    [
        {SETTINGS: {"metadata": {"annotations": OURS}}, CONTAINERS: {"items": [container(OWN, OURS)]}},
        # Of the chart before, applied without Helm: nothing says whose they are.
        {SETTINGS: {"metadata": {}}, CONTAINERS: {"items": [container(OWN, {})]}},
        # Of this release under the name that it had before.
        {CONTAINERS: {"items": [container("profiles-former", OURS)]}},
        {CONTAINERS: {"items": [container("another", THEIRS, "^champion://other(@.+)?$")]}},
    ],
    ids=["own", "of-the-chart-before", "renamed", "another-model"],
)
def test_what_is_the_releases_own_or_nobody_elses_passes(api, prepare, found):
    api.objects.update(found)
    prepare()
    assert SECRET in api.objects


def test_what_the_api_server_refuses_is_told_and_tried_again(api, prepare):
    api.shutdown()
    api.server_close()
    with pytest.raises(SystemExit, match="the API server does not answer"):
        prepare()
