"""`conf-profile submit` against a server that speaks KFP's API, with kfp's own client and a real SeaweedFS.

The server stands in for a KFP backend, which cannot run here (see `kfp_server`); that a backend executes the pipeline
is not shown by it.
"""

import json
import os
import socket
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from conf_profile.cli.main import cli
from conf_profile.errors import ConfigError, ConfProfileError, PipelineError, PreflightError, RegistryError
from conf_profile.storage.configuration_file import read
from conf_profile.storage.local_s3 import local_s3
from conf_profile.storage.object_store import ObjectStore, s3_client
from pipelines.cluster import kfp_backend
from pipelines.cluster import submit as submission
from pipelines.cluster.runs import run_progress
from pipelines.cluster.runs.run_steps import STEPS
from pipelines.cluster.schedules import cron
from pipelines.cluster.submit import PIPELINE
from pipelines.compile import compile_to
from pipelines.training import PIPELINE_NAME
from support.kfp_server import node, run, serve, step
from support.stand_in import KubeApi, answering, write_kubeconfig

USERS = ["--users", "30"]
_COMPILED = {}


@pytest.fixture(scope="module")
def access(tmp_path_factory):
    with local_s3(tmp_path_factory.mktemp("s3")) as found:
        yield found


@pytest.fixture(autouse=True)
def environment(access, monkeypatch, tmp_path):
    """A user's machine: the object store in the environment, runs/ under a folder of its own."""
    for name, value in access.environment().items():
        monkeypatch.setenv(name, value)
    for name in (kfp_backend.TOKEN, kfp_backend.TOKEN_FILE, "KFP_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "no-kubeconfig"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run_progress, "SECONDS_BETWEEN_LOOKS", 0.01)


@pytest.fixture(autouse=True)
def compile_once(monkeypatch):
    """kfp's compiler takes seconds, and most of these tests submit the same pipeline."""

    def compile_once(path, *given):
        key = repr(given)
        if key not in _COMPILED:
            compile_to(path, *given)
            _COMPILED[key] = path.read_bytes()
        path.write_bytes(_COMPILED[key])

    monkeypatch.setattr(submission, "compile_to", compile_once)


@pytest.fixture
def server():
    with serve() as found:
        yield found


@pytest.fixture
def bucket(access):
    client = s3_client(access.endpoint, access.region, access.access_key, access.secret_key)
    store = ObjectStore(client, "conf-profile")
    store.ensure_bucket(create=True)
    return store


def submit(server, *arguments):
    url = server if isinstance(server, str) else server.url
    return CliRunner().invoke(cli, ["submit", "--endpoint", url, *USERS, *arguments], catch_exceptions=True)


def arguments_of(started):
    return started["runtime_config"]["parameters"]


def test_a_run_is_started_and_followed_to_its_end(server):
    server.looks = [
        run("PENDING"),
        run("RUNNING", node("features", "SUCCEEDED"), node("features-driver", "SUCCEEDED")),
        run("RUNNING", node("features", "SUCCEEDED"), node("sft", "RUNNING")),
        run("SUCCEEDED", node("features", "SUCCEEDED"), node("sft", "SUCCEEDED")),
    ]
    result = submit(server, "--image", "registry/training:abc")
    assert result.exit_code == 0, result.output + str(result.exception)
    assert f"run: {server.url}/#/runs/details/runs-" in result.stdout
    shown = [line.split()[1] for line in result.stderr.splitlines() if line.startswith("✓")]
    assert shown == ["features", "sft"]
    assert "7 s" in result.stderr
    (started,) = server.kept["runs"]
    (version,) = server.kept["pipeline_versions"]
    assert started["pipeline_version_reference"]["pipeline_version_id"] == version["pipeline_version_id"]
    assert server.kept["pipelines"][0]["display_name"] == PIPELINE == PIPELINE_NAME
    assert "registry/training:abc" in server.packages[version["display_name"]]


def test_the_arguments_are_what_a_pod_needs(server, bucket):
    assert submit(server, "--no-wait").exit_code == 0
    (started,) = server.kept["runs"]
    given = arguments_of(started)
    assert given["champion_version"] == "any"
    assert given["workspace"] == "s3://conf-profile/checkpoints/conf-profile"
    assert given["answers_folder"] == "s3://conf-profile/answers/conf-profile"
    for name in ("behaviour", "demographics", "task", "lexicon", "labels", "ceiling"):
        key = given[f"{name}_uri"].removeprefix("s3://conf-profile/")
        assert bucket.size(key), name
    assert all(isinstance(value, str | int | list) for value in given.values())
    assert len(json.dumps(given)) < 60_000


def test_nothing_is_uploaded_twice(server, bucket):
    assert submit(server, "--no-wait").exit_code == 0
    objects = bucket.sizes("data/")
    assert submit(server, "--no-wait").exit_code == 0
    assert bucket.sizes("data/") == objects
    assert (len(server.kept["runs"]), len(server.kept["pipeline_versions"]), len(server.kept["experiments"])) == (
        2,
        1,
        1,
    )
    assert submit(server, "--no-wait", "--image", "another:1").exit_code == 0
    assert (len(server.kept["pipeline_versions"]), len(server.kept["pipelines"])) == (2, 1)
    assert submit(server, "--no-wait", "--seed", "1").exit_code == 0
    assert len(bucket.sizes("data/")) > len(objects)


def test_tables_that_lie_in_s3_stay_where_they_are(server, bucket, made_tables):
    for path in made_tables.iterdir():
        if path.name != "ceiling.parquet":
            bucket.write_new(f"mine/{path.name}", path)
    before = set(bucket.sizes("data/"))
    assert submit(server, "--no-wait", "--data-uri", "s3://conf-profile/mine").exit_code == 0
    first = arguments_of(server.kept["runs"][-1])
    assert first["behaviour_uri"] == "s3://conf-profile/mine/behaviour.parquet"
    assert (first["lexicon_uri"], first["ceiling_uri"]) == ("s3://conf-profile/mine/lexicon.json", "")
    assert read(first["configuration"]).data.name == "parquet"
    assert first["as_of"] == json.loads((made_tables / "dataset.json").read_text())["as_of"]
    assert set(bucket.sizes("data/")) == before
    taxonomy = bucket.read("mine/task.yaml")
    bucket.replace("mine/task.yaml", taxonomy.body + b"\n", taxonomy.etag)
    assert submit(server, "--no-wait", "--data-uri", "s3://conf-profile/mine").exit_code == 0
    second = arguments_of(server.kept["runs"][-1])
    assert second["data_digest"] != first["data_digest"]
    assert second["labels_digest"] == first["labels_digest"]


def test_tables_that_are_missing_are_named(server):
    result = submit(server, "--data-uri", "s3://conf-profile/nothing")
    assert "s3://conf-profile/nothing: nothing of a data set lies there" in str(result.exception)
    absent = submit(server, "--data-uri", "s3://no-such-bucket/x")
    assert isinstance(absent.exception, RegistryError) and "does not exist" in str(absent.exception)
    assert server.kept["runs"] == []


@pytest.fixture(scope="module")
def made_tables(tmp_path_factory):
    """A folder of tables."""
    data = tmp_path_factory.mktemp("tables") / "data"
    assert CliRunner().invoke(cli, ["data", *USERS, "--out", str(data)]).exit_code == 0
    return data


@pytest.fixture
def own_tables(bucket, made_tables):
    """Tables in the store, under a name that is new in each test; its prefix."""
    prefix = f"own-{uuid.uuid4().hex}"
    for path in made_tables.iterdir():
        bucket.write_new(f"{prefix}/{path.name}", path)
    return prefix


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("lexicon.json", None, "lacks lexicon.json"),
        ("task.yaml", b"attributes: {age: [only]}", "task.yaml"),
        ("labels.parquet", b"no table", "labels.parquet: cannot be read as Parquet"),
    ],
)
def test_a_file_that_would_fail_late_is_read_before_anything_is_started(
    server, bucket, own_tables, name, content, message
):
    bucket.delete(f"{own_tables}/{name}")
    if content is not None:
        bucket.write_new(f"{own_tables}/{name}", content)
    result = submit(server, "--no-wait", "--data-uri", f"s3://conf-profile/{own_tables}")
    assert isinstance(result.exception, ConfProfileError), result.exception
    assert message in str(result.exception) and f"s3://conf-profile/{own_tables}" in str(result.exception)
    assert server.kept["runs"] == []


