"""An inspection as lines for a terminal, or as one object for programs. It computes nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pipelines.check.inspection import Inspection

Facts = Mapping[str, Any]
_WIDTH = 12


def to_json(found: Inspection) -> dict[str, Any]:
    """Facts, findings by level, and the prompt's messages."""
    levels = {f"{level}s": [str(each) for each in found.findings if each.level == level] for level in _LEVELS}
    return {**found.facts, "prompt": list(found.prompt), **levels}


def lines(found: Inspection) -> Iterator[str]:
    """The facts, the prompt of one user, and the findings, the errors last."""
    for name, text in _sections(found.facts):
        yield f"{name:<{_WIDTH}}{text}"
    if found.prompt:
        yield "the teacher's prompt for one user:"
        for message in found.prompt:
            yield f"  [{message['role']}]"
            yield from (f"  {line}" for line in message["content"].splitlines())
    for level in _LEVELS:
        yield from (f"{level}: {each}" for each in found.findings if each.level == level)


_LEVELS = ("note", "warning", "error")


def _sections(facts: Facts) -> Iterator[tuple[str, str]]:
    if not facts:
        return
    people = facts["people"]
    yield "data", f"{facts['data']['name']} as of {facts['data']['as_of']} ({facts['data']['source']})"
    yield (
        "users",
        f"{people['behaviour']:,} in behaviour, {people['demographics']:,} in demographics, "
        f"{people['both']:,} in both; "
        f"{people['profiled']:,} with consent will be profiled, {people['without_consent']:,} are left out",
    )
    yield "splits", ", ".join(f"{name} {count:,}" for name, count in people["splits"].items())
    yield (
        "keyphrases",
        f"median {people['keyphrases_median']:.0f} a user, 95% have at most {people['keyphrases_95']:.0f}; "
        f"prompt.max_keyphrases {facts['max_keyphrases']} cuts {people['cut_share']:.0%} of them",
    )
    yield "labels", _labels(facts["labels"])
    if facts["lexicon"]:
        yield "lexicon", _lexicon(facts["lexicon"])
    attributes = ", ".join(f"{name} ({len(tags)} tags)" for name, tags in facts["task"]["attributes"].items())
    features = ", ".join(f"{name} ({kind})" for name, kind in facts["task"]["features"].items())
    yield "task", f"{attributes}; from {features}"
    yield "champion", _champion(facts["champion"])
    yield "teacher", _teacher(facts["teacher"], people)
    yield "machine", _machine(facts["machine"])


def _labels(labels: Facts | None) -> str:
    if labels is None:
        return "none: the run will be unjudged"
    text = f"{labels['users']:,} users, {labels['profiled']:,} of them profiled, {labels['test']:,} of them test users"
    if labels["half_width"] is None:
        return text
    return f"{text}: a 95% interval of up to ±{100 * labels['half_width']:.1f} points for one attribute"


def _lexicon(hits: Facts) -> str:
    share = hits["informed"] / max(1, hits["users"])
    found = hits["found"] / max(1, hits["keyphrases"])
    return (
        f"evidence for {share:.0%} of the users, {found:.0%} of the keyphrases found ({hits['users']:,} users sampled)"
    )


def _champion(champion: Facts) -> str:
    if champion["version"] is None:
        return "none yet"
    differences = [*champion["differences"], *champion["missing_features"]]
    return f"{champion['version']}: {'; '.join(differences) or 'the same attributes and tags'}"


def _teacher(teacher: Facts, people: Facts) -> str:
    text = (
        f"{teacher['kind']}: {teacher['answers']:,} answers ({people['asked']:,} users x {teacher['samples']}); about "
        f"{_tokens(teacher['prompt_tokens'])} tokens of prompts and {_tokens(teacher['least_answer_tokens'])} to "
        f"{_tokens(teacher['most_answer_tokens'])} of answers (an estimate: characters / 4, and teacher.max_tokens)"
    )
    if teacher["least_cost"] is None:
        return text
    return f"{text}; cost {teacher['least_cost']:,.2f} to {teacher['most_cost']:,.2f} at this price"


def _machine(machine: Facts) -> str:
    disk = f"disk about {machine['disk_needed']:.2f} GiB beside the model's, {machine['disk_free']:.0f} free"
    memory = f"{machine['memory']:.0f} GiB are there"
    if machine["memory_needed"] is None:
        return f"{disk}; memory not measured for this student, {memory}"
    return f"{disk}; memory about {machine['memory_needed']:.1f} GiB, {memory}"


def _tokens(count: int) -> str:
    return f"{count / 1e6:,.1f} million" if count >= 1e6 else f"{count:,}"
