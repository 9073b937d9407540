"""Each component alone under KFP's local runner, fed with what a finished run left behind.

A run of the whole pipeline shows that the steps fit together; this shows what one of them needs and gives. The
outputs are compared with the run's own: a step is a function of its inputs.
"""

import json
from pathlib import Path

import pyarrow.compute as pc
import pytest
from kfp import dsl, local

from components.evaluation.component import evaluation
from components.features.component import features
from components.filtering.component import filtering
from components.gate.component import gate
from components.gate.step import judge
from components.grpo.component import grpo
from components.labelling.component import labelling
from components.predictions.component import predictions
from components.promotion.component import promotion
from components.reference.component import reference
from components.rejection.component import rejection
from components.report.component import report
from components.report.step import run as write_report
from components.rollout.component import rollout
from components.sft.component import sft
from components.steps import BY_NAME
from components.synthesis.component import synthesis
from conf_profile import tables
from conf_profile.config import GateConfig

pytestmark = pytest.mark.slow


class Finished:
    """What a finished run was given, and the artefacts that its steps wrote."""

    def __init__(self, folder):
        self.folder = folder
        self.arguments = json.loads((folder / "workspace" / "arguments.json").read_text())

    def artefact(self, task, name):
        """The newest: a killed try may have left a part of one."""
        found = self.folder.glob(f"artefacts/*/{task}/{name}")
        return max(found, key=lambda path: path.stat().st_mtime)

    @property
    def candidates(self):
        shards = range(len(self.arguments["shards"]))
        return [self.artefact(f"for-loop-1-iteration-{shard}/synthesis", "candidates") for shard in shards]

    def section(self, name):
        """What the run's configuration says differently from the defaults."""
        return json.loads(self.arguments[f"{name}_config"] or "{}")

    def parameters(self, **names):
        return {parameter: self.arguments[argument] for parameter, argument in names.items()}


@pytest.fixture(scope="module")
def finished(killed_then_finished):
    return Finished(killed_then_finished[0])


@pytest.fixture
def alone(tmp_path):
    """Runs one component on files; gives the path of each output by its name."""

    def run(component, files, parameters, candidates=()):
        @dsl.pipeline(name="alone")
        def pipeline():
            given = {name: imported(path) for name, path in files.items()}
            if candidates:
                with dsl.ParallelFor(items=[str(path) for path in candidates]) as uri:
                    shard = dsl.importer(artifact_uri=uri, artifact_class=dsl.Dataset)
                given["candidates"] = dsl.Collected(shard.output)
            component(**given, **parameters)

        local.init(local.SubprocessRunner(use_venv=False), pipeline_root=str(tmp_path / "out"))
        pipeline()
        (record,) = (tmp_path / "out").rglob("executor_output.json")
        artifacts = json.loads(record.read_text())["artifacts"]
        return {name: Path(value["artifacts"][0]["uri"]) for name, value in artifacts.items()}

    def imported(path):
        kind = dsl.Model if Path(path).is_dir() else dsl.Dataset
        return dsl.importer(artifact_uri=str(path), artifact_class=kind).output

    return run


def same_table(path, other, schema):
    return tables.read(path, schema).equals(tables.read(other, schema))


def test_features(finished, alone):
    parameters = finished.parameters(
        behaviour="behaviour_uri",
        demographics="demographics_uri",
        task_file="task_uri",
        data_digest="data_digest",
        as_of="as_of",
        config="features_config",
    )
    outputs = alone(features, {}, parameters)
    assert same_table(outputs["features"], finished.artefact("features", "features"), tables.FEATURES)
    assert json.loads(outputs["report"].read_text())["dropped_without_consent"] > 0


def test_synthesis(finished, alone, tmp_path):
    files = {"features": finished.artefact("features", "features")}
    parameters = finished.parameters(
        task_file="task_uri", lexicon="lexicon_uri", config="teacher_config", prompt="prompt_config", seed="seed"
    )
    outputs = alone(synthesis, files, {**parameters, "shard": 1, "answers_folder": str(tmp_path / "answers")})
    assert same_table(outputs["candidates"], finished.candidates[1], tables.CANDIDATES)


def test_labelling(finished, alone):
    files = {"features": finished.artefact("features", "features")}
    parameters = finished.parameters(task_file="task_uri", config="labelling_config", samples="samples")
    outputs = alone(labelling, files, parameters, finished.candidates)
    expected = finished.artefact("labelling", "pseudo_labels")
    assert same_table(outputs["pseudo_labels"], expected, tables.PSEUDO_LABELS)
    assert json.loads(outputs["report"].read_text())["balance"]


