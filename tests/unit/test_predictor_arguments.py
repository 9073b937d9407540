"""vLLM's command line for a model's folder: length, caching, devices, adapters, and what it cannot serve."""

import json

import pytest

from conf_profile.errors import ServingError
from serving.predictor.arguments import PredictorArguments, arguments, command, environment


@pytest.fixture
def folder(tmp_path):
    config = {"num_attention_heads": 4, "hidden_size": 128, "head_dim": 32, "max_position_embeddings": 432}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "profile.json").write_text(json.dumps({"max_completion_tokens": 48}))
    return tmp_path


def value(found, name):
    return found[found.index(name) + 1]


def test_a_cpu_gets_small_blocks_and_no_compilation(folder):
    found = arguments(folder, PredictorArguments(port=8123))
    assert (value(found, "--model"), value(found, "--port")) == (str(folder), "8123")
    assert (value(found, "--block-size"), value(found, "--host")) == ("32", "127.0.0.1")
    assert {"--enforce-eager", "--enable-prefix-caching"} <= set(found)
    assert value(found, "--generation-config") == "vllm"
    assert value(found, "--dtype") == "auto"


def test_weights_are_served_as_they_were_evaluated(folder):
    config = json.loads((folder / "config.json").read_text()) | {"dtype": "float32"}
    (folder / "config.json").write_text(json.dumps(config))
    assert value(arguments(folder, PredictorArguments()), "--dtype") == "float32"


def test_a_gpu_keeps_vllms_own_blocks_and_compiles(folder):
    found = arguments(folder, PredictorArguments(device="gpu", further=("--tensor-parallel-size", "2")))
    assert "--block-size" not in found and "--enforce-eager" not in found
    assert found[-2:] == ["--tensor-parallel-size", "2"]


def test_the_length_is_what_the_model_was_trained_for(folder):
    assert value(arguments(folder, PredictorArguments()), "--max-model-len") == "432"
    profile = {"max_prompt_tokens": 100, "max_completion_tokens": 48}
    (folder / "profile.json").write_text(json.dumps(profile))
    assert value(arguments(folder, PredictorArguments()), "--max-model-len") == "148"


def test_an_adapter_is_served_under_the_models_name_on_its_base(folder):
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "/models/base"}')
    (folder / "profile.json").write_text('{"max_prompt_tokens": 100, "max_completion_tokens": 48}')
    found = arguments(folder, PredictorArguments())
    assert value(found, "--model") == "/models/base"
    assert value(found, "--lora-modules") == f"conf-profile={folder}"
    assert value(found, "--served-model-name") == "conf-profile-base"


def test_heads_that_a_cpu_cannot_serve_are_told_before_vllm_starts(folder):
    (folder / "config.json").write_text('{"num_attention_heads": 4, "hidden_size": 64, "max_position_embeddings": 9}')
    with pytest.raises(ServingError, match=r"heads have 16 dimensions.*multiples of 32"):
        command(folder, PredictorArguments())
    assert command(folder, PredictorArguments(device="gpu"))


def test_a_folder_without_a_model_is_named(tmp_path):
    with pytest.raises(ServingError, match=r"config\.json: cannot be read"):
        command(tmp_path, PredictorArguments())


def test_the_process_is_offline_and_its_threads_are_counted(tmp_path):
    found = environment(PredictorArguments(), threads=3, cache_gib=2)
    assert (found["OMP_NUM_THREADS"], found["VLLM_CPU_KVCACHE_SPACE"], found["HF_HUB_OFFLINE"]) == ("3", "2", "1")
    assert found["VLLM_CPU_OMP_THREADS_BIND"] == "nobind"
    assert "OMP_NUM_THREADS" not in environment(PredictorArguments(device="gpu"), threads=3)
