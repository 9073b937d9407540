"""What each section of the report shows, as plain values: numbers written out, sentences, rows, charts.

Their words and their markup are in sections.html, which escapes every value that is not markup of ours.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from components.report import figures, unjudged
from components.report.inputs import Inputs
from components.report.numbers import format_limits, format_signed, percent, points
from conf_profile.evaluation.arms import (
    BASE,
    CEILING,
    CHAMPION,
    SFT,
    SFT_GRPO,
    TEACHER_EM,
    TEACHER_LOG_ODDS,
    TEACHER_MAJORITY,
    TEACHER_SINGLE,
    TEACHER_WEIGHTED,
    arm_title,
)
from conf_profile.evaluation.labelled_users import find_labelled_users
from conf_profile.evaluation.summary import count_answers

Values = Mapping[str, Any]


def values(inputs: Inputs) -> Values:
    """All that sections.html names. KeyError for what an input lacks."""
    return {
        "judged": inputs.judged,
        "gate": _gate(inputs.gate),
        "training": {"curves": figures.training(inputs), "difficulty": figures.difficulty(inputs)},
        "data": _data(inputs),
        "answers": _answers(inputs.labelling),
        "warnings": list(inputs.warnings),
        "model": _model(inputs),
        "configuration": inputs.config_yaml,
        **(_judgement(inputs) if inputs.judged else unjudged.values(inputs)),
    }


def _judgement(inputs: Inputs) -> Values:
    """What true labels tell."""
    return {
        "header": _header(inputs),
        "results": _results(inputs),
        "confidence": _confidence(inputs),
        "slices": _slices(inputs),
        "confusion": {"arm": arm_title(inputs.candidate), "charts": figures.confusion(inputs)},
    }


def headline(inputs: Inputs) -> list[str]:
    """The result in sentences that need no other part of the report."""
    arms, name = inputs.evaluation["arms"], inputs.candidate
    found = arms[name]
    first = (
        f"{_capital(spoken_name(name))} reaches an F1 of {percent(found['f1'])} ({format_limits(found['f1_ci'])}) on "
        f"the true labels of {_describe_users(inputs)}; no label was used in training."
    )
    accepted = inputs.evaluation["at_thresholds"]
    second = (
        f"At the default confidence thresholds it answers {percent(accepted['coverage'])} of the questions "
        f"and is right in {percent(accepted['precision'])} of these answers."
    )
    return [_verdict(inputs), first, second, *_comparisons(inputs)]


def serving_command(uri: str, options: Sequence[str] = ()) -> str:
    """The command that serves the version at a pinned champion:// address, and no other one."""
    return shlex.join(["conf-profile", "serve", uri, *options])


def spoken_name(arm: str) -> str:
    """The arm's name inside a sentence."""
    return _SPOKEN_NAMES.get(arm, arm)


_RATES = ("precision", "recall", "f1")
_SPOKEN_NAMES = {
    BASE: "the untrained model",
    TEACHER_SINGLE: "one sample of the teacher",
    TEACHER_MAJORITY: "the teacher's majority vote",
    TEACHER_WEIGHTED: "the teacher's weighted vote",
    TEACHER_LOG_ODDS: "the teacher's vote by log-odds",
    TEACHER_EM: "the teacher's vote by EM",
    SFT: "the student after SFT",
    SFT_GRPO: "the student after SFT and GRPO",
    CHAMPION: "the champion until now",
}


def _header(inputs: Inputs) -> Values:
    """What was run, the result in words, and the figures that matter most."""
    return {
        "run": ", ".join(f"{name} {value}" for name, value in inputs.run_facts.items()),
        "headline": headline(inputs),
        "tiles": _tiles(inputs),
    }


