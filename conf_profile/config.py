"""One YAML file configures a run; pydantic checks it here and nowhere else.

`resolve` layers, later over earlier: defaults, the preset (`configs/NAME.yaml`), the user's file, `--set
section.key=value`. Each step receives only its own sections as JSON, so that a change invalidates the cache
of the steps that it concerns and of no other.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import Field, JsonValue, ValidationError, model_validator

from conf_profile.config_layers import merge, parse_override, read_mapping, read_text
from conf_profile.errors import ConfigError
from conf_profile.strict_model import StrictModel, explain

DEFAULTS = "CONF_PROFILE_DEFAULTS"
"""Environment variable of a step on a cluster: which defaults its arguments differ from."""
DEFAULT_BUCKET = "conf-profile"
Vote = Literal["weighted", "majority", "majority_blind", "log_odds", "em"]
"""The paper's vote is `weighted`; see `voting` and `learned_votes`."""


class Section(StrictModel):
    """Base of all sections."""

    def for_step(self) -> str:
        """The JSON that travels to a pipeline step as a parameter: what differs from the defaults; empty for none.

        KFP keeps a step's arguments six times in the run's status, which has a limit; the defaults are in the image.
        """
        text = self.model_dump_json(exclude_defaults=True)
        return "" if text == "{}" else text


class WorldConfig(Section):
    """How hard the generated benchmark is; for data.name 'world' alone."""

    median_keyphrases: float = Field(14.0, ge=2, le=200, description="of a user's history, which has a long tail")
    noise_share: float = Field(0.30, ge=0, lt=1, description="of the keyphrases say nothing about anybody")


class LexiconConfig(Section):
    """How much the embedded teacher knows of the generated world, and how it speaks of its confidence."""

    gaps: float = Field(0.25, ge=0, lt=1, description="share of (keyphrase, attribute) pairs that it knows nothing of")
    noise: float = Field(0.7, ge=0, description="standard deviation of the error on each piece of evidence, in nats")
    leaning: float = Field(0.5, ge=0, description="standard deviation of its leaning towards single tags, in nats")
    overconfident_tags: float = Field(0.2, ge=0, le=1, description="share of the tags that it is too sure of")
    overconfidence: int = Field(1, ge=0, le=4, description="levels that it adds for such a tag")
    random_levels: float = Field(0.0, ge=0, le=1, description="share of answers whose level is drawn at random")
    seed: int = Field(7, ge=0, description="of gaps, errors and leanings: another seed is another teacher")


class DataConfig(Section):
    """Which data set, and how much of it."""

    name: Literal["world", "movielens-100k", "parquet"] = "world"
    path: Path | None = Field(None, description="folder of your tables, or of GroupLens's ml-100k")
    users: int | None = Field(3000, ge=1, description="how many users; null: all that there are")
    world: WorldConfig = WorldConfig()
    lexicon: LexiconConfig = LexiconConfig()


class FeaturesConfig(Section):
    """The point-in-time read from Feast and the split of the users."""

    as_of: str | None = Field(None, description="ISO time with zone; null: the end of the data's own window")
    online_store: Literal["sqlite", "redis"] = "sqlite"
    redis_url: str = "127.0.0.1:6379"
    validation_share: float = Field(0.1, ge=0.0, lt=1.0)
    test_share: float = Field(0.25, gt=0.0, lt=1.0)
    second_stage_share: float = Field(
        0.4, ge=0.0, lt=1.0, description="share of the training users whom the teacher is never asked about"
    )

    @model_validator(mode="after")
    def _require_training_users(self) -> FeaturesConfig:
        if self.validation_share + self.test_share >= 1.0:
            raise ValueError("validation_share + test_share must stay below 1, or nobody is left to train on")
        return self


class PromptConfig(Section):
    """How a user becomes a prompt, for the teacher and for the student."""

    max_keyphrases: int = Field(40, ge=1, le=500, description="the most recent ones kept of each list")
    student_style: Literal["full", "brief"] = "full"


_FIELDS_OF_OTHER_KEYS = {
    "messages": "they are the users' prompts",
    "model": "say teacher.model",
    "n": "say teacher.samples_per_request",
}
"""Of a request's body, and what to do instead of naming them in `teacher.extra_body`."""


