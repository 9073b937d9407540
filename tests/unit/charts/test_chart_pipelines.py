"""What runs of the pipeline are given: service account, rights, store, and the job that uploads it."""

import pytest
import yaml

from components.steps import STEPS
from conf_profile import config
from conf_profile.cli import places
from conf_profile.cli.retention import retention
from pipelines import resources
from pipelines.commands.submit import submit
from pipelines.compile import compile_to
from support.chart_manifests import NAME, PRESETS, environment, of_kind, pods, refusal, render

ON = {"pipelines": {"enabled": True, "s3Secret": {"name": "keys"}}}
UPLOAD = {"pipelines": {"upload": {"enabled": True, "endpoint": "http://kfp:8888"}}}
SCHEDULE = {"pipelines": {"schedule": {"enabled": True}, "upload": {"dataUri": "s3://lake/tables"}}}
SWEPT = {"pipelines": {"retention": {"cronJob": {"enabled": True}}}}
ELSEWHERE = {"pipelines": {"namespace": "training"}}


def rules(documents, name):
    return [
        (rule["resources"], rule.get("resourceNames"), rule["verbs"])
        for rule in of_kind(documents, "Role")[f"{NAME}-{name}"]["rules"]
    ]


def test_runs_may_do_what_kfps_launcher_needs():
    assert rules(render(ON), "launcher") == [
        (["configmaps"], ["kfp-launcher"], ["get"]),
        (["secrets"], ["mlpipeline-minio-artifact"], ["get"]),
        (["workflowtaskresults"], None, ["create", "patch"]),
    ]


def test_a_rollout_may_change_the_one_inference_service():
    assert rules(render(ON), "rollout") == [
        (["inferenceservices"], [NAME], ["get", "patch"]),
        (["leases"], [f"{NAME}-rollout"], ["get", "update"]),
        (["leases"], None, ["create"]),
        (["deployments"], [f"{NAME}-predictor", f"{NAME}-transformer"], ["get"]),
        (["pods"], None, ["list"]),
    ]


def test_runs_may_be_in_another_namespace_than_the_model():
    documents = render(ON, ELSEWHERE)
    account = of_kind(documents, "ServiceAccount")[f"{NAME}-runner"]
    assert account["metadata"]["namespace"] == "training"
    bindings = of_kind(documents, "RoleBinding")
    assert bindings[f"{NAME}-launcher"]["metadata"]["namespace"] == "training"
    assert bindings[f"{NAME}-rollout"]["metadata"]["namespace"] == "profiles"
    for part in ("launcher", "rollout"):
        subjects = bindings[f"{NAME}-{part}"]["subjects"]
        assert subjects == [{"kind": "ServiceAccount", "name": f"{NAME}-runner", "namespace": "training"}]


def roles_of_runs(documents):
    """All but that of the job before an installation."""
    return of_kind(documents, "Role").keys() - {f"{NAME}-prepare"}


def test_an_account_of_your_own_gets_no_rights_from_here():
    layer = {"pipelines": {"serviceAccount": {"create": False, "name": "theirs"}}}
    documents = render(ON, layer, UPLOAD)
    assert not roles_of_runs(documents) and f"{NAME}-runner" not in of_kind(documents, "ServiceAccount")
    assert pods(documents)[f"Job/{NAME}-upload"]["serviceAccountName"] == "theirs"


def test_without_serving_there_is_nothing_to_roll_out():
    assert roles_of_runs(render(ON, {"serving": {"enabled": False}})) == {f"{NAME}-launcher"}


