"""The run in one small file and one table: summary.json and what the terminal shows at the end.

Built from the steps' JSON outputs alone; it computes no metric and reads no table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from conf_profile.config import RunConfig
from conf_profile.errors import DataError
from conf_profile.evaluation.arms import (
    ARM_TITLES,
    BASE,
    CEILING,
    SFT,
    SFT_GRPO,
    TEACHER_MAJORITY,
    TEACHER_SINGLE,
    TEACHER_WEIGHTED,
    TRAINED_ARMS,
    arm_title,
    is_vote,
    teacher_arm,
)
from conf_profile.evaluation.labelled_users import LabelledUsers, find_labelled_users, is_judged

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

REQUIRED_ARMS = (
    BASE,
    TEACHER_SINGLE,
    TEACHER_MAJORITY,
    TEACHER_WEIGHTED,
    SFT,
    SFT_GRPO,
    CEILING,
)
"""Always a key of `metrics`; null where the run has no such arm (a ceiling: generated data only)."""


def build(
    config: RunConfig,
    evaluation: Mapping[str, Any],
    gate: Mapping[str, Any],
    outcome: Mapping[str, Any],
    features_report: Mapping[str, Any],
    seconds: Mapping[str, float],
    peak_rss_mib: float,
    warnings: Sequence[str] = (),
    labelling_report: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The content of summary.json; DataError names what an input lacks.

    `outcome` is promotion's {"promoted", "version", "uri"}; `seconds` maps step to wall time; `warnings` are those of
    the check before the run. Without labels every arm of `metrics` is null, and `unjudged` holds what is known
    nevertheless.
    """
    judged, labelled = is_judged(evaluation), find_labelled_users(evaluation)
    try:
        return {
            "dataset": config.data.name,
            "preset": config.preset,
            "seed": config.seed,
            "users": features_report["users"],
            "dropped_without_consent": features_report["dropped_without_consent"],
            "judged": judged,
            "test_users": labelled.test if labelled else None,
            "labelled_test_users": labelled.labelled if labelled else None,
            "labelled_test_users_by_attribute": dict(labelled.by_attribute) if labelled else None,
            "answers": count_answers(labelling_report or {}),
            "metrics": _metrics(evaluation["arms"] if judged else {}),
            **({} if judged else {"unjudged": _label_free(evaluation, config.labelling.vote)}),
            "gate": {"decision": gate["decision"], "reasons": list(gate["reasons"])},
            "model": _model(outcome),
            "seconds": {step: round(float(value), 2) for step, value in seconds.items()},
            "peak_rss_mib": round(float(peak_rss_mib), 1),
            "warnings": list(warnings),
        }
    except KeyError as error:
        raise DataError(f"the summary cannot be built: {error} is missing from a step's output") from error


def count_answers(labelling_report: Mapping[str, Any]) -> dict[str, Any] | None:
    """The teacher's answers: how many, how they were read, and why others are malformed; None if nobody counted."""
    found = labelling_report.get("answers")
    if not found:
        return None
    well_formed, malformed = (sum(found[name].values()) for name in ("forms", "reasons"))
    return {"total": well_formed + malformed, "well_formed": well_formed, "malformed": malformed, **found}


def describe_answers(answers: Mapping[str, Any]) -> str:
    """What `count_answers` has counted, in a line: the share that is well-formed, and why the others are not."""
    share = _percent(answers["well_formed"] / answers["total"])
    malformed = ", ".join(f"{count:,} {reason}" for reason, count in answers["reasons"].items())
    return f"Teacher: {answers['total']:,} answers, {share}% well-formed" + (f" ({malformed})" if malformed else "")