class TeacherConfig(Section):
    """Who answers, how often, and at what cost at most."""

    kind: Literal["lexicon", "openai", "vllm"] = "lexicon"
    samples: int = Field(10, ge=1, le=100, description="M: answers sampled for each user")
    shards: int = Field(2, ge=1, le=1000, description="parallel shards of the synthesis step")
    temperature: float = Field(1.0, ge=0.0, le=2.0)
    max_tokens: int = Field(512, ge=16)
    model: str | None = Field(None, description="model name (openai) or folder (vllm)")
    base_url: str | None = Field(None, description="OpenAI-compatible endpoint, e.g. https://host/v1")
    api_key_env: str = Field("OPENAI_API_KEY", description="name of the environment variable with the key")
    extra_body: dict[str, JsonValue] = Field(
        {}, description="openai: further fields of each request; a null takes one of ours out, e.g. {temperature: null}"
    )
    answers_as: tuple[str, ...] = Field(
        (), description="openai: names that answers may give as their model, where it is not teacher.model; '*': any"
    )
    samples_per_request: int | None = Field(
        None, ge=1, description="openai: a user's samples in one request (`n`) at most; null: as many as it answers"
    )
    concurrency: int = Field(32, ge=1, description="openai: answers under way at once")
    timeout_seconds: float = Field(120.0, gt=0)
    max_attempts: int = Field(6, ge=1, description="tries of one request, backoff between them")
    max_requests: int | None = Field(
        None, ge=1, description="budget: stop before asking more than this about the same prompts, all tries together"
    )
    malformed_limit: float = Field(
        0.5, ge=0, le=1, description="share of malformed answers above which asking stops, early; 1: never"
    )
    price: float | None = Field(None, ge=0, description="of a million tokens, in any currency: to tell the cost so far")
    answer_price: float | None = Field(None, ge=0, description="of a million tokens of answers; null: price")
    structured_output: bool = Field(True, description="vllm: constrain the answer to the grammar")
    engine_arguments: dict[str, str | int | float | bool] = Field(
        {}, description="vllm: further arguments of vllm.LLM, e.g. tensor_parallel_size, max_model_len"
    )
    keyphrases_read: int = Field(6, ge=1, description="lexicon: keyphrases attended to in one sample")

    @model_validator(mode="after")
    def _require_settings_of_kind(self) -> TeacherConfig:
        if self.kind == "openai" and not (self.base_url and self.model):
            raise ValueError("teacher.kind 'openai' needs teacher.base_url and teacher.model")
        for field, remedy in _FIELDS_OF_OTHER_KEYS.items():
            if field in self.extra_body:
                raise ValueError(f"teacher.extra_body must not hold {field!r}: {remedy}")
        if self.kind == "vllm" and not self.model:
            raise ValueError("teacher.kind 'vllm' needs teacher.model (a folder or a hub name)")
        if self.answer_price is not None and self.price is None:
            raise ValueError("teacher.answer_price goes with teacher.price")
        return self


class LabellingConfig(Section):
    """From the teacher's candidates to pseudo-labels."""

    vote: Vote = "weighted"


class StudentConfig(Section):
    """The model that is trained and served."""

    source: Literal["scratch", "smollm2-wheel", "pretrained"] = "scratch"
    model: str | None = Field(None, description="pretrained: hub name or folder")
    hidden_size: int = Field(128, ge=2)
    layers: int = Field(4, ge=1)
    heads: int = Field(4, ge=1)
    key_value_heads: int = Field(2, ge=1)
    vocabulary_size: int = Field(2048, ge=64)
    lora_rank: int | None = Field(None, ge=1, description="null: full fine-tuning")
    dtype: Literal["float32", "bfloat16"] = "float32"
    max_prompt_tokens: int = Field(512, ge=16)
    max_completion_tokens: int = Field(160, ge=16)

    @model_validator(mode="after")
    def _require_settings_of_source(self) -> StudentConfig:
        if self.source == "pretrained" and not self.model:
            raise ValueError("student.source 'pretrained' needs student.model")
        if self.heads % self.key_value_heads:
            raise ValueError(f"heads {self.heads} must be a multiple of key_value_heads {self.key_value_heads}")
        if self.hidden_size % (2 * self.heads):
            raise ValueError(f"hidden_size {self.hidden_size} must be a multiple of twice the heads, {2 * self.heads}")
        return self


class TrainingConfig(Section):
    """What the two training steps share; TRL's and transformers' names."""

    learning_rate: float = Field(1e-3, gt=0)
    gradient_accumulation: int = Field(1, ge=1)
    gradient_checkpointing: bool = False
    save_steps: int = Field(50, ge=1, description="a checkpoint every so many steps, so that a killed step goes on")
    report_to: tuple[Literal["tensorboard", "mlflow"], ...] = ("tensorboard",)


class SupervisedConfig(TrainingConfig):
    """What both kinds of supervised training share."""

    batch_size: int = Field(64, ge=1)


class SFTConfig(SupervisedConfig):
    """Supervised fine-tuning on the teacher's voted and calibrated answers."""

    epochs: float = Field(3.0, gt=0)
    min_steps: int = Field(0, ge=0, description="optimiser steps at least: a small data set gets more epochs")
    max_users: int | None = Field(None, ge=1, description="train on the first so many users; null: on all of them")
    rationales_per_user: int = Field(4, ge=1, description="sequences of each user in one epoch, a rationale each")


