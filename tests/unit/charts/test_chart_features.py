"""Feature registry, online store and their jobs."""

import re

import pytest
import yaml

from feature_repo import definitions, erase, jobs, materialise
from support.chart_manifests import NAME, OWN_REDIS, environment, of_kind, one, pods, refusal, render


def repository(*layers):
    return yaml.safe_load(of_kind(render(*layers), "ConfigMap")[f"{NAME}-features"]["data"]["feature_store.yaml"])


def job(name, *layers):
    (spec,) = (spec for pod, spec in pods(render(*layers)).items() if pod.startswith(name))
    return spec


def test_feast_reads_the_repository(tmp_path, monkeypatch):
    from feast.repo_config import load_repo_config

    monkeypatch.setenv("REDIS_PASSWORD", "sesame")
    file = tmp_path / "feature_store.yaml"
    file.write_text(of_kind(render(), "ConfigMap")[f"{NAME}-features"]["data"]["feature_store.yaml"])
    config = load_repo_config(tmp_path, file)
    assert config.project == "conf_profile"
    assert config.registry.path == f"s3://conf-profile/feast/profiles/{NAME}/registry.db"
    assert config.registry.cache_ttl_seconds == 0
    assert config.online_store.connection_string == f"{NAME}-online-store.profiles:6379,password=sesame"
    assert "sesame" not in file.read_text()


TASK = {"features": {"task": "attributes: {plan: [free, paid]}\nfeatures: {read: list, visits: number}\n"}}


def test_a_tasks_features_are_registered_by_the_job_and_known_to_every_other(tmp_path):
    file = tmp_path / "task.yaml"
    file.write_text(of_kind(render(TASK), "ConfigMap")[f"{NAME}-features"]["data"]["task.yaml"])
    assert definitions.declared_features(str(file)).types == {"read": "list", "visits": "number"}
    readers = [
        spec["containers"][0]
        for name, spec in pods(render(TASK)).items()
        if name.startswith(("Job/", "CronJob/")) and "feature_repo" in str(spec["containers"][0]["command"])
    ]
    assert len(readers) >= 2
    for container in readers:
        mounts = {mount["mountPath"]: mount.get("subPath") for mount in container["volumeMounts"]}
        assert mounts[environment(container)[definitions.TASK_VARIABLE]] == "task.yaml"
    assert "task.yaml" not in of_kind(render(), "ConfigMap")[f"{NAME}-features"]["data"]


def test_another_task_is_registered_and_leaves_the_servers_alone():
    """They have read the registry, and their model's features are still the old ones."""

    def registers_and_servers(*layers):
        documents = render(*layers)
        registers = [name for name in of_kind(documents, "Job") if "-register-" in name]
        return registers, one(documents, "InferenceService")

    (registers, servers), (others, same) = registers_and_servers(), registers_and_servers(TASK)
    assert registers != others and servers == same


def test_a_redis_of_your_own():
    documents = render(OWN_REDIS)
    store = yaml.safe_load(of_kind(documents, "ConfigMap")[f"{NAME}-features"]["data"]["feature_store.yaml"])
    assert store["online_store"] == {"type": "redis", "connection_string": "redis.data:6380,ssl=true"}
    assert not of_kind(documents, "Deployment")
    assert not of_kind(documents, "Secret")
    policy = of_kind(documents, "NetworkPolicy")[f"{NAME}-feature-jobs"]["spec"]
    assert [{"port": 6380, "protocol": "TCP"}] in [rule["ports"] for rule in policy["egress"]]


def test_the_registry_may_be_anywhere():
    assert repository({"features": {"registry": "s3://feast/all.db"}})["registry"]["path"] == "s3://feast/all.db"


