"""The report: every part is there, nothing is loaded from elsewhere, and foreign text stays text."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.gate import step as gate_step
from components.report import figures, task
from components.report.charts import Scale, Series, bar_chart, line_chart
from components.report.inputs import curve
from components.report.markup import element, join
from components.report.step import run
from conf_profile.config import GateConfig, RunConfig
from conf_profile.data import run_folder
from conf_profile.dialogue.reasons import AnswerForm
from conf_profile.errors import DataError
from conf_profile.storage import configuration_file
from support.evaluation_world import World
from support.report_page import serving_command

VOID = {"meta", "br", "hr"}
HOSTILE = "<script>alert(1)</script>"


class Outline(HTMLParser):
    """Checks that tags are closed in order, and collects headings, captions, tags and attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.headings: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag, attrs) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data) -> None:
        self.text.append(data)
        if self.open and self.open[-1] in ("h1", "h2", "h3", "figcaption"):
            self.headings.append(data)


def outline(page: str) -> Outline:
    parser = Outline()
    parser.feed(page)
    parser.close()
    assert parser.open == []
    return parser


class Run:
    """A run's JSON files, computed by evaluation and gate, and the report made of them."""

    ARTEFACTS = ("evaluation", "gate", "labelling", "features", "sft", "grpo", "filtering", "reference", "outcome")

    def __init__(self, world: World, with_champion: bool = False, gate: GateConfig | None = None) -> None:
        """With a `gate` of its own it is a run without labels."""
        self.folder = world.folder
        predictions = {
            "base": world.silent("base"),
            "sft": world.predict("sft", 0.6),
            "sft_grpo": world.predict("sft_grpo", 0.7),
        }
        if with_champion:
            predictions["champion"] = world.predict("champion", 0.9)
        if gate is None:
            world.score(predictions, world.candidates(0.5), world.predict("ceiling", 0.9))
        else:
            world.score_without_labels(predictions, world.candidates(0.5))
        gate_step.run(self.folder / "evaluation.json", self.folder / "gate.json", gate or GateConfig())
        counts = {name: [1, 2, 3, 4, 5] for name in world.taxonomy.names}
        self.write("labelling", {"users": 120, "raw_levels": counts, "calibrated_levels": counts})
        self.write("features", {"users": 240, "dropped_without_consent": 7})
        self.write("sft", [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.5}])
        self.write("grpo", [{"step": n, "reward": n / 9, "kl": 0.1, "entropy": 1.0} for n in range(5)])
        self.write("filtering", {"users": 10, "kept": 8, "before": [1, 2, 7], "after": [1, 2, 5]})
        self.write("reference", {"users": 10, "stated_levels": [1, 2, 3, 4, 5]})
        uri = "champion://conf-profile/models/conf-profile@v7"
        self.write("outcome", {"promoted": True, "version": "v7", "uri": uri})

    def write(self, name: str, content) -> None:
        (self.folder / f"{name}.json").write_text(json.dumps(content))

    def report(self, config_yaml: str | None = None, leave_out: tuple[str, ...] = ()) -> str:
        def path(name: str):
            return None if name in leave_out else self.folder / f"{name}.json"

        target = self.folder / "report.html"
        inputs = ("labelling", "features", "sft", "grpo", "filtering", "reference")
        run(
            self.folder / "evaluation.json",
            self.folder / "gate.json",
            *(path(name) for name in inputs),
            self.folder / "outcome.json",
            target,
            config_yaml if config_yaml is not None else RunConfig().to_yaml(),
        )
        return target.read_text(encoding="utf-8")


@pytest.fixture
def finished(tmp_path) -> Run:
    return Run(World(tmp_path))


