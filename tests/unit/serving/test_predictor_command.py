"""`python -m serving.predictor`: the command that it becomes, and what it says where there is no model."""

import json
import subprocess
import sys

from serving.predictor.arguments import PredictorArguments, command


def call(*given):
    return subprocess.run([sys.executable, "-m", "serving.predictor", *given], capture_output=True, text=True)


def test_it_becomes_vllm_with_the_folders_own_arguments(tmp_path):
    config = {"num_attention_heads": 4, "hidden_size": 128, "head_dim": 32, "max_position_embeddings": 432}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "profile.json").write_text(json.dumps({"max_completion_tokens": 48}))
    result = call(f"--model={tmp_path}", "--port=8123", "--served-name=m", "--print", "--", "--seed", "3")
    wanted = PredictorArguments(host="0.0.0.0", port=8123, served_name="m", further=("--seed", "3"))
    assert result.stdout.split() == command(tmp_path, wanted)


def test_a_folder_without_a_model_is_named(tmp_path):
    result = call(f"--model={tmp_path}")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith(f"predictor: {tmp_path}/config.json: cannot be read")
