"""The model card (README.md) of a version, in Hugging Face's format.

Renders what evaluation and the gate found; it computes nothing and judges nothing. The same input gives the
same bytes, because the card is part of the version's content. Optional facts that are missing are left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

_BASE_MODELS = {"smollm2-wheel": "HuggingFaceTB/SmolLM2-135M-Instruct"}
_TEACHERS = {
    "lexicon": "the embedded lexicon teacher: a word list weighs keyphrases; not a large language model",
    "openai": "a language model behind an OpenAI-compatible endpoint",
    "vllm": "a local language model, sampled with vLLM",
}
_MARKUP = re.compile(r"[\x00-\x1f\x7f|<>`\[\]]+")

_PURPOSE = """\
## Intended use

Inferring coarse attributes of users who consented to it from their own behaviour, in aggregate or for ranking
and recommendation. Every answer carries a confidence level from 1 (lowest) to 5; use an answer only where its
level reaches the attribute's threshold, and treat it as an estimate even then.

## Misuse and out of scope

- No profiling of people who did not consent; consent must be as easy to withdraw as to give. Of minors only
  what the law of their country allows.
- No decision about an individual that matters to them (credit, work, housing, insurance, health, law), at any
  level; no use at all of answers below the threshold.
- No inference of other attributes than those listed, and no attempt to identify a person.
- Attributes such as age and gender are protected in many places. Compare the slices above before use, and
  measure again on your own users: where error rates differ between groups, one of them is treated unfairly.
"""

_SFT_METHOD = """\
The Conf-Profile method (arXiv 2509.18864): the teacher's samples are combined by a vote that heeds their
confidence (`labelling.vote` in the manifest), its scores are calibrated, and the student is fine-tuned on the result.
"""
_GRPO_METHOD = """\
The student's own confidence is then frozen as a reference, and reinforcement learning (GRPO) rewards
agreement with its vote, weighted with that reference.
"""
_LIMITATIONS = """\
## Limitations

