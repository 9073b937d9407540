"""How large the nodes' status of a run becomes: the rule meets what was measured, and the default run fits.

`golden/before` is the pipeline that was run on KFP 2.17 (1,200 users, preset tiny, two shards), with its arguments.
"""

import json

import pytest
import yaml

from benchmarks.node_status import FORMER_PIPELINES, TRAINING, uploaded_arguments
from conf_profile.config import resolve
from conf_profile.errors import ConfigError
from pipelines import node_status, resources
from pipelines.compile import compile_to

MEASURED_BYTES, MEASURED_NODES = 1_118_000, 116
CONFIG = resolve("tiny", values={"data": {"users": 1200}})


def run_arguments(config=CONFIG):
    """As `submit` gives them for an uploaded data set."""
    return uploaded_arguments(config)


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    path = tmp_path_factory.mktemp("compiled") / "pipeline.yaml"
    compile_to(path, CONFIG, resources.load(), caching=True)
    return path


def with_shards(number):
    return {**run_arguments(), "shards": list(range(number))}


def test_the_rule_gives_what_was_measured():
    given = json.loads((FORMER_PIPELINES / "arguments.json").read_text(encoding="utf-8"))
    found = node_status.estimate(FORMER_PIPELINES / "training-pipeline.yaml", given)
    assert found.nodes == MEASURED_NODES
    assert found.bytes == pytest.approx(MEASURED_BYTES, rel=0.05)


def test_pods_are_counted_as_they_were_seen(package):
    given = json.loads((FORMER_PIPELINES / "arguments.json").read_text(encoding="utf-8"))
    before = FORMER_PIPELINES / "training-pipeline.yaml"
    assert node_status.count_pods(before, given) == 37
    assert node_status.count_pods(before, given, TRAINING) == 28
    assert node_status.count_pods(package, run_arguments()) == 28
    assert node_status.count_pods(package, run_arguments(), TRAINING) == 20


def test_the_default_run_fits_and_so_does_one_with_four_shards(package):
    assert node_status.estimate(package, with_shards(2)).bytes <= node_status.AIM
    assert node_status.estimate(package, with_shards(4)).bytes < node_status.API_LIMIT


@pytest.mark.parametrize("preset", ["smollm2", "qwen3-8b"])
def test_the_other_presets_stay_visible_too(preset, tmp_path):
    config = resolve(preset, values={"data": {"name": "parquet", "path": "tables", "users": None}})
    path = tmp_path / "pipeline.yaml"
    compile_to(path, config, resources.load(), caching=True)
    values = {**run_arguments(config), "shards": [0, 1]}
    assert node_status.estimate(path, values).bytes < node_status.API_LIMIT


def test_every_shard_adds_the_same(package):
    sizes = [node_status.estimate(package, with_shards(number)).bytes for number in (1, 2, 3, 10)]
    assert sizes[1] - sizes[0] == pytest.approx(sizes[2] - sizes[1], abs=2)
    assert sizes[3] - sizes[2] == pytest.approx(7 * (sizes[1] - sizes[0]), abs=20)


def test_a_longer_argument_counts_once_for_each_copy_of_the_patch(package):
    longer = {**run_arguments(), "gate_config": "x" * 1000}
    added = node_status.estimate(package, longer).bytes - node_status.estimate(package, run_arguments()).bytes
    assert added == pytest.approx(1.16 * 6 * 1000, rel=0.01)


def test_too_many_shards_are_refused_with_the_most_that_fit(package):
    with pytest.raises(ConfigError, match=r"teacher\.shards is 500: .* set teacher\.shards to (\d+) at most") as caught:
        node_status.require_fits(package, with_shards(500))
    most = int(str(caught.value).split("set teacher.shards to ")[1].split()[0])
    assert 300 <= most < 500
    node_status.require_fits(package, with_shards(most))
    with pytest.raises(ConfigError):
        node_status.require_fits(package, with_shards(most + 1))


def test_a_pipeline_of_too_many_shards_is_not_written(tmp_path):
    with pytest.raises(ConfigError, match="at most"):
        compile_to(tmp_path / "p.yaml", resolve("tiny", overrides=["teacher.shards=900"]), resources.load())
    assert list(tmp_path.iterdir()) == []


def test_the_most_arguments_are_empty(package):
    """A step is given what differs from the defaults of its image, and nothing where nothing does."""
    given = run_arguments(resolve("tiny", overrides=["gate.min_precision=0.5"]))
    assert given["gate_config"] == '{"min_precision":0.5}'
    empty = [name for name, value in given.items() if name.endswith("_config") and value == ""]
    assert {"teacher_config", "filtering_config", "evaluation_config", "storage_config"} <= set(empty)
    assert len(json.dumps(given)) < 2_000
    parameters = next(yaml.safe_load_all(package.read_text(encoding="utf-8")))["root"]["inputDefinitions"]["parameters"]
    assert parameters.keys() == given.keys()
