"""What the page says of one experiment on one data set: tables of arms and comparisons, further tables, plots."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from benchmarks.evidence.page import expectations, plots, quantities, regime_sections
from benchmarks.evidence.page.expectations import IMBALANCE, LEVEL_STAGES, OLD_IMBALANCE, OLD_RISE
from benchmarks.evidence.page.findings import Estimate, Finding, Values, estimate, subtract
from benchmarks.evidence.page.markdown import NO_VALUE, code, difference, interval, number, table
from benchmarks.evidence.page.passages import Passage, Study, count_tested, differences, picture
from benchmarks.evidence.page.plots import Lines
from benchmarks.evidence.results import METRICS, Results
from benchmarks.evidence.run import REGIMES
from conf_profile.consensus.confidence import LEVEL_COUNT
from conf_profile.dialogue.output_format import LEVELS
from conf_profile.evaluation.arms import TEACHER_WEIGHTED

LOGGED_DIGITS = {"reward": 3, "agreement": 3, "tag_entropy": 2}
"""What a second stage's log says at the start and at the end -> decimals."""


def passages_of(study: Study) -> Iterator[Passage]:
    """Everything on one study, in the page's order."""
    if study.name == REGIMES:
        yield from regime_sections.votes(study)
    else:
        yield from _arm_passages(study)


def _arm_passages(study: Study) -> Iterator[Passage]:
    yield Passage(_arms_table(study.results))
    yield _f1_plot(study)
    findings = expectations.planned_findings(study.name, study.results)
    if findings:
        yield differences("Comparisons.", findings)
    if study.name in FURTHER_PASSAGES:
        yield from FURTHER_PASSAGES[study.name](study)


def _arms_table(results: Results) -> str:
    shares = {arm: estimate(quantities.share_of_possible(results, arm)) for arm in results.arms}
    head, rows = ["arm", "precision", "recall", "F1"], {arm: _rates(results, arm) for arm in results.arms}
    if any(shares.values()):
        head.append("share of the possible, %")
        rows = {arm: [*cells, interval(shares[arm], digits=0)] for arm, cells in rows.items()}
    return table(head, [[code(arm), *cells] for arm, cells in rows.items()])


def _rates(results: Results, arm: str, **where: Any) -> list[str]:
    return [interval(_estimate(results, arm, metric, **where)) for metric in METRICS]


def _estimate(results: Results, arm: str, metric: str, **where: Any) -> Estimate | None:
    return estimate(quantities.rate(results, arm, metric, **where))


def _f1_plot(study: Study) -> Passage:
    results = study.results
    found = [_estimate(results, arm, "f1") for arm in results.arms]
    return picture(
        study, "f1", "F1 of every arm with its interval", plots.dots(results.arms, {"F1": found}, "F1, points")
    )


# Thresholds and levels: Table 5, Figures 3 and 5.


def _thresholds_table(results: Results) -> str:
    metrics = ("precision", "recall", "coverage")
    rows = [
        [code(arm), str(tau), *(interval(_estimate(results, arm, metric, tau=tau)) for metric in metrics)]
        for arm in results.arms
        for tau in LEVELS
    ]
    return "Answers below level τ withheld.\n\n" + table(("arm", "τ", *metrics), rows)


def _threshold_lines(results: Results, metric: str, attribute: str = "") -> Lines:
    series = {
        arm: [_estimate(results, arm, metric, attribute=attribute, tau=tau) for tau in LEVELS] for arm in results.arms
    }
    return Lines(attribute, f"{metric}, points", series)


def _levels_table(results: Results) -> str:
    rows = [
        [code(arm), *_means(quantities.level_shares(results, arm)), *_imbalances(results, arm)] for arm in results.arms
    ]
    return _shares_table("arm", rows, "old partition")


def _imbalances(results: Results, arm: str) -> list[str]:
    return [_observed_interval(results, arm, name) for name in (IMBALANCE, OLD_IMBALANCE)]


def _shares_table(first: str, rows: Sequence[Sequence[str]], *further: str) -> str:
    head = (first, *(f"level {level}, %" for level in LEVELS), "imbalance, points", *further)
    return f"Share of the answers at each level.\n\n{table(head, rows)}"


