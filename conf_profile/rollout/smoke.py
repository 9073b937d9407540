"""Smoke profiles: a few made-up users with the answers that the evaluated model gave, kept with the version.

They show that what is served is what was measured. Nobody's features are among them: each is dealt from keyphrases that
several users share, so the registry, which forgets nothing, learns of no person.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from conf_profile.dialogue.prompts import UserFeatures
from conf_profile.dialogue.reasons import Reason
from conf_profile.errors import DataError

SMOKE = "smoke.json"
"""The file of a version."""
PROFILES, KEYPHRASES = 6, 8
MIN_USERS = 5
"""A keyphrase of fewer users is nobody else's business."""
MIN_AGREEMENT = 0.9
"""Share of equal answers. Other kernels and number formats tip near ties; another model or prompt changes far more."""


@dataclass(frozen=True)
class ExpectedAnswer:
    """One attribute's answer at the evaluation; both None: nothing was said."""

    tag: str | None
    level: int | None


@dataclass(frozen=True)
class SmokeProfile:
    """A made-up user: lists of keyphrases, and attribute -> answer (empty: any well-formed answer will do)."""

    features: Mapping[str, Sequence[str]]
    answers: Mapping[str, ExpectedAnswer]


UNMEASURED_PROFILES = (SmokeProfile({}, {}),)
"""For a version that was published without smoke profiles: nobody, of whom nothing is known."""


def make_up_users(people: Sequence[UserFeatures]) -> list[UserFeatures]:
    """At most PROFILES users, dealt from the keyphrases that most of these people share; always the same."""
    users = Counter(
        (name, text)
        for person in people
        for name, texts in person.values.items()
        if isinstance(texts, tuple)
        for text in set(texts)
    )
    shared = sorted((-count, name, phrase) for (name, phrase), count in users.items() if count >= MIN_USERS)
    hands = [shared[hand :: max(1, min(PROFILES, len(shared)))][:KEYPHRASES] for hand in range(PROFILES)]
    return [_make_user(number, hand) for number, hand in enumerate(hands) if hand]


def render(profiles: Sequence[SmokeProfile]) -> dict[str, Any]:
    """What SMOKE holds."""
    return {
        "profiles": [
            {
                "features": {name: list(phrases) for name, phrases in one.features.items()},
                "answers": {name: {"tag": said.tag, "level": said.level} for name, said in one.answers.items()},
            }
            for one in profiles
        ]
    }


def parse(body: bytes, source: str) -> tuple[SmokeProfile, ...]:
    """Reads SMOKE; DataError where it is none."""
    try:
        return tuple(
            SmokeProfile(
                {str(name): tuple(map(str, phrases)) for name, phrases in one["features"].items()},
                {str(name): ExpectedAnswer(said["tag"], said["level"]) for name, said in one["answers"].items()},
            )
            for one in json.loads(body)["profiles"]
        )
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise DataError(f"{source}: holds no smoke profiles of ours ({error!r}); publish the model again") from error


def request(profiles: Sequence[SmokeProfile], user_ids: Sequence[str] = ()) -> dict[str, Any]:
    """The body that asks for all of them, and for users of the feature store. Nothing is withheld from the answers."""
    made_up = [
        {"user_id": f"smoke-{number}", "features": {**one.features, "consent": True}}
        for number, one in enumerate(profiles)
    ]
    lowest = {name: 1 for one in profiles for name in one.answers}
    return {
        "instances": [*made_up, *({"user_id": user_id} for user_id in user_ids)],
        "parameters": {"thresholds": lowest},
    }


def versions(answer: Mapping[str, Any]) -> set[str]:
    """Which versions have answered."""
    return {str(entry["model_version"]) for entry in answer["predictions"]}


def faults(answer: Mapping[str, Any], profiles: Sequence[SmokeProfile]) -> list[str]:
    """What is wrong with the answers, in words; nobody is named."""
    entries = answer["predictions"]
    found = [fault for number, entry in enumerate(entries) if (fault := _describe_failure(entry, number))]
    pairs = list(zip(profiles, entries, strict=False))
    compared = [(name, said, entry["profile"][name]) for one, entry in pairs for name, said in one.answers.items()]
    differing = [name for name, said, shown in compared if not _agrees(said, shown)]
    if len(compared) - len(differing) < MIN_AGREEMENT * len(compared):
        names = ", ".join(f"{name} {count}" for name, count in sorted(Counter(differing).items()))
        found.append(f"{len(differing)} of {len(compared)} answers are not those of the evaluation ({names})")
    return found


def _make_user(number: int, hand: Sequence[tuple[int, str, str]]) -> UserFeatures:
    lists: dict[str, list[str]] = {}
    for _, name, text in hand:
        lists.setdefault(name, []).append(text)
    return UserFeatures(f"smoke-{number}", **lists)


def _describe_failure(entry: Mapping[str, Any], number: int) -> str:
    if "error" in entry:
        return f"profile {number} was not answered: {entry['error']['message']}"
    malformed = [name for name, shown in entry["profile"].items() if shown.get("reason") == Reason.MALFORMED]
    return f"profile {number} is outside the grammar" if malformed or not entry["profile"] else ""


def _agrees(said: ExpectedAnswer, shown: Mapping[str, Any]) -> bool:
    """The same tag, and a level that is at most one apart."""
    level = shown.get("level")
    return said.tag == shown["tag"] and (said.level is None or (level is not None and abs(said.level - level) <= 1))