def _results(inputs: Inputs) -> Values:
    """Every arm with its intervals, the paired differences, and F1 by attribute; `chosen` is the candidate's row."""
    arms = inputs.evaluation["arms"]
    attributes = list(next(iter(arms.values()))["per_attribute"])
    return {
        "chosen": list(arms).index(inputs.candidate),
        "arms": [
            [arm_title(name), *(_format_with_interval(arm, rate) for rate in _RATES)] for name, arm in arms.items()
        ],
        "chart": figures.arms(inputs),
        "differences": [_difference(paired) for paired in inputs.evaluation["paired"]],
        "attributes": [_head(attribute, inputs) for attribute in attributes],
        "by_attribute": [
            [arm_title(name), *(percent(arm["per_attribute"][attribute]["f1"]) for attribute in attributes)]
            for name, arm in arms.items()
        ],
    }


def _gate(gate: Mapping[str, Any]) -> Values:
    """The decision with every reason, and the failed checks alone."""
    checks = [
        {"name": check["name"].replace("_", " "), "passed": check["passed"], "message": check["message"]}
        for check in gate["checks"]
    ]
    failed = [check for check in checks if not check["passed"]]
    return {"promoted": gate["decision"] == "promote", "checks": checks, "failed": failed}


def _confidence(inputs: Inputs) -> Values:
    """Levels raw and calibrated, reliability, the curves over the threshold, and the default thresholds."""
    return {
        "levels": figures.levels(inputs),
        "reliability": figures.reliability(inputs),
        "thresholds": figures.thresholds(inputs),
        "hierarchy": [_hierarchy(name, found) for name, found in inputs.evaluation["hierarchy"].items()],
        "defaults": {name: f"level {level}" for name, level in inputs.evaluation["thresholds"].items()},
    }


def _slices(inputs: Inputs) -> Values:
    """By region, by how much history there is, by self-report."""
    rows = [
        [line["slice"], arm_title(line["arm"]), f"{line['users']:,}", *(percent(line[rate]) for rate in _RATES)]
        for line in inputs.evaluation["slices"]
    ]
    return {"chart": figures.slices(inputs), "rows": rows}


def _data(inputs: Inputs) -> dict[str, str]:
    """Who was in the run, and what the teacher's answers were like."""
    facts = {"Users by split": ", ".join(f"{k} {v:,}" for k, v in inputs.evaluation["users"].items())}
    facts |= _scalars("", inputs.features) | _scalars("Teacher: ", inputs.labelling)
    return facts | _scalars("Difficulty filter: ", inputs.filtering) | _scalars("Reference pass: ", inputs.reference)


def _answers(labelling: Mapping[str, Any]) -> list[list[str]]:
    """How the teacher's answers were read: form, count, share; nothing where nobody has counted."""
    counted = count_answers(labelling)
    if counted is None:
        return []
    rows = [
        ("well-formed", counted["well_formed"]),
        *counted["forms"].items(),
        ("malformed", counted["malformed"]),
        *((f"malformed: {reason}", count) for reason, count in counted["reasons"].items()),
    ]
    return [[name, f"{count:,}", percent(count / counted["total"])] for name, count in rows]


def _model(inputs: Inputs) -> Values:
    """The promoted version and the command that serves it; nothing where nothing was promoted."""
    if not inputs.outcome.get("promoted"):
        return {"uri": None}
    uri = str(inputs.outcome["uri"])
    return {
        "version": inputs.outcome["version"],
        "uri": uri,
        "command": serving_command(uri, inputs.serve_options),
    }


def _verdict(inputs: Inputs) -> str:
    failed = [check for check in inputs.gate["checks"] if not check["passed"]]
    if inputs.gate["decision"] == "promote":
        version = inputs.outcome.get("version") if inputs.outcome.get("promoted") else None
        return f"Promoted as version {version}." if version else "The gate let the candidate pass."
    return f"Rejected by the gate: {len(failed)} of {len(inputs.gate['checks'])} checks failed."


def _comparisons(inputs: Inputs) -> list[str]:
    wanted = (TEACHER_SINGLE, SFT, CHAMPION)
    paired = [p for p in inputs.evaluation["paired"] if p["better"] == inputs.candidate and p["worse"] in wanted]
    if not paired:
        return []
    told = "; ".join(
        f"{points(p['difference'])} against {spoken_name(p['worse'])} ({_describe_interval(p)})" for p in paired
    )
    ceiling = inputs.evaluation["arms"].get(CEILING)
    most = (
        f" Whoever answers every question cannot exceed an F1 of about {percent(ceiling['f1'])} on these users."
        if ceiling
        else ""
    )
    return [f"In F1 that is {told}.{most}"]


