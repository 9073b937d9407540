"""What values declare for the pipeline's steps: layers as Helm lays them, one set of defaults, errors with the key."""

import pytest
import yaml

from conf_profile.errors import ConfigError
from pipelines import resources
from pipelines.resources import Resources
from support.paths import ROOT

CHART = ROOT / "charts" / "conf-profile"


@pytest.fixture
def load(tmp_path):
    def load(*layers):
        paths = [tmp_path / f"values-{number}.yaml" for number in range(len(layers))]
        for path, layer in zip(paths, layers, strict=True):
            path.write_text(layer if isinstance(layer, str) else yaml.safe_dump(layer))
        return resources.load(paths)

    return load


def test_the_charts_defaults_are_these_defaults():
    assert resources.load([CHART / "values.yaml"]) == resources.load()


@pytest.mark.parametrize("preset", ["values-cpu.yaml", "values-gpu.yaml", "values-production.yaml"])
def test_the_charts_presets_are_read(preset):
    assert resources.load([CHART / preset]).pipelines.steps.keys() == resources.DEFAULT_STEPS.keys()


def test_every_step_has_defaults_that_a_small_node_can_give():
    declared = resources.load()
    assert set(declared.pipelines.steps) == set(resources.DEFAULT_STEPS)
    for step in declared.pipelines.steps.values():
        assert (step.pool, step.gpus) == ("cpu", 0)
        assert step.requests.cores <= 1 and step.requests.bytes <= 2 * 2**30


def test_a_later_file_wins_key_by_key(load):
    first = {"pipelines": {"steps": {"sft": {"limits": {"cpu": 8, "memory": "64Gi"}, "timeoutSeconds": 60}}}}
    second = {"pipelines": {"steps": {"sft": {"limits": {"memory": "32Gi"}}}, "shardParallelism": 2}}
    declared = load(first, second)
    sft = declared.pipelines.steps["sft"]
    assert (sft.limits.cpu, sft.limits.memory, sft.timeout_seconds) == ("8", "32Gi", 60)
    assert sft.requests == resources.DEFAULT_STEPS["sft"].requests
    assert declared.pipelines.shard_parallelism == 2


def test_steps_of_the_release_before_load_with_a_warning(load, caplog):
    before = {"pipelines": {"steps": {"build_features": {"timeoutSeconds": 60}, "evaluate": {"limits": {"cpu": 3}}}}}
    declared = load(before)
    assert declared.pipelines.steps["features"].timeout_seconds == 60
    assert declared.pipelines.steps["evaluation"].limits.cpu == "3"
    assert set(declared.pipelines.steps) == set(resources.DEFAULT_STEPS)
    assert "pipelines.steps.build_features is called pipelines.steps.features now; rename the key" in caplog.text


def test_values_of_the_release_before_override_the_charts_own(load):
    """Helm merges a user's file with the chart's values, which have the new names."""
    merged = {"pipelines": {"steps": {"features": {"timeoutSeconds": 3600}, "build_features": {"timeoutSeconds": 60}}}}
    assert load(merged).pipelines.steps["features"].timeout_seconds == 60


def test_lists_are_replaced_and_null_takes_away(load):
    taint = {"key": "a", "operator": "Exists"}
    first = {"nodePools": {"gpu": {"tolerations": [taint, taint]}, "spare": {"nodeSelector": {"x": "y"}}}}
    second = {"nodePools": {"gpu": {"tolerations": [taint]}, "spare": None}}
    declared = load(first, second)
    assert len(declared.node_pools["gpu"].tolerations) == 1
    assert set(declared.node_pools) == {"cpu", "gpu"}


def test_what_belongs_to_the_chart_is_passed_over(load):
    declared = load({"serving": {"enabled": True}, "anything": 1, "pipelines": {"enabled": True, "schedule": {}}})
    assert declared == Resources()


def test_what_is_printed_is_read_again(load):
    declared = load(
        {"nodePools": {"gpu": {"gpu": {"count": 2}}}, "pipelines": {"steps": {"grpo": {"gpus": 2, "pool": "gpu"}}}},
        {"s3": {"caConfigMap": "company-ca"}},
    )
    assert declared.s3.ca_config_map == "company-ca"
    assert load(declared.values()) == declared


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"pipelines": {"steps": {"sfft": {}}}},
            r"pipelines\.steps: .*no such step: sfft; the steps are features",
        ),
        (
            {"pipelines": {"steps": {"sft": {"pool": "tpu"}}}},
            r"pipelines\.steps\.sft\.pool: there is no node pool 'tpu'",
        ),
        (
            {"pipelines": {"steps": {"sft": {"gpus": 1}}}},
            r"pipelines\.steps\.sft\.gpus: 1 .*nodePools\.cpu\.gpu\.count",
        ),
        ({"pipelines": {"steps": {"sft": {"cpu": 1}}}}, r"pipelines\.steps\.sft\.cpu"),
        ({"pipelines": {"steps": {"sft": {"requests": {"cpu": 64}}}}}, r"pipelines\.steps\.sft: .*larger than limits"),
        ({"pipelines": {"steps": {"sft": {"limits": {"memory": "4 GB"}}}}}, r"pipelines\.steps\.sft\.limits\.memory"),
        ({"pipelines": {"steps": {"sft": {"timeoutSeconds": 0}}}}, r"pipelines\.steps\.sft\.timeoutSeconds"),
        ({"pipelines": {"steps": {"sft": {"retries": {"factor": 1.5}}}}}, r"pipelines\.steps\.sft\.retries\.factor"),
        ({"pipelines": {"shardParalelism": 1}}, r"pipelines\.shardParalelism"),
        ({"pipelines": {"teacherSecret": {"env": "A-B"}}}, r"pipelines\.teacherSecret\.env"),
        ({"nodePools": {"gpu": {"gpus": 1}}}, r"nodePools\.gpu\.gpus"),
        ({"nodePools": {"gpu": {"sharedMemory": "much"}}}, r"nodePools\.gpu\.sharedMemory"),
        ({"nodePools": {"gpu": {"tolerations": [{"effect": "Never"}]}}}, r"nodePools\.gpu\.tolerations\.0\.effect"),
        ({"nodePools": {"cpu": None}}, r"pool: there is no node pool 'cpu' in nodePools; it has gpu"),
        ("[1]", "expected a mapping"),
        ("a: [", "not a valid YAML file"),
    ],
)
def test_a_wrong_value_is_named(load, values, message):
    with pytest.raises(ConfigError, match=message):
        load(values)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: cannot read the values"):
        resources.load([tmp_path / "nowhere.yaml"])


def test_retries_may_take_as_long_as_their_tries(load):
    step = load({"pipelines": {"steps": {"gate": {"timeoutSeconds": 100, "retries": {"count": 2}}}}}).pipelines.steps[
        "gate"
    ]
    assert step.retry_seconds == 3 * 100 + 30 + 60
    limited = load({"pipelines": {"steps": {"gate": {"retries": {"maxSeconds": 900}}}}}).pipelines.steps["gate"]
    assert limited.retry_seconds == 900


@pytest.mark.parametrize(("cpu", "gpus", "threads"), [("500m", 0, 1), ("2", 0, 2), ("16", 4, 4), ("2.5", 1, 2)])
def test_threads_follow_the_limit_not_the_node(load, cpu, gpus, threads):
    pool = {"gpu": {"gpu": {"count": 4}}}
    step = {"pool": "gpu", "gpus": gpus, "limits": {"cpu": cpu}}
    assert load({"nodePools": pool, "pipelines": {"steps": {"sft": step}}}).pipelines.steps["sft"].threads == threads
