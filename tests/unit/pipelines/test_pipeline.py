"""The compiled pipeline: it is what the golden files say, and no label reaches any step but the evaluation.

To accept a change of the pipeline:

    conf-profile compile --out tests/golden/training-pipeline.yaml
    conf-profile compile --out tests/golden/training-pipeline-gpu.yaml --values tests/golden/values-gpu-sample.yaml \\
        --set rejection.rounds=1 --set rollout.inference_service=conf-profile
"""

import json
import os
import subprocess
import sys

import pytest
import yaml

from conf_profile.config import RunConfig, defaults_digest, resolve
from conf_profile.storage.configuration_file import read
from pipelines import cluster_data, resources
from pipelines.compile import compile_to
from pipelines.resources import DEFAULT_STEPS
from support.paths import ROOT

GOLDEN = ROOT / "tests" / "golden"
VALUES = {
    "training-pipeline": {"values": [], "overrides": []},
    "training-pipeline-gpu": {
        "values": [str(GOLDEN / "values-gpu-sample.yaml")],
        "overrides": ["rejection.rounds=1", "rollout.inference_service=conf-profile"],
    },
}
CACHED = {"cached": {"values": [], "overrides": [], "caching": True}}
"""As `submit` compiles it for a run whose arguments name the content of its data."""
UNLABELLED = {"unlabelled": {"values": [], "overrides": [], "without_labels": True}}
"""As a run of it is when its data set has no labels: their address is empty, and so is the ceiling's."""
ENDED = {"ended": {"values": [], "overrides": [], "until": "predictions"}}
"""As `compile --until` makes it."""
COMPILED = VALUES | CACHED | ENDED | UNLABELLED
TRUTH = {"labels_uri", "ceiling_uri", "labels_digest"}
GPU_STEPS = {"sft": "4", "rejection": "1", "reference": "1", "grpo": "4", "evaluation": "1"}
OPTIONAL = {"rejection", "rollout"}
ON_REQUEST = {"predictions"}


COMPILE = """
import json, sys
from pathlib import Path
from conf_profile.config import resolve
from pipelines import cluster_data, resources
from pipelines.compile import compile_to
for name, given in json.loads(sys.argv[2]).items():
    config = resolve(overrides=given["overrides"])
    declared, caching = resources.load(map(Path, given["values"])), given.get("caching", False)
    values = cluster_data.default_arguments(config, caching=caching)
    if given.get("without_labels"):
        values |= {"labels_uri": "", "ceiling_uri": ""}
    target, until = Path(sys.argv[1]) / f"{name}.yaml", given.get("until", "")
    compile_to(target, config, declared, caching=caching, defaults=values, until=until)
"""


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """Compiled in a process of its own: the image's name comes from the environment, and kfp must not warn."""
    folder = tmp_path_factory.mktemp("compiled")
    environment = {key: value for key, value in os.environ.items() if key != "CONF_PROFILE_IMAGE"}
    command = [sys.executable, "-W", "error:::kfp", "-c", COMPILE, str(folder), json.dumps(COMPILED)]
    subprocess.run(command, check=True, env=environment, cwd=ROOT, capture_output=True)
    return {name: (folder / f"{name}.yaml").read_text(encoding="utf-8") for name in COMPILED}


@pytest.fixture(scope="module")
def documents(compiled):
    """name -> (pipeline, platform)."""
    return {name: tuple(yaml.safe_load_all(text)) for name, text in compiled.items()}


@pytest.fixture(scope="module")
def spec(documents):
    return documents["training-pipeline"][0]


def containers(documents):
    """Step -> what its container is, and what Kubernetes is told of its pod."""
    pipeline, platform = documents
    executors = pipeline["deploymentSpec"]["executors"]
    kubernetes = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    return {
        name.removeprefix("exec-"): (executor["container"], kubernetes[name])
        for name, executor in executors.items()
        if "container" in executor
    }


def tasks(pipeline):
    """Every task of the pipeline and of the loop in it, by name."""
    found = dict(pipeline["root"]["dag"]["tasks"])
    for component in pipeline["components"].values():
        found.update(component.get("dag", {}).get("tasks", {}))
    return found


def reads(task):
    """What a task reads: pipeline parameters and other tasks."""
    inputs = task.get("inputs", {})
    for given in inputs.get("parameters", {}).values():
        if "componentInputParameter" in given:
            yield given["componentInputParameter"]
        if "taskOutputParameter" in given:
            yield given["taskOutputParameter"]["producerTask"]
    for given in inputs.get("artifacts", {}).values():
        if "taskOutputArtifact" in given:
            yield given["taskOutputArtifact"]["producerTask"]
        if "componentInputArtifact" in given:
            yield given["componentInputArtifact"]
    yield from task.get("dependentTasks", [])


