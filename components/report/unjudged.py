"""The report of a run without labels: what its page shows in the place of results, confusion and slices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from components.report import figures
from components.report.inputs import Inputs
from components.report.numbers import format_limits, percent
from conf_profile.evaluation.arms import arm_title, is_vote, teacher_arm

Values = Mapping[str, Any]


def values(inputs: Inputs) -> Values:
    """All that unjudged.html names besides what every report has. KeyError for what an input lacks."""
    pair = find_vote(inputs)
    return {
        "header": {
            "run": ", ".join(f"{name} {value}" for name, value in inputs.run_facts.items()),
            "headline": headline(inputs, pair),
            "tiles": _tiles(inputs, pair),
        },
        "agreement": [_compare(item) for item in inputs.evaluation["agreement"]],
        "vote": arm_title(pair["second"]) if pair else "",
        "attributes": _attributes(inputs, pair),
        "at_levels": _at_levels(inputs, pair) if pair else [],
        "given": _given_levels(inputs.gate.get("thresholds") or {}),
        "levels": figures.levels(inputs),
    }


def find_vote(inputs: Inputs) -> Mapping[str, Any] | None:
    """The candidate beside the vote that it was taught by, else beside the first there is; None: there is none."""
    own = {item["second"]: item for item in inputs.evaluation["agreement"] if item["first"] == inputs.candidate}
    taught = own.get(teacher_arm(str(inputs.labelling.get("vote", ""))))
    return taught or next((item for name, item in own.items() if is_vote(name)), None)


def headline(inputs: Inputs, pair: Mapping[str, Any] | None) -> list[str]:
    """The result in sentences that need no other part of the report."""
    name = arm_title(inputs.candidate)
    sentences = [
        _verdict(inputs),
        f"There are no true labels, so nobody knows how often its answers are right. {name} is the candidate; no label "
        "was used in training either.",
    ]
    if pair:
        sentences.append(
            f"It names the tag of the teacher's vote in {percent(pair['share'])} of what both answer "
            f"({format_limits((pair['low'], pair['high']))}); chance would give {percent(pair['by_chance'])}. That is "
            "agreement, not accuracy: a student repeats its teacher's errors."
        )
    return sentences


def _verdict(inputs: Inputs) -> str:
    if inputs.gate["decision"] != "promote":
        failed = [check["name"] for check in inputs.gate["checks"] if not check["passed"]]
        why = "" if "unjudged" in failed else f", and {len(failed)} of {len(inputs.gate['checks'])} checks failed"
        return f"Rejected: unjudged{why}."
    version = inputs.outcome.get("version") if inputs.outcome.get("promoted") else None
    return f"Promoted as version {version}, unjudged." if version else "The gate let the candidate pass, unjudged."


def _tiles(inputs: Inputs, pair: Mapping[str, Any] | None) -> list[tuple[str, str, str]]:
    """(name, value, note) of each."""
    said = inputs.evaluation["answers"][inputs.candidate]
    samples = _mean_agreement(inputs)
    tiles = [("Accuracy", "unknown", "no user has a true label")]
    if pair:
        limits = format_limits((pair["low"], pair["high"]))
        tiles.append(("Same tag as the vote", percent(pair["share"]), f"95% interval {limits}"))
    if samples is not None:
        tiles.append(("Samples agree", percent(samples), "two samples of the teacher, same tag"))
    tiles += [
        ("Answered", percent(said["answered"] / said["cells"]), "of the test users' attributes"),
        ("At level 5", percent(said["top_share"]), "balanced: 20%"),
        ("Test users", f"{inputs.evaluation['users'].get('test', 0):,}", "none of them with a true label"),
    ]
    return tiles


def _mean_agreement(inputs: Inputs) -> float | None:
    known = [value for value in inputs.evaluation["samples"]["agreement"].values() if value is not None]
    return sum(known) / len(known) if known else None


def _compare(item: Mapping[str, Any]) -> list[str]:
    return [
        f"{arm_title(item['first'])} = {arm_title(item['second'])}",
        f"{item['cells']:,}",
        *_share(item),
        f"{item['drift_bits']:.3f}",
    ]


def _share(item: Mapping[str, Any]) -> Sequence[str]:
    """Agreement, its interval, and chance's; nothing where the two never answered the same question."""
    if not item["cells"]:
        return "–", "–", "–"
    return percent(item["share"]), format_limits((item["low"], item["high"])), percent(item["by_chance"])


def _attributes(inputs: Inputs, pair: Mapping[str, Any] | None) -> list[list[str]]:
    said, samples = inputs.evaluation["answers"][inputs.candidate], inputs.evaluation["samples"]["agreement"]
    rows = []
    for name, found in said["per_attribute"].items():
        agreeing, beside = samples.get(name), pair["per_attribute"][name] if pair else None
        rows.append(
            [
                name,
                f"{found['answered']:,}",
                f"{found['balance']:.2f}",
                "–" if agreeing is None else percent(agreeing),
                *(_share(beside) if beside else ("–", "–", "–")),
                f"{beside['drift_bits']:.3f}" if beside else "–",
            ]
        )
    return rows


def _at_levels(inputs: Inputs, pair: Mapping[str, Any]) -> list[list[str]]:
    """For each attribute and level: how many users are answered at it or above, and how often as the vote does."""
    return [
        [name, *(f"{percent(point['answered'])}, {percent(point['share'])}" for point in found["sweep"])]
        for name, found in pair["per_attribute"].items()
    ]


def _given_levels(thresholds: Mapping[str, int | None]) -> dict[str, str]:
    return {name: "never accepted" if level is None else f"level {level}" for name, level in thresholds.items()}