def test_labels_may_lie_apart(server, bucket, own_tables):
    labels = bucket.read(f"{own_tables}/labels.parquet").body
    bucket.delete(f"{own_tables}/labels.parquet")
    bucket.write_new(f"apart-{own_tables}/labels.parquet", labels)
    places = ["--data-uri", f"s3://conf-profile/{own_tables}", "--labels-uri", f"s3://conf-profile/apart-{own_tables}"]
    assert submit(server, "--no-wait", *places).exit_code == 0
    given = arguments_of(server.kept["runs"][-1])
    assert given["labels_uri"] == f"s3://conf-profile/apart-{own_tables}/labels.parquet"
    assert given["ceiling_uri"] == ""


def test_without_labels_a_run_is_started_that_is_said_to_be_unjudged(server, bucket, own_tables):
    bucket.delete(f"{own_tables}/labels.parquet")
    place = ["--data-uri", f"s3://conf-profile/{own_tables}"]
    result = submit(server, "--no-wait", *place)
    assert result.exit_code == 0, result.exception
    assert arguments_of(server.kept["runs"][-1])["labels_uri"] == ""
    told = " ".join(result.stderr.split())
    assert "warning: labels: there are none, so the run is unjudged, and its model will be rejected" in told
    allowed = ["--set", "gate.unjudged=allow", "--set", "gate.unjudged_levels.age=4"]
    told = " ".join(submit(server, "--no-wait", *place, *allowed).stderr.split())
    assert "note: labels: there are none, so the run is unjudged; gate.unjudged allows" in told


