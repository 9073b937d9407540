"""What Prometheus reads. Names begin with conf_profile_; labels have few values, and never a user's."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

_LATENCY_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_AGE_BUCKETS = (60.0, 3600.0, 6 * 3600.0, 86400.0, 3 * 86400.0, 7 * 86400.0, 30 * 86400.0, 90 * 86400.0, 365 * 86400.0)

STAGE_SECONDS = Histogram(
    "conf_profile_stage_seconds", "Seconds of one request's stage", ["stage"], buckets=_LATENCY_BUCKETS
)
"""Stages: features, predictor, parse."""
ANSWERS = Counter("conf_profile_answers", "Answers by what became of them", ["attribute", "level", "outcome"])
"""Outcome: accepted, below_threshold, never_accepted (of an unjudged model), unknown, malformed, no_consent,
unknown_user, failed; level: 1-5 or none."""
MALFORMED_COMPLETIONS = Counter("conf_profile_malformed_completions", "Completions that do not follow the grammar")
RETRIES = Counter("conf_profile_predictor_retries", "Requests to the predictor that were tried again")
OTHER_VERSION = Counter("conf_profile_other_version", "Answers by the predictor's version instead of one's own")
BREAKER_OPEN = Gauge("conf_profile_breaker_state", "Circuit breaker: 0 closed, 1 half open, 2 open")
FEATURE_AGE_SECONDS = Histogram(
    "conf_profile_feature_age_seconds",
    "Age of a user's latest behaviour snapshot when it is used",
    buckets=_AGE_BUCKETS,
)
FAILURES = Counter("conf_profile_failures", "Users for whom the predictor gave no answer", ["status"])
WRITTEN_PROFILES = Counter(
    "conf_profile_written_back", "Profiles by what became of them on the way to Feast", ["outcome"]
)
"""Outcome: written, nothing_new, no_consent, dropped (too many waited), failed."""
