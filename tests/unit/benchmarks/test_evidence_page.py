"""The evidence page: what it says of results that are written down here, and that it says nothing else."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks.evidence import plan, regimes
from benchmarks.evidence.page import expectations, page, plots, quantities, sections
from benchmarks.evidence.page.calls import PLANNED_RUNS, commands
from benchmarks.evidence.page.claims import OUR_CLAIMS, PAPER_CLAIMS
from benchmarks.evidence.page.findings import Estimate, Finding, estimate, require_all, require_any
from benchmarks.evidence.page.markdown import findings_table, interval, number, p_value
from benchmarks.evidence.page.passages import Study
from benchmarks.evidence.plan import Comparison
from benchmarks.evidence.results import Results, write, write_rows
from conf_profile.errors import DataError
from support.paths import ROOT

SEEDS = (100, 101, 102)
LEFT_OUT = ("teachers", "second_stage_regimes", "transfer")
TAGS = {"age": ("old", "young"), "gender": ("female", "male")}


def row(seed, arm, correct, answered=100, answerable=100, slice_="", attribute="", tau=0) -> dict:
    counts = {"correct": correct, "answered": answered, "answerable": answerable}
    return {"seed": seed, "arm": arm, "slice": slice_, "attribute": attribute, "tau": tau} | counts


def seen(seed, arm, **values) -> list[dict]:
    """Observations; the names' spaces are written as underscores."""
    return [{"seed": seed, "arm": arm, "name": n.replace("_", " "), "value": float(v)} for n, v in values.items()]


def by_seed(**arms) -> Results:
    """Arm -> how many of 100 cells were right, seed by seed."""
    rows = [row(seed, arm, value) for arm, values in arms.items() for seed, value in zip(SEEDS, values, strict=False)]
    return Results(rows, [])