def test_a_place_that_was_named_for_labels_must_have_some(server, bucket, own_tables):
    bucket.delete(f"{own_tables}/labels.parquet")
    place = f"s3://conf-profile/{own_tables}"
    result = submit(server, "--no-wait", "--data-uri", place, "--labels-uri", place)
    assert isinstance(result.exception, ConfProfileError)
    assert f"{place}: lacks labels.parquet; put it there, or leave --labels-uri out" in str(result.exception)
    assert server.kept["runs"] == []


def test_levels_of_unknown_attributes_are_refused_before_anything_is_started(server, own_tables):
    for place in (["--data-uri", f"s3://conf-profile/{own_tables}"], []):
        result = submit(server, "--no-wait", "--set", "gate.unjudged_levels.agee=4", *place)
        assert isinstance(result.exception, ConfigError)
        assert "gate.unjudged_levels names 'agee', which the taxonomy does not have; it has age" in str(
            result.exception
        )
    assert server.kept["runs"] == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--labels-uri", "s3://b/l"], "--labels-uri goes with --data-uri"),
        (["--data-uri", "s3://b/t", "--dataset", "parquet", "--data", "here"], "give one of them"),
    ],
)
def test_options_that_contradict_each_other_are_refused(server, options, message):
    result = submit(server, *options)
    assert result.exit_code == 2 and message in result.stderr
    assert server.calls == []


def test_a_schedule_is_the_same_when_the_tables_have_changed(server, bucket, own_tables):
    """It takes nothing from the cache, so nothing of it names their content: an upgrade puts no schedule off."""
    for _ in range(2):
        result = submit(server, "--schedule", "@daily", "--data-uri", f"s3://conf-profile/{own_tables}")
        assert result.exit_code == 0, result.exception
        taxonomy = bucket.read(f"{own_tables}/task.yaml")
        bucket.replace(f"{own_tables}/task.yaml", taxonomy.body + b"\n", taxonomy.etag)
    assert "is as it should be" in result.stdout
    (kept,) = [each for each in server.kept["recurringRuns"] if each["display_name"].endswith("parquet tiny")]
    assert arguments_of(kept)["data_digest"] == "uncached"


