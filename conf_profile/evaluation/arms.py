"""The arms of an evaluation: whose answers are measured over the same users, and what they are called.

evaluation.json, summary.json, the report, the model card and the experiments know an arm by its name alone.
"""

from __future__ import annotations

from collections.abc import Container, Mapping


def teacher_arm(vote: str) -> str:
    """The teacher's answers after a vote over all its samples, by the vote's name; `single`: its first sample."""
    return f"teacher_{vote}"


MAJORITY_TAG = "majority_tag"
BASE = "base"
TEACHER_SINGLE = teacher_arm("single")
TEACHER_MAJORITY = teacher_arm("majority")
TEACHER_WEIGHTED = teacher_arm("weighted")
TEACHER_LOG_ODDS = teacher_arm("log_odds")
TEACHER_EM = teacher_arm("em")
SFT = "sft"
SFT_GRPO = "sft_grpo"
CHAMPION = "champion"
CEILING = "ceiling"

TRAINED_ARMS = (SFT, SFT_GRPO)
"""The arms of the run's own student, in the order of the stages."""
STUDENT_ARMS = (*TRAINED_ARMS, CHAMPION)
ARM_TITLES: Mapping[str, str] = {
    MAJORITY_TAG: "Most frequent tag, always",
    BASE: "Base model, untrained",
    TEACHER_SINGLE: "Teacher, one sample",
    TEACHER_MAJORITY: "Teacher, majority vote",
    TEACHER_WEIGHTED: "Teacher, weighted vote",
    TEACHER_LOG_ODDS: "Teacher, vote by log-odds",
    TEACHER_EM: "Teacher, vote by EM",
    SFT: "Student after SFT",
    SFT_GRPO: "Student after SFT + GRPO",
    CHAMPION: "Champion until now",
    CEILING: "Ceiling (exact posterior)",
}
"""In the order of the tables: from knowing nothing to the best possible."""


def is_vote(name: str) -> bool:
    """Whether an arm is a vote over the teacher's samples."""
    return name.startswith(teacher_arm("")) and name != TEACHER_SINGLE


def arm_title(name: str) -> str:
    """The arm's name for readers; an arm that is not ours keeps its own."""
    return ARM_TITLES.get(name, name)


def last_trained_arm(arms: Container[str]) -> str | None:
    """The arm of the last stage that trained the student, None where none did: what may be promoted."""
    return next((name for name in reversed(TRAINED_ARMS) if name in arms), None)