def test_all_sections_and_figures_are_there(finished: Run) -> None:
    found = outline(finished.report()).headings
    for heading in (
        "Results", "The gate's decision", "Confidence", "Training", "Slices", "Confusion",
        "Data and labelling",
        "The model", "Serve it", "Configuration", "Default thresholds",
        "F1 of every arm, with 95% intervals", "Teacher: verbal and calibrated confidence",
        "Student (reference pass): stated and calibrated confidence",
        "Students: confidence on the test users",
        "Reliability", "Precision over the threshold τ", "Recall over the threshold τ", "SFT: loss",
        "GRPO: reward", "GRPO: KL divergence", "GRPO: entropy", "Difficulty filter",
        "F1 by slice of the test users", "age", "gender",
    ):  # fmt: skip
        assert heading in found
    # The log has no agreement: no empty chart is drawn for it.
    assert "GRPO: agreement" not in found


def test_headline_and_every_reason_are_in_words(finished: Run) -> None:
    page = "".join(outline(finished.report()).text)
    evaluation = json.loads((finished.folder / "evaluation.json").read_text())
    assert "Promoted as version v7." in page
    assert f"reaches an F1 of {100 * evaluation['arms']['sft_grpo']['f1']:.1f}%" in page
    for check in json.loads((finished.folder / "gate.json").read_text())["checks"]:
        assert check["message"] in page
    assert serving_command(finished.report()) == [
        "conf-profile",
        "serve",
        "champion://conf-profile/models/conf-profile@v7",
    ]
    assert "quasi_ground_truth: reference" in page


def test_rejection_is_told_with_its_failed_check_and_offers_no_model(tmp_path) -> None:
    rejected = Run(World(tmp_path), with_champion=True)
    rejected.write("outcome", {"promoted": False, "version": None, "uri": None})
    page = "".join(outline(rejected.report()).text)
    assert "Rejected by the gate" in page
    assert "conf-profile serve" not in page
    of_the_model = page.partition("Nothing was promoted in this run")[2]
    assert "There is nothing to serve, because the gate rejected the model:" in of_the_model
    checks = json.loads((rejected.folder / "gate.json").read_text())["checks"]
    assert {check["message"] in of_the_model for check in checks if not check["passed"]} == {True}
    assert {check["message"] in of_the_model for check in checks if check["passed"]} == {False}


def test_the_number_of_labelled_users_is_shown_wherever_a_figure_stands_on_them(tmp_path) -> None:
    world = World(tmp_path)
    kept = {key: tag for key, tag in world.truth.items() if int(key[0][1:]) < 60 or key[1] == "age"}
    world.write_labels(kept)
    page = "".join(outline(Run(world).report()).text)
    assert "on the true labels of all 120 test users (age 120, gender 30)" in page
    assert "Test users120of 120 have true labels: age 120, gender 30" in page
    assert "age (n=120)" in page and "gender (n=30)" in page
    assert "measured on all 120 test users (age 120, gender 30)" in page


def test_the_page_says_how_the_teachers_answers_were_read(finished: Run) -> None:
    forms, reasons = {AnswerForm.EXACT: 700, AnswerForm.OTHER_FORM: 100}, {AnswerForm.OTHER_TAG: 200}
    finished.write("labelling", {"users": 120, "answers": {"forms": forms, "reasons": reasons}})
    page = outline(finished.report())
    text = "".join(page.text)
    assert "The teacher's answers, by how they were read" in page.headings
    for cells in ("well-formed80080.0%", "malformed20020.0%", "malformed: a tag outside the task20020.0%"):
        assert cells in text


def test_a_run_without_labels_has_a_page_that_says_so_and_shows_what_is_known(tmp_path) -> None:
    rejected = Run(World(tmp_path), with_champion=True, gate=GateConfig())
    rejected.write("labelling", {"vote": "em"})
    rejected.write("outcome", {"promoted": False, "version": None, "uri": None})
    page = outline(rejected.report())
    text = " ".join("".join(page.text).split())
    assert "Rejected: unjudged. There are no true labels, so nobody knows how often its answers are right." in text
    assert "--set gate.unjudged=allow" in text
    for heading in ("What can be said without labels", "By attribute", "To choose the least levels by", "Confidence"):
        assert heading in page.headings
    for heading in ("Results", "Slices", "Confusion", "Reliability", "Default thresholds", "Given levels", "Serve it"):
        assert heading not in page.headings
    assert "Student after SFT + GRPO = Teacher, vote by EM" in text
    assert "Student after SFT + GRPO = Champion until now" in text
    assert "The last four columns compare the candidate with Teacher, vote by EM." in text
    assert "Students: confidence on the test users" in page.headings