@pytest.mark.parametrize(
    ("launcher", "secret"),
    [({"create": True}, "keys"), ({"create": True, "secret": "theirs"}, "theirs"), ({}, "mlpipeline-minio-artifact")],
)
def test_the_launcher_may_read_the_secret_that_it_is_told_of(launcher, secret):
    documents = render(ON, {"pipelines": {"launcher": launcher}})
    assert (["secrets"], [secret], ["get"]) in rules(documents, "launcher")
    told = of_kind(documents, "ConfigMap").get("kfp-launcher")
    if launcher.get("create"):
        (provider,) = yaml.safe_load(told["data"]["providers"])["s3"].values()
        assert provider["credentials"]["secretRef"]["secretName"] == secret
        assert provider["endpoint"] == "https://s3.example.com" and provider["disableSSL"] is False
        assert told["data"]["defaultPipelineRoot"] == "s3://conf-profile/pipelines"
    else:
        assert told is None


def uploaded(*layers):
    data = of_kind(render(ON, UPLOAD, *layers), "ConfigMap")[f"{NAME}-pipeline"]["data"]
    return data["values.yaml"], data["run.yaml"]


def test_the_job_compiles_with_the_releases_own_pools_and_steps(tmp_path):
    values = tmp_path / "values.yaml"
    values.write_text(uploaded(PRESETS["gpu"])[0])
    declared = resources.load([values])
    assert declared.node_pools["gpu"].node_selector == {"nvidia.com/gpu.present": "true"}
    assert declared.pipelines.steps["grpo"].gpus == 1
    assert declared.pipelines.s3_secret.name == "keys"
    assert declared.s3.endpoint == "https://s3.example.com"


def test_the_runs_configuration_stores_where_the_release_reads(tmp_path):
    layer = {"s3": {"model": "profiles"}, "pipelines": {"upload": {"config": {"grpo": {"steps": 7}}}}}
    run = tmp_path / "run.yaml"
    run.write_text(uploaded(layer)[1])
    resolved = config.resolve("tiny", run)
    assert resolved.grpo.steps == 7
    assert resolved.storage.model == "profiles"
    assert resolved.storage.endpoint == "https://s3.example.com"


def test_steps_that_ask_the_object_store_have_the_releases_certificates(tmp_path):
    values, out = tmp_path / "values.yaml", tmp_path / "pipeline.yaml"
    values.write_text(uploaded({"s3": {"caConfigMap": "company-ca", "caKey": "root.pem"}})[0])
    every_step = config.resolve(overrides=["rejection.rounds=1", "rollout.inference_service=conf-profile"])
    compile_to(out, every_step, resources.load([values]))
    pipeline, platform = yaml.safe_load_all(out.read_text())
    placed = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    asking = set()
    for name, executor in pipeline["deploymentSpec"]["executors"].items():
        given = environment(executor.get("container", {}))
        (volume,) = placed.get(name, {}).get("configMapAsVolume", [{}])
        assert ("AWS_ENDPOINT_URL_S3" in given) is bool(volume)
        if volume:
            asking.add(name.removeprefix("exec-"))
            assert given["AWS_CA_BUNDLE"] == "/etc/s3-ca/root.pem"
            assert (volume["configMapName"], volume["mountPath"]) == ("company-ca", "/etc/s3-ca")
    assert asking == {step.name for step in STEPS if step.uses_store}


def command(*layers):
    (container,) = pods(render(ON, UPLOAD, *layers))[f"Job/{NAME}-upload"]["containers"]
    assert container["command"] == ["python", "-m", "conf_profile", "submit"]
    values = [part for part in container["args"] if part.startswith("--config=")]
    given = [part for part in container["args"] if part not in values]
    return submit.make_context("submit", given).params, container


def test_the_job_uploads_and_runs_nothing():
    given, container = command()
    assert given["upload_only"] is True and not given["schedule"]
    assert given["end_schedule"] is True
    assert given["endpoint"] == "http://kfp:8888"
    assert given["image"] == container["image"] == "conf-profile/training:0.1.0"
    assert given["service_account"] == f"{NAME}-runner"


def test_the_job_makes_a_recurring_run():
    given, container = command(SCHEDULE)
    assert given["upload_only"] is False and given["schedule"] == "0 3 * * 0"
    assert given["end_schedule"] is False
    assert given["data_uri"] == "s3://lake/tables"
    assert environment(container)["AWS_ACCESS_KEY_ID"] == {"secretKeyRef": {"name": "keys", "key": "AWS_ACCESS_KEY_ID"}}