- No training step saw a true label: the model learned from a teacher's guesses, and shares their blind spots.
- Tags come from a closed list; a person may fit none of them, or change.
- Confidence levels were balanced on the users of this run. Elsewhere their precision differs: measure it.
"""


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
    arms = evaluation.get("arms", {})
    names = (evaluation.get("candidate"), "sft_grpo", "sft")
    return next((name for name in names if name in arms), None)


def render(facts: CardFacts) -> str:
    """The whole README.md: YAML front matter, then Markdown."""
    front = yaml.safe_dump(_front_matter(facts), sort_keys=False, allow_unicode=True)
    sections = (
        _title(facts.model),
        _data(facts),
        _method(facts),
        _metrics(facts.evaluation),
        _per_attribute(facts.evaluation),
        _confidence(facts.evaluation),
        _slices(facts.evaluation),
        _thresholds(facts.evaluation),
        _gate(facts.gate),
        _PURPOSE,
        _LIMITATIONS,
        _provenance(facts),
    )
    return f"---\n{front}---\n\n" + "\n".join(section for section in sections if section)


def _front_matter(facts: CardFacts) -> dict[str, Any]:
    student = facts.run_config.get("student", {})
    base = _BASE_MODELS.get(student.get("source", ""), student.get("model"))
    front: dict[str, Any] = {
        "license": "apache-2.0",
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["user-profiling", "label-free", "confidence-calibration", "conf-profile"],
    }
    if base:
        front["base_model"] = base
    results = _results(facts.evaluation)
    if results:
        front["model-index"] = [{"name": facts.model, "results": results}]
    return front


def _results(evaluation: Mapping[str, Any]) -> list[dict[str, Any]]:
    arm = evaluation.get("arms", {}).get(candidate_arm(evaluation), {})
    found = [
        {"type": name, "value": round(float(arm[name]), 4), "name": f"{name} (micro, test users)"}
        for name in ("f1", "precision", "recall")
        if arm.get(name) is not None
    ]
    if not found:
        return []
    dataset = str(evaluation.get("dataset", "unknown"))
    task = {"type": "text-generation", "name": "User profiling"}
    return [{"task": task, "dataset": {"type": dataset, "name": dataset, "split": "test"}, "metrics": found}]


def _title(model: str) -> str:
    return f"# {_plain(model)}\n\nInfers user attributes with a calibrated confidence; trained without labels.\n"


def _data(facts: CardFacts) -> str:
    dataset = facts.evaluation.get("dataset") or facts.run_config.get("data", {}).get("name", "unknown")
    text = f"## Data\n\nData set: {_plain(dataset)}. People without consent were left out beforehand.\n"
    users = facts.evaluation.get("users", {})
    if users:
        text += "\n" + _table(("split", "users"), ((_words(name), count) for name, count in users.items()))
    return text


def _method(facts: CardFacts) -> str:
    teacher = facts.run_config.get("teacher", {})
    lines = ["## Teacher and method\n"]
    if teacher:
        kind = str(teacher.get("kind", "unknown"))
        named = f" ({_plain(teacher['model'])})" if teacher.get("model") else ""
        samples = f", {teacher['samples']} samples for each user" if "samples" in teacher else ""
        lines.append(f"Teacher: {_TEACHERS.get(kind, _plain(kind))}{named}{samples}.\n")
    lines.append(_SFT_METHOD if candidate_arm(facts.evaluation) == "sft" else _SFT_METHOD + _GRPO_METHOD)
    return "\n".join(lines)


def _metrics(evaluation: Mapping[str, Any]) -> str:
    arms = evaluation.get("arms", {})
    if not arms:
        return ""
    candidate = candidate_arm(evaluation)
    header = ("arm", "precision", "recall", "F1")
    rows = (
        (f"**{_plain(name)}** (this model)" if name == candidate else name, *_rates(arm)) for name, arm in arms.items()
    )
    note = "Micro averages over the true labels of the test users; 95% intervals by resampling users.\n\n"
    return f"## Metrics\n\n{note}{_table(header, rows)}"


def _per_attribute(evaluation: Mapping[str, Any]) -> str:
    arm = evaluation.get("arms", {}).get(candidate_arm(evaluation), {})
    if not arm.get("per_attribute"):
        return ""
    rows = ((name, *_rates(scores)) for name, scores in arm["per_attribute"].items())
    return f"### Per attribute\n\n{_table(('attribute', 'precision', 'recall', 'F1'), rows)}"


def _confidence(evaluation: Mapping[str, Any]) -> str:
    name = candidate_arm(evaluation)
    arm = evaluation.get("arms", {}).get(name, {})
    errors = {
        **evaluation.get("calibration", {}),
        **{key: arm[key] for key in ("ece", "brier") if key in arm},
    }
    verdict = evaluation.get("hierarchy", {}).get(name, {})
    lines = [f"- {label}: {_number(errors[key])}" for key, label in _ERRORS.items() if key in errors]
    if "passed" in verdict:
        state = "passed" if verdict["passed"] else f"failed: {_plain('; '.join(verdict.get('reasons', ())))}"
        lines.append(f"- A higher level means a higher precision: {state}")
    return "### Confidence\n\n" + "\n".join(lines) + "\n" if lines else ""


_ERRORS = {"ece": "Expected calibration error", "brier": "Brier score"}


def _slices(evaluation: Mapping[str, Any]) -> str:
    own = (None, candidate_arm(evaluation))
    chosen = [line for line in evaluation.get("slices", ()) if line.get("arm") in own]
    if not chosen:
        return ""
    rows = ((line.get("slice", "?"), line.get("users", ""), *_rates(line)) for line in chosen)
    return f"## Slices\n\n{_table(('slice', 'users', 'precision', 'recall', 'F1'), rows)}"


def _thresholds(evaluation: Mapping[str, Any]) -> str:
    levels = evaluation.get("thresholds", {})
    if not levels:
        return ""
    note = "An answer below its attribute's level is not accepted; thresholds.json says the same.\n\n"
    rows = ((name, level if level is not None else "never accepted") for name, level in levels.items())
    return f"## Default thresholds\n\n{note}{_table(('attribute', 'lowest accepted level'), rows)}"


def _gate(gate: Mapping[str, Any]) -> str:
    if not gate:
        return ""
    reasons = "".join(f"- {_plain(reason)}\n" for reason in gate.get("reasons", ()))
    return f"## Gate\n\nDecision: {_plain(gate.get('decision', 'unknown'))}\n\n{reasons}"


def _provenance(facts: CardFacts) -> str:
    rows = [
        ("frozen reference, SHA-256", facts.reference_sha256),
        ("configuration, SHA-256", facts.config_sha256),
        ("preset", facts.run_config.get("preset")),
        ("seed", facts.run_config.get("seed")),
    ]
    known = [(name, value) for name, value in rows if value is not None]
    return f"## Provenance\n\n{_table(('what', 'value'), known)}" if known else ""


def _rates(scores: Mapping[str, Any]) -> tuple[str, str, str]:
    precision, recall, f1 = (_with_interval(scores, name) for name in ("precision", "recall", "f1"))
    return precision, recall, f1


def _with_interval(scores: Mapping[str, Any], name: str) -> str:
    interval: Sequence[float] | None = scores.get(f"{name}_ci")
    value = _number(scores.get(name))
    return f"{value} ({_number(interval[0])} to {_number(interval[1])})" if interval else value


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join("| " + " | ".join(_cell(cell) for cell in line) + " |\n" for line in lines)


def _cell(cell: object) -> str:
    return _plain(cell) or " "


def _plain(text: object) -> str:
    """Names of regions and models come from outside: one line, and no markup of ours."""
    return _MARKUP.sub(" ", str(text)).strip()


def _words(name: str) -> str:
    return str(name).replace("_", " ")
