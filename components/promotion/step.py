"""Publishes the model that the gate let pass, verifies it, and moves the champion pointer.

Judges nothing: gate.json has decided. Rejection is a normal outcome; then S3 is not even asked. A run that
was killed at any point can be repeated: what was uploaded stays, and a moved pointer is not moved again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.steps import MODEL_SECTIONS
from conf_profile import tables
from conf_profile.config import StorageConfig
from conf_profile.errors import ConfigError, DataError
from conf_profile.evaluation import model_card
from conf_profile.evaluation.labelled_users import is_judged
from conf_profile.files import write_text
from conf_profile.registry import registry
from conf_profile.registry.registry import ANY_CHAMPION, Champion, Registry, Version
from conf_profile.registry.version_files import CARD, EVALUATION, THRESHOLDS
from conf_profile.rollout.smoke import SMOKE

_ADVICE = "run the step that writes it again"
_METRICS = ("precision", "recall", "f1", "f1_ci")
# Their addresses may hold a password, and a manifest is widely read.
_SECTIONS_WITH_ADDRESSES = frozenset({"features", "teacher"})
_RECORDED_SECTIONS = {"preset", "seed", *MODEL_SECTIONS} - _SECTIONS_WITH_ADDRESSES


def run(
    model: Path,
    evaluation: Path,
    gate: Path,
    reference_hash: str,
    outcome: Path,
    config: StorageConfig,
    run_config_json: str,
    expected_champion: str,
) -> dict[str, Any]:
    """Promotes `model` (a folder) if the gate says so; writes outcome.json and returns its content.

    `expected_champion` names what the candidate was judged against: a version or the ETag of champion.json;
    "" if there was no champion, "any" for the one that the evaluation names (where it names none: the one of this
    moment). RegistryConflictError when the champion is another one by now. Outcome: {"promoted": false, "reasons"} or
    {"promoted": true, "version", "uri", "files", "bytes"}.
    """
    decision = tables.read_json(gate, _ADVICE)
    if decision.get("decision") == "promote":
        measured = _add_given_levels(tables.read_json(evaluation, _ADVICE), decision)
        facts = _facts(config.model, measured, decision, reference_hash, run_config_json)
        if expected_champion == ANY_CHAMPION:
            expected_champion = measured.get("compared_with", ANY_CHAMPION)
        result = _promote(model, facts, registry.connect(config), expected_champion)
    elif decision.get("decision") == "reject":
        result = {"promoted": False, "reasons": list(decision.get("reasons", ()))}
    else:
        raise DataError(f"{gate}: 'decision' is {decision.get('decision')!r}; expected 'promote' or 'reject'")
    write_text(outcome, json.dumps(result, indent=2, ensure_ascii=False))
    return result


def file_hash(path: Path) -> str:
    """SHA-256 of a file, or of a folder's one file; for the frozen reference."""
    files = [path] if path.is_file() else sorted(entry for entry in path.rglob("*") if entry.is_file())
    if len(files) != 1:
        raise DataError(f"{path}: expected one file to hash, found {len(files)}")
    with files[0].open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _add_given_levels(measured: dict[str, Any], decision: dict[str, Any]) -> dict[str, Any]:
    """An unjudged model's thresholds are the operator's, which the gate read; labels have chosen a judged one's."""
    return measured if is_judged(measured) else measured | {"thresholds": decision.get("thresholds") or {}}


def _promote(model: Path, facts: model_card.CardFacts, target: Registry, expected_champion: str) -> dict[str, Any]:
    expected = _expected_etag(target, expected_champion)
    version = target.publish(model, manifest_extra=_manifest_extra(facts), generated=_generated_files(facts))
    target.promote(version.name, _metrics(facts), expected)
    return _outcome(target, version)


def _facts(
    model: str, evaluation: dict[str, Any], gate: dict[str, Any], reference_hash: str, run_config_json: str
) -> model_card.CardFacts:
    try:
        run_config = json.loads(run_config_json)
    except ValueError as error:
        raise ConfigError(f"promotion: run_config is not valid JSON: {error}") from error
    canonical = json.dumps(run_config, sort_keys=True, separators=(",", ":"))
    config_sha256 = hashlib.sha256(canonical.encode()).hexdigest()
    return model_card.CardFacts(model, evaluation, gate, run_config, reference_hash, config_sha256)


def _generated_files(facts: model_card.CardFacts) -> dict[str, bytes]:
    measured = {name: value for name, value in facts.evaluation.items() if name != "smoke"}
    smoke = _select_smoke_answers(facts.evaluation)
    return {
        CARD: model_card.render(facts).encode(),
        THRESHOLDS: _json(measured.get("thresholds", {})),
        EVALUATION: _json(measured),
        **({SMOKE: _json(smoke)} if smoke else {}),
    }


def _select_smoke_answers(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """What a rollout can compare: a tag that is never accepted is withheld from its smoke profiles, too."""
    never = {name for name, level in evaluation.get("thresholds", {}).items() if level is None}
    smoke: dict[str, Any] = evaluation.get("smoke") or {}
    if not (smoke and never):
        return smoke
    profiles = [
        one | {"answers": {name: said for name, said in one["answers"].items() if name not in never}}
        for one in smoke["profiles"]
    ]
    return smoke | {"profiles": profiles}


def _manifest_extra(facts: model_card.CardFacts) -> dict[str, Any]:
    return {
        "judged": is_judged(facts.evaluation),
        "metrics": _metrics(facts),
        "reference_sha256": facts.reference_sha256,
        "config_sha256": facts.config_sha256,
        "config": {name: facts.run_config[name] for name in sorted(_RECORDED_SECTIONS) if name in facts.run_config},
        "gate": dict(facts.gate),
    }


def _metrics(facts: model_card.CardFacts) -> dict[str, Any]:
    name = model_card.candidate_arm(facts.evaluation)
    arm = facts.evaluation.get("arms", {}).get(name, {})
    unjudged = {} if is_judged(facts.evaluation) else {"judged": False}
    return {"arm": name, **unjudged, **{key: arm[key] for key in _METRICS if key in arm}}


def _expected_etag(target: Registry, expected_champion: str) -> str | None:
    """What `Registry.promote` expects; a version name is turned into the ETag of the pointer to it."""
    if expected_champion in ("", ANY_CHAMPION):
        return expected_champion or None
    current = target.champion()
    if current is not None and expected_champion in _names(current):
        return current.etag
    # Not refused here: a repeated run finds its own version as the champion, and that is no conflict.
    return expected_champion


def _names(champion: Champion) -> tuple[str, ...]:
    return champion.version, champion.etag, champion.etag.strip('"')


def _outcome(target: Registry, version: Version) -> dict[str, Any]:
    return {
        "promoted": True,
        "version": version.name,
        "uri": target.uri(version.name),
        "files": len(version.files),
        "bytes": version.bytes,
    }


def _json(data: Any) -> bytes:
    return json.dumps(data, indent=2, sort_keys=True, ensure_ascii=False).encode()
