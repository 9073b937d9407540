"""What each experiment compares: arms, their settings over the preset's, and the differences that are tested.

docs/evidence-protocol.md says why; it was written before the first result. An arm's settings are what a user would
give `conf-profile run` with --set, so every arm can be run and served by itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from conf_profile.evaluation import arms

Stage = Literal["base", "teacher", "sft", "rejection", "grpo", "ceiling", "majority_tag"]
Predictions = Literal["", "trained", "untrained"]
STAGES: Mapping[Stage, tuple[str, Predictions]] = {
    "majority_tag": ("features", ""),
    "ceiling": ("features", ""),
    "teacher": ("labelling", ""),
    "base": ("sft", "untrained"),
    "sft": ("sft", "trained"),
    "rejection": ("rejection", "trained"),
    "grpo": ("grpo", "trained"),
}
"""The step with which an arm's run of the pipeline ends, and of which student predictions are made then.

`untrained` is the model that the student's SFT began with.
"""
Settings = Mapping[str, Any]
"""Dotted keys of the configuration -> values."""


@dataclass(frozen=True)
class Arm:
    """One line of a table: how far the method is carried out, and with what settings.

    `vote` is the vote of the stage `teacher`, or "single" for its first sample.
    """

    name: str
    stage: Stage
    settings: Settings = field(default_factory=dict)
    vote: str = ""


@dataclass(frozen=True)
class Comparison:
    """`better` minus `worse`; the names say what the paper (or we) expect, the sign what was found."""

    better: str
    worse: str
    metric: Literal["precision", "recall", "f1"] = "f1"


@dataclass(frozen=True)
class Experiment:
    """A question, the arms that answer it, and the settings that all of them share."""

    name: str
    question: str
    arms: tuple[Arm, ...]
    comparisons: tuple[Comparison, ...]
    settings: Settings = field(default_factory=dict)


def teacher(vote: str) -> Arm:
    """The teacher's vote over its M samples, or its first sample."""
    return Arm(arms.teacher_arm(vote), "teacher", vote=vote)


MAJORITY_TAG, CEILING = Arm(arms.MAJORITY_TAG, "majority_tag"), Arm(arms.CEILING, "ceiling")
SFT = Arm(arms.SFT, "sft")
SFT_GRPO = Arm(arms.SFT_GRPO, "grpo")
"""The preset as it stands: frozen reference vote and weight, level reward, small steps."""

PAPERS_VOTE: Settings = {"labelling.vote": "weighted"}
"""What every arm begins with, whatever the preset has: an arm that takes another vote says so."""

PAPERS_RECIPE: Settings = {"grpo.quasi_ground_truth": "rollouts", "grpo.level_reward": 0.0}
"""The quasi-ground truth is voted over the current rollouts, and levels earn nothing."""

INSTRUCT: Settings = {
    "teacher.samples": 1,
    "sft.max_users": 200,
    "sft.min_steps": 160,
}
"""A stand-in for an instruct model: it knows the format and has heard one answer about each of 200 people.

A network from scratch never writes a well-formed answer, so all its rewards are 0 and GRPO has nothing to learn from.
"""

HARD_STEPS: Settings = {
    "grpo.steps": 60,
    "grpo.learning_rate": 2e-4,
    "grpo.kl": 0.01,
    "grpo.temperature": 1.0,
    "grpo.level_reward": 0.0,
    "grpo.max_entropy_loss": 1.0,
}
"""Steps large enough for a reward to be hacked within minutes, and nobody who stops it."""

TABLE1 = Experiment(
    "table1",
    "Does reinforcement learning need SFT first, and what does each stage add?",
    (
        MAJORITY_TAG,
        Arm(arms.BASE, "base"),
        Arm("instruct", "sft", INSTRUCT),
        Arm("rl_only", "grpo", {**INSTRUCT, **PAPERS_RECIPE}),
        teacher("single"),
        teacher("weighted"),
        SFT,
        Arm("sft_grpo_paper", "grpo", PAPERS_RECIPE),
        SFT_GRPO,
        CEILING,
    ),
    (
        Comparison("instruct", "rl_only"),
        Comparison(arms.SFT, arms.BASE),
        Comparison(arms.SFT, "instruct"),
        Comparison(arms.SFT, arms.TEACHER_SINGLE),
        Comparison(arms.SFT, arms.TEACHER_WEIGHTED),
        Comparison(arms.SFT_GRPO, arms.BASE),
        Comparison(arms.SFT_GRPO, arms.SFT),
        Comparison("sft_grpo_paper", arms.SFT),
        Comparison(arms.SFT_GRPO, "rl_only"),
    ),
)