def test_an_unjudged_promotion_is_marked_and_names_the_given_levels(tmp_path) -> None:
    promoted = Run(World(tmp_path), gate=GateConfig(unjudged="allow", unjudged_levels={"age": 2}))
    text = " ".join("".join(outline(promoted.report()).text).split())
    assert "Promoted as version v7, unjudged." in text
    assert "None of them is a judgement" in text
    assert "The new champion, unjudged: its card and every answer of its API say so." in text
    assert "agelevel 2 gendernever accepted" in text
    assert serving_command(promoted.report())[-1] == "champion://conf-profile/models/conf-profile@v7"


def test_the_command_names_the_runs_own_store_and_folder(finished: Run, tmp_path) -> None:
    place = configuration_file.write(RunConfig(storage={"endpoint": "http://s3.example.com"}), tmp_path / "workspace")
    arguments = [SimpleNamespace(path=finished.folder / f"{name}.json") for name in Run.ARTEFACTS]
    page = SimpleNamespace(path=tmp_path / "page.html")

    def options() -> list[str]:
        task.run(*arguments, page, place)
        return serving_command(page.path.read_text(encoding="utf-8"))[3:]

    assert options() == ["--endpoint", "http://s3.example.com"]
    (tmp_path / "workspace" / "arguments.json").write_text("{}")
    assert options() == ["--endpoint", "http://s3.example.com", "--run", str(tmp_path)]


def test_warnings_of_the_check_are_in_the_report(finished: Run, tmp_path) -> None:
    names = ("evaluation", "gate", "labelling", "features", "sft", "grpo", "filtering", "reference", "outcome")
    arguments = [SimpleNamespace(path=str(finished.folder / f"{name}.json")) for name in names]
    page, folder = SimpleNamespace(path=str(tmp_path / "page.html")), tmp_path / "run"
    place = configuration_file.write(RunConfig(), folder / "workspace")
    (folder / run_folder.ARGUMENTS).write_text("{}")

    def warnings() -> list[str]:
        task.run(*arguments, page, place)
        text = (tmp_path / "page.html").read_text(encoding="utf-8")
        return re.findall(r"<li>(.*)</li>", text) if "Warnings" in outline(text).headings else []

    assert warnings() == []
    run_folder.write_warnings(folder, ["6 labelled <test> users"])
    assert warnings() == ["6 labelled &lt;test&gt; users"]


def test_nothing_is_loaded_from_elsewhere(finished: Run) -> None:
    page = finished.report()
    found = outline(page)
    assert not {"script", "link", "img", "iframe", "object", "embed", "base"} & set(found.tags)
    assert not {"src", "href", "srcset", "xlink:href", "action"} & {name for name, _ in found.attributes}
    assert not re.search(r"https?://|url\(|@import|//cdn", page)


def test_markup_in_tags_regions_and_configuration_is_escaped(tmp_path) -> None:
    hostile = Run(World(tmp_path))
    text = (hostile.folder / "evaluation.json").read_text().replace("north", "<img src=x onerror=alert(1)>")
    evaluation = json.loads(text.replace('"gender"', json.dumps(HOSTILE)))
    evaluation["arms"][f'"><{HOSTILE}'] = evaluation["arms"]["sft"]
    # A taxonomy refuses such a tag; the report must not depend on that.
    next(iter(evaluation["arms"]["sft_grpo"]["confusion"].values()))["tags"][0] = HOSTILE
    hostile.write("evaluation", evaluation)
    gate = json.loads((hostile.folder / "gate.json").read_text())
    gate["checks"][0]["message"] = HOSTILE
    hostile.write("gate", gate)
    hostile.write("outcome", {"promoted": True, "version": HOSTILE, "uri": "s3://b/$(reboot)"})
    hostile.write("features", {HOSTILE: HOSTILE})
    page = hostile.report(config_yaml=f"preset: '{HOSTILE}'\n")
    found = outline(page)
    assert not {"script", "img"} & set(found.tags)
    assert "onerror" not in {name for name, _ in found.attributes}
    assert HOSTILE not in page
    assert HOSTILE in "".join(found.text)
    assert serving_command(page) == ["conf-profile", "serve", "s3://b/$(reboot)"]
    assert "serve 's3://b/$(reboot)'" in "".join(found.text)


