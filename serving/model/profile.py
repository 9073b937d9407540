"""From completions to a profile: strict parse, vote, calibrated levels, thresholds. Pure, and the only place that
decides what is accepted.

Thresholds: the request's over the configuration's over the model's own, attribute by attribute. An answer below its
threshold keeps its tag out of the profile: the caller sees the level and the reason, and never a tag to lean on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from conf_profile.consensus import confidence, voting
from conf_profile.consensus.ballots import Ballots
from conf_profile.consensus.confidence import Calibration
from conf_profile.dialogue.output_format import LEVELS, ProfileAnswer, parse_or_none
from conf_profile.dialogue.reasons import Reason
from serving.model.bundle import Bundle


@dataclass(frozen=True)
class Completion:
    """One sampled answer: its text, and the expected value of each level that it states (empty: not known)."""

    text: str
    expected_levels: Sequence[float] = ()


@dataclass(frozen=True)
class Attribute:
    """What is said of one attribute. `level` and `score` are None where nothing was said."""

    tag: str | None
    level: int | None
    score: float | None
    accepted: bool
    reason: Reason | str | None = None

    def to_json(self) -> dict[str, Any]:
        """The fixed form of the API; a tag that is not accepted is withheld."""
        shown: dict[str, Any] = {"tag": self.tag if self.accepted else None}
        if self.level is not None:
            shown["level"] = self.level
        if self.score is not None:
            shown["score"] = round(self.score, 4)
        shown["accepted"] = self.accepted
        if self.reason is not None:
            shown["reason"] = self.reason
        return shown


@dataclass(frozen=True)
class Profile:
    """All attributes of one user, in the taxonomy's order, and the evidence that was named."""

    attributes: Mapping[str, Attribute]
    rationale: str = ""
    malformed: int = 0


@dataclass(frozen=True)
class _AttributeAnswer:
    """One attribute's answer before the threshold."""

    tag: str | None
    score: float


def empty_profile(bundle: Bundle, reason: Reason) -> Profile:
    """A profile that says nothing, for one reason: no consent, unknown user."""
    return Profile({name: Attribute(None, None, None, False, reason) for name in bundle.task.names})


def profile(completions: Sequence[Completion], bundle: Bundle, thresholds: Mapping[str, int | None]) -> Profile:
    """The profile that one completion gives, or the weighted vote over several.

    `thresholds` names the lowest level that is accepted, for every attribute; None: no level is.
    """
    parsed = [parse_or_none(completion.text, bundle.task) for completion in completions]
    found = [(answer, completion) for answer, completion in zip(parsed, completions, strict=True) if answer]
    malformed = len(parsed) - len(found)
    if not found:
        return Profile(empty_profile(bundle, Reason.MALFORMED).attributes, malformed=malformed)
    alone = len(completions) == 1
    said = _read_greedy(*found[0], bundle) if alone else _vote(parsed, bundle)
    partition = bundle.calibration if alone else bundle.vote_calibration
    attributes = {name: _judge(said[name], name, partition, thresholds[name]) for name in bundle.task.names}
    return Profile(attributes, found[0][0].rationale, malformed)


def _read_greedy(answer: ProfileAnswer, completion: Completion, bundle: Bundle) -> dict[str, _AttributeAnswer]:
    names, levels = bundle.task.names, completion.expected_levels
    if len(levels) != len(names):
        levels = [float(answer.answers[name].level) for name in names]
    return {
        name: _AttributeAnswer(answer.answers[name].tag, level / len(LEVELS))
        for name, level in zip(names, levels, strict=True)
    }


def _vote(parsed: Sequence[ProfileAnswer | None], bundle: Bundle) -> dict[str, _AttributeAnswer]:
    said = {}
    for attribute in bundle.task.attributes:
        vote = voting.vote_on(Ballots.from_answers([parsed], attribute))
        winner = int(vote.tag[0])
        said[attribute.name] = _AttributeAnswer(
            None if winner == voting.NO_ANSWER else attribute.tags[winner], float(vote.score[0])
        )
    return said


def _judge(said: _AttributeAnswer, name: str, partition: Calibration, threshold: int | None) -> Attribute:
    if said.tag is None:
        return Attribute(None, None, None, False, Reason.UNKNOWN)
    level = int(confidence.apply(partition, name, np.array([said.score]))[0])
    if threshold is None:
        return Attribute(said.tag, level, said.score, False, Reason.NO_LEVEL)
    if level < threshold:
        return Attribute(said.tag, level, said.score, False, f"below threshold {threshold}")
    return Attribute(said.tag, level, said.score, True)