def _describe_interval(paired: Mapping[str, Any]) -> str:
    if paired["low"] > 0 or paired["high"] < 0:
        return f"interval {format_signed(paired['low'])} to {format_signed(paired['high'])}, clear of zero"
    return f"interval {format_signed(paired['low'])} to {format_signed(paired['high'])}, so it may be chance"


def _tiles(inputs: Inputs) -> list[tuple[str, str, str]]:
    """(name, value, note) of each."""
    evaluation, found = inputs.evaluation, inputs.evaluation["arms"][inputs.candidate]
    accepted, ceiling = evaluation["at_thresholds"], evaluation["arms"].get(CEILING)
    tiles = [
        ("F1", percent(found["f1"]), f"95% interval {format_limits(found['f1_ci'])}"),
        (
            "Precision",
            percent(accepted["precision"]),
            f"on the {percent(accepted['coverage'])} it answers",
        ),
        (
            "Calibration error",
            percent(found["ece"]) if found["ece"] is not None else "–",
            "expected (ECE), of the stated score",
        ),
    ]
    if ceiling and ceiling["f1"]:
        tiles.append(
            (
                "Of the ceiling",
                percent(found["f1"] / ceiling["f1"]),
                f"whose F1 is {percent(ceiling['f1'])}",
            )
        )
    return [*tiles, _users_tile(inputs)]


def _users_tile(inputs: Inputs) -> tuple[str, str, str]:
    labelled = find_labelled_users(inputs.evaluation)
    if labelled is None:
        return "Test users", f"{inputs.evaluation['users'].get('test', 0):,}", "measured with true labels"
    differing = ", ".join(f"{name} {count:,}" for name, count in labelled.differing.items())
    note = f"of {labelled.test:,} have true labels" + (f": {differing}" if differing else "")
    return "Test users", f"{labelled.labelled:,}", note


def _describe_users(inputs: Inputs) -> str:
    labelled = find_labelled_users(inputs.evaluation)
    return str(labelled) if labelled else f"{inputs.evaluation['users'].get('test', 0):,} test users"


def _head(attribute: str, inputs: Inputs) -> str:
    """An attribute with the number of test users who have a label of it."""
    labelled = find_labelled_users(inputs.evaluation)
    return f"{attribute} (n={labelled.by_attribute[attribute]:,})" if labelled else attribute


def _difference(paired: Mapping[str, Any]) -> list[str]:
    return [
        f"{_capital(spoken_name(paired['better']))} − {spoken_name(paired['worse'])}",
        points(paired["difference"]),
        f"{format_signed(paired['low'])} to {format_signed(paired['high'])}",
        "clear of zero" if paired["low"] > 0 or paired["high"] < 0 else "may be chance",
    ]


def _hierarchy(arm: str, found: Mapping[str, Any]) -> list[str]:
    slope, low, high = (format_signed(found[name]) for name in ("slope", "slope_low", "slope_high"))
    return [
        arm_title(arm),
        f"{slope} ({low} to {high})",
        percent(found["top_share"]),
        f"{found['mean_level']:.2f}",
        "passed" if found["passed"] else " and ".join(k for k in ("flat", "inflated") if found[k]),
    ]


def _scalars(prefix: str, report: Mapping[str, Any]) -> dict[str, str]:
    shown = {k: v for k, v in report.items() if isinstance(v, str | int | float) and not isinstance(v, bool)}
    return {
        (prefix + key.replace("_", " ")).strip(): f"{value:,.4g}" if isinstance(value, float) else str(value)
        for key, value in shown.items()
    }


def _format_with_interval(arm: Mapping[str, Any], metric: str) -> Markup:
    interval = format_limits(arm[f"{metric}_ci"])
    return Markup('{} <span class="soft">({})</span>').format(f"{100 * arm[metric]:.1f}", interval)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
