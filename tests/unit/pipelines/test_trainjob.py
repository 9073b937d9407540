"""The TrainJob manifest against the fields of Kubeflow Trainer's API v1alpha1 (2.2), and the job that it carries.

The fields are those of the Go types in kubeflow/trainer, pkg/apis/trainer/v1alpha1. No cluster ran the manifest.
"""

import inspect
import json

import pytest
import yaml
from click.testing import CliRunner

from components.grpo import step as grpo
from components.sft import step as sft
from conf_profile.cli.main import cli
from conf_profile.config import SFTConfig, resolve
from conf_profile.errors import ConfigError
from conf_profile.students import processes
from conf_profile.students.remote_job import JOB
from pipelines import resources, trainjob
from pipelines.trainjob import INPUTS

POD = {
    "serviceAccountName": str, "volumes": list, "initContainers": list, "imagePullSecrets": list, "affinity": dict,
    "schedulingGates": list, "nodeSelector": dict, "tolerations": list, "securityContext": dict,
    "containers": [{"name": str, "env": list, "volumeMounts": list, "securityContext": dict}],
}  # fmt: skip
TEMPLATE = {
    "spec": {"replicatedJobs": [{"name": str, "template": {"spec": {"template": {"metadata": dict, "spec": POD}}}}]}
}
FIELDS = {
    "apiVersion": str,
    "kind": str,
    "metadata": {"name": str, "labels": dict},
    "spec": {
        "runtimeRef": {"apiGroup": str, "kind": str, "name": str},
        "initializer": dict,
        "trainer": {
            "image": str, "command": list, "args": list, "env": list, "numNodes": int, "numProcPerNode": int,
            "resourcesPerNode": {"requests": dict, "limits": dict, "claims": list},
        },
        "runtimePatches": [{"manager": str, "trainingRuntimeSpec": {"template": TEMPLATE}}],
        "suspend": bool,
        "activeDeadlineSeconds": int,
        "managedBy": str,
    },
}  # fmt: skip
VALUES = {
    "s3": {"endpoint": "http://s3:9000"},
    "nodePools": {"gpu": {"nodeSelector": {"pool": "gpu"}, "gpu": {"count": 4}}},
    "pipelines": {
        "s3Secret": {"name": "store"},
        "steps": {"sft": {"pool": "gpu", "gpus": 4, "limits": {"cpu": 8, "memory": "64Gi"}}},
    },
}


@pytest.fixture
def declared(tmp_path):
    (tmp_path / "values.yaml").write_text(yaml.safe_dump(VALUES))
    return resources.load([tmp_path / "values.yaml"])


def manifest(declared, step="sft", nodes=2, **values):
    pairs = [f"{name}=s3://artefacts/run/{name}" for name in INPUTS[step]]
    job = trainjob.parse_options(step, nodes, pairs, "s3://artefacts/multi-node")
    return trainjob.manifest(job, resolve(values=values), declared, "registry/training:abc")


def unknown(found, fields, where=""):
    """Every key that the API does not have, or whose value has another type."""
    if isinstance(fields, type):
        return [] if isinstance(found, fields) else [where]
    if isinstance(fields, list):
        return [wrong for each in found for wrong in unknown(each, fields[0], f"{where}[]")]
    missing = [f"{where}.{key}" for key in found if key not in fields]
    return missing + [
        wrong
        for key, value in found.items()
        if key in fields
        for wrong in unknown(value, fields[key], f"{where}.{key}")
    ]


@pytest.mark.parametrize("step", INPUTS)
def test_every_field_is_the_apis(declared, step):
    assert unknown(manifest(declared, step), FIELDS) == []


def test_the_check_finds_what_trainer_2_1_had():
    assert unknown({"spec": {"podTemplateOverrides": []}}, FIELDS) == [".spec.podTemplateOverrides"]
    assert unknown({"spec": {"trainer": {"numNodes": "2"}}}, FIELDS) == [".spec.trainer.numNodes"]