def test_a_recurring_run_ends_by_the_name_that_it_was_made_with():
    made, ended = command(SCHEDULE)[0], command()[0]
    for option in ("preset", "dataset", "experiment", "namespace", "endpoint"):
        assert made[option] == ended[option]
    assert made["dataset"] == "parquet"


def test_the_job_runs_where_its_account_is_and_after_the_rest():
    documents = render(ON, UPLOAD, ELSEWHERE)
    job = of_kind(documents, "Job")[f"{NAME}-upload"]
    configuration = of_kind(documents, "ConfigMap")[f"{NAME}-pipeline"]
    assert job["metadata"]["namespace"] == configuration["metadata"]["namespace"] == "training"
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "post-install,post-upgrade"


def test_the_job_has_a_token_for_kfp_alone_when_asked():
    (container,) = pods(render(ON, UPLOAD, {"pipelines": {"upload": {"token": True}}}))[f"Job/{NAME}-upload"][
        "containers"
    ]
    assert environment(container)["KF_PIPELINES_SA_TOKEN_PATH"] == "/var/run/secrets/kubeflow/pipelines/token"
    spec = pods(render(ON, UPLOAD, {"pipelines": {"upload": {"token": True}}}))[f"Job/{NAME}-upload"]
    (volume,) = (volume for volume in spec["volumes"] if volume["name"] == "token")
    assert volume["projected"]["sources"][0]["serviceAccountToken"]["audience"] == "pipelines.kubeflow.org"


def retained(*layers):
    """The retention's pod by its owner, and what the command line makes of its arguments."""
    documents = render(ON, {"pipelines": {"retentionDays": 30}}, *layers)
    ((owner, spec),) = ((name, pod) for name, pod in pods(documents).items() if name.endswith(f"/{NAME}-retention"))
    (container,) = spec["containers"]
    assert container["command"][:4] == ["python", "-m", "conf_profile", "retention"]
    called = retention.commands[container["command"][4]]
    return owner, called.name, called.make_context(called.name, container["args"]).params, container


def test_a_job_gives_the_bucket_rules_when_rows_are_to_expire():
    owner, name, given, container = retained({"pipelines": {"launcher": {"create": True}}})
    assert (owner, name, given["days"]) == (f"Job/{NAME}-retention", "apply", 30)
    assert (given["bucket"], given["artefacts"]) == ("conf-profile", ("s3://conf-profile/pipelines",))
    assert environment(container)["AWS_ENDPOINT_URL_S3"] == "https://s3.example.com"
    job = of_kind(render(ON, {"pipelines": {"retentionDays": 30}}, ELSEWHERE), "Job")[f"{NAME}-retention"]
    assert job["metadata"]["namespace"] == "training"
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "post-install,post-upgrade"


def test_a_cron_job_sweeps_where_the_store_has_no_rules():
    owner, name, given, _ = retained(SWEPT)
    assert (owner, name, given["days"]) == (f"CronJob/{NAME}-retention", "sweep", 30)
    assert given["artefacts"] == () and given["dry_run"] is False


def test_artefacts_may_lie_in_kfps_own_store_with_keys_of_its_own():
    address = "s3://mlpipeline/v2/artifacts?endpoint=http://seaweedfs.kubeflow:9000&region=minio"
    secret = {"name": "mlpipeline-minio-artifact"}
    layer = {"pipelines": {"retention": {"artefacts": address, "artefactsSecret": secret}}}
    *_, given, container = retained(layer)
    assert given["artefacts"] == (address,)
    keys = environment(container)
    assert keys[places.ACCESS_KEY] == {"secretKeyRef": {**secret, "key": "accesskey"}}
    assert keys[places.SECRET_KEY] == {"secretKeyRef": {**secret, "key": "secretkey"}}


