"""The report's sections in words and tables, each from the inputs to one <section>."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from components.report import figures
from components.report.inputs import Inputs
from components.report.markup import Child, Html, element, join
from conf_profile.evaluation.summary import arm_title


def header(inputs: Inputs) -> Html:
    """Title, what was run, the result in words, and the figures that matter most."""
    meta = ", ".join(f"{name} {value}" for name, value in inputs.run_facts.items())
    rejected = inputs.gate["decision"] != "promote"
    words = element(
        "div",
        *(element("p", sentence) for sentence in headline(inputs)),
        class_="verdict rejected" if rejected else "verdict",
    )
    return join(
        element("h1", "User profiles without labels: the run's report"),
        element("p", meta, class_="meta"),
        words,
        _tiles(inputs),
    )


def headline(inputs: Inputs) -> list[str]:
    """The result in sentences that need no other part of the report."""
    arms, name = inputs.evaluation["arms"], inputs.candidate
    users = inputs.evaluation["users"].get("test", 0)
    found = arms[name]
    first = (
        f"{_capital(spoken(name))} reaches an F1 of {_percent(found['f1'])} ({_interval(found['f1_ci'])}) on "
        f"the true labels of {users:,} test users; no label was used in training."
    )
    accepted = inputs.evaluation["at_thresholds"]
    second = (
        f"At the default confidence thresholds it answers {_percent(accepted['coverage'])} of the questions "
        f"and is right in {_percent(accepted['precision'])} of these answers."
    )
    return [_verdict(inputs), first, second, *_comparisons(inputs)]


def results(inputs: Inputs) -> Html:
    """Every arm with its intervals, the paired differences, and F1 by attribute."""
    arms = inputs.evaluation["arms"]
    rows = [
        [arm_title(name), *(_with_interval(arm, metric) for metric in ("precision", "recall", "f1"))]
        for name, arm in arms.items()
    ]
    chosen = list(arms).index(inputs.candidate)
    return _section(
        "Results",
        "All arms on the same test users, in percent with 95% bootstrap intervals over users. Precision "
        "counts over what was answered, recall over everything that has a true label.",
        _table(["Arm", "Precision", "Recall", "F1"], rows, chosen),
        element("div", figures.arms(inputs), class_="wide"),
        element("h3", "Differences in F1, paired over the same users"),
        _differences(inputs.evaluation["paired"]),
        element("h3", "F1 by attribute"),
        _by_attribute(arms, chosen),
    )


def confidence(inputs: Inputs) -> Html:
    """Levels raw and calibrated, reliability, and the curves over the threshold."""
    return _section(
        "Confidence",
        "A level from 1 to 5 is useful if it is spread out and if a higher one is more often right. "
        "The partition makes the levels balanced without labels; the curves show whether precision rises "
        "with the threshold.",
        _charts(figures.levels(inputs), figures.reliability(inputs), figures.thresholds(inputs)),
        element("h3", "Does precision still rise with confidence? (the check against reward hacking)"),
        _hierarchy_table(inputs),
        element("h3", "Default thresholds"),
        _thresholds_table(inputs),
    )


def training(inputs: Inputs) -> Html:
    """The curves of SFT and GRPO, and what was filtered before the second stage."""
    return _section(
        "Training",
        "First the student learns from the teacher's voted answers (SFT), then from its own sampled "
        "answers (GRPO), rewarded for agreeing with the quasi-ground truth. A rising reward with falling "
        "agreement, entropy near zero or a KL that runs away would be signs of trouble.",
        _charts(figures.training(inputs), figures.difficulty(inputs)),
    )


def confusion(inputs: Inputs) -> Html:
    """What is mistaken for what, attribute by attribute."""
    return _section(
        "Confusion",
        f"{arm_title(inputs.candidate)} on the test users: rows are true tags, columns predicted ones, "
        "shaded by the share of the row; right answers are green.",
        _charts(figures.confusion(inputs)),
    )


def slices(inputs: Inputs) -> Html:
    """By region, by how much history there is, by self-report."""
    lines = inputs.evaluation["slices"]
    rows = [
        [line["slice"], arm_title(line["arm"]), f"{line['users']:,}", *(_percent(line[m]) for m in _RATES)]
        for line in lines
    ]
    return _section(
        "Slices",
        "The same figures for parts of the users: by region, by how many keyphrases there are of them, "
        "and by whether they stated an age or a gender. Small slices vary by chance.",
        element("div", figures.slices(inputs), class_="wide"),
        element(
            "details",
            element("summary", f"All {len(rows)} lines as a table"),
            _table(["Slice", "Arm", "Users", "Precision", "Recall", "F1"], rows),
        ),
    )


def gate(inputs: Inputs) -> Html:
    """The decision with every reason."""
    promoted = inputs.gate["decision"] == "promote"
    words = "The candidate was promoted: every check passed." if promoted else (
        "The candidate was rejected and nothing was uploaded. A rejection is a normal outcome of a run."
    )  # fmt: skip
    return _section("The gate's decision", words, _checks(inputs.gate["checks"]))


def model(inputs: Inputs) -> Html:
    """The promoted version and the command that serves it, or why there is nothing to serve."""
    outcome = inputs.outcome
    if not outcome.get("promoted"):
        lead = "Nothing was promoted in this run; the champion, if there is one, stays."
        return _section("The model", lead, *_why_nothing_is_served(inputs.gate))
    uri = str(outcome["uri"])
    facts = _facts({"Version": outcome["version"], "Address": uri})
    return _section(
        "The model",
        "The new champion. The version is immutable; its manifest holds the hash of every file.",
        facts,
        element("h3", "Serve it"),
        element("pre", serving_command(uri, inputs.serve_options)),
        element(
            "p",
            "This serves exactly this version, whatever the champion is, and every file's hash is compared first. The "
            "models are in the S3 store at AWS_ENDPOINT_URL, or where --endpoint says. On a cluster the address above "
            "is the storageUri of a KServe InferenceService.",
            class_="note",
        ),
    )


def data(inputs: Inputs) -> Html:
    """Who was in the run, and what the teacher's answers were like."""
    facts = {"Users by split": ", ".join(f"{k} {v:,}" for k, v in inputs.evaluation["users"].items())}
    facts |= _scalars("", inputs.features) | _scalars("Teacher: ", inputs.labelling)
    facts |= _scalars("Difficulty filter: ", inputs.filtering) | _scalars("Reference pass: ", inputs.reference)
    return _section("Data and labelling", "Counts from the steps before training.", _facts(facts))


