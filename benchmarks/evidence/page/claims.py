"""The rows of the page's table "In short": what the paper or we claim, what was found, and whether it holds.

The paper's figures are those that its reviews quote (arXiv 2509.18864). Its data, models and scale are others, so only
directions are compared.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.evidence.page import expectations, quantities
from benchmarks.evidence.page.findings import Finding, Verdict, estimate, require_all, require_any
from benchmarks.evidence.page.markdown import NO_VALUE, code, difference, interval
from benchmarks.evidence.plan import Comparison
from benchmarks.evidence.results import Results
from conf_profile.evaluation.arms import (
    BASE,
    SFT,
    SFT_GRPO,
    TEACHER_EM,
    TEACHER_MAJORITY,
    TEACHER_SINGLE,
    TEACHER_WEIGHTED,
)

LISTED_FINDINGS = 4
"""A claim with more parts is answered by how many of them hold."""


@dataclass(frozen=True)
class Answer:
    """What was found, in numbers and in a word."""

    found: str
    verdict: str


@dataclass(frozen=True)
class Claim:
    """A row of the table "In short"; `paper` is empty where the claim is ours."""

    title: str
    experiment: str
    paper: str
    answer: Callable[[Results], Answer]


def _answer_by(
    findings: Callable[[Results], Sequence[Finding]], together: Callable[[Sequence[Verdict]], Verdict] = require_all
) -> Callable[[Results], Answer]:
    def answer(results: Results) -> Answer:
        found = findings(results)
        return Answer(_list_findings(found), together([finding.verdict for finding in found]))

    return answer


def _list_findings(findings: Sequence[Finding]) -> str:
    if len(findings) <= LISTED_FINDINGS:
        return "<br>".join(f"{finding.label}: {difference(finding)} {finding.of}" for finding in findings)
    verdicts = [finding.verdict for finding in findings]
    return f"{verdicts.count('holds')} of {len(verdicts)} steps hold, {verdicts.count('reversed')} are reversed"


def _comparisons(experiment: str, *comparisons: Comparison) -> Callable[[Results], list[Finding]]:
    return lambda results: [expectations.compare(experiment, results, comparison) for comparison in comparisons]


def _shares_of_possible(*arms: str) -> Callable[[Results], Answer]:
    def answer(results: Results) -> Answer:
        shares = [(arm, interval(estimate(quantities.share_of_possible(results, arm)), digits=0)) for arm in arms]
        return Answer("<br>".join(f"{code(arm)}: {share} %" for arm, share in shares), NO_VALUE)

    return answer


PAPER_CLAIMS: tuple[Claim, ...] = (
    Claim(
        "Table 1: RL without SFT",
        "table1",
        "falls below the base: F1 56.58 after 59.06",
        _answer_by(_comparisons("table1", Comparison("instruct", "rl_only"))),
    ),
    Claim(
        "Table 1: SFT, then RL",
        "table1",
        "F1 +13.97 over the base",
        _answer_by(
            _comparisons(
                "table1",
                Comparison(SFT_GRPO, BASE),
                Comparison(SFT, BASE),
                Comparison(SFT, TEACHER_SINGLE),
            )
        ),
    ),
    Claim(
        "Table 1: what RL adds to SFT",
        "table1",
        "both stages belong to the method; the figure after SFT alone was not at hand",
        _answer_by(_comparisons("table1", Comparison(SFT_GRPO, SFT))),
    ),
    Claim(
        "Table 2: weighted vote over majority",
        "table2",
        "F1 69.97 against 67.17",
        _answer_by(_comparisons("table2", Comparison(TEACHER_WEIGHTED, TEACHER_MAJORITY))),
    ),
    Claim(
        "Table 2: students taught by these votes",
        "table2",
        "F1 69.97 against 67.17",
        _answer_by(_comparisons("table2", Comparison("sft_weighted", "sft_majority"))),
    ),
    Claim(
        "Table 3: M-shape over the original distribution",
        "table3",
        "precision 64.83 against 63.30",
        _answer_by(_comparisons("table3", Comparison("m", "original", "precision"))),
    ),
    Claim(
        "Table 5: frozen confidence keeps precision rising with τ",
        "table5",
        "flat with self-confidence, rising with the frozen one",
        _answer_by(lambda results: expectations.slopes(results)[:1]),
    ),
    Claim(
        "Table 5: self-confidence unbalances the levels",
        "table5",
        "rewards are hacked by stating high confidence",
        _answer_by(lambda results: [expectations.inflation(results)]),
    ),
    Claim(
        "Figure 5: a higher τ gives a higher precision",
        "figure5",
        "precision rises with τ",
        _answer_by(lambda results: expectations.threshold_steps(results, "precision")),
    ),
    Claim(
        "Figure 5: a higher τ gives a lower recall",
        "figure5",
        "recall falls with τ",
        _answer_by(lambda results: expectations.threshold_steps(results, "recall")),
    ),
    Claim(
        "Figures 3 and 9: the partition balances the levels",
        "figure3",
        "raw confidence is skewed, the partition balances it",
        _answer_by(lambda results: [expectations.balance(results)]),
    ),
)

OUR_CLAIMS: tuple[Claim, ...] = (
    Claim(
        "`em` over the weighted vote",
        "table2",
        "",
        _answer_by(_comparisons("table2", Comparison(TEACHER_EM, TEACHER_WEIGHTED))),
    ),
    Claim(
        "A student taught by `em` over one taught by the weighted vote",
        "table2",
        "",
        _answer_by(_comparisons("table2", Comparison("sft_em", "sft_weighted"))),
    ),
    Claim(
        "Second stage: GRPO or rejection sampling over SFT",
        "second_stage",
        "",
        _answer_by(
            _comparisons(
                "second_stage",
                *(Comparison(arm, SFT) for arm in (SFT_GRPO, "rejection_1", "rejection_2")),
            ),
            require_any,
        ),
    ),
    Claim(
        "Second stage: the vote over current rollouts is below the frozen one",
        "second_stage",
        "",
        _answer_by(_comparisons("second_stage", Comparison("vote_rollouts", SFT_GRPO))),
    ),
    Claim(
        "The stratified filter keeps more people of rare tags",
        "table3",
        "",
        _answer_by(lambda results: [expectations.stratified_finding(results)]),
    ),
    Claim(
        "Share of the possible, by stage",
        "table1",
        "",
        _shares_of_possible(TEACHER_WEIGHTED, SFT, SFT_GRPO),
    ),
    Claim(
        "Share of the possible, by vote",
        "table2",
        "",
        _shares_of_possible(TEACHER_EM, "sft_weighted", "sft_em"),
    ),
)
