"""Which charts the report shows, and what each is drawn from. How a chart is drawn is in `charts`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from components.report.charts import Dot, Series, bar_chart, dot_chart, heatmap, line_chart
from components.report.inputs import Inputs, curve
from components.report.markup import join
from conf_profile.evaluation.arms import (
    BASE,
    CEILING,
    CHAMPION,
    MAJORITY_TAG,
    SFT,
    SFT_GRPO,
    STUDENT_ARMS,
    TEACHER_EM,
    TEACHER_LOG_ODDS,
    TEACHER_MAJORITY,
    TEACHER_SINGLE,
    TEACHER_WEIGHTED,
    arm_title,
    teacher_arm,
)

TAUGHT_VOTE = "the vote that the student was taught by"
"""Stands for the arm of the labelling's own vote."""
LEVEL_NAMES = ("1", "2", "3", "4", "5")
COLOURS = {
    MAJORITY_TAG: "majority",
    BASE: "base",
    TEACHER_SINGLE: "teacher1",
    TEACHER_MAJORITY: "teacher2",
    TEACHER_WEIGHTED: "teacher3",
    TEACHER_LOG_ODDS: "teacher3",
    TEACHER_EM: "teacher3",
    SFT: "sft",
    SFT_GRPO: "grpo",
    CHAMPION: "champion",
    CEILING: "ceiling",
}
CONFIDENCE_ARMS = (TEACHER_SINGLE, TAUGHT_VOTE, *STUDENT_ARMS, CEILING)


def arms(inputs: Inputs) -> Markup:
    """F1 of every arm with its interval."""
    rows = [
        (arm_title(name), [Dot("F1", colour(name), arm["f1"], *arm["f1_ci"])])
        for name, arm in inputs.evaluation["arms"].items()
    ]
    return dot_chart("F1 of every arm, with 95% intervals", "F1", rows)


def levels(inputs: Inputs) -> Markup:
    """Confidence levels raw and calibrated: the teacher's, and the students'."""
    teacher = _draw_calibration(inputs.labelling, "Teacher: verbal and calibrated confidence", "teacher1", "teacher3")
    student = _draw_calibration(
        inputs.reference, "Student (reference pass): stated and calibrated confidence", "base", "sft"
    )
    said = inputs.evaluation["arms" if inputs.judged else "answers"]
    stated = [
        (arm_title(name), colour(name), shares(said[name]["level_counts"])) for name in STUDENT_ARMS if name in said
    ]
    final = _level_chart("Students: confidence on the test users", stated)
    return join(teacher, *([student] if _has_levels(inputs.reference) else []), final)


def reliability(inputs: Inputs) -> Markup:
    """Accuracy over the stated score; the diagonal is what a perfect calibration gives."""
    diagonal = Series("perfectly calibrated", ((0.0, 0.0), (1.0, 1.0)), "majority", dashed=True)
    series = [
        Series(arm_title(name), tuple((b["score"], b["accuracy"]) for b in arm["reliability"]), colour(name))
        for name, arm in _select_confidence_arms(inputs)
    ]
    note = "Above the diagonal a model is better than it says, below it over-confident."
    whole = (0.0, 1.0)
    return line_chart(
        "Reliability", "stated score", "share that is right", [diagonal, *series], whole, whole, note=note
    )


def thresholds(inputs: Inputs) -> Markup:
    """Precision and recall over the threshold tau."""
    return join(
        _draw_threshold_curve(inputs, "precision", "Precision over the threshold τ"),
        _draw_threshold_curve(inputs, "recall", "Recall over the threshold τ"),
    )


def training(inputs: Inputs) -> Markup:
    """The curves of both stages; a key that the logs do not have is left out."""
    sft = [_curve("SFT: loss", "loss", inputs.sft_log, "loss", "sft")]
    grpo = [
        _curve(f"GRPO: {title}", title, inputs.grpo_log, key, "grpo")
        for key, title in (
            ("loss", "loss"),
            ("reward", "reward"),
            ("kl", "KL divergence"),
            ("entropy", "entropy"),
            ("agreement", "agreement"),
        )
        if curve(inputs.grpo_log, key)
    ]
    return join(*sft, *grpo)