TABLE2 = Experiment(
    "table2",
    "What is a vote worth that knows the teacher's confidence, and what do students learn from each vote?",
    (
        teacher("single"),
        *(teacher(vote) for vote in ("majority_blind", "majority", "weighted", "log_odds", "em")),
        *(Arm(f"sft_{vote}", "sft", {"labelling.vote": vote}) for vote in ("majority", "em")),
        Arm("sft_weighted", "sft"),
        CEILING,
    ),
    (
        Comparison(arms.TEACHER_WEIGHTED, arms.TEACHER_MAJORITY),
        Comparison(arms.TEACHER_WEIGHTED, arms.teacher_arm("majority_blind")),
        Comparison(arms.TEACHER_LOG_ODDS, arms.TEACHER_WEIGHTED),
        Comparison(arms.TEACHER_EM, arms.TEACHER_WEIGHTED),
        Comparison(arms.TEACHER_EM, arms.TEACHER_MAJORITY),
        Comparison("sft_weighted", "sft_majority"),
        Comparison("sft_em", "sft_weighted"),
        Comparison("sft_em", arms.TEACHER_EM),
    ),
)

TABLE3 = Experiment(
    "table3",
    "Does it help to train the second stage on users of moderate difficulty, and who pays for it?",
    (
        SFT,
        Arm("original", "grpo", {"filtering.shape": "original"}),
        Arm("m", "grpo", {"filtering.keep": 0.5}),
        Arm("lambda", "grpo", {"filtering.shape": "lambda", "filtering.keep": 0.5}),
        Arm("m_stratified", "grpo", {"filtering.keep": 0.5, "filtering.strata": "rarest_tag"}),
    ),
    (
        Comparison("m", "original", "precision"),
        Comparison("lambda", "original", "precision"),
        Comparison("m_stratified", "m", "precision"),
        Comparison("m", "original"),
        Comparison("lambda", "original"),
        Comparison("m_stratified", "m"),
    ),
)

TABLE5 = Experiment(
    "table5",
    "Does a frozen confidence keep the levels meaningful where a live one lets the student buy reward with them?",
    (
        SFT,
        Arm("frozen", "grpo", HARD_STEPS),
        Arm("self", "grpo", {**HARD_STEPS, "grpo.weight": "self"}),
        Arm("none", "grpo", {**HARD_STEPS, "grpo.weight": "none"}),
    ),
    (Comparison("frozen", "self"), Comparison("frozen", "none"), Comparison("frozen", "self", "precision")),
)

FIGURE3 = Experiment(
    "figure3",
    "Is verbal confidence skewed, and does the partition balance it?",
    (teacher("single"), teacher("weighted"), SFT),
    (),
)

FIGURE5 = Experiment(
    "figure5",
    "How does the threshold trade precision for recall?",
    (teacher("weighted"), SFT, SFT_GRPO, CEILING),
    (),
)

SECOND_STAGE = Experiment(
    "second_stage",
    "Which second stage earns its place?",
    (
        SFT,
        SFT_GRPO,
        Arm("vote_rollouts", "grpo", {"grpo.quasi_ground_truth": "rollouts"}),
        Arm("vote_soft", "grpo", {"grpo.quasi_ground_truth": "soft"}),
        Arm("vote_em", "grpo", {"reference.vote": "em"}),
        Arm("weight_none", "grpo", {"grpo.weight": "none"}),
        Arm("weight_self", "grpo", {"grpo.weight": "self"}),
        Arm("no_level_reward", "grpo", {"grpo.level_reward": 0.0}),
        Arm("no_kl", "grpo", {"grpo.kl": 0.0}),
        Arm("large_steps", "grpo", {"grpo.learning_rate": 2e-4, "grpo.max_entropy_loss": 1.0}),
        Arm("train_users_only", "grpo", {"reference.splits": ["train"]}),
        Arm("rejection_1", "rejection", {"rejection.rounds": 1}),
        Arm("rejection_2", "rejection", {"rejection.rounds": 2}),
        Arm("rejection_1_em", "rejection", {"rejection.rounds": 1, "reference.vote": "em"}),
        Arm("rejection_1_grpo", "grpo", {"rejection.rounds": 1}),
    ),
    (
        Comparison(arms.SFT_GRPO, arms.SFT),
        *(
            Comparison(arm, arms.SFT_GRPO)
            for arm in (
                "vote_rollouts",
                "vote_soft",
                "vote_em",
                "weight_none",
                "weight_self",
                "no_level_reward",
                "no_kl",
                "large_steps",
                "train_users_only",
            )
        ),
        Comparison("rejection_1", arms.SFT),
        Comparison("rejection_2", arms.SFT),
        Comparison("rejection_1_em", arms.SFT),
        Comparison("rejection_1", arms.SFT_GRPO),
        Comparison("rejection_1_grpo", "rejection_1"),
    ),
)