def test_nodes_gpus_and_pool_are_the_steps(declared):
    spec = manifest(declared, nodes=3)["spec"]
    trainer = spec["trainer"]
    assert (trainer["numNodes"], trainer["numProcPerNode"]) == (3, 4)
    assert trainer["resourcesPerNode"]["limits"] == {"cpu": "8", "memory": "64Gi", "nvidia.com/gpu": 4}
    (node,) = spec["runtimePatches"][0]["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    pod = node["template"]["spec"]["template"]["spec"]
    assert pod["nodeSelector"] == {"pool": "gpu"}
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["containers"][0]["securityContext"]["allowPrivilegeEscalation"] is False
    assert pod["volumes"][0]["emptyDir"] == {"medium": "Memory", "sizeLimit": "8Gi"}


def test_secrets_are_references(declared):
    environment = {entry["name"]: entry for entry in manifest(declared)["spec"]["trainer"]["env"]}
    assert environment["AWS_SECRET_ACCESS_KEY"]["valueFrom"]["secretKeyRef"]["name"] == "store"
    assert environment["AWS_ENDPOINT_URL_S3"]["value"] == "http://s3:9000"


def test_certificates_of_the_object_store_are_mounted(declared):
    given = resources.S3(ca_config_map="company-ca", ca_key="root.pem")
    spec = manifest(declared.model_copy(update={"s3": given}))["spec"]
    assert {"name": "AWS_CA_BUNDLE", "value": "/etc/s3-ca/root.pem"} in spec["trainer"]["env"]
    (node,) = spec["runtimePatches"][0]["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    pod = node["template"]["spec"]["template"]["spec"]
    assert {"name": "s3-ca", "configMap": {"name": "company-ca"}} in pod["volumes"]
    assert {"name": "s3-ca", "mountPath": "/etc/s3-ca", "readOnly": True} in pod["containers"][0]["volumeMounts"]


@pytest.mark.parametrize(("step", "function"), [("sft", sft.run), ("grpo", grpo.run)])
def test_the_job_is_a_call_of_the_steps_function(declared, step, function):
    environment = {entry["name"]: entry.get("value") for entry in manifest(declared, step)["spec"]["trainer"]["env"]}
    job = json.loads(environment[JOB])
    assert {*job["arguments"], "checkpoints"} == set(inspect.signature(function).parameters)
    assert job["arguments"]["student"] == "s3://artefacts/multi-node/student"
    found, arguments = processes.from_json(environment[JOB])
    assert found is function
    assert arguments["config"] == getattr(resolve(), step)


def test_the_configuration_is_the_runs(declared):
    environment = {e["name"]: e.get("value") for e in manifest(declared, sft={"epochs": 7})["spec"]["trainer"]["env"]}
    _, arguments = processes.from_json(environment[JOB])
    assert isinstance(arguments["config"], SFTConfig) and arguments["config"].epochs == 7


@pytest.mark.parametrize(
    ("step", "pairs", "output", "message"),
    [
        ("gate", [], "s3://b/o", "only sft and grpo"),
        ("sft", ["features=s3://b/f"], "s3://b/o", "needs --artefact for features, pseudo_labels, task_file"),
        ("sft", ["features"], "s3://b/o", "--artefact 'features': expected NAME=s3://BUCKET/KEY"),
        ("sft", [f"{name}=/tmp/{name}" for name in INPUTS["sft"]], "s3://b/o", "is not an s3:// address"),
        ("sft", [f"{name}=s3://b/{name}" for name in INPUTS["sft"]], "", "--output: '' is not an s3:// address"),
    ],
)
def test_what_is_missing_is_named(declared, step, pairs, output, message):
    with pytest.raises(ConfigError, match=message):
        trainjob.manifest(trainjob.parse_options(step, 2, pairs, output), resolve(), declared, "image")


def test_the_command_writes_it(tmp_path):
    artefacts = [part for name in INPUTS["sft"] for part in ("--artefact", f"{name}=s3://b/{name}")]
    out = tmp_path / "trainjob.yaml"
    result = CliRunner().invoke(
        cli, ["compile", "--trainjob", "sft", "--nodes", "4", *artefacts, "--output", "s3://b/o", "--out", str(out)]
    )
    assert result.exit_code == 0, result.output
    written = yaml.safe_load(out.read_text())
    assert (written["kind"], written["spec"]["trainer"]["numNodes"]) == ("TrainJob", 4)
