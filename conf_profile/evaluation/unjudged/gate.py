"""The gate for a candidate without any true label: rejected, unless the operator says by name that it may pass.

Nobody knows how often such a model is right, so nothing here is a judgement of it. What is checked (GateConfig says
what is allowed):

* unjudged: `gate.unjudged` says allow. The default refuses, and the reason says how to allow it.
* replaces_champion, where there is a champion: said in words; an allowed candidate replaces even a judged one.
* accepted_at_levels, where it is allowed: at the levels of `gate.unjudged_levels` something is accepted. They stand in
  the place of the default thresholds, which labels would have chosen; an attribute without one is never accepted.
* agreement: the student names its teacher's vote more often than chance does, with its 95% interval clear of that. A
  student that learned nothing, or names one tag for everybody, does not.
* levels: they are not inflated (`hierarchy`); whether a higher one is more often right cannot be known.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from conf_profile.config import GateConfig
from conf_profile.errors import ConfigError
from conf_profile.evaluation.gate import NOT_REQUIRED_NOTE, Decision, Reason
from conf_profile.evaluation.hierarchy import HierarchyPolicy


@dataclass(frozen=True)
class VoteAgreement:
    """How often the candidate names the tag of one of the teacher's votes; rates in [0, 1]."""

    vote: str
    share: float
    low: float
    high: float
    by_chance: float


@dataclass(frozen=True)
class UnjudgedCandidate:
    """The arm that may be promoted, by its answers for the test users: attribute -> how many of each level 1-5.

    `cells` counts what could have been answered, over all attributes; `agreement` is with the vote that it agrees with
    most, None where the teacher was not asked about these users.
    """

    name: str
    cells: int
    levels: Mapping[str, Sequence[int]]
    top_share: float
    mean_level: float
    agreement: VoteAgreement | None


@dataclass(frozen=True)
class ReplacedChampion:
    """The champion that a promotion would replace."""

    version: str
    judged: bool


def decide(candidate: UnjudgedCandidate, champion: ReplacedChampion | None, policy: GateConfig) -> Decision:
    """Makes every check that applies; promotes only when all of them pass.

    ConfigError where `gate.unjudged_levels` names an attribute that there is not.
    """
    check_levels(policy, candidate.levels)
    checks = [_permission(policy)]
    if champion is not None:
        checks.append(_replaces_champion(champion, policy))
    if _is_allowed(policy):
        checks.append(_accepted_at_levels(candidate, policy))
    checks += [_agreement(candidate), _levels(candidate, policy)]
    promoted = all(check.passed for check in checks)
    thresholds = {name: policy.unjudged_levels.get(name) for name in candidate.levels} if _is_allowed(policy) else None
    return Decision("promote" if promoted else "reject", tuple(checks), judged=False, thresholds=thresholds)


def check_levels(policy: GateConfig, attributes: Iterable[str]) -> None:
    """ConfigError where `gate.unjudged_levels` names an attribute that the taxonomy does not have."""
    known = list(attributes)
    strange = [name for name in policy.unjudged_levels if name not in known]
    if strange:
        raise ConfigError(
            f"gate.unjudged_levels names {', '.join(map(repr, strange))}, which the taxonomy does not have; it has "
            f"{', '.join(known)}"
        )


def _is_allowed(policy: GateConfig) -> bool:
    return policy.unjudged == "allow"


def _permission(policy: GateConfig) -> Reason:
    if _is_allowed(policy):
        message = "unjudged: there are no true labels, so nobody knows how often it is right; gate.unjudged allows it"
        return Reason("unjudged", True, message)
    message = (
        "unjudged: there are no true labels, so nobody knows how often it is right. Give labels of some users "
        "(labels.parquet, docs/data.md); or allow it by name, with the lowest level that is accepted of each attribute "
        "(without one it never is): --set gate.unjudged=allow --set gate.unjudged_levels.ATTRIBUTE=LEVEL"
    )
    return Reason("unjudged", False, message)


def _replaces_champion(champion: ReplacedChampion, policy: GateConfig) -> Reason:
    state = "judged" if champion.judged else "unjudged"
    passed = _is_allowed(policy)
    compared = "it has not been shown to be better than" if passed else "it cannot be shown to be better than"
    return Reason("replaces_champion", passed, f"{compared} the champion {champion.version}, which is {state}")


def _accepted_at_levels(candidate: UnjudgedCandidate, policy: GateConfig) -> Reason:
    """The levels are from 1, so a count's position is its level less one."""
    given = policy.unjudged_levels
    accepted = sum(sum(candidate.levels[name][level - 1 :]) for name, level in given.items())
    never = [name for name in candidate.levels if name not in given]
    message = (
        f"at the given levels ({', '.join(f'{name} {level}' for name, level in given.items())}) "
        f"{accepted / max(candidate.cells, 1):.0%} of the test users' cells are accepted"
    )
    if never:
        message += f"; never accepted, since gate.unjudged_levels names no level: {', '.join(never)}"
    return Reason("accepted_at_levels", accepted > 0, message)


def _agreement(candidate: UnjudgedCandidate) -> Reason:
    found = candidate.agreement
    if found is None:
        return Reason("agreement", True, "the teacher was not asked about the test users: not compared with its vote")
    message = (
        f"{candidate.name} names the tag of {found.vote} in {found.share:.1%} of what both answer, 95% interval "
        f"{found.low:.1%} to {found.high:.1%}; chance would give {found.by_chance:.1%} (wanted: the interval above it; "
        "it is agreement, not accuracy)"
    )
    return Reason("agreement", found.low > found.by_chance, message)


def _levels(candidate: UnjudgedCandidate, policy: GateConfig) -> Reason:
    limits = HierarchyPolicy()
    message = limits.describe_levels(candidate.top_share, candidate.mean_level)
    if not policy.require_hierarchy:
        return Reason("levels", True, message + NOT_REQUIRED_NOTE)
    return Reason("levels", not limits.is_inflated(candidate.top_share, candidate.mean_level), message)