def configuration(inputs: Inputs) -> Html:
    """The resolved configuration, which repeats the run."""
    return _section("Configuration", "What was resolved for this run.", element("pre", inputs.config_yaml))


def spoken(arm: str) -> str:
    """The arm's name inside a sentence."""
    return _SPOKEN.get(arm, arm)


def serving_command(uri: str, options: Sequence[str] = ()) -> str:
    """The command that serves the version at a pinned champion:// address, and no other one."""
    return shlex.join(["conf-profile", "serve", uri, *options])


_RATES = ("precision", "recall", "f1")
_SPOKEN = {
    "base": "the untrained model",
    "teacher_single": "one sample of the teacher",
    "teacher_majority": "the teacher's majority vote",
    "teacher_weighted": "the teacher's weighted vote",
    "teacher_log_odds": "the teacher's vote by log-odds",
    "teacher_em": "the teacher's vote by EM",
    "sft": "the student after SFT",
    "sft_grpo": "the student after SFT and GRPO",
    "champion": "the champion until now",
}


def _verdict(inputs: Inputs) -> str:
    failed = [check for check in inputs.gate["checks"] if not check["passed"]]
    if inputs.gate["decision"] == "promote":
        version = inputs.outcome.get("version") if inputs.outcome.get("promoted") else None
        return f"Promoted as version {version}." if version else "The gate let the candidate pass."
    return f"Rejected by the gate: {len(failed)} of {len(inputs.gate['checks'])} checks failed."


def _comparisons(inputs: Inputs) -> list[str]:
    wanted = ("teacher_single", "sft", "champion")
    paired = [p for p in inputs.evaluation["paired"] if p["better"] == inputs.candidate and p["worse"] in wanted]
    if not paired:
        return []
    told = "; ".join(f"{_points(p['difference'])} against {spoken(p['worse'])} ({_clear(p)})" for p in paired)
    ceiling = inputs.evaluation["arms"].get("ceiling")
    most = (
        f" Whoever answers every question cannot exceed an F1 of about {_percent(ceiling['f1'])} on these users."
        if ceiling
        else ""
    )
    return [f"In F1 that is {told}.{most}"]


def _clear(paired: Mapping[str, Any]) -> str:
    if paired["low"] > 0 or paired["high"] < 0:
        return f"interval {_signed(paired['low'])} to {_signed(paired['high'])}, clear of zero"
    return f"interval {_signed(paired['low'])} to {_signed(paired['high'])}, so it may be chance"


def _tiles(inputs: Inputs) -> Html:
    evaluation, found = inputs.evaluation, inputs.evaluation["arms"][inputs.candidate]
    accepted, ceiling = evaluation["at_thresholds"], evaluation["arms"].get("ceiling")
    tiles = [
        ("F1", _percent(found["f1"]), f"95% interval {_interval(found['f1_ci'])}"),
        (
            "Precision",
            _percent(accepted["precision"]),
            f"on the {_percent(accepted['coverage'])} it answers",
        ),
        (
            "Calibration error",
            _percent(found["ece"]) if found["ece"] is not None else "–",
            "expected (ECE), of the stated score",
        ),
    ]
    if ceiling and ceiling["f1"]:
        tiles.append(
            (
                "Of the ceiling",
                _percent(found["f1"] / ceiling["f1"]),
                f"whose F1 is {_percent(ceiling['f1'])}",
            )
        )
    tiles.append(("Test users", f"{evaluation['users'].get('test', 0):,}", "measured with true labels"))
    return element(
        "div",
        *(
            element("div", element("span", name), element("b", value), element("span", note), class_="tile")
            for name, value, note in tiles
        ),
        class_="tiles",
    )


