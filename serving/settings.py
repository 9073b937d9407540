"""The transformer's settings: one YAML or JSON file, checked once, every knob with a safe default."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BeforeValidator, Field, ValidationError

from conf_profile.errors import ServingError
from conf_profile.registry.format import MODEL_URI_VARIABLE
from conf_profile.strict_model import StrictModel, explain


class PredictorSettings(StrictModel):
    """How vLLM is asked."""

    url: str = Field("http://127.0.0.1:8000", description="base URL of its OpenAI server, without /v1")
    model: str = Field("conf-profile", description="the name under which it serves the model, whatever the version")
    by_version: bool = Field(
        True, description="ask for the model's version by name, so that no other answers; false: by `model`"
    )
    concurrency: int = Field(64, ge=1, description="requests under way at once; the others wait")
    max_attempts: int = Field(
        3, ge=1, description="tries of one request on connect errors and 503, within the deadline"
    )
    backoff_seconds: float = Field(0.05, gt=0, description="before the second try; doubled for each further one")
    breaker_failures: int = Field(10, ge=1, description="failures in a row after which requests are refused at once")
    breaker_seconds: float = Field(5.0, gt=0, description="how long they are")
    structured_output: bool = Field(True, description="hold answers to the grammar")
    vote_temperature: float = Field(0.7, gt=0, le=2, description="of the samples when a request asks for several")


class FeatureSettings(StrictModel):
    """Where features come from when a request brings none."""

    repository: Path | None = Field(None, description="folder with feature_store.yaml; null: features in requests only")
    require_consent: bool = Field(True, description="for features that a request brings, too: it must say consent")


class WriteBackSettings(StrictModel):
    """Accepted tags into Feast's view inferred_profile; needs features.repository."""

    enabled: bool = Field(False, description="off: what is inferred of a user leaves the server only as an answer")
    batch_size: int = Field(256, ge=1, description="profiles written at once")
    interval_seconds: float = Field(5.0, gt=0, description="a smaller batch is written after so long")
    max_waiting: int = Field(10_000, ge=1, description="profiles that wait; further ones are dropped and counted")
    shutdown_seconds: float = Field(5.0, ge=0, description="for writing what waits when the server ends")


class Settings(StrictModel):
    """Everything that the transformer can be told."""

    name: str = Field("conf-profile", description="the model's name in the API")
    model: Annotated[str, BeforeValidator(lambda given: str(given) if isinstance(given, Path) else given)] = Field(
        description="the model's folder (weights are not read), or champion://BUCKET/models/NAME[@VERSION]; the "
        f"environment's {MODEL_URI_VARIABLE} overrides it"
    )
    predictor: PredictorSettings = PredictorSettings()
    features: FeatureSettings = FeatureSettings()
    write_back: WriteBackSettings = WriteBackSettings()
    thresholds: dict[str, int] = Field({}, description="attribute -> lowest accepted level, over the model's own")
    deadline_seconds: float = Field(10.0, gt=0, description="for a whole request; a header may ask for less")
    max_instances: int = Field(256, ge=1, description="users in one request")
    max_samples: int = Field(16, ge=1, description="samples that a request may ask for")
    traces_endpoint: str | None = Field(None, description="OTLP over HTTP, e.g. http://collector:4318/v1/traces")
    web: bool = Field(False, description="serve the page at /web; it shows features: off in production")


def read(path: Path) -> Settings:
    """Reads and checks a settings file; ServingError names the key."""
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except OSError as error:
        raise ServingError(f"{path}: cannot be read: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise ServingError(f"{path}: not valid YAML: {error}") from error
    return parse(data, str(path))


def parse(data: Any, source: str) -> Settings:
    """Checks settings that were read; ServingError names the key."""
    try:
        return Settings.model_validate(data)
    except ValidationError as error:
        raise ServingError(f"{source}: {explain(error)}") from error
