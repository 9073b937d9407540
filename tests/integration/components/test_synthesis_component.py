"""The synthesis component under KFP's local runner, fed through importers as a pipeline would feed it."""

import json

from kfp import dsl, local

from components.synthesis.component import synthesis
from conf_profile import tables
from conf_profile.config import PromptConfig, TeacherConfig
from conf_profile.dialogue import task as tasks
from support.teacher_server import completion, serve

FEATURES = [
    {
        "user_id": f"u{n}",
        "split": "train",
        "watch": [f"phrase {n}"],
        "search": [],
        "submit": [],
        "self_age": None,
        "self_gender": None,
        "signature": None,
        "region": None,
    }
    for n in range(3)
]


def test_the_component_runs_locally(tmp_path):
    tables.write(tmp_path / "features.parquet", tables.from_rows(FEATURES, tables.FEATURES), tables.FEATURES)
    tasks.parse({"attributes": {"gender": ["female", "male"]}}).save(tmp_path / "task.yaml")

    @dsl.pipeline(name="one-step")
    def one_step(config: str, prompt: str, answers_folder: str):
        features = dsl.importer(artifact_uri=str(tmp_path / "features.parquet"), artifact_class=dsl.Dataset)
        synthesis(
            features=features.output,
            task_file=str(tmp_path / "task.yaml"),
            lexicon="",
            config=config,
            prompt=prompt,
            seed=0,
            shard=0,
            answers_folder=answers_folder,
        )

    local.init(local.SubprocessRunner(use_venv=False), pipeline_root=str(tmp_path / "runs"))
    with serve() as server:
        server.behave = lambda number, call: completion("cut" if number == 0 else completion_text())
        config = TeacherConfig(kind="openai", model="m", base_url=server.url, samples=2, shards=1, concurrency=1)
        one_step(
            config=config.for_step(),
            prompt=PromptConfig().for_step(),
            answers_folder=str(tmp_path / "answers"),
        )
    (output,) = (tmp_path / "runs").rglob("candidates")
    assert len(tables.read(output, tables.CANDIDATES)) == 6
    (record,) = [p for p in (tmp_path / "runs").rglob("executor_output.json") if "candidates" in p.read_text()]
    (artifact,) = json.loads(record.read_text())["artifacts"]["candidates"]["artifacts"]
    assert artifact["metadata"] == {"users": 3, "asked": 6, "kept_before": 0, "malformed": 1}


def completion_text():
    return "<rationale>phrase</rationale><gender>male<level>3</level></gender>"