def test_sft_without_a_workspace(finished, alone):
    files = {
        "features": finished.artefact("features", "features"),
        "pseudo_labels": finished.artefact("labelling", "pseudo_labels"),
    }
    parameters = finished.parameters(
        task_file="task_uri", student_config="student_config", prompt="prompt_config", seed="seed"
    )
    config = finished.section("sft") | {"epochs": 0.5, "report_to": []}
    outputs = alone(sft, files, {**parameters, "config": json.dumps(config), "workspace": ""})
    assert {"model.safetensors", "profile.json", "calibration.json"} <= {p.name for p in outputs["student"].iterdir()}
    assert json.loads(outputs["metrics"].read_text())["steps"] > 0


def test_rejection_without_rounds_passes_the_student_on(finished, alone):
    files = {
        "features": finished.artefact("features", "features"),
        "sft_student": finished.artefact("sft", "student"),
    }
    config = finished.section("rejection") | {"rounds": 0}
    parameters = finished.parameters(sampling="reference_config", student_config="student_config", seed="seed")
    outputs = alone(rejection, files, {**parameters, "config": json.dumps(config), "workspace": ""})
    for file in files["sft_student"].iterdir():
        assert (outputs["student"] / file.name).read_bytes() == file.read_bytes()


def test_reference(finished, alone):
    files = {
        "features": finished.artefact("features", "features"),
        "student": finished.artefact("rejection", "student"),
    }
    outputs = alone(reference, files, finished.parameters(config="reference_config", dtype="dtype", seed="seed"))
    assert same_table(outputs["reference"], finished.artefact("reference", "reference"), tables.REFERENCE)
    assert same_table(outputs["support"], finished.artefact("reference", "support"), tables.SUPPORT)


def test_filtering(finished, alone):
    files = {"reference": finished.artefact("reference", "reference")}
    outputs = alone(filtering, files, finished.parameters(config="filtering_config", seed="seed"))
    assert same_table(outputs["filtered"], finished.artefact("filtering", "filtered"), tables.FILTERED)


def test_grpo_of_one_step(finished, alone):
    files = {
        "features": finished.artefact("features", "features"),
        "reference": finished.artefact("reference", "reference"),
        "support": finished.artefact("reference", "support"),
        "filtered": finished.artefact("filtering", "filtered"),
        "sft_student": finished.artefact("rejection", "student"),
    }
    config = finished.section("grpo") | {"steps": 1, "report_to": [], "quasi_ground_truth": "soft"}
    parameters = finished.parameters(student_config="student_config", seed="seed")
    outputs = alone(grpo, files, {**parameters, "config": json.dumps(config), "workspace": ""})
    (line,) = json.loads(outputs["log"].read_text())
    assert {"reward", "kl", "entropy", "agreement", "tag_entropy"} <= line.keys()
    assert {"model.safetensors", "calibration-vote.json"} <= {path.name for path in outputs["student"].iterdir()}


def test_evaluation(finished, alone):
    files = {
        "features": finished.artefact("features", "features"),
        "sft_student": finished.artefact("sft", "student"),
        "student": finished.artefact("grpo", "student"),
    }
    parameters = finished.parameters(
        task_file="task_uri",
        labels="labels_uri",
        ceiling="ceiling_uri",
        config="evaluation_config",
        student_config="student_config",
        storage="storage_config",
        seed="seed",
    )
    outputs = alone(evaluation, files, {**parameters, "champion_version": "", "labels_digest": ""}, finished.candidates)
    found = json.loads(outputs["evaluation"].read_text())
    expected = json.loads(finished.artefact("evaluation", "evaluation").read_text())
    assert found["arms"].keys() == expected["arms"].keys()
    assert found["arms"]["teacher_weighted"] == expected["arms"]["teacher_weighted"]


