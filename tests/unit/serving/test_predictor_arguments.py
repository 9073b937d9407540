"""vLLM's command line for a model's folder: length, caching, devices, adapters, and what it cannot serve."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from conf_profile.errors import ServingError
from serving.predictor import __main__ as program
from serving.predictor.arguments import PredictorArguments, arguments, command, config_file, environment


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


def test_a_published_model_is_served_under_its_versions_name_too(folder):
    assert names_of(arguments(folder, PredictorArguments())) == ["conf-profile"]
    (folder / "manifest.json").write_text('{"version": "v7"}')
    assert names_of(arguments(folder, PredictorArguments(served_name="profiles"))) == ["profiles", "v7"]
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "/models/base"}')
    (folder / "profile.json").write_text('{"max_prompt_tokens": 100, "max_completion_tokens": 48}')
    found = arguments(folder, PredictorArguments())
    assert names_of(found) == ["conf-profile-base"]
    modules = found.index("--lora-modules")
    assert found[modules + 1 : modules + 3] == [f"conf-profile={folder}", f"v7={folder}"]


def names_of(found):
    rest = found[found.index("--served-model-name") + 1 :]
    return rest[: next(at for at, part in enumerate(rest) if part.startswith("--"))]


def test_an_image_with_vllm_alone_is_told_of_the_model_by_a_file(folder):
    (folder / "manifest.json").write_text('{"version": "v7"}')
    assert json.loads(config_file(folder, "profiles")) == {
        "served-model-name": ["profiles", "v7"],
        "max-model-len": 432,
        "dtype": "auto",
        "generation-config": "vllm",
        "shutdown-timeout": 20,
    }


def test_what_is_behind_the_known_arguments_is_vllms():
    model, given, threads = program.parse(
        ["--model=/m", "--served-name", "n", "--device=gpu", "--threads=3", "--max-num-seqs=8", "--", "--port", "1"]
    )
    assert (model, given.served_name, given.device, threads) == (Path("/m"), "n", "gpu", 3)
    assert given.further == ("--max-num-seqs=8", "--port", "1")
    assert (given.host, given.port) == ("0.0.0.0", 8080)


@pytest.mark.parametrize(("quota", "expected"), [("max 100000", None), ("150000 100000\n", 2), ("50000 100000", 1)])
def test_threads_are_the_containers_cores(tmp_path, quota, expected):
    (tmp_path / "cpu.max").write_text(quota)
    there = len(os.sched_getaffinity(0))
    assert program.cores(tmp_path / "cpu.max") == min(expected or there, there)
    assert program.cores(tmp_path / "none") == there


def test_it_becomes_vllm_and_keeps_what_the_pod_sets(folder, tmp_path):
    """A stand-in for vLLM tells what it was started as: the same process, its arguments, its environment."""
    package = tmp_path / "vllm" / "entrypoints" / "openai"
    package.mkdir(parents=True)
    for folder_of in (package, *package.parents[:2]):
        (folder_of / "__init__.py").touch()
    tell = "import json, os, sys; print(json.dumps([os.getpid(), sys.argv[1:], dict(os.environ)]))"
    (package / "api_server.py").write_text(tell)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "7"}
    command = [sys.executable, "-m", "serving.predictor", "--model", str(folder), "--threads=3", "--seed=5"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    pid, arguments, seen = json.loads(process.communicate(timeout=60)[0])
    assert (pid, process.returncode) == (process.pid, 0)
    assert arguments[-1] == "--seed=5" and value(arguments, "--host") == "0.0.0.0"
    assert (seen["OMP_NUM_THREADS"], seen["HF_HUB_OFFLINE"]) == ("7", "1")


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
    assert (found["VLLM_CPU_OMP_THREADS_BIND"], found["VLLM_ENABLE_V1_MULTIPROCESSING"]) == ("nobind", "0")
    assert found["TORCHDYNAMO_DISABLE"] == "1"
    assert "OMP_NUM_THREADS" not in environment(PredictorArguments(device="gpu"), threads=3)