def test_the_store_inside_has_a_password_that_neither_values_nor_objects_hold():
    documents = render()
    assert not of_kind(documents, "Secret")
    (container,) = one(documents, "Deployment")["spec"]["template"]["spec"]["containers"]
    reference = {"secretKeyRef": {"name": f"{NAME}-online-store", "key": "password"}}
    assert environment(container)["REDISCLI_AUTH"] == reference
    assert container["args"][-2:] == ["--requirepass", "$(REDISCLI_AUTH)"]
    for name in ("CronJob/", "InferenceService/prod-conf-profile/transformer"):
        for pod, spec in pods(documents).items():
            if pod.startswith(name):
                assert environment(spec["containers"][0])["REDIS_PASSWORD"] == reference


def test_the_store_inside_never_has_two_writers():
    documents = render()
    assert one(documents, "Deployment")["spec"]["strategy"] == {"type": "Recreate"}
    assert of_kind(documents, "PersistentVolumeClaim")[f"{NAME}-online-store"]["spec"]["accessModes"] == [
        "ReadWriteOnce"
    ]


def test_a_claim_of_your_own_is_used():
    layer = {"features": {"onlineStore": {"inside": {"persistence": {"existingClaim": "theirs"}}}}}
    documents = render(layer)
    assert not of_kind(documents, "PersistentVolumeClaim")
    volumes = one(documents, "Deployment")["spec"]["template"]["spec"]["volumes"]
    assert volumes == [{"name": "data", "persistentVolumeClaim": {"claimName": "theirs"}}]


def arguments(module, command, tmp_path, capsys):
    """The arguments of a job's command, after the program itself has taken them and found no repository."""
    assert command[:3] == ["python", "-m", module.__name__]
    with pytest.raises(SystemExit) as ended:
        module.main([*command[3:], f"--repository={tmp_path}"])
    assert ended.value.code == 2
    message = capsys.readouterr().err
    assert "has no feature_store.yaml" in message or "holds the users to erase" in message
    return command[3:]


def test_materialise_goes_on_where_it_ended(tmp_path, capsys):
    (container,) = job("CronJob/prod-conf-profile-materialise")["containers"]
    assert arguments(materialise, container["command"], tmp_path, capsys) == ["--late-hours=24"]
    given = environment(container)
    assert given["CONF_PROFILE_BEHAVIOUR"] == "s3://conf-profile/tables/behaviour.parquet"
    assert given["CONF_PROFILE_DEMOGRAPHICS"] == "s3://conf-profile/tables/demographics.parquet"


@pytest.mark.parametrize(
    "features", [{"materialise": {"full": True}}, {"onlineStore": {"inside": {"persistence": {"enabled": False}}}}]
)
def test_a_store_that_may_be_empty_is_filled_as_a_whole(features):
    (container,) = job("CronJob/prod-conf-profile-materialise", {"features": features})["containers"]
    assert "--full" in container["command"]


def test_only_one_materialisation_at_a_time():
    spec = of_kind(render(), "CronJob")[f"{NAME}-materialise"]["spec"]
    assert spec["concurrencyPolicy"] == "Forbid"
    assert spec["suspend"] is False


def registration(*layers):
    (found,) = (job for name, job in of_kind(render(*layers), "Job").items() if name.startswith(f"{NAME}-register-"))
    return found


def test_definitions_are_registered_by_a_job_with_a_name_of_its_content(tmp_path, capsys):
    before, again = registration(), registration()
    after = registration({"features": {"project": "other"}})
    assert before == again
    assert before["metadata"]["name"] != after["metadata"]["name"]
    command = before["spec"]["template"]["spec"]["containers"][0]["command"]
    assert arguments(materialise, command, tmp_path, capsys) == ["--register-only"]


def test_an_erasure_is_started_by_hand_and_its_users_stand_in_a_secret(tmp_path, capsys):
    cron = of_kind(render(), "CronJob")[f"{NAME}-erase"]
    assert cron["spec"]["suspend"] is True
    spec = job("CronJob/prod-conf-profile-erase")
    (container,) = spec["containers"]
    assert arguments(erase, container["command"], tmp_path, capsys) == ["--users", "/etc/conf-profile/erase/users"]
    assert {"name": "users", "secret": {"secretName": f"{NAME}-erase", "optional": True}} in spec["volumes"]


