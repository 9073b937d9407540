"""The gate: may this candidate become the champion? Promote or reject, with a reason for every check.

A pure function over evidence that evaluation has measured; it reads no file and no label. Every check is made
and reported, also after one has failed, so that whoever reads a rejection sees all of it at once.

The policy, check by check (GateConfig holds the numbers):

* labelled_users: on how many test users all the others stand. Reported only.
* better_than_base: the paired difference in F1 to the untrained model is clear of zero.
* not_below_constant: the upper end of the interval of the difference to the best constant answer, each attribute's most
  frequent tag, is not below -tolerance. A model that says less about people than no model does is no use.
* better_than_champion, where there is a judged champion: the difference is above 0 and the lower end of its paired
  95% interval is above -tolerance. A new model must show that it is better.
* unjudged_champion, in the place of that check where no labels were there for the champion. Reported only.
* not_below_sft, where there is no judged champion: the upper end of the interval is not below -tolerance. The second
  stage need not have helped, but it must not have done harm that can be told from chance.
* precision_at_thresholds: at the default thresholds something is accepted, with at least min_precision.
* hierarchy: a higher level still means a higher precision and levels are not inflated (`hierarchy`).
* slices, where there is a judged champion: no slice of at least min_slice_users loses more than max_slice_loss with
  the interval of the paired difference wholly below zero. Both are asked for: among a dozen slices of fifty
  users one always loses some points by chance.

What is asked of a candidate without any true label is another policy: `unjudged_gate`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from conf_profile.config import GateConfig
from conf_profile.evaluation.bootstrap import Difference
from conf_profile.evaluation.labelled_users import LabelledUsers

NOT_REQUIRED_NOTE = " (reported, not required by the policy)"


@dataclass(frozen=True)
class SliceDifference:
    """One slice: its users, and the candidate's F1 minus the champion's over them."""

    name: str
    users: int
    difference: Difference


@dataclass(frozen=True)
class Opponent:
    """An arm that the candidate is measured against, over the same users."""

    name: str
    f1: float
    difference: Difference
    slices: tuple[SliceDifference, ...] = ()


@dataclass(frozen=True)
class Candidate:
    """The arm that may be promoted. `threshold_*` are measured at the default thresholds, rates in [0, 1].

    `users` are those that it was measured on; None where an evaluation of an earlier release does not tell.
    """

    name: str
    f1: float
    threshold_precision: float
    threshold_coverage: float
    hierarchy_passed: bool
    hierarchy_reasons: tuple[str, ...]
    users: LabelledUsers | None = None


@dataclass(frozen=True)
class Reason:
    """One check, whether it passed, and its numbers in a sentence."""

    name: str
    passed: bool
    message: str


@dataclass(frozen=True)
class Decision:
    """The gate's word and every reason for it.

    `judged` False: no true label had a part in it. Then `thresholds` holds each attribute's lowest accepted level, as
    the operator gave it; None: never accepted.
    """

    decision: Literal["promote", "reject"]
    reasons: tuple[Reason, ...]
    judged: bool = True
    thresholds: Mapping[str, int | None] | None = None

    def to_dict(self) -> dict[str, Any]:
        """The content of gate.json; `reasons` are sentences, those of failed checks first."""
        ordered = sorted(self.reasons, key=lambda reason: reason.passed)
        return {
            "decision": self.decision,
            "judged": self.judged,
            "reasons": [f"{'passed' if r.passed else 'FAILED'}: {r.message}" for r in ordered],
            "checks": [{"name": r.name, "passed": r.passed, "message": r.message} for r in self.reasons],
            **({} if self.thresholds is None else {"thresholds": dict(self.thresholds)}),
        }

    def to_json(self) -> str:
        """`to_dict` as indented JSON."""
        return json.dumps(self.to_dict(), indent=2)


def decide(
    candidate: Candidate,
    champion: Opponent | None,
    baseline: Opponent | None,
    base: Opponent,
    constant: Opponent,
    policy: GateConfig,
    unjudged_champion: str = "",
) -> Decision:
    """Makes every check that applies; promotes only when all of them pass.

    `baseline` is the SFT student; None when the candidate is the SFT student itself. It is judged only where
    there is no `champion`. One that was never judged is none: `unjudged_champion` is its version.
    """
    checks = [_labelled_users(candidate.users)] if candidate.users else []
    checks += [_better_than_base(candidate, base), _not_below_constant(candidate, constant, policy)]
    if unjudged_champion:
        checks.append(_unjudged_champion(unjudged_champion))
    if champion is not None:
        checks.append(_better_than_champion(candidate, champion, policy))
    elif baseline is not None:
        checks.append(_not_below_baseline(candidate, baseline, policy, unjudged_champion))
    checks += [_precision(candidate, policy), _hierarchy(candidate, policy)]
    if champion is not None:
        checks.append(_slices(champion.slices, policy))
    promoted = all(check.passed for check in checks)
    return Decision("promote" if promoted else "reject", tuple(checks))


def _labelled_users(users: LabelledUsers) -> Reason:
    return Reason("labelled_users", True, f"measured on {users}, those who have true labels")


def _unjudged_champion(version: str) -> Reason:
    message = (
        f"the champion {version} is unjudged, promoted without labels, and nothing that a judged candidate must be "
        "better than: this one is compared with the baselines alone"
    )
    return Reason("unjudged_champion", True, message)


def _better_than_base(candidate: Candidate, base: Opponent) -> Reason:
    passed = base.difference.low > 0
    wanted = "wanted: the interval above zero"
    return Reason("better_than_base", passed, _comparison(candidate, base, wanted))


def _not_below_constant(candidate: Candidate, constant: Opponent, policy: GateConfig) -> Reason:
    wanted = f"the most frequent tag, always; wanted: the interval not wholly below {_limit(policy)}"
    message = _comparison(candidate, constant, wanted)
    if not policy.require_constant:
        return Reason("not_below_constant", True, message + NOT_REQUIRED_NOTE)
    return Reason("not_below_constant", constant.difference.high >= -policy.tolerance, message)


def _better_than_champion(candidate: Candidate, champion: Opponent, policy: GateConfig) -> Reason:
    found = champion.difference
    passed = found.difference > 0 and found.low > -policy.tolerance
    wanted = f"wanted: above zero, and the interval above {_limit(policy)}"
    return Reason("better_than_champion", passed, _comparison(candidate, champion, wanted))


def _not_below_baseline(candidate: Candidate, baseline: Opponent, policy: GateConfig, unjudged_champion: str) -> Reason:
    passed = baseline.difference.high >= -policy.tolerance
    missing = "no judged champion" if unjudged_champion else "no champion"
    wanted = f"{missing} yet; wanted: the interval not wholly below {_limit(policy)}"
    return Reason("not_below_sft", passed, _comparison(candidate, baseline, wanted))


def _precision(candidate: Candidate, policy: GateConfig) -> Reason:
    if candidate.threshold_coverage <= 0:
        message = "at the default thresholds no labelled answer of the test users is accepted"
        return Reason("precision_at_thresholds", False, message)
    message = (
        f"precision at the default thresholds is {candidate.threshold_precision:.3f} on "
        f"{candidate.threshold_coverage:.0%} of the labelled cells; the floor is {policy.min_precision:.3f}"
    )
    return Reason("precision_at_thresholds", candidate.threshold_precision >= policy.min_precision, message)


def _hierarchy(candidate: Candidate, policy: GateConfig) -> Reason:
    message = f"confidence hierarchy of {candidate.name}: {'; '.join(candidate.hierarchy_reasons)}"
    if not policy.require_hierarchy:
        return Reason("hierarchy", True, message + NOT_REQUIRED_NOTE)
    return Reason("hierarchy", candidate.hierarchy_passed, message)


def _slices(slices: Sequence[SliceDifference], policy: GateConfig) -> Reason:
    judged = [item for item in slices if item.users >= policy.min_slice_users]
    failed = [item for item in judged if _loses(item.difference, policy)]
    limits = f"{_points(policy.max_slice_loss).lstrip('+')} of F1 beyond chance"
    if failed:
        worst = "; ".join(f"{item.name} ({item.users} users) {_spread(item.difference)}" for item in failed)
        return Reason("slices", False, f"against the champion more than {limits} is lost by: {worst}")
    message = (
        f"none of the {len(judged)} slice(s) with at least {policy.min_slice_users} users loses more than "
        f"{limits} against the champion ({len(slices) - len(judged)} smaller slice(s) not judged)"
    )
    return Reason("slices", True, message)


def _loses(found: Difference, policy: GateConfig) -> bool:
    return found.difference < -policy.max_slice_loss and found.high < 0


def _comparison(candidate: Candidate, opponent: Opponent, wanted: str) -> str:
    return (
        f"F1 of {candidate.name} is {candidate.f1:.3f}, of {opponent.name} {opponent.f1:.3f}: the paired "
        f"difference is {_spread(opponent.difference)} ({wanted})"
    )


def _spread(found: Difference) -> str:
    limits = f"{100 * found.low:+.1f} to {100 * found.high:+.1f}"
    return f"{_points(found.difference)}, 95% interval {limits}"


def _limit(policy: GateConfig) -> str:
    return _points(-policy.tolerance) if policy.tolerance else "zero"


def _points(value: float) -> str:
    # Adding zero turns -0.0 into 0.0, which would be printed as "-0.0".
    return f"{100 * value + 0.0:+.1f} points"
