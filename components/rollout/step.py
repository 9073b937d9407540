"""Puts the version that was promoted into service: conf_profile.rollout.rollout, told by the promotion's outcome.

Nothing promoted, nothing done. A failure fails the step, after pointer and InferenceService were put back; so a retry
of it, which would find another champion, is told what happened and changes nothing.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from conf_profile import tables
from conf_profile.config import RolloutConfig, StorageConfig
from conf_profile.errors import RolloutError
from conf_profile.files import write_text
from conf_profile.registry import registry
from conf_profile.rollout.rollout import Serving, roll_out

_ADVICE = "run the step that writes it again"


def run(outcome: Path, served: Path, config: RolloutConfig, storage: StorageConfig) -> dict[str, Any]:
    """Rolls out what `outcome` names; writes `served` and returns its content.

    {"in_service": false, "reason"} or {"in_service": true, "version", "uri"}; RolloutError says why it failed.
    """
    promoted = tables.read_json(outcome, _ADVICE)
    result = _result(promoted, config, storage)
    write_text(served, json.dumps(result, indent=2))
    return result


def _result(promoted: dict[str, Any], config: RolloutConfig, storage: StorageConfig) -> dict[str, Any]:
    if not promoted.get("promoted"):
        return {"in_service": False, "reason": "nothing was promoted"}
    models = registry.connect(storage, create_bucket=False)
    champion = models.require_champion().version
    if champion != promoted["version"]:
        raise RolloutError(
            f"{promoted['version']} is not the champion any more, {champion} is: it was rolled back, or another "
            "promotion came; nothing was changed"
        )
    serving = Serving(
        config.inference_service,
        config.namespace,
        config.url,
        config.served_as,
        ready_seconds=config.ready_seconds,
    )
    version = roll_out(models, serving, champion, lambda line: print(f"rollout: {line}", flush=True))
    return {"in_service": True, "version": version.name, "uri": models.uri(version.name)}