ON, OFF, ABSENT = (
    {"serving": {"enabled": serving, "writeBack": {"enabled": written}}}
    for serving, written in ((True, True), (True, False), (False, True))
)
OWN_CLAIM = {"serving": {"writeBack": {"persistence": {"existingClaim": "theirs"}}}}


def mounted(documents):
    """Claim with the inferred tags -> the parts whose pods mount it."""
    found = {}
    for pod, spec in pods(documents).items():
        for volume in spec.get("volumes", ()):
            if volume["name"] == "features" and "persistentVolumeClaim" in volume:
                part = re.split("[-/]", pod)[-1]
                found.setdefault(volume["persistentVolumeClaim"]["claimName"], set()).add(part)
    return found


@pytest.mark.parametrize(
    ("layers", "claims", "made"),
    [
        ([OFF], {}, False),
        ([ON], {f"{NAME}-inferred": {"transformer", "erase"}}, True),
        ([ON, OWN_CLAIM], {"theirs": {"transformer", "erase"}}, False),
        # The rows that were written before are still there.
        ([OFF, OWN_CLAIM], {"theirs": {"erase"}}, False),
        ([ABSENT, OWN_CLAIM], {"theirs": {"erase"}}, False),
        ([ABSENT], {}, False),
    ],
    ids=["off", "on", "own", "own-off", "own-without-serving", "without-serving"],
)
def test_inferred_tags_are_mounted_where_they_are_written_and_erased(layers, claims, made):
    documents = render(*layers)
    assert mounted(documents) == claims
    assert (f"{NAME}-inferred" in of_kind(documents, "PersistentVolumeClaim")) is made


def test_the_repository_of_a_job_can_be_written_and_its_file_cannot():
    spec = job("CronJob/prod-conf-profile-erase")
    mounts = {mount["mountPath"]: mount for mount in spec["containers"][0]["volumeMounts"]}
    folder = str(jobs.REPOSITORY)
    assert not mounts[folder].get("readOnly")
    assert mounts[f"{folder}/feature_store.yaml"]["readOnly"] is True


def test_nothing_but_the_release_reaches_the_store_inside():
    policy = of_kind(render(), "NetworkPolicy")[f"{NAME}-online-store"]["spec"]
    transformer, ours = (peer["podSelector"] for peer in policy["ingress"][0]["from"])
    assert transformer["matchLabels"] == {"serving.kserve.io/inferenceservice": NAME, "component": "transformer"}
    assert ours["matchExpressions"][0]["values"] == ["register", "materialise", "erase"]
    for pod in (f"Job/{NAME}-register", "CronJob/prod-conf-profile-materialise", "CronJob/prod-conf-profile-erase"):
        (name,) = (name for name in pods(render()) if name.startswith(pod))
        kind, _, rest = name.partition("/")
        document = of_kind(render(), kind)[rest]
        template = document["spec"].get("template") or document["spec"]["jobTemplate"]["spec"]["template"]
        labels = template["metadata"]["labels"]
        assert labels["app.kubernetes.io/instance"] == "prod"
        assert labels["app.kubernetes.io/component"] in ours["matchExpressions"][0]["values"]


@pytest.mark.parametrize(
    ("store", "message"),
    [
        (
            {"address": "redis:6379"},
            "features.onlineStore.address is given and features.onlineStore.inside.enabled is true",
        ),
        (
            {"inside": {"enabled": False}},
            "features.onlineStore.address is empty and features.onlineStore.inside.enabled",
        ),
        ({"tls": True}, "features.onlineStore.tls is for a server of your own"),
    ],
)
def test_bad_combinations(store, message):
    assert message in refusal({"features": {"onlineStore": store}})
