"""Rewards of the second stage: pure functions with TRL's signature.

    R = sum over attributes of w(C) * [tag = quasi-ground truth] / attributes
        + level_reward * (1 - |stated level - reference level| / 4), averaged over the attributes
        + format_reward * [the answer follows the grammar]

(arXiv 2509.18864, section on confidence-guided RL; the level term is ours.) C is the reference confidence,
frozen before the training starts (`frozen`); the stated level (`self`) and 1 (`none`) are ablations: `self` rewards
a policy for stating high levels. The quasi-ground truth is the frozen reference vote (`reference`), the weighted
vote over the group's own rollouts (`rollouts`, the paper's), or each tag's frozen share of the confidence (`soft`,
ours): the share replaces [tag = quasi-ground truth], so the second best tag also earns.

A malformed answer has reward 0. The average omits attributes without a quasi-ground truth.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from conf_profile.consensus import voting
from conf_profile.consensus.ballots import NO_ANSWER, Ballots
from conf_profile.dialogue.output_format import LEVELS, Answer, ProfileAnswer, parse_or_none
from conf_profile.dialogue.taxonomy import Attribute, Taxonomy

Weight = Literal["frozen", "self", "none"]
QuasiGroundTruth = Literal["reference", "rollouts", "soft"]
TAG_ENTROPY = "tag_entropy"
"""The name under which the agreement reward logs `tag_entropy` of each step's completions."""
Reward = Callable[..., list[float]]
"""TRL's signature: (prompts, completions, **columns) -> one number for each completion."""


@dataclass(frozen=True)
class Reference:
    """What is frozen for one user and attribute: the voted tag, its confidence in [0, 1] and level 1-5.

    `shares` makes the quasi-ground truth soft: tag -> its share of the samples' confidence, in [0, 1].
    """

    tag: str
    confidence: float
    level: int
    shares: Mapping[str, float] | None = None

    def truth_of(self, tag: str | None) -> float:
        """How true the quasi-ground truth holds a tag, in [0, 1]."""
        if self.shares is not None:
            return self.shares.get(tag or "", 0.0)
        return float(tag == self.tag)


ReferenceOfUser = Sequence[Reference | None]
"""One entry for each attribute in the taxonomy's order; None where the reference knows no answer."""


def agreement(
    answer: ProfileAnswer | None, truth: ReferenceOfUser, taxonomy: Taxonomy, weight: Weight = "frozen"
) -> float:
    """The weighted share of the attributes in which an answer agrees with the quasi-ground truth, in [0, 1]."""
    judged = [(name, entry) for name, entry in zip(taxonomy.names, truth, strict=True) if entry is not None]
    if answer is None or not judged:
        return 0.0
    # A frozen w(C) does not depend on the answer: it says how much an attribute of this user is worth learning, and no
    # answer can raise it. Stating high confidence raises a live one: reward hacking, the paper's Table 5.
    earned = (
        _weight(answer.answers[name], entry, weight) * entry.truth_of(answer.answers[name].tag)
        for name, entry in judged
    )
    return sum(earned) / len(judged)


def tag_entropy(answers: Sequence[ProfileAnswer | None], taxonomy: Taxonomy) -> float:
    """Entropy of the tags that the answers give, over all of them, summed over the attributes, in nats.

    It falls when a policy drifts towards the frequent tags, which agreement with a vote does not show.
    """
    # H = - sum over tags t of p(t) log p(t), with p(t) the share of the step's answers that state t.
    given = [[found.answers[name].tag for found in answers if found is not None] for name in taxonomy.names]
    return sum(_entropy(tags) for tags in given)


def level_agreement(answer: ProfileAnswer | None, truth: ReferenceOfUser, taxonomy: Taxonomy) -> float:
    """How close the stated levels are to the frozen reference's, in [0, 1]; a wrong tag should be stated at level 1."""
    judged = [(name, entry) for name, entry in zip(taxonomy.names, truth, strict=True) if entry is not None]
    if answer is None or not judged:
        return 0.0
    return sum(_level_closeness(answer.answers[name], entry) for name, entry in judged) / len(judged)


