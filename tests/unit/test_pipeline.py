"""The compiled pipeline: it is what the golden file says, and no label reaches any step but the evaluation.

To accept a change of the pipeline: `python -m pipelines.compile tests/golden/training-pipeline.yaml`.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden" / "training-pipeline.yaml"
TRUTH = {"labels_uri", "ceiling_uri", "labels_digest"}


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """Compiled in a process of its own: kfp is slow to import and the image's name comes from the environment."""
    path = tmp_path_factory.mktemp("compiled") / "pipeline.yaml"
    environment = {key: value for key, value in os.environ.items() if key != "CONF_PROFILE_IMAGE"}
    command = [sys.executable, "-m", "pipelines.compile", str(path)]
    subprocess.run(command, check=True, env=environment, cwd=ROOT, capture_output=True)
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def spec(compiled):
    return next(yaml.safe_load_all(compiled))


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


def tainted(tasks, sources):
    """All tasks that the sources reach, directly or through others."""
    reached = set(sources)
    while True:
        more = {name for name, task in tasks.items() if name not in reached and reached & set(reads(task))}
        if not more:
            return reached - set(sources)
        reached |= more


def test_golden(compiled):
    assert compiled == GOLDEN.read_text(encoding="utf-8")


def test_true_labels_reach_the_evaluation_and_what_judges_it_and_no_step_that_trains(spec):
    tasks = spec["root"]["dag"]["tasks"]
    direct = {name for name, task in tasks.items() if TRUTH & set(reads(task))}
    importers = direct - {"evaluate"}
    readers = {name for name, task in tasks.items() if importers & set(reads(task))}
    assert readers | (direct - importers) == {"evaluate"}
    assert {n for n in tainted(tasks, TRUTH) if not n.startswith("importer")} == {
        "evaluate",
        "gate",
        "promotion",
        "report",
    }


def test_the_check_would_find_a_leak(spec):
    """The same look at a pipeline in which sft reads the labels."""
    tasks = {name: dict(task) for name, task in spec["root"]["dag"]["tasks"].items()}
    labels = next(name for name in tasks if "labels_uri" in set(reads(tasks[name])))
    leak = {"artifacts": {"extra": {"taskOutputArtifact": {"producerTask": labels}}}}
    tasks["sft"] = {**tasks["sft"], "inputs": leak}
    assert {"sft", "grpo"} <= tainted(tasks, TRUTH)


def test_no_training_module_names_the_labels_table():
    """What the compiled pipeline cannot show: that no step opens the file by itself."""
    allowed = {"components/evaluation", "conf_profile/data", "conf_profile/tables.py"}
    for folder in ("components", "conf_profile", "feature_repo"):
        for path in (ROOT / folder).rglob("*.py"):
            place = path.relative_to(ROOT).as_posix()
            if not any(place.startswith(prefix) for prefix in allowed):
                assert "tables.LABELS" not in path.read_text(encoding="utf-8"), place


def test_steps_install_nothing_and_share_one_image(spec):
    executors = [e["container"] for e in spec["deploymentSpec"]["executors"].values() if "container" in e]
    assert len(executors) == 12
    assert {container["image"] for container in executors} == {"conf-profile/training:0.1.0"}
    assert not any("pip install" in part for container in executors for part in container["command"])