def test_the_jobs_may_have_keys_that_no_step_has():
    layer = {"pipelines": {"retention": {"secret": {"name": "admin"}}, "s3Secret": {"endpointKey": "endpoint"}}}
    given = environment(retained(layer)[-1])
    assert given["AWS_ACCESS_KEY_ID"] == {"secretKeyRef": {"name": "admin", "key": "AWS_ACCESS_KEY_ID"}}
    assert given["AWS_ENDPOINT_URL_S3"] == "https://s3.example.com"
    steps = uploaded(layer, {"pipelines": {"retentionDays": 30}})[0]
    assert yaml.safe_load(steps)["pipelines"]["s3Secret"]["name"] == "keys"


def test_rules_are_taken_away_when_that_is_asked():
    assert not [name for name in pods(render(ON)) if name.endswith("-retention")]
    _, name, given, _ = retained({"pipelines": {"retentionDays": 0, "retention": {"removeRules": True}}})
    assert (name, given["days"]) == ("apply", 0)


def test_nothing_is_rendered_when_they_are_off():
    assert not roles_of_runs(render(UPLOAD)) and f"{NAME}-upload" not in of_kind(render(UPLOAD), "Job")


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (
            [{"pipelines": {"s3Secret": {"name": ""}}}],
            "pipelines.s3Secret.name is empty and s3.workloadIdentity is false",
        ),
        ([UPLOAD, {"pipelines": {"upload": {"endpoint": ""}}}], "pipelines.upload.endpoint is empty"),
        ([SCHEDULE], "pipelines.schedule.enabled needs pipelines.upload.enabled"),
        ([UPLOAD, {"pipelines": {"schedule": {"enabled": True}}}], "pipelines.upload.dataUri is empty"),
        (
            [SWEPT],
            "pipelines.retention.cronJob.enabled is true and pipelines.retentionDays is 0",
        ),
        (
            [{"pipelines": {"retentionDays": 7, "labelsSecret": {"name": "labels"}}}, SWEPT],
            "with pipelines.labelsSecret the keys of pipelines.s3Secret do not reach truth/",
        ),
        (
            [{"pipelines": {"retentionDays": 7, "retention": {"removeRules": True}}}],
            "pipelines.retention.removeRules takes the lifecycle rules away",
        ),
        ([{"pipelines": {"steps": {"sft": {"pool": "big"}}}}], 'pipelines.steps.sft.pool: there is no node pool "big"'),
        (
            [{"pipelines": {"steps": {"sft": {"pool": "gpu", "gpus": 4}}}}],
            "pipelines.steps.sft.gpus: 4 are asked for, a node of the pool has nodePools.gpu.gpu.count = 1",
        ),
    ],
)
def test_bad_combinations(layers, message):
    assert message in refusal(ON, *layers)


def test_the_upload_knows_where_tables_and_labels_are():
    places = {"dataUri": "s3://lake/tables", "labelsUri": "s3://vault/truth"}
    (container,) = pods(render(ON, UPLOAD, {"pipelines": {"upload": places}}))[f"Job/{NAME}-upload"]["containers"]
    assert {"--data-uri=s3://lake/tables", "--labels-uri=s3://vault/truth", "--upload-only"} <= set(container["args"])


def test_the_labels_keys_and_the_budget_for_retries_reach_the_compiler(tmp_path):
    values = tmp_path / "values.yaml"
    values.write_text(uploaded({"pipelines": {"labelsSecret": {"name": "truth"}, "retrySeconds": 60}})[0])
    declared = resources.load([values]).pipelines
    assert (declared.labels_secret.name, declared.retry_seconds) == ("truth", 60)


def test_the_production_preset_guards_the_labels_and_lets_personal_data_expire(tmp_path):
    values = tmp_path / "values.yaml"
    values.write_text(uploaded(PRESETS["production"])[0])
    declared = resources.load([values]).pipelines
    assert declared.labels_secret.name == "conf-profile-labels"
    assert declared.retention_days == 30
