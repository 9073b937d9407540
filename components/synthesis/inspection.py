"""A look at the first answers before the others are paid for: where most of them are malformed, asking stops."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from conf_profile.dialogue.reasons import AnswerForm
from conf_profile.errors import MalformedAnswersError
from conf_profile.teachers.protocol import Request

FIRST_ANSWERS = 40
"""Answers that are there, and are looked at, before the next one is asked for."""
FEWEST_ANSWERS = 20
"""Of fewer nobody can tell what the others will be like, unless all of them are malformed."""
FEWEST_ALIKE = 5
"""And of fewer than these not even then."""
LATEST_ANSWERS = 200
"""Later on, the answers over which a teacher that has changed is noticed."""


def split_first(requests: Sequence[Request]) -> tuple[list[Request], list[Request]]:
    """The requests of the first answers, and those of all others; one user's samples may be in both."""
    first: list[Request] = []
    missing = FIRST_ANSWERS
    for position, request in enumerate(requests):
        if missing < len(request.samples):
            now, later = request.samples[:missing], request.samples[missing:]
            head = [replace(request, samples=now)] if now else []
            return [*first, *head], [replace(request, samples=later), *requests[position + 1 :]]
        first.append(request)
        missing -= len(request.samples)
    return first, []


def require_well_formed(forms: Mapping[AnswerForm, int], limit: float, which: str) -> None:
    """MalformedAnswersError, with reasons and remedy, where more than a share `limit` of the answers is malformed."""
    answers = sum(forms.values())
    malformed = Counter({form: count for form, count in forms.items() if not form.well_formed})
    if malformed.total() <= limit * answers or answers < FEWEST_ALIKE:
        return
    if answers < FEWEST_ANSWERS and malformed.total() < answers:
        return
    raise MalformedAnswersError(
        f"{malformed.total()} of the {which} {answers} answers of the teacher are malformed "
        f"({describe_forms(malformed)}), so nothing more is asked. {_capital(malformed.most_common(1)[0][0].remedy)}; "
        "`conf-profile try` shows one answer as it is read. What had arrived is kept; teacher.malformed_limit says "
        "how many may be malformed"
    )


def describe_forms(forms: Mapping[AnswerForm, int]) -> str:
    """As `31 cut off before its end, 2 empty`, the most frequent form first."""
    return ", ".join(f"{count} {form}" for form, count in Counter(forms).most_common())


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