def _means(shares: Sequence[Values]) -> list[str]:
    return [number(found.mean) if found else NO_VALUE for found in map(estimate, shares)]


def _observed_interval(results: Results, arm: str, name: str) -> str:
    return interval(estimate(quantities.observed_values(results, arm, name)))


def _bars_of_levels(series: Mapping[str, Sequence[Values]]) -> Figure:
    drawn = {name: [estimate(values) for values in shares] for name, shares in series.items()}
    return plots.bars(drawn, "share of the answers, %", even=1 / LEVEL_COUNT)


def _table5(study: Study) -> Iterator[Passage]:
    results = study.results
    yield Passage(_thresholds_table(results))
    panel = _threshold_lines(results, "precision")
    yield picture(study, "precision", "Precision of every arm over the threshold", plots.lines([panel], 1))
    yield Passage(_rises_table(results))
    yield Passage(_levels_table(results))
    yield differences("Differences of these rises and imbalances.", expectations.hacking(results))
    figure = _bars_of_levels({arm: quantities.level_shares(results, arm) for arm in results.arms})
    yield picture(study, "levels", "Share of the answers at each level, every arm", figure)


def _rises_table(results: Results) -> str:
    rows = [
        [
            code(arm),
            interval(estimate(quantities.slope(results, arm)), sign="+"),
            interval(estimate(quantities.observed_values(results, arm, OLD_RISE)), sign="+"),
        ]
        for arm in results.arms
    ]
    return (
        "Rise of precision from τ = 1 to τ = 5, in points. After GRPO the levels are cut anew; with the old partition "
        "they are those that the student would give had nobody done so.\n\n"
        + table(("arm", "rise", "rise, old partition"), rows)
    )


def _figure3(study: Study) -> Iterator[Passage]:
    results, arm = study.results, TEACHER_WEIGHTED
    shares = {
        title: quantities.level_shares(results, arm, kind)
        for title, kind in zip(("raw", "partitioned"), LEVEL_STAGES, strict=True)
    }
    rows = [
        [title, *_means(found), _observed_interval(results, arm, f"imbalance of {kind}")]
        for (title, found), kind in zip(shares.items(), LEVEL_STAGES, strict=True)
    ]
    yield Passage(_shares_table("confidence of the teacher", rows))
    yield picture(
        study, "levels", "Share of the teacher's answers at each level, raw and partitioned", _bars_of_levels(shares)
    )
    yield differences("Imbalance before and after the partition.", [expectations.balance(results)])


def _figure5(study: Study) -> Iterator[Passage]:
    results, both = study.results, ("precision", "recall")
    yield Passage(_thresholds_table(results))
    panels = [_threshold_lines(results, metric) for metric in both]
    yield picture(study, "thresholds", "Precision and recall over the threshold", plots.lines(panels, 2))
    panels = [_threshold_lines(results, metric, name) for name in quantities.attributes(results) for metric in both]
    yield picture(study, "attributes", "Precision and recall over the threshold, by attribute", plots.lines(panels, 2))
    findings = [found for metric in both for found in expectations.threshold_steps(results, metric)]
    yield differences("From each threshold to the next.", findings)


# Who is kept: Table 3.


def _table3(study: Study) -> Iterator[Passage]:
    results = study.results
    yield _kept_table(results)
    yield differences("Who is kept, and what it does to them.", expectations.rare_tag_findings(results))
    yield _kept_plot(study)
    yield _slices_table(results)


def _kept_table(results: Results) -> Passage:
    given, rarest_given, rarest_true = expectations.select_rarest_tags(results)
    rows = [
        [
            code(arm),
            interval(estimate(quantities.kept_share(results, arm, given))),
            interval(estimate(quantities.kept_share(results, arm, rarest_given))),
            interval(estimate(quantities.recall_of_tags(results, arm, rarest_true))),
        ]
        for arm in results.arms
    ]
    head = ("arm", "kept of all, %", "kept of the rarest quarter, %", "recall of the rarest quarter")
    return Passage(
        "Who takes part in the second stage, a user counting once for each tag that the reference gives. The quarter "
        f"of the tags that the reference gives least often: {', '.join(rarest_given)}. Recall is that of the test "
        f"users who truly have one of the rarest quarter of the tags: {', '.join(rarest_true)}.\n\n{table(head, rows)}"
    )