class RejectionConfig(SupervisedConfig):
    """Rejection-sampling fine-tuning on the student's own vote, between SFT and the frozen reference."""

    rounds: int = Field(0, ge=0, description="0 leaves the SFT student as it is; users and sampling as in reference")
    kept_per_user: int = Field(4, ge=1, description="of each user's samples, those that agree best with their vote")
    learning_rate: float = Field(1e-3, gt=0)


class ReferenceConfig(Section):
    """The one offline pass of the SFT student whose confidence is frozen."""

    samples: int = Field(10, ge=1)
    temperature: float = Field(1.0, gt=0)
    vote: Vote = "weighted"
    splits: tuple[Literal["second_stage", "train"], ...] = Field(
        ("second_stage", "train"), min_length=1, description="whose users take part in the second stage, in this order"
    )
    max_users: int | None = Field(None, ge=1, description="the first so many of them; null: all")
    batch_size: int = Field(256, ge=1, description="completions generated at once")
    use_vllm: bool = False


class FilteringConfig(Section):
    """The difficulty filter in front of GRPO."""

    shape: Literal["original", "m", "lambda"] = "m"
    keep: float = Field(0.8, gt=0.0, le=1.0, description="share of the users that is kept by a shaped filter")
    strata: Literal["none", "rarest_tag"] = Field(
        "none", description="rarest_tag: shape and share hold within the users of each rare tag, not over all"
    )


class GRPOConfig(TrainingConfig):
    """Confidence-guided reinforcement learning."""

    learning_rate: float = Field(1e-4, gt=0)
    steps: int = Field(40, ge=0, description="optimiser steps; 0 leaves the SFT student as it is")
    prompts_per_step: int = Field(32, ge=1)
    rollouts: int = Field(8, ge=2, description="completions sampled for each prompt (the group)")
    temperature: float = Field(1.0, gt=0)
    kl: float = Field(0.03, ge=0, description="beta: weight of the KL term against the SFT student")
    quasi_ground_truth: Literal["reference", "rollouts", "soft"] = "reference"
    weight: Literal["frozen", "self", "none"] = "frozen"
    level_reward: float = Field(0.3, ge=0, description="pays for levels near the frozen reference's; 0: the paper's")
    format_reward: float = Field(0.1, ge=0)
    max_entropy_loss: float = Field(
        0.3, gt=0, le=1, description="share of the tags' entropy whose loss counts as collapse and ends the training"
    )
    use_vllm: bool = False

    @model_validator(mode="after")
    def _check_gradient_accumulation(self) -> GRPOConfig:
        completions = self.prompts_per_step * self.rollouts
        if completions % self.gradient_accumulation:
            raise ValueError(
                f"gradient_accumulation {self.gradient_accumulation} does not divide prompts_per_step x rollouts, "
                f"{completions}"
            )
        return self


class EvaluationConfig(Section):
    """What the true labels of the test users are used for."""

    bootstrap: int = Field(1000, ge=100, description="resamples of users for the 95% intervals")
    target_precision: float = Field(0.6, ge=0, le=1, description="default thresholds reach it where any level does")
    batch_size: int = Field(256, ge=1)


class GateConfig(Section):
    """The policy of promotion."""

    min_precision: float = Field(0.4, ge=0, le=1, description="floor of micro precision at the default thresholds")
    max_slice_loss: float = Field(0.05, ge=0, description="F1 that one slice may lose against the champion")
    min_slice_users: int = Field(50, ge=1, description="smaller slices are reported, not judged")
    tolerance: float = Field(0.0, ge=0, description="F1 by which the paired difference may fall short of zero")
    require_hierarchy: bool = True
    require_constant: bool = Field(True, description="not to be below the constant answer of the most frequent tags")
    unjudged: Literal["refuse", "allow"] = Field(
        "refuse", description="allow: a run without labels may promote its model, which nobody has judged"
    )
    unjudged_levels: dict[str, Annotated[int, Field(ge=1, le=5)]] = Field(
        {}, description="attribute -> lowest level at which an unjudged model's answer is accepted; without one: never"
    )

    @model_validator(mode="after")
    def _require_levels_of_unjudged(self) -> GateConfig:
        if self.unjudged == "allow" and not self.unjudged_levels:
            raise ValueError(
                "gate.unjudged 'allow' needs gate.unjudged_levels, the lowest level that is accepted of each attribute "
                "(without labels none can be chosen), e.g. {age: 4}; an attribute without one is never accepted"
            )
        return self


