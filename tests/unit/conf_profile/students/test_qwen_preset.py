"""The preset of the paper's student, checked up to the point where it needs a GPU and its weights.

The network is built on torch's meta device from the published shape of Qwen3-8B: right names and sizes, no memory.
"""

import pytest
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from components.grpo.step import _arguments, _completions_at_once
from conf_profile.config import resolve
from conf_profile.students import model, training

PRESET = resolve("qwen3-8b", values={"data": {"path": "tables"}})


@pytest.fixture(scope="module")
def network():
    shape = Qwen3Config(
        vocab_size=151936,
        hidden_size=4096,
        intermediate_size=12288,
        num_hidden_layers=36,
        num_attention_heads=32,
        num_key_value_heads=8,
        head_dim=128,
        tie_word_embeddings=False,
    )
    with torch.device("meta"):
        return Qwen3ForCausalLM(shape)


def test_the_adapter_trains_a_few_percent_of_eight_billion_parameters(network):
    total = sum(parameter.numel() for parameter in network.parameters())
    assert total == pytest.approx(8.19e9, rel=0.01)
    with torch.device("meta"):
        adapted = model.add_adapter(network, PRESET.student)
    trained = sum(parameter.numel() for parameter in adapted.parameters() if parameter.requires_grad)
    # Rank 64 on the seven linear layers of each of 36 blocks: q, k, v, o, gate, up, down.
    sides = [(4096, 4096), (4096, 1024), (4096, 1024), (4096, 4096), (4096, 12288), (4096, 12288), (12288, 4096)]
    assert trained == 36 * 64 * sum(first + second for first, second in sides)


def test_trl_accepts_the_settings_of_grpo(tmp_path):
    training.quiet_imports(use_vllm=False)  # the settings alone: no engine is started
    arguments = _arguments(PRESET.grpo, PRESET.student, tmp_path, seed=0)
    assert arguments.generation_batch_size == PRESET.grpo.prompts_per_step * PRESET.grpo.rollouts
    assert (arguments.use_vllm, arguments.vllm_mode, arguments.beta) == (True, "colocate", 0.04)
    assert arguments.reward_weights == [1.0, PRESET.grpo.level_reward, PRESET.grpo.format_reward]


def test_after_grpo_no_more_answers_are_generated_at_once_than_a_pass_trained_on(tmp_path):
    training.quiet_imports(use_vllm=False)
    arguments = _arguments(PRESET.grpo, PRESET.student, tmp_path, seed=0)
    assert _completions_at_once(PRESET.grpo) == arguments.per_device_train_batch_size == 8