def unjudged_table(summary: Mapping[str, Any]) -> Table:
    """What is known without labels, attribute by attribute, as a rich table."""
    from rich.table import Table
    from rich.text import Text

    known = summary["unjudged"]
    title, legend = Text(_unjudged_title(summary)), Text(_legend(known))
    result = Table(title=title, title_justify="left", caption=legend, caption_justify="left", header_style="bold")
    result.add_column("", no_wrap=True)
    for heading in ("answered", "samples", "same tag", "interval", "chance", "drift"):
        result.add_column(heading, justify="right", no_wrap=True)
    for name, found in known["per_attribute"].items():
        result.add_row(Text(name), *_label_free_cells(found))
    if known["overall"]:
        result.add_row(Text("all"), *_label_free_cells(known["overall"]), style="bold")
    return result


def table(summary: Mapping[str, Any]) -> Table:
    """The arms with precision, recall and F1 in percent, as a rich table."""
    from rich.table import Table
    from rich.text import Text

    result = Table(title=Text(_title(summary)), title_justify="left", header_style="bold")
    result.add_column("", no_wrap=True)
    for heading in ("precision", "recall", "F1", "95% interval of F1"):
        result.add_column(heading, justify="right", no_wrap=True)
    for name in _order_arms(summary["metrics"]):
        found = summary["metrics"][name]
        low, high = found["f1_ci"]
        numbers = (found["precision"], found["recall"], found["f1"])
        style = "bold" if name in TRAINED_ARMS else None
        interval = f"{100 * low:.1f} to {100 * high:.1f}"
        result.add_row(Text(arm_title(name)), *(f"{100 * n:.1f}" for n in numbers), interval, style=style)
    return result


def render(summary: Mapping[str, Any]) -> Group:
    """What the terminal shows at the end of a run: the table, the gate's word, the model, time and memory."""
    from rich.console import Group
    from rich.text import Text

    judged = summary.get("judged", True)
    return Group(
        table(summary) if judged else unjudged_table(summary),
        *_gate_lines(summary["gate"], judged),
        _model_line(summary["model"], judged),
        *([Text(describe_answers(summary["answers"]))] if summary.get("answers") else []),
        *_warning_lines(summary),
        _cost(summary),
    )


def _metrics(arms: Mapping[str, Any]) -> dict[str, Any]:
    extra = [name for name in arms if name not in REQUIRED_ARMS]
    return {name: _scores(arms[name]) if name in arms else None for name in (*REQUIRED_ARMS, *extra)}


def _scores(arm: Mapping[str, Any]) -> dict[str, Any]:
    names = ("precision", "recall", "f1")
    per_attribute = {
        attribute: {name: found[name] for name in (*names, "f1_ci") if name in found}
        for attribute, found in arm["per_attribute"].items()
    }
    rates = {name: arm[name] for name in names}
    return {**rates, "f1_ci": list(arm["f1_ci"]), "per_attribute": per_attribute}