class StorageConfig(Section):
    """The model registry. Keys come from AWS's usual environment variables, never from this file."""

    endpoint: str | None = Field(
        None, description="S3 endpoint, 'aws' for Amazon's own; null: AWS_ENDPOINT_URL, else a local SeaweedFS"
    )
    region: str | None = Field(None, description="null: AWS_REGION, AWS_DEFAULT_REGION, the profile's, else us-east-1")
    bucket: str = Field(DEFAULT_BUCKET, pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")
    encryption: str | None = Field(
        None,
        pattern=r"^sse-(s3|kms(:\S+)?)$",
        description="what uploads ask the store for: sse-s3, sse-kms or sse-kms:KEY; null: what the bucket does",
    )
    model: str = Field("conf-profile", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")


class RolloutConfig(Section):
    """On a cluster: what serves the model. A promoted version is put into service, and taken back if it fails."""

    inference_service: str = Field("", description="its name; empty: a promotion moves the champion pointer alone")
    namespace: str = Field("default", pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")
    url: str = Field("", description="its transformer's address; empty: the one inside the cluster")
    served_as: str = Field("conf-profile", description="the model's name in the API")
    ready_seconds: float = Field(1500.0, ge=1, description="for the new pods to be ready and the old ones to be gone")


class RunConfig(Section):
    """A whole run."""

    preset: str = "tiny"
    seed: int = Field(0, ge=0, lt=2**31)
    data: DataConfig = DataConfig()
    features: FeaturesConfig = FeaturesConfig()
    prompt: PromptConfig = PromptConfig()
    teacher: TeacherConfig = TeacherConfig()
    labelling: LabellingConfig = LabellingConfig()
    student: StudentConfig = StudentConfig()
    sft: SFTConfig = SFTConfig()
    rejection: RejectionConfig = RejectionConfig()
    reference: ReferenceConfig = ReferenceConfig()
    filtering: FilteringConfig = FilteringConfig()
    grpo: GRPOConfig = GRPOConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    gate: GateConfig = GateConfig()
    storage: StorageConfig = StorageConfig()
    rollout: RolloutConfig = RolloutConfig()

    def to_yaml(self) -> str:
        """What `conf-profile config` prints; reading it again gives the same run."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


SectionT = TypeVar("SectionT", bound=Section)


def preset_names() -> list[str]:
    """The presets that come with the project."""
    return sorted(
        entry.name.removesuffix(".yaml")
        for entry in resources.files("configs").iterdir()
        if entry.name.endswith(".yaml")
    )


def resolve(
    preset: str = "tiny",
    file: Path | None = None,
    overrides: Iterable[str] = (),
    values: Mapping[str, Any] | None = None,
) -> RunConfig:
    """Layers preset, file, `values` (nested) and `section.key=value` overrides; ConfigError names the key.

    A preset's number of users is the generated world's: of any other data set all users are read unless a later layer
    says otherwise.
    """
    given = [] if file is None else [read_mapping(read_text(file), str(file))]
    given += [dict(values or {}), *map(parse_override, overrides)]
    merged = merge({"preset": preset}, _preset(preset), *given)
    data, chosen = merged.get("data"), merge(*given).get("data", {})
    if isinstance(data, dict) and data.get("name", "world") != "world" and "users" not in chosen:
        data["users"] = None
    return _validate(merged)


def defaults_digest() -> str:
    """12 hexadecimal digits over all defaults: who sends differences from them names which ones they were."""
    return hashlib.sha256(RunConfig().model_dump_json().encode()).hexdigest()[:12]


def parse_section(kind: type[SectionT], text: str) -> SectionT:
    """Reads a section back from the JSON that a step received; an empty text stands for the defaults.

    ConfigError where it breaks a rule, and where CONF_PROFILE_DEFAULTS names other defaults than this program's.
    """
    expected = os.environ.get(DEFAULTS, "")
    if expected and expected != defaults_digest():
        raise ConfigError(
            f"{kind.__name__}: the pipeline was compiled with the defaults {expected}, this image has "
            f"{defaults_digest()}: they are of different releases; compile with the release of the image"
        )
    try:
        return kind.model_validate_json(text or "{}")
    except ValidationError as error:
        raise ConfigError(f"{kind.__name__}: {explain(error, 'run')}") from error


def _validate(layers: Mapping[str, Any]) -> RunConfig:
    try:
        return RunConfig.model_validate(layers)
    except ValidationError as error:
        raise ConfigError(f"configuration: {explain(error, 'run')}") from error


def _preset(name: str) -> dict[str, Any]:
    if name not in preset_names():
        raise ConfigError(f"preset {name!r} does not exist; choose one of {', '.join(preset_names())}")
    return read_mapping((resources.files("configs") / f"{name}.yaml").read_text(encoding="utf-8"), f"preset {name}")