def test_a_schedule_of_an_upload_that_expires_is_refused(server, tmp_path):
    values = tmp_path / "values.yaml"
    values.write_text(yaml.safe_dump({"pipelines": {"retentionDays": 30}}))
    result = submit(server, "--schedule", "@daily", "--values", str(values))
    assert isinstance(result.exception, ConfigError) and "name the place of your tables" in str(result.exception)


def test_uploads_that_expire_are_named_by_their_period(server, tmp_path):
    values = tmp_path / "values.yaml"
    values.write_text(yaml.safe_dump({"pipelines": {"retentionDays": 30}}))
    assert submit(server, "--no-wait", "--values", str(values)).exit_code == 0
    given = arguments_of(server.kept["runs"][-1])
    assert given["behaviour_uri"].startswith("s3://conf-profile/data/retained-30d-")
    assert given["labels_uri"].startswith("s3://conf-profile/truth/retained-30d-")
    assert given["data_digest"].startswith("retained-30d-")


def test_upload_only_needs_no_data_and_no_object_store(server, monkeypatch):
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    first, second = submit(server, "--upload-only"), submit(server, "--upload-only")
    assert (first.exit_code, second.exit_code) == (0, 0), first.exception
    assert "uploaded" in first.stdout and "was there already" in second.stdout
    assert server.kept["runs"] == server.kept["experiments"] == []


def test_a_schedule_takes_nothing_from_the_cache(server):
    result = submit(server, "--schedule", "30 4 * * *")
    assert result.exit_code == 0, result.exception
    assert "/#/recurringrun/details/recurringRuns-" in result.stdout
    (kept,) = server.kept["recurringRuns"]
    assert kept["trigger"]["cron_schedule"] == {"cron": "0 30 4 * * *"}
    assert (kept["max_concurrency"], kept["no_catchup"], kept["status"]) == (1, True, "ENABLED")
    (package,) = server.packages.values()
    pipeline = next(yaml.safe_load_all(package))
    parts = [pipeline["root"], *pipeline["components"].values()]
    placed = {name: task for part in parts for name, task in part.get("dag", {}).get("tasks", {}).items()}
    cached = {name for name, task in placed.items() if task.get("cachingOptions", {}).get("enableCache")}
    assert not cached & set(STEPS)
    assert server.kept["runs"] == []


def test_a_schedule_is_ended_by_its_name(server):
    assert submit(server, "--end-schedule").stdout == "recurring runs 'conf-profile/conf-profile world tiny': 0 ended\n"
    assert server.kept["experiments"] == []
    # It needs nothing of what a run needs, such as GPUs for a preset's vLLM.
    assert submit(server, "--end-schedule", "--preset=qwen3-8b").exit_code == 0
    for model in ("one", "two"):
        assert submit(server, "--schedule", "0 3 * * 0", "--set", f"storage.model={model}").exit_code == 0
    result = submit(server, "--upload-only", "--end-schedule", "--set", "storage.model=one")
    assert result.exit_code == 0, result.exception
    assert "pipeline version" in result.stdout and "'conf-profile/one world tiny': 1 ended" in result.stdout
    one, two = server.kept["recurringRuns"]
    assert (one["status"], two["status"]) == ("DISABLED", "ENABLED")
    again = submit(server, "--end-schedule", "--set", "storage.model=one")
    assert f"deleted recurring run {one['recurring_run_id']}" in again.stdout
    assert server.kept["recurringRuns"] == [two]
    assert server.kept["runs"] == []


def test_a_schedule_is_made_or_ended(server):
    result = submit(server, "--schedule", "0 3 * * 0", "--end-schedule")
    assert result.exit_code == 2 and "exclude each other" in result.stderr
    assert "--now goes with" in submit(server, "--now").stderr
    assert server.calls == []


