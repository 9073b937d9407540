"""The table "Questions and expectations" of docs/evidence-protocol.md as code: what is compared, what was expected."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from benchmarks.evidence import plan
from benchmarks.evidence.page import quantities
from benchmarks.evidence.page.findings import Finding, Side, Values, subtract
from benchmarks.evidence.page.markdown import code
from benchmarks.evidence.plan import Comparison
from benchmarks.evidence.results import Results
from conf_profile.evaluation.arms import SFT, SFT_GRPO, TEACHER_EM, TEACHER_WEIGHTED

FEW_TAGS = 10
METRIC_TITLES = {"precision": "precision", "recall": "recall", "f1": "F1"}
LEVEL_STAGES = ("raw_levels", "calibrated_levels")
IMBALANCE, OLD_IMBALANCE = "imbalance of levels", "imbalance of levels, old partition"
OLD_RISE = "rise of precision, old partition"
"""Names of observations; with the old partition the levels are cut as they were before GRPO."""


LATER_COMPARISONS = (Comparison(SFT, TEACHER_WEIGHTED), Comparison("sft_em", TEACHER_EM))
"""Comparisons that the protocol did not plan: nothing was expected of them."""


def side(experiment: str, comparison: Comparison) -> Side:
    """Where the protocol expects `better` minus `worse`; without a word of its own the plan's names say it."""
    if comparison == Comparison("instruct", "rl_only"):
        return "not below"
    if comparison == Comparison("vote_rollouts", SFT_GRPO):
        return "below"
    if comparison in LATER_COMPARISONS:
        return "either"
    compared_with_ours = experiment == "second_stage" and comparison.worse in (SFT_GRPO, "rejection_1")
    return "either" if compared_with_ours or experiment in ("teachers", "second_stage_regimes") else "above"


def planned_findings(experiment: str, results: Results) -> list[Finding]:
    """The experiment's comparisons whose arms were measured."""
    arms = set(results.arms)
    comparisons = plan.EXPERIMENTS[experiment].comparisons
    return [compare(experiment, results, found) for found in comparisons if {found.better, found.worse} <= arms]


def compare(experiment: str, results: Results, comparison: Comparison) -> Finding:
    """A comparison of the plan, or one like it, over all test users."""

    def rate(results: Results, arm: str) -> dict[int, float]:
        return quantities.rate(results, arm, comparison.metric)

    of, expected = METRIC_TITLES[comparison.metric], side(experiment, comparison)
    return _difference_finding(results, comparison.better, comparison.worse, of, rate, expected)


def balance(results: Results) -> Finding:
    """Figures 3 and 9: how much of the levels' imbalance the partition takes away."""
    raw, calibrated = (
        quantities.observed_values(results, TEACHER_WEIGHTED, f"imbalance of {kind}") for kind in LEVEL_STAGES
    )
    return Finding("raw - partitioned", IMBALANCE, subtract(raw, calibrated))


def slopes(results: Results) -> list[Finding]:
    """Table 5: whose precision rises more from τ = 1 to τ = 5."""
    expected: dict[str, Side] = {"self": "above", "none": "either"}
    return [
        _difference_finding(results, "frozen", other, "rise of precision", quantities.slope, where)
        for other, where in expected.items()
    ]


def inflation(results: Results) -> Finding:
    """Table 5: whether a student that is paid for its own confidence moves its levels away from balance.

    Looked for before the levels are cut anew, which would hide it.
    """
    return _observed_finding(results, "self", "frozen", OLD_IMBALANCE)


def hacking(results: Results) -> list[Finding]:
    """Table 5: all that tells the arms apart, with the new partition and with the old one."""
    return [
        *slopes(results),
        _observed_finding(results, "frozen", "self", OLD_RISE),
        inflation(results),
        _observed_finding(results, "self", "frozen", IMBALANCE),
    ]


