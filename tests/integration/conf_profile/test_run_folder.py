"""What `conf-profile run` does around the pipeline, with real data and a real SeaweedFS; no step runs."""

import pytest
from click.testing import CliRunner

from conf_profile.cli.main import cli
from conf_profile.config import StorageConfig
from conf_profile.data.run_folder import lock_run_folder
from conf_profile.dialogue import task as tasks
from conf_profile.errors import LostPromotionError, PipelineError
from conf_profile.registry import registry
from pipelines.local import pipeline_process
from support.s3 import model_folder


@pytest.fixture
def run(tmp_path, monkeypatch):
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)

    def run(*options):
        return CliRunner().invoke(cli, ["run", "--users=60", f"--out={tmp_path / 'run'}", *options])

    return run


def test_who_lost_a_promotion_competes_with_the_new_champion_next(run, tmp_path, monkeypatch):
    competed_with, kinds = [], iter((LostPromotionError, PipelineError, LostPromotionError))

    def lost(values, *_):
        competed_with.append(values["champion_version"])
        target = registry.connect(StorageConfig())
        folder = model_folder(tmp_path / f"model-{len(competed_with)}", str(len(competed_with)).encode())
        tasks.builtin("profile").save(folder / "task.yaml")
        version = target.publish(folder, f"v{len(competed_with)}")
        target.promote(version.name, {})
        raise next(kinds)("another promotion came first")

    monkeypatch.setattr(pipeline_process, "run", lost)
    for _ in range(3):
        assert "came first" in str(run().exception)
    # After a failure of another kind the goal does not move.
    assert competed_with == ["", "v1", "v1"]


def test_a_run_beside_another_does_not_touch_its_data(run, tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline_process, "run", lambda *_: pytest.fail("a second pipeline began"))
    (tmp_path / "run").mkdir()
    with lock_run_folder(tmp_path / "run"):
        assert "is under way in this folder" in str(run("--set=data.lexicon.noise=2.0").exception)
    assert not (tmp_path / "run" / "data").exists()