WEAK_TEACHER: Settings = {"data.lexicon.noise": 2.0, "data.lexicon.gaps": 0.5}
SWAGGERER: Settings = {"data.lexicon.overconfident_tags": 0.4, "data.lexicon.overconfidence": 4}
RANDOM_LEVELS: Settings = {"data.lexicon.random_levels": 1.0}
_TEACHERS: Mapping[str, Settings] = {
    "usual": {},
    "weak": WEAK_TEACHER,
    "swaggering": SWAGGERER,
    "levels_at_random": RANDOM_LEVELS,
}
_VOTES = ("single", "majority", "weighted", "em")

TEACHERS = Experiment(
    "teachers",
    "How much of the result hangs on the teacher?",
    tuple(Arm(f"{kind}_{vote}", "teacher", settings, vote) for kind, settings in _TEACHERS.items() for vote in _VOTES)
    + tuple(Arm(f"{kind}_sft", "sft", settings) for kind, settings in _TEACHERS.items())
    + (Arm("weak_sft_grpo", "grpo", WEAK_TEACHER), CEILING),
    tuple(Comparison(f"{kind}_weighted", f"{kind}_majority") for kind in _TEACHERS)
    + tuple(Comparison(f"{kind}_em", f"{kind}_weighted") for kind in _TEACHERS)
    + tuple(Comparison("usual_sft", f"{kind}_sft") for kind in _TEACHERS if kind != "usual")
    + (Comparison("weak_sft_grpo", "weak_sft"),),
)

TRANSFER = Experiment(
    "transfer",
    "Does the method hold on a data set that it was not made on?",
    (
        MAJORITY_TAG,
        teacher("single"),
        teacher("majority"),
        teacher("weighted"),
        teacher("em"),
        SFT,
        Arm("sft_em", "sft", {"labelling.vote": "em"}),
        SFT_GRPO,
    ),
    (
        Comparison(arms.TEACHER_WEIGHTED, arms.TEACHER_MAJORITY),
        Comparison(arms.TEACHER_EM, arms.TEACHER_WEIGHTED),
        Comparison(arms.SFT, arms.TEACHER_SINGLE),
        Comparison(arms.SFT, arms.TEACHER_WEIGHTED),
        Comparison(arms.SFT, arms.MAJORITY_TAG),
        Comparison("sft_em", arms.SFT),
        Comparison(arms.SFT_GRPO, arms.SFT),
    ),
)

_NOISES, _HISTORIES = (0.0, 0.7, 2.0), (5, 14, 50)
_GRID = tuple((noise, history) for noise in _NOISES for history in _HISTORIES)

SECOND_STAGE_REGIMES = Experiment(
    "second_stage_regimes",
    "Where does the second stage pay?",
    tuple(
        Arm(
            f"noise={noise:g}, history={history}: {stage}",
            "sft" if stage == arms.SFT else "grpo",
            {"data.lexicon.noise": noise, "data.world.median_keyphrases": history},
        )
        for noise, history in _GRID
        for stage in arms.TRAINED_ARMS
    ),
    tuple(
        Comparison(f"noise={noise:g}, history={history}: sft_grpo", f"noise={noise:g}, history={history}: sft")
        for noise, history in _GRID
    ),
    # A third of the users and half of the steps: nine worlds in the time of three.
    {"data.users": 1500, "features.test_share": 0.4, "sft.min_steps": 160, "reference.max_users": 400},
)

EXPERIMENTS: Mapping[str, Experiment] = {
    experiment.name: experiment
    for experiment in (
        TABLE1,
        TABLE2,
        TABLE3,
        TABLE5,
        FIGURE3,
        FIGURE5,
        SECOND_STAGE,
        SECOND_STAGE_REGIMES,
        TEACHERS,
        TRANSFER,
    )
}