@pytest.mark.parametrize(
    ("given", "expected"), [("0 3 * * 0", "0 0 3 * * 0"), ("5 0 3 * * 0", "5 0 3 * * 0"), ("@daily",) * 2]
)
def test_cron_is_kfps(given, expected):
    assert cron(given) == expected


def test_cron_of_another_form_is_refused_before_anything_is_done(server):
    result = submit(server, "--schedule", "every day")
    assert isinstance(result.exception, ConfigError) and "expected five fields" in str(result.exception)
    assert server.calls == []


@pytest.mark.parametrize(
    ("last", "message"),
    [
        (run("CANCELED", node("sft", "CANCELED")), "the run was cancelled"),
        (run("FAILED", *step("sft", "FAILED")), "step 'sft' failed: its log could not be read"),
        (run("FAILED", node("sft", "FAILED", "OOMKilled")), "step 'sft' failed: OOMKilled"),
        (run("FAILED", node("grpo-driver", "FAILED")), "step 'grpo-driver' failed: its log could not be read"),
        (run("FAILED") | {"error": {"code": 3, "message": "quota exceeded"}}, "quota exceeded"),
    ],
)
def test_ends_of_a_run(server, last, message):
    server.looks = [last]
    result = submit(server)
    assert isinstance(result.exception, PipelineError)
    assert message in str(result.exception) and f"{server.url}/#/runs/details/runs-" in str(result.exception)


def test_the_exit_status_tells_that_the_run_failed(server, tmp_path):
    server.looks = [run("FAILED", *step("sft", "FAILED"))]
    server.node_logs = {"sft-pod": "Traceback (most recent call last):\nconf_profile.errors.StudentError: no tokens\n"}
    command = [sys.executable, "-m", "conf_profile", "submit", "--endpoint", server.url, *USERS]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env={**os.environ})
    assert result.returncode == 2
    assert "conf-profile: step 'sft' failed: conf_profile.errors.StudentError: no tokens" in result.stderr
    assert "✗ sft" in result.stderr


def test_a_backend_that_is_down_is_told_at_once_and_before_anything_is_uploaded(bucket):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{probe.getsockname()[1]}"
    result = submit(address, "--seed", "99")
    assert isinstance(result.exception, PipelineError)
    for part in (address, "does not answer", "--endpoint", "ml-pipeline", "port-forward"):
        assert part in str(result.exception)
    assert not (bucket.sizes("runs/") or Path("runs").is_dir())


@pytest.mark.parametrize(
    ("status", "advice"), [(401, "set KFP_TOKEN"), (403, "--namespace"), (404, "before /apis"), (500, "ml-pipeline")]
)
def test_what_the_backend_refuses_says_what_to_do(server, status, advice):
    server.refuse = status
    message = str(submit(server).exception)
    assert str(status) in message and advice in message and "the token is not valid" in message


def test_a_page_that_is_not_kfp_is_no_backend(server):
    server.health = b"<html>please log in</html>"
    assert "this is not KFP" in str(submit(server).exception)
    assert len(server.kept["pipelines"]) == 0


def test_a_token_is_sent_and_never_shown(server, monkeypatch):
    monkeypatch.setenv(kfp_backend.TOKEN, "secret-token")
    result = submit(server, "--no-wait")
    assert server.tokens == {"Bearer secret-token"}
    assert "secret-token" not in result.output


def test_a_token_of_a_file_is_read_before_each_request(server, monkeypatch, tmp_path):
    file = tmp_path / "token"
    file.write_text("first-token\n")
    monkeypatch.setenv(kfp_backend.TOKEN_FILE, str(file))
    server.looks = [run("RUNNING"), run("SUCCEEDED")]
    server.on_look = lambda: file.write_text("second-token\n")
    assert submit(server).exit_code == 0
    assert server.tokens == {"Bearer first-token", "Bearer second-token"}
    file.unlink()
    assert f"{file}: cannot read KFP's token" in str(submit(server).exception)


def test_users_who_are_kept_apart_need_a_namespace(server):
    server.multi_user = True
    assert "--namespace" in str(submit(server).exception)
    assert submit(server, "--namespace", "team-a", "--no-wait").exit_code == 0
    assert server.kept["experiments"][0]["namespace"] == server.kept["pipelines"][0]["namespace"] == "team-a"


