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
)

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
) -> dict[str, Any]:
    """The content of summary.json; DataError names what an input lacks.

    `outcome` is promotion's {"promoted", "version", "uri"}; `seconds` maps step to wall time; `warnings` are
    those of the check before the run.
    """
    try:
        return {
            "dataset": config.data.name,
            "preset": config.preset,
            "seed": config.seed,
            "users": features_report["users"],
            "dropped_without_consent": features_report["dropped_without_consent"],
            "metrics": _metrics(evaluation["arms"]),
            "gate": {"decision": gate["decision"], "reasons": list(gate["reasons"])},
            "model": _model(outcome),
            "seconds": {step: round(float(value), 2) for step, value in seconds.items()},
            "peak_rss_mib": round(float(peak_rss_mib), 1),
            "warnings": list(warnings),
        }
    except KeyError as error:
        raise DataError(f"the summary cannot be built: {error} is missing from a step's output") from error


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

    return Group(
        table(summary),
        *_gate_lines(summary["gate"]),
        _model_line(summary["model"]),
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


def _model(outcome: Mapping[str, Any]) -> dict[str, Any] | None:
    return {"version": outcome["version"], "uri": outcome["uri"]} if outcome["promoted"] else None


def _order_arms(metrics: Mapping[str, Any]) -> list[str]:
    known = [name for name in ARM_TITLES if metrics.get(name)]
    return known + [name for name in metrics if name not in ARM_TITLES and metrics[name]]


def _title(summary: Mapping[str, Any]) -> str:
    dropped = summary["dropped_without_consent"]
    return (
        f"{summary['dataset']}, preset {summary['preset']}, seed {summary['seed']}: {summary['users']:,} "
        f"users ({dropped:,} without consent left out); in percent, on the true labels of the test users"
    )


def _gate_lines(gate: Mapping[str, Any]) -> list[Text]:
    from rich.text import Text

    promoted = gate["decision"] == "promote"
    verdict = Text("Gate: promoted" if promoted else "Gate: rejected", style="bold green" if promoted else "bold red")
    return [verdict, *(Text(f"  {reason}") for reason in gate["reasons"])]


def _model_line(model: Mapping[str, Any] | None) -> Text:
    from rich.text import Text

    return Text(f"Model: {model['version']} at {model['uri']}" if model else "Model: nothing was uploaded")


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