def _differences(paired: Sequence[Mapping[str, Any]]) -> Html:
    rows = [
        [
            f"{_capital(spoken(p['better']))} − {spoken(p['worse'])}",
            _points(p["difference"]),
            f"{_signed(p['low'])} to {_signed(p['high'])}",
            "clear of zero" if p["low"] > 0 or p["high"] < 0 else "may be chance",
        ]
        for p in paired
    ]
    return _table(["Difference", "F1", "95% interval", ""], rows)


def _by_attribute(arms: Mapping[str, Any], chosen: int) -> Html:
    attributes = list(next(iter(arms.values()))["per_attribute"])
    rows = [
        [arm_title(name), *(_percent(arm["per_attribute"][attribute]["f1"]) for attribute in attributes)]
        for name, arm in arms.items()
    ]
    return _table(["Arm", *attributes], rows, chosen)


def _hierarchy_table(inputs: Inputs) -> Html:
    rows = [
        [
            arm_title(name),
            f"{_signed(found['slope'])} ({_signed(found['slope_low'])} to {_signed(found['slope_high'])})",
            _percent(found["top_share"]),
            f"{found['mean_level']:.2f}",
            "passed" if found["passed"] else " and ".join(k for k in ("flat", "inflated") if found[k]),
        ]
        for name, found in inputs.evaluation["hierarchy"].items()
    ]
    return _table(["Arm", "Points of precision a level", "At level 5", "Mean level", "Check"], rows)


def _thresholds_table(inputs: Inputs) -> Html:
    chosen = inputs.evaluation["thresholds"]
    return join(
        element(
            "p",
            "Chosen on the validation users; an answer below its attribute's level is not given.",
            class_="note",
        ),
        _table(list(chosen), [[f"level {level}" for level in chosen.values()]]),
    )


def _why_nothing_is_served(gate: Mapping[str, Any]) -> list[Html]:
    failed = [check for check in gate["checks"] if not check["passed"]]
    if not failed:
        return []
    return [element("p", "There is nothing to serve, because the gate rejected the model:"), _checks(failed)]


def _checks(checks: Sequence[Mapping[str, Any]]) -> Html:
    """The gate's checks with their messages, each marked as passed or failed."""
    items = [
        element(
            "li",
            element(
                "span",
                "passed" if check["passed"] else "failed",
                class_="badge" if check["passed"] else "badge failed",
            ),
            element("div", element("b", check["name"].replace("_", " ")), element("br"), check["message"]),
        )
        for check in checks
    ]
    return element("ul", *items, class_="reasons")


def _section(title: str, lead: str, *children: Child) -> Html:
    return element("section", element("h2", title), element("p", lead, class_="lead"), *children)


def _charts(*charts: Html) -> Html:
    return element("div", *charts, class_="charts")


def _table(head: Sequence[str], rows: Sequence[Sequence[Child]], chosen: int | None = None) -> Html:
    body = [
        element("tr", *(element("td", cell) for cell in row), class_="chosen" if number == chosen else None)
        for number, row in enumerate(rows)
    ]
    top = element("thead", element("tr", *(element("th", name) for name in head)))
    return element("div", element("table", top, element("tbody", *body)), class_="scroll")


def _facts(facts: Mapping[str, Any]) -> Html:
    return element(
        "dl",
        *(join(element("dt", name), element("dd", str(value))) for name, value in facts.items()),
        class_="facts",
    )


def _scalars(prefix: str, report: Mapping[str, Any]) -> dict[str, str]:
    shown = {k: v for k, v in report.items() if isinstance(v, str | int | float) and not isinstance(v, bool)}
    return {
        (prefix + key.replace("_", " ")).strip(): f"{value:,.4g}" if isinstance(value, float) else str(value)
        for key, value in shown.items()
    }


def _with_interval(arm: Mapping[str, Any], metric: str) -> Html:
    interval = element("span", f"({_interval(arm[f'{metric}_ci'])})", class_="soft")
    return join(f"{100 * arm[metric]:.1f} ", interval)


def _interval(limits: Sequence[float]) -> str:
    return f"{100 * limits[0]:.1f} to {100 * limits[1]:.1f}"


def _percent(value: float) -> str:
    return f"{100 * value:.1f}%"


def _signed(value: float) -> str:
    return f"{100 * value + 0.0:+.1f}".replace("-", "−")


def _points(value: float) -> str:
    return f"{_signed(value)} points"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