def _kept_plot(study: Study) -> Passage:
    results = study.results
    sizes = quantities.reference_users(results, "original")
    tags = quantities.rarest_first(sizes)
    by_arm = {arm: quantities.kept_by_tag(results, arm) for arm in ("m", "lambda", "m_stratified")}
    series = {arm: [estimate(kept.get(tag, {})) for tag in tags] for arm, kept in by_arm.items()}
    labels = [f"{tag} ({sum(sizes[tag].values()) / len(sizes[tag]):.0f})" for tag in tags]
    figure = plots.dots(labels, series, "users kept, %; in brackets: users whom the reference gives the tag")
    return picture(study, "kept", "Share of users kept by tag, the rarest first", figure)


def _slices_table(results: Results) -> Passage:
    arms = ("m", "m_stratified", "original")
    findings = {name: _m_over_original(results, name) for name in quantities.slices(results)}
    rows = [
        [
            name,
            *(interval(_estimate(results, arm, "f1", slice_=name)) for arm in arms),
            difference(finding),
            finding.verdict,
        ]
        for name, finding in findings.items()
    ]
    head = ("F1 of", *map(code, arms), "`m` - `original`", "verdict")
    return Passage("F1 by group of users.\n\n" + table(head, rows), count_tested(findings.values()))


def _m_over_original(results: Results, slice_: str) -> Finding:
    rates = (quantities.rate(results, arm, "f1", slice_=slice_) for arm in ("m", "original"))
    return Finding(slice_, "F1", subtract(*rates), "either")


# The second stage, teachers.


def _second_stage(study: Study) -> Iterator[Passage]:
    results = study.results
    head = (
        "arm",
        *(name.replace("_", " ") for name in LOGGED_DIGITS),
        "collapsed",
        "imbalance, points",
        "old partition",
    )
    rows = [
        [
            code(arm),
            *(_format_change(results, arm, name, digits) for name, digits in LOGGED_DIGITS.items()),
            _count_collapsed(results, arm),
            *_imbalances(results, arm),
        ]
        for arm in results.arms
    ]
    yield Passage(
        "Training: mean of the first five and of the last five steps; agreement is the share of tags that equal the "
        "quasi-ground truth, tag entropy is in nats. The imbalance of levels is that of the answers; with the old "
        f"partition the levels are cut as they were before GRPO.\n\n{table(head, rows)}"
    )


def _format_change(results: Results, arm: str, name: str, digits: int) -> str:
    ends = [estimate(quantities.observed_values(results, arm, f"{name}, {end} 5 steps")) for end in ("first", "last")]
    return " to ".join(number(found.mean, 1.0, digits) for found in ends if found) or NO_VALUE


def _count_collapsed(results: Results, arm: str) -> str:
    found = quantities.observed_values(results, arm, "collapsed")
    return f"{sum(found.values()):.0f} of {len(found)}" if found else NO_VALUE


def _teachers(study: Study) -> Iterator[Passage]:
    findings = expectations.cost_of_a_weak_teacher(study.results)
    yield differences("What a weak teacher costs: F1 with the usual one minus F1 with the weak one.", findings)


def _transfer(study: Study) -> Iterator[Passage]:
    findings = expectations.recall_after_grpo(study.results)
    yield differences("What GRPO does to people of each true tag, which micro F1 does not show.", findings)


FURTHER_PASSAGES: Mapping[str, Callable[[Study], Iterator[Passage]]] = {
    "table3": _table3,
    "table5": _table5,
    "figure3": _figure3,
    "figure5": _figure5,
    "second_stage": _second_stage,
    "second_stage_regimes": regime_sections.second_stage,
    "teachers": _teachers,
    "transfer": _transfer,
}