def difficulty(inputs: Inputs) -> Markup:
    """The difficulty filter: users by aggregated confidence, before and after."""
    before, after = (inputs.filtering.get(key) or () for key in ("before", "after"))
    if not before or len(before) != len(after):
        return join()
    bins = [f"{number / len(before):.1f}" for number in range(len(before))]
    groups = [("before", "base", before), ("kept", "sft", after)]
    return bar_chart("Difficulty filter", "aggregated confidence, from", "users", bins, groups)


def confusion(inputs: Inputs) -> Markup:
    """One matrix for each attribute, for the candidate."""
    found = inputs.evaluation["arms"][inputs.candidate]["confusion"]
    return join(
        *(
            heatmap(name, matrix["tags"], [*matrix["tags"], "(no answer)"], matrix["matrix"])
            for name, matrix in found.items()
        )
    )


def slices(inputs: Inputs) -> Markup:
    """F1 of each student by slice."""
    rows: dict[str, list[Dot]] = {}
    for line in inputs.evaluation["slices"]:
        dot = Dot(arm_title(line["arm"]), colour(line["arm"]), line["f1"])
        rows.setdefault(f"{line['slice']} (n={line['users']})", []).append(dot)
    return dot_chart("F1 by slice of the test users", "F1", list(rows.items()))


def colour(arm: str) -> str:
    """The CSS property of an arm's colour, the same in every chart."""
    return COLOURS.get(arm, "accent")


def shares(counts: Sequence[int]) -> list[float]:
    """Counts as shares of their sum; zeros where nothing was counted."""
    total = sum(counts)
    return [count / total if total else 0.0 for count in counts]


def _draw_calibration(report: Mapping[str, Any], title: str, raw: str, calibrated: str) -> Markup:
    groups = [
        (name, key_colour, shares(_sum_levels(report.get(key))))
        for key, name, key_colour in (
            ("raw_levels", "as stated", raw),
            ("stated_levels", "as stated", raw),
            ("calibrated_levels", "after calibration by partition", calibrated),
        )
        if report.get(key)
    ]
    return _level_chart(title, groups)


def _has_levels(report: Mapping[str, Any]) -> bool:
    return any(report.get(key) for key in ("raw_levels", "stated_levels", "calibrated_levels"))


def _level_chart(title: str, groups: Sequence[tuple[str, str, Sequence[float]]]) -> Markup:
    return bar_chart(
        title, "confidence level", "share of the answers", LEVEL_NAMES, groups, percent=True, reference=0.2,
        note="Dashed: the balanced 20% that the partition aims for.",
    )  # fmt: skip


def _sum_levels(levels_by_attribute: Any) -> list[int]:
    """Level counts over all attributes, from {attribute: [n1..n5]} or from one list [n1..n5]."""
    if isinstance(levels_by_attribute, Mapping):
        return [sum(column) for column in zip(*levels_by_attribute.values(), strict=True)]
    return list(levels_by_attribute)


def _draw_threshold_curve(inputs: Inputs, metric: str, title: str) -> Markup:
    series = [
        Series(
            arm_title(name),
            tuple((point["tau"], point[metric]) for point in arm["sweep"] if point["coverage"] > 0),
            colour(name),
        )
        for name, arm in _select_confidence_arms(inputs)
    ]
    label = "τ: answer only at this level or above"
    return line_chart(title, label, metric, series, x_ticks=(1, 2, 3, 4, 5), percent=True)


def _select_confidence_arms(inputs: Inputs) -> list[tuple[str, Mapping[str, Any]]]:
    found = inputs.evaluation["arms"]
    voted = teacher_arm(inputs.labelling.get("vote", "weighted"))
    names = [voted if name == TAUGHT_VOTE else name for name in CONFIDENCE_ARMS]
    return [(name, found[name]) for name in names if name in found]


def _curve(title: str, label: str, log: Sequence[Mapping[str, Any]], key: str, key_colour: str) -> Markup:
    return line_chart(title, "step", label, [Series(title, curve(log, key), key_colour)])