def test_optional_inputs_may_be_missing(finished: Run) -> None:
    page = finished.report(leave_out=("labelling", "features", "sft", "grpo", "filtering", "reference"))
    assert "Nothing was recorded." in "".join(outline(page).text)


def test_missing_or_broken_inputs_are_named(finished: Run) -> None:
    (finished.folder / "gate.json").write_text("{")
    with pytest.raises(DataError, match=r"gate\.json: not valid JSON"):
        finished.report()
    finished.write("gate", {"decision": "promote"})
    with pytest.raises(DataError, match="'checks' is missing"):
        finished.report()
    finished.write("sft", {"loss": 1})
    with pytest.raises(DataError, match=r"sft\.json: expected a JSON list"):
        finished.report()
    (finished.folder / "gate.json").unlink()
    with pytest.raises(DataError, match=r"gate\.json: cannot be read"):
        finished.report()


def test_curve_leaves_out_what_is_no_number() -> None:
    log = [{"step": 1, "loss": 2}, {"step": 2}, {"step": 3, "loss": float("nan")}, {"step": 4, "loss": "x"}]
    assert curve([*log, {"loss": 1.0}, {"step": 5, "loss": True}], "loss") == ((1.0, 2.0),)


def test_tag_called_none_is_not_taken_for_no_answer(finished: Run) -> None:
    content = json.loads((finished.folder / "evaluation.json").read_text())
    matrix = {"tags": ["artist", "none"], "matrix": [[5, 1, 0], [0, 6, 4]]}
    content["arms"]["sft_grpo"]["confusion"] = {"occupation": matrix}
    finished.write("evaluation", content)
    page = finished.report()
    assert page.count('class="cell right"') == 2
    assert "true none, predicted (no answer): 4 (40% of the row)" in page


@settings(deadline=None)
@given(st.text())
def test_text_is_never_markup(text: str) -> None:
    page = element("p", text, title=text)
    parser = Outline()
    parser.feed(page)
    parser.close()
    assert parser.tags == ["p"]
    assert [name for name, _ in parser.attributes] == ["title"]
    assert join(join(text)) == join(text)


@settings(deadline=None)
@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6))
def test_ticks_lie_inside_the_scale_and_are_few(low: float, width: float) -> None:
    scale = Scale(low, low + width, 0, 100)
    ticks = scale.ticks()
    assert 1 <= len(ticks) <= 8
    assert all(-1e-3 <= scale(tick) <= 100 + 1e-3 for tick in ticks)


@pytest.mark.parametrize("points", [((1.0, 0.0),), ((1.0, 5.0), (2.0, 5.0)), ((0.0, -1e-9), (1.0, 1e9))])
def test_degenerate_curves_can_be_drawn(points) -> None:
    drawn = line_chart("loss", "step", "loss", [Series("loss", points, "sft")])
    assert "nan" not in drawn and "inf" not in drawn
    outline(drawn)


def test_bars_of_zeros_can_be_drawn() -> None:
    outline(bar_chart("levels", "level", "share", ["1", "2"], [("sft", "sft", [0.0, 0.0])]))


def test_shares() -> None:
    assert figures.shares([1, 3]) == [0.25, 0.75]
    assert figures.shares([0, 0]) == [0.0, 0.0]