def tainted(outer, sources):
    """All tasks that the sources reach, directly or through others."""
    reached = set(sources)
    while True:
        more = {name for name, task in outer.items() if name not in reached and reached & set(reads(task))}
        if not more:
            return reached - set(sources)
        reached |= more


@pytest.mark.parametrize("name", VALUES)
def test_golden(compiled, name):
    assert compiled[name] == (GOLDEN / f"{name}.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", VALUES)
def test_every_step_is_non_root_and_limited_in_memory_processor_and_time(documents, name):
    found = containers(documents[name])
    absent = ON_REQUEST | (OPTIONAL if name == "training-pipeline" else set())
    assert set(found) == {step.replace("_", "-") for step in DEFAULT_STEPS} - absent
    for container, pod in found.values():
        assert pod["securityContext"] == {"runAsNonRoot": True}
        assert int(pod["activeDeadlineSeconds"]) > 0
        for amount in ("resourceCpuRequest", "resourceCpuLimit", "resourceMemoryRequest", "resourceMemoryLimit"):
            assert container["resources"][amount]


def test_every_step_is_retried_with_a_growing_pause(documents):
    placed = {name: task for name, task in tasks(documents["training-pipeline"][0]).items() if is_step(name)}
    assert len(placed) == len(containers(documents["training-pipeline"]))
    for task in placed.values():
        policy = task["retryPolicy"]
        assert policy["maxRetryCount"] == 2
        assert (policy["backoffDuration"], policy["backoffFactor"]) == ("30s", 2.0)
        # Argo counts it from the first start: shorter than a try, it would allow no second one.
        assert int(policy["backoffMaxDuration"].removesuffix("s")) >= 3 * 3600
    assert "retryPolicy" not in tasks(documents["training-pipeline-gpu"][0])["gate"]


def is_step(name):
    return name.replace("-", "_") in DEFAULT_STEPS


def test_nothing_is_written_beside_tmp(documents):
    for container, _ in containers(documents["training-pipeline"]).values():
        environment = {entry["name"]: entry["value"] for entry in container["env"]}
        for variable in ("HOME", "HF_HOME", "MPLCONFIGDIR", "TORCHINDUCTOR_CACHE_DIR", "XDG_CACHE_HOME"):
            assert environment[variable].startswith("/tmp")


def test_gpu_steps_and_no_others_are_on_the_gpu_pool(documents):
    for step, (container, pod) in containers(documents["training-pipeline-gpu"]).items():
        accelerator = container["resources"].get("accelerator", {})
        if step in GPU_STEPS:
            assert accelerator["resourceType"] == "nvidia.com/gpu"
            assert accelerator["resourceCount"] == GPU_STEPS[step]
            assert pod["nodeSelector"]["labels"] == {"pool": "gpu", "accelerator": "a100"}
            assert {taint["key"] for taint in pod["tolerations"]} == {"nvidia.com/gpu", "spot"}
            (volume,) = pod["emptyDirMounts"]
            assert (volume["mountPath"], volume["medium"], volume["sizeLimit"]) == ("/dev/shm", "Memory", "16Gi")
        else:
            assert not accelerator
            assert pod["nodeSelector"]["labels"] == {"pool": "cpu"}
            assert "tolerations" not in pod and "emptyDirMounts" not in pod


def test_several_gpus_mean_several_processes(documents):
    def processes(container):
        return [entry["value"] for entry in container["env"] if entry["name"] == "CONF_PROFILE_PROCESSES"]

    found = {
        step: processes(container) for step, (container, _) in containers(documents["training-pipeline-gpu"]).items()
    }
    assert {step for step, given in found.items() if given} == {"sft", "grpo"}
    assert found["sft"] == found["grpo"] == ["4"]


def test_secrets_reach_only_the_steps_that_need_them(documents):
    def secrets(pod):
        return {
            (secret["secretName"], pair["envVar"])
            for secret in pod.get("secretAsEnv", ())
            for pair in secret["keyToEnv"]
        }

    found = {step: secrets(pod) for step, (_, pod) in containers(documents["training-pipeline-gpu"]).items()}
    store = {("conf-profile-s3", "AWS_ACCESS_KEY_ID"), ("conf-profile-s3", "AWS_SECRET_ACCESS_KEY")}
    labels = {
        ("conf-profile-labels", "CONF_PROFILE_LABELS_ACCESS_KEY"),
        ("conf-profile-labels", "CONF_PROFILE_LABELS_SECRET_KEY"),
    }
    assert found.pop("synthesis") == store | {("teacher", "DEEPSEEK_API_KEY")}
    assert found.pop("evaluation") == store | labels
    for step in ("features", "labelling", "sft", "rejection", "grpo", "promotion", "rollout", "report"):
        assert found.pop(step) == store, step
    assert found == {"reference": set(), "filtering": set(), "gate": set()}