def vote_of_groups(
    groups: Sequence[Sequence[ProfileAnswer | None]], references: Sequence[ReferenceOfUser], taxonomy: Taxonomy
) -> list[ReferenceOfUser]:
    """The weighted vote over each group's rollouts; confidence and level stay the frozen reference's."""
    winners = [voting.vote_on(Ballots.from_answers(groups, attribute)).tag for attribute in taxonomy.attributes]
    return [
        [
            _vote_reference(attribute, int(winner[row]), entry)
            for attribute, winner, entry in zip(taxonomy.attributes, winners, reference, strict=True)
        ]
        for row, reference in enumerate(references)
    ]


def make_rewards(
    taxonomy: Taxonomy,
    references: dict[str, ReferenceOfUser],
    weight: Weight,
    quasi_ground_truth: QuasiGroundTruth,
) -> tuple[Reward, Reward, Reward]:
    """Three reward functions for TRL: agreement, level agreement, format. TRL logs and weighs each by itself.

    For `soft` the references carry shares. They read the column `user_id`; completions of one user stand next to each
    other, as TRL lays them out.
    """

    def agreement_reward(
        prompts: Sequence[Any],
        completions: Sequence[Any],
        user_id: Sequence[str],
        log_metric: Callable[[str, float], None] | None = None,
        **_: Any,
    ) -> list[float]:
        answers = [parse_or_none(text_of(completion), taxonomy) for completion in completions]
        if log_metric is not None:
            log_metric(TAG_ENTROPY, tag_entropy(answers, taxonomy))
        truths = [references[user] for user in user_id]
        if quasi_ground_truth == "rollouts":
            truths = _group_truths(answers, user_id, truths, taxonomy)
        return [agreement(answer, truth, taxonomy, weight) for answer, truth in zip(answers, truths, strict=True)]

    def level_reward(
        prompts: Sequence[Any], completions: Sequence[Any], user_id: Sequence[str], **_: Any
    ) -> list[float]:
        return [
            level_agreement(parse_or_none(text_of(completion), taxonomy), references[user], taxonomy)
            for completion, user in zip(completions, user_id, strict=True)
        ]

    def format_reward(prompts: Sequence[Any], completions: Sequence[Any], **_: Any) -> list[float]:
        return [float(parse_or_none(text_of(completion), taxonomy) is not None) for completion in completions]

    return agreement_reward, level_reward, format_reward


def text_of(completion: Any) -> str:
    """TRL gives text for plain prompts, a list of messages for conversational ones."""
    return completion if isinstance(completion, str) else str(completion[-1]["content"])


def _entropy(tags: Sequence[str | None]) -> float:
    shares = [count / len(tags) for count in Counter(tags).values()]
    return -sum(share * math.log(share) for share in shares)


def _weight(answer: Answer, entry: Reference, weight: Weight) -> float:
    if weight == "frozen":
        return entry.confidence
    return answer.level / len(LEVELS) if weight == "self" else 1.0


def _level_closeness(answer: Answer, entry: Reference) -> float:
    wanted = entry.level if answer.tag == entry.tag else LEVELS[0]
    return 1.0 - abs(answer.level - wanted) / (len(LEVELS) - 1)


def _group_truths(
    answers: Sequence[ProfileAnswer | None],
    user_id: Sequence[str],
    references: Sequence[ReferenceOfUser],
    taxonomy: Taxonomy,
) -> list[ReferenceOfUser]:
    # The rollouts of one user are GRPO's group, and vote on their own truth: it moves with the policy.
    rows: dict[str, list[int]] = {}
    for row, user in enumerate(user_id):
        rows.setdefault(user, []).append(row)
    groups = [[answers[row] for row in members] for members in rows.values()]
    truths = vote_of_groups(groups, [references[members[0]] for members in rows.values()], taxonomy)
    voted = dict(zip(rows, truths, strict=True))
    return [voted[user] for user in user_id]


def _vote_reference(attribute: Attribute, winner: int, entry: Reference | None) -> Reference | None:
    if winner == NO_ANSWER:
        return None
    tag = attribute.tags[winner]
    return Reference(tag, entry.confidence, entry.level) if entry else Reference(tag, 0.5, 3)