def _label_free(evaluation: Mapping[str, Any], vote: str) -> dict[str, Any]:
    """The candidate's answers, the teacher's samples, and how far the candidate agrees with the vote.

    That is the vote by which it was taught, or where the evaluation has not made that one another of the teacher's.
    """
    candidate = evaluation["candidate"]
    said, samples = evaluation["answers"][candidate], evaluation["samples"]["agreement"]
    pairs = [item for item in evaluation["agreement"] if item["first"] == candidate and is_vote(item["second"])]
    pair = next((item for item in pairs if item["second"] == teacher_arm(vote)), pairs[0] if pairs else None)
    users = max(1, said["cells"] // max(1, len(said["per_attribute"])))
    known = [value for value in samples.values() if value is not None]
    return {
        "candidate": candidate,
        "vote": pair["second"] if pair else None,
        "overall": {
            "answered": said["answered"] / max(1, said["cells"]),
            "samples_agree": sum(known) / len(known) if known else None,
            "level_counts": said["level_counts"],
            "balance": said["balance"],
            **_agreement(pair),
        },
        "per_attribute": {
            name: {
                "answered": found["answered"] / users,
                "samples_agree": samples.get(name),
                "level_counts": found["level_counts"],
                "balance": found["balance"],
                **_agreement(pair["per_attribute"][name] if pair else None),
            }
            for name, found in said["per_attribute"].items()
        },
    }


def _agreement(found: Mapping[str, Any] | None) -> dict[str, Any]:
    if not found or not found["cells"]:
        return dict.fromkeys(("same_tag", "same_tag_ci", "by_chance", "drift_bits"))
    return {
        "same_tag": found["share"],
        "same_tag_ci": [found["low"], found["high"]],
        "by_chance": found["by_chance"],
        "drift_bits": found["drift_bits"],
    }


def _label_free_cells(found: Mapping[str, Any]) -> list[str]:
    limits = found["same_tag_ci"]
    return [
        *(_percent(found[name]) for name in ("answered", "samples_agree", "same_tag")),
        f"{100 * limits[0]:.1f} to {100 * limits[1]:.1f}" if limits else "–",
        _percent(found["by_chance"]),
        "–" if found["drift_bits"] is None else f"{found['drift_bits']:.3f}",
    ]


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"


def _model(outcome: Mapping[str, Any]) -> dict[str, Any] | None:
    return {"version": outcome["version"], "uri": outcome["uri"]} if outcome["promoted"] else None


def _order_arms(metrics: Mapping[str, Any]) -> list[str]:
    known = [name for name in ARM_TITLES if metrics.get(name)]
    return known + [name for name in metrics if name not in ARM_TITLES and metrics[name]]


def _title(summary: Mapping[str, Any]) -> str:
    return f"{_people(summary)}; in percent, on the true labels of {_labelled_users(summary) or 'the test users'}"


def _unjudged_title(summary: Mapping[str, Any]) -> str:
    users = f"{summary['test_users']:,} test users"
    return f"{_people(summary)}; unjudged: {users} without a true label, so nobody knows how often it is right"


def _legend(known: Mapping[str, Any]) -> str:
    """What the columns are."""
    parts = [f"in percent: answered by {arm_title(known['candidate'])!r}; two of the teacher's samples that agree"]
    if known["vote"]:
        parts += [
            f"its tag is that of {arm_title(known['vote'])!r}, with the 95% interval, and what chance would give",
            "the drift of its tags from that vote's in bits",
        ]
    return "; ".join(parts)


def _people(summary: Mapping[str, Any]) -> str:
    dropped = summary["dropped_without_consent"]
    return (
        f"{summary['dataset']}, preset {summary['preset']}, seed {summary['seed']}: {summary['users']:,} "
        f"users ({dropped:,} without consent left out)"
    )


def _labelled_users(summary: Mapping[str, Any]) -> LabelledUsers | None:
    """None for a summary of an earlier release."""
    if summary.get("labelled_test_users") is None:
        return None
    return LabelledUsers(
        summary["test_users"], summary["labelled_test_users"], summary["labelled_test_users_by_attribute"]
    )


def _gate_lines(gate: Mapping[str, Any], judged: bool) -> list[Text]:
    from rich.text import Text

    promoted, status = gate["decision"] == "promote", "" if judged else ": unjudged"
    word, style = ("promoted", "bold green") if promoted else ("rejected", "bold red")
    verdict = Text(f"Gate: {word}{status}", style=style)
    return [verdict, *(Text(f"  {reason}") for reason in gate["reasons"])]


def _model_line(model: Mapping[str, Any] | None, judged: bool) -> Text:
    from rich.text import Text

    status = "" if judged else ", unjudged"
    return Text(f"Model: {model['version']} at {model['uri']}{status}" if model else "Model: nothing was uploaded")


def _warning_lines(summary: Mapping[str, Any]) -> list[Text]:
    from rich.text import Text

    return [Text(f"Warning: {warning}", style="yellow") for warning in summary.get("warnings", ())]


def _cost(summary: Mapping[str, Any]) -> Text:
    from rich.text import Text

    seconds = summary["seconds"]
    slowest = sorted(seconds.items(), key=lambda item: -item[1])[:3]
    named = ", ".join(f"{step} {value:.0f} s" for step, value in slowest)
    memory = f"peak memory {summary['peak_rss_mib']:,.0f} MiB"
    return Text(f"Time: {sum(seconds.values()):.0f} s in steps{f' ({named})' if named else ''}; {memory}")