def test_a_step_knows_its_budget_for_retries_and_which_defaults_its_arguments_differ_from(documents):
    for container, _ in containers(documents["training-pipeline"]).values():
        environment = {entry["name"]: entry["value"] for entry in container["env"]}
        assert environment["CONF_PROFILE_RETRY_SECONDS"] == "900"
        assert environment["CONF_PROFILE_DEFAULTS"] == defaults_digest()


def test_shards_run_at_most_so_many_at_once(documents):
    limits = [
        task["iteratorPolicy"]["parallelismLimit"]
        for name in VALUES
        for task in tasks(documents[name][0]).values()
        if "iteratorPolicy" in task
    ]
    assert limits == [4, 8]


def test_what_depends_on_the_champion_of_the_moment_is_never_taken_from_the_cache(documents):
    found = tasks(documents["cached"][0])
    cached = {name for name, task in found.items() if task.get("cachingOptions", {}).get("enableCache")}
    assert {name for name in found if is_step(name)} - cached == {"evaluation", "promotion"}


def test_nothing_is_taken_from_the_cache_where_nobody_knows_the_content_of_the_data(spec, documents):
    assert not [name for name, task in tasks(spec).items() if task.get("cachingOptions", {}).get("enableCache")]
    assert digest_of(spec) == "uncached"
    # With this one the first step refuses to run, unless the run's arguments name the content.
    assert digest_of(documents["cached"][0]) == ""


def digest_of(pipeline):
    return pipeline["root"]["inputDefinitions"]["parameters"]["data_digest"]["defaultValue"]


def test_a_step_that_has_nothing_to_do_is_not_in_the_pipeline(documents):
    default, full = (tasks(documents[name][0]) for name in VALUES)
    assert full.keys() - default.keys() == OPTIONAL
    assert full["rollout"]["dependentTasks"] == ["promotion"]
    for found in (default, full):
        assert not any("triggerPolicy" in task for task in found.values())


def sources(task):
    """The tasks that a task's artefacts come from, in the same graph."""
    for given in task.get("inputs", {}).get("artifacts", {}).values():
        (source,) = given.keys() & {"taskOutputArtifact", "componentInputArtifact"}
        if source == "taskOutputArtifact":
            yield given[source]["producerTask"]


@pytest.mark.parametrize("name", VALUES)
def test_every_artefact_comes_from_a_task_of_the_run_whose_name_is_its_key(documents, name):
    """KFP's driver looks a producer up by its name, and its launcher reads what lies under the run's root alone."""
    pipeline = documents[name][0]
    graphs = [pipeline["root"]["dag"], *(part["dag"] for part in pipeline["components"].values() if "dag" in part)]
    for graph in graphs:
        for key, task in graph["tasks"].items():
            assert task["taskInfo"]["name"] == key
            assert set(sources(task)) <= graph["tasks"].keys()
    assert not any("importer" in executor for executor in pipeline["deploymentSpec"]["executors"].values())


@pytest.mark.parametrize("name", VALUES)
def test_every_parameter_has_a_default(documents, name):
    """So that KFP's own page can start a run."""
    parameters = documents[name][0]["root"]["inputDefinitions"]["parameters"]
    assert all(given.get("isOptional") for given in parameters.values())
    assert parameters["behaviour_uri"]["defaultValue"] == "s3://conf-profile/tables/behaviour.parquet"
    assert parameters["labels_uri"]["defaultValue"] == "s3://conf-profile/truth/labels.parquet"
    assert read(parameters["configuration"]["defaultValue"]) == resolve(overrides=VALUES[name]["overrides"])


def test_true_labels_reach_the_evaluation_and_what_judges_it_and_no_step_that_trains(documents):
    for name in VALUES | CACHED | UNLABELLED:
        outer = documents[name][0]["root"]["dag"]["tasks"]
        assert {name for name, task in outer.items() if TRUTH & set(reads(task))} == {"evaluation"}
        judges = {"evaluation", "gate", "promotion", "report", "rollout"}
        assert tainted(outer, TRUTH) == judges & outer.keys()