def every_count(seed, arm, correct) -> list[dict]:
    """All the counts that a measured arm has: thresholds, groups of users, tags."""
    total = [row(seed, arm, correct * (8 - tau) // 8, 100 - 14 * tau, tau=tau) for tau in range(6)]
    parts = [
        row(seed, arm, correct * (8 - tau) // 8, 100 - 14 * tau, attribute=name, tau=tau)
        for name in TAGS
        for tau in range(6)
    ]
    groups = [row(seed, arm, correct // 2, 50, 50, slice_=name) for name in ("region: north", "history: long")]
    tags = [
        row(seed, arm, correct // 4, 20 + size, 20 + size, slice_=f"tag: {tag}", attribute=name)
        for name, known in TAGS.items()
        for size, tag in enumerate(known)
    ]
    return [*total, *parts, *groups, *tags]


def every_observation(seed, arm, position) -> list[dict]:
    names = [f"{kind} {level}" for kind in ("level", "raw_levels", "calibrated_levels") for level in range(1, 6)]
    levels = dict.fromkeys(names, 10 + seed % 3 + position)
    rest = {
        "imbalance of levels": 0.1,
        "imbalance of raw_levels": 0.2,
        "imbalance of calibrated_levels": 0.05,
        "imbalance of levels, old partition": 0.1 + position / 100,
        "rise of precision, old partition": 0.1,
        "reward, first 5 steps": 0.5,
        "reward, last 5 steps": 0.75,
        "collapsed": 1,
    }
    by_tag = {
        f"{what} of {name}={tag}": value + size
        for name, known in TAGS.items()
        for size, tag in enumerate(known)
        for what, value in (("kept", 0), ("reference users", 9))
    }
    return [
        {"seed": seed, "arm": arm, "name": name, "value": float(value)}
        for name, value in (levels | rest | by_tag).items()
    ]


def results_of(name, seeds) -> Results:
    """Results of all arms of an experiment: each is a little better than the one before it."""
    arms = [(position, arm.name, seed) for position, arm in enumerate(plan.EXPERIMENTS[name].arms) for seed in seeds]
    return Results(
        [
            count
            for position, arm, seed in arms
            for count in every_count(seed, arm, 41 + position + (seed + position) ** 2 % 17)
        ],
        [observation for position, arm, seed in arms for observation in every_observation(seed, arm, position)],
    )


def cells_of(seeds, gain) -> list[dict]:
    """Regimes in which the weighted vote gets `gain(factor, seed)` more of 100 cells right than the others."""
    constant = {"answered": 100, "answerable": 100}
    return [
        {"seed": seed, "factor": factor.name, "value": float(value), "samples": count, "vote": vote}
        | constant
        | {"correct": 50 + (gain(factor.name, seed) if vote == "weighted" else 0)}
        for seed in seeds
        for factor in regimes.FACTORS
        for value in factor.values
        for count in regimes.SAMPLES
        for vote in regimes.VOTES
    ]


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """Three of five seeds on the generated world, two experiments left out; one seed of sentiment, no real people."""
    folder = tmp_path_factory.mktemp("results")
    for name in plan.EXPERIMENTS:
        if name not in LEFT_OUT:
            write(folder / "world-tiny", name, results_of(name, SEEDS))
    write_rows(folder / "world-tiny" / "regimes.parquet", cells_of(SEEDS, lambda factor, seed: 2 + seed % 2))
    write(folder / "sentiment-tiny", "transfer", results_of("transfer", SEEDS[:1]))
    return folder


@pytest.fixture(scope="module")
def docs(source, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("docs")
    page.write(source, folder)
    return folder


@pytest.fixture(scope="module")
def text(docs) -> str:
    return (docs / "evidence.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("differences", "side", "verdict"),
    [
        ((0.02, 0.03, 0.04), "above", "holds"),
        ((-0.02, -0.03, -0.04), "above", "reversed"),
        ((-0.01, 0.0, 0.03), "above", "undecided"),
        ((-0.01, 0.0, 0.03, 0.0, 0.0), "above", "does not hold"),
        ((-0.02, -0.03, -0.04), "below", "holds"),
        ((0.02, 0.03, 0.04), "below", "reversed"),
        ((0.0, 0.0, 0.0), "not below", "holds"),
        ((0.0, 0.0, 0.0), "above", "undecided"),
        ((-0.02, -0.03, -0.04), "not below", "reversed"),
        ((0.02, 0.03, 0.04), "either", "above"),
        ((-0.02, -0.03, -0.04), "either", "below"),
        ((-0.01, 0.0, 0.03, 0.0, 0.0), "either", "undecided"),
        ((0.02,), "above", "undecided"),
        ((), "above", "undecided"),
    ],
)
def test_a_direction_holds_when_the_interval_lies_clear_of_zero_on_the_expected_side(differences, side, verdict):
    assert Finding("a - b", "F1", dict(enumerate(differences)), side).verdict == verdict


@pytest.mark.parametrize(
    ("parts", "together", "one_is_enough"),
    [
        (("holds", "holds"), "holds", "holds"),
        (("holds", "undecided"), "undecided", "holds"),
        (("holds", "reversed"), "does not hold", "holds"),
        (("reversed", "reversed"), "reversed", "reversed"),
        (("reversed", "undecided"), "does not hold", "undecided"),
        (("reversed", "does not hold"), "does not hold", "does not hold"),
    ],
)
def test_the_parts_of_a_claim(parts, together, one_is_enough):
    assert require_all(parts) == together
    assert require_any(parts) == one_is_enough


def test_a_comparison_is_paired_and_its_interval_is_students():
    results = by_seed(teacher_weighted=(52, 63, 54), teacher_majority=(50, 60, 50))
    (finding,) = expectations.planned_findings("table2", results)
    assert findings_table([finding]).splitlines()[-1] == (
        "| `teacher_weighted` - `teacher_majority` | F1 | holds | +3.00 (+0.52 to +5.48) | 0.035 | 3 |"
    )


def test_only_seeds_that_have_both_arms_are_compared():
    results = by_seed(teacher_weighted=(52, 63, 54), teacher_majority=(50, 60))
    (finding,) = expectations.planned_findings("table2", results)
    assert finding.differences == pytest.approx({100: 0.02, 101: 0.03})


def test_the_share_of_the_possible_lies_between_one_sample_and_the_ceiling():
    results = by_seed(teacher_single=(40, 50), ceiling=(80, 70), sft=(60, 55), base=(0, 0))
    assert quantities.share_of_possible(results, "sft") == pytest.approx({100: 0.5, 101: 0.25})
    assert quantities.share_of_possible(results, "base") == pytest.approx({100: -1.0, 101: -2.5})
    assert quantities.share_of_possible(by_seed(sft=(60, 55), teacher_single=(40, 50)), "sft") == {}


def test_the_rise_of_precision_is_compared_between_frozen_and_self_confidence():
    def at(tau, correct, answered, arm) -> list[dict]:
        return [row(seed, arm, correct + seed % 3, answered, tau=tau) for seed in SEEDS]

    rows = at(1, 50, 100, "frozen") + at(5, 18, 25, "frozen") + at(1, 50, 100, "self") + at(5, 25, 50, "self")
    results = Results(rows + at(1, 50, 100, "none") + [row(seed, "none", 0, 0, tau=5) for seed in SEEDS], [])
    # 100 % 3 = 1, 101 % 3 = 2, 102 % 3 = 0.
    assert quantities.slope(results, "frozen") == pytest.approx({100: 0.25, 101: 0.28, 102: 0.22})
    against_self, against_none = expectations.slopes(results)
    assert against_self.differences == pytest.approx({100: 0.24, 101: 0.26, 102: 0.22})
    assert against_self.verdict == "holds"
    # Nothing was answered at 5: there is no precision, and so no rise.
    assert against_none.estimate is None


def test_precision_must_rise_and_recall_fall_from_each_threshold_to_the_next():
    results = results_of("figure5", SEEDS)
    for metric in ("precision", "recall"):
        findings = expectations.threshold_steps(results, metric)
        assert [finding.label for finding in findings[:2]] == ["`sft`: τ = 2 - τ = 1", "`sft`: τ = 3 - τ = 2"]
        assert len(findings) == 8
    assert {finding.verdict for finding in findings} == {"holds"}


def test_who_is_kept_is_weighed_by_how_many_have_the_tag():
    kept = {"kept of a=x": 0.2, "kept of a=y": 0.6, "reference users of a=x": 10, "reference users of a=y": 30}
    results = Results([row(100, "m", 50)], seen(100, "m", **kept))
    assert quantities.kept_share(results, "m", ["a=x", "a=y"]) == pytest.approx({100: 0.5})
    assert quantities.rarest_first(quantities.reference_users(results, "m")) == ["a=x", "a=y"]
    assert quantities.rarest_quarter(quantities.reference_users(results, "m")) == ["a=x"]


def test_recall_of_tags_sums_the_users_who_truly_have_one_of_them():
    rows = [
        row(100, "m", 1, 5, 10, slice_="tag: x", attribute="a"),
        row(100, "m", 6, 9, 10, slice_="tag: x", attribute="b"),
        row(100, "m", 4, 9, 10, slice_="tag: y", attribute="a"),
    ]
    assert quantities.recall_of_tags(Results(rows, []), "m", ["a=x", "a=y"]) == {100: 0.25}


def test_what_grpo_does_to_people_of_each_tag():
    sizes, right = {"x": 90, "y": 10}, {"sft": {"x": 45, "y": 5}, "sft_grpo": {"x": 63, "y": 1}}
    rows = [
        row(seed, arm, found[tag], 100, sizes[tag], slice_=f"tag: {tag}", attribute="a")
        for seed in SEEDS
        for arm, found in right.items()
        for tag in sizes
    ]
    mean, *each = expectations.recall_after_grpo(Results(rows, []))
    assert [found.of for found in each] == ["recall of a=x", "recall of a=y"]
    assert [found.differences[100] for found in (mean, *each)] == pytest.approx([-0.1, 0.2, -0.4])


def test_what_the_protocol_expects_of_a_comparison():
    assert expectations.side("transfer", Comparison("sft", "teacher_weighted")) == "either"
    assert expectations.side("table2", Comparison("teacher_em", "teacher_weighted")) == "above"
    assert expectations.side("table1", Comparison("instruct", "rl_only")) == "not below"
    assert expectations.side("second_stage", Comparison("vote_rollouts", "sft_grpo")) == "below"
    assert expectations.side("second_stage", Comparison("no_kl", "sft_grpo")) == "either"
    assert expectations.side("second_stage", Comparison("rejection_1", "sft")) == "above"


def test_numbers():
    assert interval(Estimate(0.5, 0.49, 0.512, 5)) == "50.0 (49.0 to 51.2)"
    assert interval(Estimate(0.5, None, None, 1)) == "50.0"
    assert interval(estimate({})) == "–"
    assert number(-0.0001, sign="+") == "+0.0"
    assert [p_value(p) for p in (None, 0.0004, 0.04)] == ["–", "< 0.001", "0.040"]


def test_the_summary_answers_every_claim(text):
    rows = [line for line in text.splitlines() if line.startswith("| [")]
    assert len(rows) == len(PAPER_CLAIMS) + len(OUR_CLAIMS)
    (partition,) = [line for line in rows if "Figures 3 and 9" in line]
    assert "+15.00 (+15.00 to +15.00) imbalance of levels | holds (3 of 5 seeds) |" in partition
    assert not any("not run yet" in line for line in rows)


def test_a_claim_whose_experiment_has_no_results_says_so(tmp_path):
    write(tmp_path / "in" / "world-tiny", "table2", by_seed(teacher_weighted=(52, 53), teacher_majority=(50, 51)))
    page.write(tmp_path / "in", tmp_path / "out")
    written = (tmp_path / "out" / "evidence.md").read_text(encoding="utf-8")
    assert "| [Figures 3 and 9: the partition balances the levels](#figure3) | raw confidence" in written
    assert written.count("| not run yet | – |") == sum(
        claim.experiment != "table2" for claim in (*PAPER_CLAIMS, *OUR_CLAIMS)
    )


def test_the_share_of_the_possible_has_a_column_where_it_can_be_told(text):
    table1, table3 = (text.split(f"\n## {name}\n")[1].split("\n## ")[0] for name in ("table1", "table3"))
    assert "| arm | precision | recall | F1 | share of the possible, % |" in table1
    assert re.search(r"^\| `teacher_single` .* \| 0 \(0 to 0\) \|$", table1, re.MULTILINE)
    assert re.search(r"^\| `ceiling` .* \| 100 \(100 to 100\) \|$", table1, re.MULTILINE)
    assert "| arm | precision | recall | F1 |\n" in table3


def test_sections_come_in_the_protocols_order_and_name_file_seeds_and_command(text):
    titles = re.findall(r"^## (.*)$", text, flags=re.MULTILINE)
    assert titles == [
        "How to read it",
        "In short",
        *("table1", "table2", "table3", "table5", "figure3", "figure5", "regimes", "second_stage", "transfer"),
        "Not run yet",
    ]
    assert "From `runs/evidence/world-tiny/table1.parquet`, seeds 100, 101, 102 (**3 of 5 seeds**)." in text
    assert "    conf-profile experiment table1 --first-seed 100 --seeds 5 --out runs/evidence/world-tiny\n" in text
    assert "seeds 100 (**1 of 5 seeds**)" in text.split("### transfer on sentiment-tiny")[1]


def test_experiments_without_results_are_listed_with_their_command(text):
    assert text.split("## Not run yet")[1].strip().splitlines() == [
        "- `second_stage_regimes` on world-tiny: `conf-profile experiment second_stage_regimes --first-seed 100 "
        "--seeds 2 --out runs/evidence/world-tiny`",
        "- `teachers` on world-tiny: `conf-profile experiment teachers --first-seed 100 --seeds 5 "
        "--out runs/evidence/world-tiny`",
        "- `transfer` on movielens-100k-tiny: `conf-profile experiment transfer --dataset movielens-100k "
        "--first-seed 100 --seeds 5 --out runs/evidence/movielens-100k-tiny`",
    ]


def test_the_page_says_how_many_comparisons_it_makes(tmp_path):
    write(tmp_path / "in" / "world-tiny", "table2", by_seed(teacher_weighted=(52, 54), teacher_majority=(50, 51)))
    page.write(tmp_path / "in", tmp_path / "out")
    written = (tmp_path / "out" / "evidence.md").read_text(encoding="utf-8")
    assert "make 1 comparisons that have an interval; 0 of them" in written


def test_commentary_stands_under_its_experiment_word_for_word(source, tmp_path):
    notes = "# For editors\n\n## summary\nAll in all.\n\n## table2\n\nWhy it *holds*:\n\n### A reason\n\n- one\n"
    (tmp_path / "evidence-notes.md").write_text(notes, encoding="utf-8")
    assert page.read_notes(tmp_path / "evidence-notes.md") == {
        "summary": "All in all.",
        "table2": "Why it *holds*:\n\n### A reason\n\n- one",
    }
    write(tmp_path / "in" / "world-tiny", "table2", by_seed(teacher_single=(50,)))
    page.write(tmp_path / "in", tmp_path)
    written = (tmp_path / "evidence.md").read_text(encoding="utf-8")
    assert written.index("## In short") < written.index("All in all.") < written.index("## table2")
    assert f"## table2\n\n{plan.TABLE2.question}\n\nWhy it *holds*:\n\n### A reason\n\n- one\n\n### table2" in written
    assert "editors" not in written


def test_commentary_on_an_experiment_without_results_is_not_lost_silently(tmp_path):
    (tmp_path / "evidence-notes.md").write_text("## figure5\nSoon.\n", encoding="utf-8")
    write(tmp_path / "in" / "world-tiny", "table2", by_seed(teacher_single=(50,)))
    page.write(tmp_path / "in", tmp_path)
    written = (tmp_path / "evidence.md").read_text(encoding="utf-8")
    assert "Soon." not in written
    assert "- `figure5` on world-tiny (its section of `evidence-notes.md` is left out until then): `conf" in written


@pytest.mark.parametrize(
    ("notes", "message"),
    [("## tabel2\nOops.\n", "unknown section 'tabel2'; known are summary, table1"), ("## table2\n" * 2, "twice")],
)
def test_commentary_that_would_not_be_shown_is_refused_before_anything_is_written(source, tmp_path, notes, message):
    (tmp_path / "evidence-notes.md").write_text(notes, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        page.write(source, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["evidence-notes.md"]


def test_results_that_are_missing_or_broken_are_named(tmp_path):
    with pytest.raises(DataError, match="no results in any folder of it; run `make evidence`"):
        page.find(tmp_path / "nowhere")
    (tmp_path / "world-tiny").mkdir()
    (tmp_path / "world-tiny" / "table2.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match="the results of table2 cannot be read"):
        page.find(tmp_path)


def test_the_command_line_prints_what_a_user_can_put_right(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["page", str(tmp_path), str(tmp_path)])
    with pytest.raises(SystemExit, match="2"):
        page.main()
    assert capsys.readouterr().err == f"page: {tmp_path}: no results in any folder of it; run `make evidence`\n"


def test_every_plot_is_on_the_page_small_and_well_formed(docs, text):
    pictures = sorted((docs / "evidence").glob("*.svg"))
    assert re.findall(r"\(evidence/(.*?)\)", text) and {path.name for path in pictures} == set(
        re.findall(r"\(evidence/(.*?)\)", text)
    )
    for path in pictures:
        assert ElementTree.parse(path).getroot().tag == "{http://www.w3.org/2000/svg}svg"
        assert path.stat().st_size < 150_000


def test_the_same_results_give_the_same_bytes(source, docs, tmp_path):
    (study,) = (study for study in page.find(source) if study.name == "table5")
    for picture in (passage.picture for passage in sections.passages_of(study) if passage.picture):
        plots.save(picture.figure, tmp_path / picture.name)
    for path in tmp_path.iterdir():
        assert path.read_bytes() == (docs / "evidence" / path.name).read_bytes()
        assert b"date" not in path.read_bytes()


def chapters_of(results: Path) -> list[page.Chapter]:
    """As `page.write` reads them; no picture is drawn, which takes half of its time."""
    return [page.Chapter(study, tuple(sections.passages_of(study))) for study in page.find(results)]


def test_the_page_can_be_made_again_from_the_results_that_it_keeps(docs, text):
    assert page.page(chapters_of(docs / "evidence" / "results"), {}) == text


def test_results_of_one_more_experiment_join_those_that_are_kept(tmp_path):
    for name in ("table2", "table5"):
        write(tmp_path / name / "world-tiny", name, results_of(name, SEEDS))
        page.write(tmp_path / name, tmp_path / "docs")
    text = (tmp_path / "docs" / "evidence.md").read_text(encoding="utf-8")
    assert "### table2 on world-tiny" in text and "### table5 on world-tiny" in text


def test_the_projects_own_page_is_current():
    """Commentary and results as they stand in docs/ give the page that stands there, and it has all its pictures."""
    own = ROOT / "docs"
    chapters = chapters_of(own / "evidence" / "results")
    assert page.page(chapters, page.read_notes(own / page.NOTES)) == (own / "evidence.md").read_text(encoding="utf-8")
    pictures = {one.picture.name for chapter in chapters for one in chapter.passages if one.picture}
    assert pictures == {path.name for path in (own / "evidence").glob("*.svg")}


def test_a_heat_map_marks_the_cells_whose_interval_is_clear_of_zero():
    cells = {(0, 1): Estimate(0.02, 0.01, 0.03, 5), (0, 2): Estimate(-0.01, -0.02, 0.01, 5)}
    drawn = plots.HeatMap("", "noise", (0,), "M", (1, 2, 3), cells)
    axes = plots.heat_maps([drawn], "F1").axes[0]
    assert [(shown.get_text(), shown.get_weight()) for shown in axes.texts] == [("+2.0", "bold"), ("-1.0", "normal")]
    assert len(axes.patches) == 1


def test_without_an_interval_no_cell_is_marked_and_the_plot_says_so():
    drawn = plots.HeatMap("", "noise", (0,), "M", (1,), {(0, 1): Estimate(0.02, None, None, 1)})
    figure = plots.heat_maps([drawn], "F1")
    assert figure.axes[0].texts[0].get_weight() == "normal" and not figure.axes[0].patches
    assert figure.get_suptitle() == "one seed, no interval"


def test_regimes_are_counted_by_what_is_clear_of_zero():
    study = Study("regimes", "world-tiny", Results(cells_of(SEEDS, lambda factor, seed: 4 + seed % 2), []))
    first = next(sections.passages_of(study))
    # 23 values at 6 numbers of samples, three of the values the same world and teacher.
    assert "| `weighted` - `majority`, every M | 126 | 126 | 0 | +4.33 (+2.90 to +5.77)" in first.text
    assert "| `em` - `weighted`, M = 2, 3, 5 | 63 | 0 | 63 | -4.33" in first.text
    assert first.tested == 3 * 126


def test_the_usual_world_is_a_value_of_three_factors():
    usual = {factor.name: factor.unchanged_values() for factor in regimes.FACTORS}
    assert usual == {"accuracy": [0.7], "overconfidence": [], "correlation": [0.0], "history": [], "noise": [0.3]}


def test_what_a_weak_teacher_costs():
    results = by_seed(usual_weighted=(60, 62), weak_weighted=(50, 51), usual_sft=(60, 61), weak_sft=(45, 44))
    vote, student, both = expectations.cost_of_a_weak_teacher(results)
    assert vote.differences == pytest.approx({100: 0.10, 101: 0.11})
    assert student.differences == pytest.approx({100: 0.15, 101: 0.17})
    assert both.differences == pytest.approx({100: 0.05, 101: 0.06})
    study = Study("teachers", "world-tiny", results)
    assert "| cost to the vote | F1 | above | +10.50 (+4.15 to +16.85)" in list(sections.passages_of(study))[-1].text


def test_where_the_second_stage_pays_is_a_map_of_noise_and_history():
    study = Study("second_stage_regimes", "world-tiny", results_of("second_stage_regimes", SEEDS[:2]))
    *_, shown = sections.passages_of(study)
    assert shown.text.endswith("(evidence/world-tiny-second_stage_regimes-map.svg)")
    assert shown.picture is not None
    axes = shown.picture.figure.axes[0]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["0", "0.7", "2"]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["5", "14", "50"]
    assert len(axes.texts) == 9


def test_the_calls_are_those_of_make_evidence():
    text = (ROOT / "Makefile").read_text(encoding="utf-8").replace("\\\n", " ")
    called = re.findall(r"^\t\$\(EXPERIMENT\) ([a-z0-9_ ]+?) (?:--.*)?--out \$\(EVIDENCE\)/(\S+)", text, re.MULTILINE)
    assert {(name, place) for names, place in called for name in names.split()} == set(PLANNED_RUNS)


def test_a_folder_that_the_protocol_does_not_name_is_called_by_its_name():
    assert commands("table2", "movielens-100k-smollm2", 7) == [
        "conf-profile experiment table2 --dataset movielens-100k --preset smollm2 --first-seed 7 --seeds 5 "
        "--out runs/evidence/movielens-100k-smollm2"
    ]