def test_the_pipeline_root_is_the_backends_own_or_the_given_one(server):
    assert submit(server, "--no-wait").exit_code == 0
    assert submit(server, "--no-wait", "--pipeline-root", "s3://team-a/kfp").exit_code == 0
    own, given = server.kept["runs"]
    assert "pipeline_root" not in own["runtime_config"]
    assert given["runtime_config"]["pipeline_root"] == "s3://team-a/kfp"


@pytest.mark.parametrize(
    ("version", "told"),
    [("2.17.3", ""), ("2.15.0", "this is KFP 2.15.0; this pipeline was tried on 2.17"), ("unknown", "does not tell")],
)
def test_a_version_that_was_not_tried_is_warned_of(server, version, told):
    server.version = version
    result = submit(server, "--upload-only")
    assert result.exit_code == 0
    warned = [line for line in result.stderr.splitlines() if line.startswith("conf-profile: warning")]
    assert [told in line for line in warned] == ([True] if told else [])


def test_kfp_1_is_refused(server, bucket):
    server.version = "1.8.22"
    result = submit(server, "--seed", "98")
    assert isinstance(result.exception, PipelineError) and "this is KFP 1.8.22" in str(result.exception)
    assert not Path("runs").is_dir()


def test_a_backend_that_is_silent_for_a_moment_is_asked_again(server):
    # The client itself tries four times.
    server.looks = [None] * 4 + [run("SUCCEEDED")]
    assert submit(server).exit_code == 0


def test_a_backend_that_stays_silent_is_given_up(server):
    server.looks = [None]
    result = submit(server)
    assert isinstance(result.exception, PipelineError) and "does not answer" in str(result.exception)


def test_values_and_configuration_must_fit(server, tmp_path):
    teacher = ["--set", "teacher.kind=openai", "--set", "teacher.model=m", "--set", "teacher.base_url=http://t/v1"]
    values = tmp_path / "values.yaml"
    values.write_text(yaml.safe_dump({"pipelines": {"teacherSecret": {"name": "t", "env": "OTHER"}}}))
    result = submit(server, *teacher, "--values", str(values))
    assert "teacher.api_key_env" in str(result.exception) and "pipelines.teacherSecret.env" in str(result.exception)
    result = submit(server, "--set", "grpo.use_vllm=true")
    assert "grpo.use_vllm needs a GPU: pipelines.steps.grpo.gpus is 0" in str(result.exception)
    assert server.calls == []


def test_arguments_that_kfp_cannot_pass_are_refused(server):
    long = "{" + ", ".join(f"argument{number}: {'x' * 90}" for number in range(900)) + "}"
    result = submit(server, "--set", f"teacher.engine_arguments={long}")
    assert isinstance(result.exception, ConfigError) and "KFP passes 60000" in str(result.exception)


def test_what_can_be_checked_is_checked_before_anything_is_started(server, tmp_path, monkeypatch):
    """Here: two Secrets that the namespace of the runs does not have, both named at once."""
    api = KubeApi({"/api/v1/namespaces/runs": {"metadata": {"name": "runs"}}, "/api/v1/nodes": {"items": []}})
    values = tmp_path / "values.yaml"
    secrets = {"s3Secret": {"name": "store"}, "labelsSecret": {"name": "labels"}}
    values.write_text(yaml.safe_dump({"pipelines": secrets}))
    with answering(api.answer) as url:
        monkeypatch.setenv("KUBECONFIG", str(write_kubeconfig(tmp_path / "kubeconfig", url)))
        for command in ([], ["--upload-only"], ["--schedule", "@daily"]):
            result = submit(server, "--namespace", "runs", "--values", str(values), *command)
            assert isinstance(result.exception, PreflightError), result.exception
            message = str(result.exception)
            assert "nothing was started" in message and "'store'" in message and "'labels'" in message
    assert server.kept["runs"] == server.kept["pipeline_versions"] == []