def test_evaluation_without_labels_and_the_gate_and_the_report_after_it(finished, alone, tmp_path):
    """The run's students and candidates once more, for a few of its users, in a pipeline that was given no labels."""
    people = tables.read(finished.artefact("features", "features"), tables.FEATURES)
    measured = people.filter(pc.equal(people["split"], "test")).slice(0, 12)
    tables.write(tmp_path / "features", measured, tables.FEATURES)
    files = {
        "features": tmp_path / "features",
        "sft_student": finished.artefact("sft", "student"),
        "student": finished.artefact("grpo", "student"),
    }
    parameters = finished.parameters(
        task_file="task_uri",
        ceiling="ceiling_uri",
        config="evaluation_config",
        student_config="student_config",
        storage="storage_config",
        seed="seed",
    )
    nothing = {"labels": "", "champion_version": "", "labels_digest": ""}
    outputs = alone(evaluation, files, {**parameters, **nothing}, finished.candidates)
    found = json.loads(outputs["evaluation"].read_text())
    assert not found["judged"] and {"arms", "paired", "hierarchy"}.isdisjoint(found)
    assert "ceiling" not in found["answers"]
    assert 0 < found["agreement"][0]["share"] < 1
    assert json.loads(outputs["confusion"].read_text()) is None

    refused = judge(found, GateConfig())
    assert refused.decision == "reject" and not refused.reasons[0].passed
    allowed = GateConfig(unjudged="allow", unjudged_levels={"age": 1})
    (tmp_path / "gate.json").write_text(judge(found, allowed).to_json())
    (tmp_path / "outcome.json").write_text('{"promoted": false}')
    write_report(
        outputs["evaluation"], tmp_path / "gate.json", *[None] * 6, tmp_path / "outcome.json", tmp_path / "page", "{}"
    )
    assert "nobody knows how often its answers are right" in (tmp_path / "page").read_text(encoding="utf-8")


@pytest.mark.parametrize("untrained", [False, True])
def test_predictions(finished, alone, untrained):
    files = {
        "features": finished.artefact("features", "features"),
        "student": finished.artefact("grpo", "student"),
    }
    parameters = finished.parameters(config="evaluation_config", student_config="student_config", seed="seed")
    outputs = alone(predictions, files, {**parameters, "untrained": untrained})
    people = tables.read(files["features"], tables.FEATURES).to_pylist()
    found = tables.read(outputs["predictions"], tables.PREDICTIONS).to_pylist()
    assert {row["user_id"] for row in found} == {
        user["user_id"] for user in people if user["split"] in ("validation", "test")
    }
    # A network from scratch has not learned the answer's form.
    assert any(row["tag"] for row in found) is not untrained


def test_gate(finished, alone):
    files = {"evaluation": finished.artefact("evaluation", "evaluation")}
    outputs = alone(gate, files, finished.parameters(config="gate_config"))
    expected = json.loads(finished.artefact("gate", "gate_decision").read_text())
    assert json.loads(outputs["gate_decision"].read_text()) == expected


def test_report(finished, alone):
    files = {
        "evaluation": finished.artefact("evaluation", "evaluation"),
        "gate_decision": finished.artefact("gate", "gate_decision"),
        "labelling_report": finished.artefact("labelling", "report"),
        "features_report": finished.artefact("features", "report"),
        "sft_log": finished.artefact("sft", "log"),
        "grpo_log": finished.artefact("grpo", "log"),
        "filtering_report": finished.artefact("filtering", "report"),
        "reference_report": finished.artefact("reference", "report"),
        "outcome": finished.artefact("promotion", "outcome"),
    }
    outputs = alone(report, files, finished.parameters(configuration="configuration"))
    assert outputs["page"].read_text(encoding="utf-8").count("<svg") >= 5


def test_promotion_of_a_model_that_was_rejected(finished, alone, tmp_path):
    (tmp_path / "gate").write_text('{"decision": "reject", "reasons": ["FAILED: F1 fell"]}')
    files = {
        "model": finished.artefact("grpo", "student"),
        "evaluation": finished.artefact("evaluation", "evaluation"),
        "gate": tmp_path / "gate",
        "reference": finished.artefact("reference", "reference"),
    }
    parameters = finished.parameters(config="storage_config", configuration="configuration")
    outputs = alone(promotion, files, {**parameters, "expected_champion": ""})
    assert json.loads(outputs["outcome"].read_text()) == {"promoted": False, "reasons": ["FAILED: F1 fell"]}


def test_rollout_where_nothing_was_promoted(alone, tmp_path):
    (tmp_path / "outcome").write_text('{"promoted": false}')
    config = json.dumps({"inference_service": "conf-profile"})
    outputs = alone(rollout, {"outcome": tmp_path / "outcome"}, {"config": config, "storage": ""})
    assert json.loads(outputs["served"].read_text()) == {"in_service": False, "reason": "nothing was promoted"}


def test_every_wrapper_is_run_here():
    tested = {name.removeprefix("test_") for name in globals()}
    assert all(any(name == step or name.startswith(f"{step}_") for name in tested) for step in BY_NAME)
