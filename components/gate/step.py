"""Puts what evaluation measured before the gate, and writes gate.json. Reads no label, table or model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from conf_profile import tables
from conf_profile.config import GateConfig
from conf_profile.errors import DataError
from conf_profile.evaluation.arms import BASE, CHAMPION, MAJORITY_TAG, SFT, is_vote
from conf_profile.evaluation.bootstrap import Difference
from conf_profile.evaluation.gate import Candidate, Decision, Opponent, SliceDifference, decide
from conf_profile.evaluation.labelled_users import find_labelled_users, is_judged
from conf_profile.evaluation.unjudged import gate as unjudged_gate
from conf_profile.evaluation.unjudged.gate import ReplacedChampion, UnjudgedCandidate, VoteAgreement
from conf_profile.files import write_text


def run(evaluation: Path, gate: Path, config: GateConfig) -> dict[str, Any]:
    """Reads evaluation.json, decides, writes gate.json and returns its content."""
    result = judge(tables.read_json(evaluation, "run the evaluation step again"), config, str(evaluation)).to_dict()
    write_text(gate, json.dumps(result, indent=2))
    return result


def judge(evaluation: Mapping[str, Any], config: GateConfig, source: str = "evaluation") -> Decision:
    """The gate's decision on an evaluation's content; DataError when something it needs is missing."""
    try:
        if not is_judged(evaluation):
            return _decide_without_labels(evaluation, config)
        name = evaluation["candidate"]
        base, constant = _opponent(evaluation, BASE), _opponent(evaluation, MAJORITY_TAG)
        if base is None or constant is None:
            missing = "base model" if base is None else "constant answer"
            raise DataError(f"{source}: the {missing} was not evaluated; the gate compares with it")
        champion_judged = evaluation.get("champion_judged", True)
        return decide(
            _candidate(evaluation, name),
            _opponent(evaluation, CHAMPION) if champion_judged else None,
            _opponent(evaluation, SFT) if name != SFT else None,
            base,
            constant,
            config,
            "" if champion_judged else evaluation["compared_with"],
        )
    except (KeyError, TypeError) as error:
        raise DataError(f"{source}: {error} is missing; run the evaluation step again") from error


def _decide_without_labels(evaluation: Mapping[str, Any], config: GateConfig) -> Decision:
    name, version = evaluation["candidate"], evaluation["compared_with"]
    said = evaluation["answers"][name]
    candidate = UnjudgedCandidate(
        name=name,
        cells=said["cells"],
        levels={attribute: found["level_counts"] for attribute, found in said["per_attribute"].items()},
        top_share=said["top_share"],
        mean_level=said["mean_level"],
        agreement=_best_agreement(evaluation, name),
    )
    champion = ReplacedChampion(version, evaluation["champion_judged"]) if version else None
    return unjudged_gate.decide(candidate, champion, config)


def _best_agreement(evaluation: Mapping[str, Any], name: str) -> VoteAgreement | None:
    """With the vote that the candidate agrees with most: which of them has taught it the evaluation does not know."""
    votes = [item for item in evaluation["agreement"] if item["first"] == name and is_vote(item["second"])]
    best = max(votes, key=lambda item: item["share"], default=None)
    if best is None:
        return None
    return VoteAgreement(best["second"], best["share"], best["low"], best["high"], best["by_chance"])


def _candidate(evaluation: Mapping[str, Any], name: str) -> Candidate:
    verdict, accepted = evaluation["hierarchy"][name], evaluation["at_thresholds"]
    return Candidate(
        name=name,
        f1=evaluation["arms"][name]["f1"],
        threshold_precision=accepted["precision"],
        threshold_coverage=accepted["coverage"],
        hierarchy_passed=verdict["passed"],
        hierarchy_reasons=tuple(verdict["reasons"]),
        users=find_labelled_users(evaluation),
    )


def _opponent(evaluation: Mapping[str, Any], name: str) -> Opponent | None:
    if name not in evaluation["arms"]:
        return None
    slices = evaluation["slice_differences"] if name == CHAMPION else []
    return Opponent(
        name=name,
        f1=evaluation["arms"][name]["f1"],
        difference=_find_difference(evaluation, name),
        slices=tuple(SliceDifference(item["slice"], item["users"], _difference(item)) for item in slices),
    )


def _find_difference(evaluation: Mapping[str, Any], opponent: str) -> Difference:
    wanted = (evaluation["candidate"], opponent)
    for item in evaluation["paired"]:
        if (item["better"], item["worse"]) == wanted:
            return _difference(item)
    raise KeyError(f"the paired difference {wanted[0]} - {wanted[1]}")


def _difference(item: Mapping[str, Any]) -> Difference:
    return Difference(**{name: item[name] for name in Difference.__dataclass_fields__})