def test_a_run_that_ends_with_predictions_knows_no_label(documents):
    pipeline, _ = documents["ended"]
    outer = pipeline["root"]["dag"]["tasks"]
    assert not tainted(outer, TRUTH) and not OPTIONAL & outer.keys()
    student = outer["predictions"]["inputs"]["artifacts"]["student"]["taskOutputArtifact"]
    assert student == {"producerTask": "grpo", "outputArtifactKey": "student"}
    assert "predictions" in pipeline["root"]["outputDefinitions"]["artifacts"]


def test_without_labels_the_pipeline_is_the_same_but_for_empty_addresses(documents):
    """So one compiled pipeline serves both kinds of runs, and what holds of labels holds where there are none."""
    unlabelled, labelled = (documents[name][0] for name in ("unlabelled", "training-pipeline"))
    given = [unlabelled["root"]["inputDefinitions"]["parameters"][name] for name in ("labels_uri", "ceiling_uri")]
    assert [(one["defaultValue"], one["isOptional"]) for one in given] == [("", True), ("", True)]
    assert unlabelled["root"]["dag"] == labelled["root"]["dag"]
    assert unlabelled["deploymentSpec"] == labelled["deploymentSpec"]


def test_the_check_would_find_a_leak(spec):
    """The same look at a pipeline in which sft is given the labels' address."""
    outer = {name: dict(task) for name, task in spec["root"]["dag"]["tasks"].items()}
    leak = {"parameters": {"extra": {"componentInputParameter": "labels_uri"}}}
    outer["sft"] = {**outer["sft"], "inputs": leak}
    assert {name for name, task in outer.items() if TRUTH & set(reads(task))} == {"evaluation", "sft"}
    assert {"sft", "grpo"} <= tainted(outer, TRUTH)


def leaks(given):
    """Arguments besides the truth's own that hold the address of a file of the truth, or of a folder above one."""
    truth = [given[name] for name in ("labels_uri", "ceiling_uri") if given[name]]
    others = {name: value for name, value in given.items() if name not in TRUTH and isinstance(value, str) and value}
    return {
        name
        for name, value in others.items()
        for address in truth
        if address in value or address.startswith(f"{value.rstrip('/')}/")
    }


def test_no_argument_but_the_evaluations_own_leads_to_the_labels():
    given = cluster_data.default_arguments(RunConfig())
    assert not leaks(given)
    # Without labels there is nothing that another argument could lead to.
    assert not leaks({**given, "labels_uri": "", "ceiling_uri": ""})
    assert leaks({**given, "workspace": "s3://conf-profile/truth"}) == {"workspace"}
    assert leaks({**given, "task_uri": given["labels_uri"]}) == {"task_uri"}


@pytest.mark.parametrize("name", ["tables.LABELS", "fetch_labels", "fetch_truth", "LABELS_ACCESS_KEY"])
def test_no_training_module_names_the_labels_table(name):
    """What the compiled pipeline cannot show: that no step opens the file by itself."""
    allowed = {"components/evaluation", "conf_profile/data", "conf_profile/tables.py", "conf_profile/ingest/labels.py"}
    for folder in ("components", "conf_profile", "feature_repo"):
        for path in (ROOT / folder).rglob("*.py"):
            place = path.relative_to(ROOT).as_posix()
            if not any(place.startswith(prefix) for prefix in allowed):
                assert name not in path.read_text(encoding="utf-8"), place


def test_no_step_ingests():
    """Ingestion writes the file of the truth, before any run."""
    for folder in ("components", "feature_repo", "serving"):
        for path in (ROOT / folder).rglob("*.py"):
            assert "conf_profile.ingest" not in path.read_text(encoding="utf-8"), path


def test_steps_install_nothing_and_share_one_image(spec):
    executors = [e["container"] for e in spec["deploymentSpec"]["executors"].values() if "container" in e]
    assert len(executors) == 11
    assert {container["image"] for container in executors} == {"conf-profile/training:0.1.0"}
    assert not any("pip install" in part for container in executors for part in container["command"])


def test_a_pipeline_can_end_after_a_named_step(tmp_path):
    compile_to(tmp_path / "short.yaml", RunConfig(), resources.load(), until="labelling")
    pipeline, platform = yaml.safe_load_all((tmp_path / "short.yaml").read_text(encoding="utf-8"))
    assert set(containers((pipeline, platform))) == {"features", "synthesis", "labelling"}
    outputs = set(pipeline["root"]["outputDefinitions"]["artifacts"])
    assert outputs == {"features", "features_report", "labelling_report"}
    assert not TRUTH & {name for task in tasks(pipeline).values() for name in reads(task)}