def threshold_steps(results: Results, metric: str) -> list[Finding]:
    """Figure 5, for every student: from each τ to the next one precision should rise and recall fall."""
    students = [arm.name for arm in plan.FIGURE5.arms if arm.stage in ("sft", "rejection", "grpo")]
    expected: Side = "above" if metric == "precision" else "below"
    return [
        Finding(f"{code(arm)}: τ = {tau} - τ = {tau - 1}", metric, quantities.step(results, arm, metric, tau), expected)
        for arm in students
        for tau in range(quantities.LOWEST_LEVEL + 1, quantities.HIGHEST_LEVEL + 1)
    ]


def select_rarest_tags(results: Results) -> tuple[list[str], list[str], list[str]]:
    """Table 3: all tags that the reference gives, the rarest quarter of them, and the rarest quarter of true tags."""
    given = quantities.reference_users(results, "original")
    true = quantities.test_users_by_tag(results, "original")
    return list(given), quantities.rarest_quarter(given), quantities.rarest_quarter(true)


def rare_tag_findings(results: Results) -> list[Finding]:
    """Table 3: whether a filter throws away people of rare tags, what becomes of them, and whether strata help."""
    given, rarest_given, rarest_true = select_rarest_tags(results)

    def recall(results: Results, arm: str) -> Values:
        return quantities.recall_of_tags(results, arm, rarest_true)

    against_all = [
        Finding(
            f"{code(arm)}: rarest quarter - all",
            "kept share",
            subtract(*(quantities.kept_share(results, arm, tags) for tags in (rarest_given, given))),
            "either",
        )
        for arm in ("m", "lambda", "m_stratified")
    ]
    pairs = (("m", "original"), ("lambda", "original"), ("m_stratified", "m"))
    recalls = [_difference_finding(results, *pair, "recall of the rarest quarter", recall, "either") for pair in pairs]
    return [*against_all, stratified_finding(results), *recalls]


def stratified_finding(results: Results) -> Finding:
    """Table 3: whether strata keep more of the people to whom the reference gives a rare tag."""
    _, rarest_given, _ = select_rarest_tags(results)

    def kept_share(results: Results, arm: str) -> Values:
        return quantities.kept_share(results, arm, rarest_given)

    return _difference_finding(results, "m_stratified", "m", "kept share of the rarest quarter", kept_share)


def cost_of_a_weak_teacher(results: Results) -> list[Finding]:
    """What a weak teacher costs the vote and the student, and the difference of the two costs."""
    vote, student = (
        subtract(*(quantities.rate(results, f"{kind}_{arm}", "f1") for kind in ("usual", "weak")))
        for arm in ("weighted", "sft")
    )
    return [
        Finding("cost to the vote", "F1", vote, "either"),
        Finding("cost to the student", "F1", student, "either"),
        Finding("student's cost - vote's cost", "F1", subtract(student, vote), "either"),
    ]


def recall_after_grpo(results: Results) -> list[Finding]:
    """Transfer: whether GRPO finds people of every tag, or gives up rare tags for frequent ones, which raises micro F1.

    The mean over all tags, in which each weighs the same; where the tags are few, each of them too.
    """
    tags = list(quantities.test_users_by_tag(results, SFT))
    recalls = {"recall, mean over the tags": partial(quantities.mean_recall, tags=tags)}
    if len(tags) <= FEW_TAGS:
        recalls |= {f"recall of {tag}": partial(quantities.recall_of_tags, tags=[tag]) for tag in tags}
    return [_difference_finding(results, SFT_GRPO, SFT, of, recall, "either") for of, recall in recalls.items()]


def _observed_finding(results: Results, better: str, worse: str, name: str) -> Finding:
    return _difference_finding(results, better, worse, name, lambda of, arm: quantities.observed_values(of, arm, name))


def _difference_finding(
    results: Results,
    better: str,
    worse: str,
    of: str,
    quantity: Callable[[Results, str], Values],
    expected: Side = "above",
) -> Finding:
    """A quantity of one arm minus that of another."""
    differences = subtract(quantity(results, better), quantity(results, worse))
    return Finding(f"{code(better)} - {code(worse)}", of, differences, expected)
