"""Configuration: layers, clear errors, and that every preset that ships loads."""

import pytest
import yaml

from conf_profile import config
from conf_profile.config import GRPOConfig, RunConfig
from conf_profile.errors import ConfigError


def test_presets():
    assert config.preset_names() == ["qwen3-8b", "smollm2", "tiny"]


@pytest.mark.parametrize("preset", ["tiny", "smollm2", "qwen3-8b"])
def test_every_preset_loads_and_survives_a_round_trip(preset, tmp_path):
    resolved = config.resolve(preset, values={"data": {"path": "."}})
    path = tmp_path / "run.yaml"
    path.write_text(resolved.to_yaml())
    assert config.resolve(preset, path) == resolved
    assert RunConfig.model_validate(yaml.safe_load(resolved.to_yaml())) == resolved


def test_later_layers_win(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("grpo: {steps: 7, kl: 0.5}\n")
    resolved = config.resolve("tiny", file, ["grpo.steps=9"], {"grpo": {"rollouts": 3}})
    assert (resolved.grpo.steps, resolved.grpo.kl, resolved.grpo.rollouts) == (9, 0.5, 3)


def test_the_presets_number_of_users_is_the_generated_worlds(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("data: {name: parquet, path: my_tables}\n")
    assert config.resolve("tiny").data.users == 4500
    assert config.resolve("tiny", file).data.users is None
    assert config.resolve("tiny", overrides=["data.name=movielens-100k"]).data.users is None
    assert config.resolve("tiny", overrides=["data.name=movielens-100k", "data.users=90"]).data.users == 90
    file.write_text("data: {name: movielens-100k, users: 80}\n")
    assert config.resolve("tiny", file).data.users == 80


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["grpo.stps=1"], r"grpo\.stps"),
        (["grpo.rollouts=1"], r"grpo\.rollouts.*given: 1"),
        (["grpo.weight=mine"], r"grpo\.weight"),
        (["nonsense"], "expected section.key=value"),
        (["teacher.kind=openai"], "needs teacher.base_url and teacher.model"),
        (["student.source=pretrained"], "needs student.model"),
        (["features.validation_share=0.5", "features.test_share=0.5"], "nobody is left to train on"),
        (["seed=-1"], "seed"),
        (["grpo.steps=[1"], r"--set 'grpo\.steps=\[1': the value is not valid YAML"),
        (["grpo.gradient_accumulation=3"], "gradient_accumulation 3 does not divide prompts_per_step x rollouts, 256"),
        (["student.heads=0"], r"student\.heads"),
        (["student.heads=3"], "heads 3 must be a multiple of key_value_heads 2"),
        (["student.hidden_size=100"], "hidden_size 100 must be a multiple of twice the heads, 8"),
    ],
)
def test_errors_name_the_key(overrides, message):
    with pytest.raises(ConfigError, match=message):
        config.resolve("tiny", overrides=overrides)


def test_unknown_preset_names_the_known():
    with pytest.raises(ConfigError, match="choose one of qwen3-8b, smollm2, tiny"):
        config.resolve("huge")


def test_broken_files(tmp_path):
    path = tmp_path / "x.yaml"
    with pytest.raises(ConfigError, match="cannot read"):
        config.resolve("tiny", path)
    path.write_text("a: [")
    with pytest.raises(ConfigError, match="not a valid YAML"):
        config.resolve("tiny", path)
    path.write_bytes("data: {name: Zürich}".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"x\.yaml: the configuration is not UTF-8"):
        config.resolve("tiny", path)
    path.write_text("- a")
    with pytest.raises(ConfigError, match="expected a mapping"):
        config.resolve("tiny", path)


def test_sections_travel_as_json():
    section = GRPOConfig(steps=3)
    assert config.parse_section(GRPOConfig, section.for_step()) == section
    with pytest.raises(ConfigError, match="GRPOConfig"):
        config.parse_section(GRPOConfig, '{"steps": -1}')
