"""The check before a run: what cannot work stops it, what looks wrong is said, each with what to do."""

import json
from datetime import timedelta

import pytest
import yaml
from click.testing import CliRunner

from benchmarks.scale import inputs
from conf_profile.cli.main import cli
from conf_profile.dialogue import task as tasks
from conf_profile.errors import ConfProfileError
from pipelines.check.champion import find_differences, find_missing_features
from pipelines.check.cost import FIGURES
from support.own_tables import DAY, LEXICON, TASK, events, forms, labels, snapshots, user_ids, write_own_tables

USERS = user_ids(600)


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """A working directory of its own, and no store that somebody's environment names."""
    monkeypatch.chdir(tmp_path)
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def call(*arguments):
    return CliRunner().invoke(cli, list(arguments))


def check(*arguments):
    result = call("check", "--dataset", "parquet", "--data", "my_tables", "--json", *arguments)
    assert result.exit_code in (0, 2), result.output
    found = json.loads(result.stdout)
    assert bool(found["errors"]) == (result.exit_code == 2)
    return found


def good_tables(place, **changed):
    rows = {"behaviour": snapshots(USERS), "demographics": forms(USERS), "truth": labels(USERS)}
    return write_own_tables(place / "my_tables", **(rows | changed))


def only(messages):
    assert len(messages) == 1, messages
    return messages[0]


def test_a_good_folder_named_by_a_relative_path_has_nothing_to_say(place):
    good_tables(place)
    found = check()
    assert (found["errors"], found["warnings"], found["notes"]) == ([], [], [])
    assert found["data"]["source"] == str(place / "my_tables")
    people = found["people"]
    assert (people["behaviour"], people["demographics"], people["both"], people["profiled"]) == (600, 600, 600, 600)
    assert (people["keyphrases_median"], people["keyphrases_95"], people["cut_share"]) == (4, 4, 0)
    assert sum(people["splits"].values()) == 600
    assert found["labels"]["test"] == people["splits"]["test"] == found["labels"]["test_by_attribute"]["age"]
    assert found["labels"]["half_width"] == pytest.approx(0.98 / people["splits"]["test"] ** 0.5)
    # The users whom the teacher is asked about.
    assert found["lexicon"] == {"users": 490, "informed": 490, "keyphrases": 1960, "found": 490}
    assert found["champion"]["version"] is None
    assert [message["role"] for message in found["prompt"]] == ["system", "user"]
    assert found["prompt"][1]["content"] == "borrowed: rose pruning; book 0; book 1; book 2\nlibrary branch: north"


def test_the_terminal_shows_the_same_and_one_prompt(place):
    good_tables(place)
    result = call("check", "--dataset", "parquet", "--data", "my_tables")
    assert result.exit_code == 0
    assert "users       600 in behaviour, 600 in demographics, 600 in both; 600 with consent" in result.output
    assert "  borrowed: rose pruning; book 0; book 1; book 2\n  library branch: north" in result.output


def test_a_check_writes_nothing(place):
    good_tables(place)
    before = sorted(place.rglob("*"))
    check()
    assert sorted(place.rglob("*")) == before


def test_requests_tokens_and_cost_follow_from_users_samples_and_prices(place):
    good_tables(place)
    teacher = ["--set=teacher.kind=openai", "--set=teacher.base_url=https://example.com/v1", "--set=teacher.model=m"]
    found = check(*teacher, "--set=teacher.samples=3", "--price=2", "--answer-price=8")["teacher"]
    asked = 600 - check()["people"]["splits"]["second_stage"]
    assert found["answers"] == 3 * asked
    assert found["most_answer_tokens"] == 3 * asked * 512
    assert found["most_cost"] == pytest.approx((2 * found["prompt_tokens"] + 8 * found["most_answer_tokens"]) / 1e6)
    assert 0 < found["least_cost"] < found["most_cost"]


def test_a_budget_below_the_requests_and_a_missing_key_are_warnings(place, monkeypatch):
    good_tables(place)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    teacher = ["--set=teacher.kind=openai", "--set=teacher.base_url=https://example.com/v1", "--set=teacher.model=m"]
    key, budget = check(*teacher, "--set=teacher.max_requests=100")["warnings"]
    assert key.startswith("OPENAI_API_KEY is not set")
    assert budget.startswith("teacher.max_requests 100 is below the 4,")


@pytest.mark.parametrize("other", [user_ids(600, "x"), [f"{number}.0" for number in range(600)]])
def test_ids_that_differ_between_the_tables_are_an_error_that_shows_some_of_both(place, other):
    good_tables(place, demographics=forms(other))
    message = next(each for each in check()["errors"] if "both tables" in each)
    assert "'u0000', 'u0001', 'u0002'" in message
    assert repr(sorted(other)[0]) in message
    assert message.endswith("write a user's id alike in every table")


def test_few_users_in_both_tables_are_a_warning_that_names_nobody(place):
    good_tables(place, behaviour=snapshots([*USERS[:300], *user_ids(300, "x")]))
    message = only(check()["warnings"])
    assert message.startswith("300 users are in both tables, of 600 in behaviour.parquet and 600 in demographics")
    assert "u0" not in message


def test_one_row_an_event_is_an_error_that_names_the_way_to_snapshots(place):
    good_tables(place, behaviour=events(USERS))
    message = only(check()["errors"])
    assert message.startswith("600 of 600 users have several rows in behaviour.parquet with one keyphrase at most")
    assert "one row a user and moment" in message


def test_a_prompt_that_cuts_many_keyphrases_is_a_warning_with_the_share_and_the_setting(place):
    good_tables(place, behaviour=snapshots(USERS, keyphrases=17))
    message = only(check()["warnings"])
    assert message.startswith("prompt.max_keyphrases 10 cuts 41% of the keyphrases (median 17 a user")
    assert check("--set=prompt.max_keyphrases=17")["warnings"] == []


def test_the_check_reads_what_is_known_at_the_moment_of_the_run(place):
    """The latest row up to features.as_of decides, of consent and of behaviour."""
    later = DAY + timedelta(days=2)
    withdrawn = [row | {"event_timestamp": later, "consent": False} for row in forms(USERS[:100])]
    grown = [row | {"event_timestamp": later} for row in snapshots(USERS, keyphrases=8)]
    good_tables(place, behaviour=[*grown, *snapshots(USERS)], demographics=[*withdrawn, *forms(USERS)])
    people = check()["people"]
    assert (people["profiled"], people["without_consent"], people["keyphrases_median"]) == (500, 100, 8)
    people = check("--set=features.as_of=2025-01-02T00:00:00+00:00")["people"]
    assert (people["profiled"], people["without_consent"], people["keyphrases_median"]) == (600, 0, 4)


def test_nobodys_consent_is_an_error(place):
    good_tables(place, demographics=forms(USERS, consent=False))
    assert any("none of 600 users of demographics.parquet had given consent" in each for each in check()["errors"])


def test_labels_that_match_nobody_are_an_error(place):
    good_tables(place, truth=labels(user_ids(600, "x")))
    assert only(check()["errors"]).startswith("none of 600 users of labels.parquet will be profiled")


def test_few_labels_are_a_warning_with_the_number_of_test_users_and_the_interval(place):
    good_tables(place, truth=labels(USERS[:30]))
    found = check()
    test = found["labels"]["test"]
    assert 0 < test < 15
    assert f"{test} labelled test users: the 95% interval of an attribute is up to ±" in only(found["warnings"])


def test_an_attribute_without_a_label_of_a_test_user_is_a_warning(place):
    good_tables(place, truth=[row for row in labels(USERS) if row["attribute"] == "age"])
    assert only(check()["warnings"]).startswith("no test user has a label of gender")


def test_no_labels_are_told(place):
    good_tables(place, truth=())
    found = check()
    assert (found["errors"], found["labels"]) == ([], None)
    assert only(found["warnings"]).startswith("labels: there are none, so the run is unjudged, and its model will be")
    allowed = check("--set=gate.unjudged=allow", "--set=gate.unjudged_levels={age: 4}")
    assert (allowed["errors"], allowed["warnings"]) == ([], [])
    assert only(allowed["notes"]).startswith("labels: there are none, so the run is unjudged; gate.unjudged allows")
    strange = check("--set=gate.unjudged=allow", "--set=gate.unjudged_levels={height: 4}")
    assert "names 'height', which the taxonomy does not have" in only(strange["errors"])


def test_a_lexicon_that_finds_nothing_is_an_error(place):
    good_tables(place, lexicon=LEXICON.replace("rose pruning", "tax return"))
    assert only(check()["errors"]).startswith("the lexicon knows nothing of any of 490 users")


def test_a_lexicon_with_capitals_finds_what_it_means(place):
    good_tables(place, lexicon=LEXICON.replace("rose pruning", "Rose Pruning"))
    assert check()["lexicon"]["informed"] == 490


def test_no_lexicon_for_the_teacher_that_needs_one_is_an_error(place):
    good_tables(place, lexicon=None)
    assert only(check()["errors"]).startswith("teacher.kind 'lexicon' needs a lexicon")


@pytest.mark.parametrize("command", ["check", "run"])
@pytest.mark.parametrize("out", ["occupied", "occupied/run"])
def test_an_out_that_is_a_file_is_one_line(place, out, command):
    good_tables(place)
    (place / "occupied").write_text("")
    result = call(command, "--dataset", "parquet", "--data", "my_tables", "--out", out)
    said = result.output + str(result.exception)
    assert f"{place / out}: {place / 'occupied'} is a file, not a folder; give another --out" in said
    assert "Traceback" not in said


def test_an_out_that_nobody_can_write_is_one_line(place):
    """Not even root can make a folder there, whom permissions do not stop."""
    good_tables(place)
    result = call("run", "--dataset", "parquet", "--data", "my_tables", "--out", "/proc/run")
    assert isinstance(result.exception, ConfProfileError)
    assert "/proc/run" in str(result.exception)
    assert str(result.exception).endswith("give another --out")


def test_a_model_that_is_named_by_a_path_must_be_there(place):
    good_tables(place)
    found = check("--set=student.source=pretrained", "--set=student.model=./models/mine")
    assert only(found["errors"]).startswith(f"student.model: there is no folder {place / 'models' / 'mine'}")


def test_what_is_no_data_set_at_all_is_an_error_too(place):
    assert only(check()["errors"]).startswith(f"{place / 'my_tables'}: is no folder")


def test_a_run_refuses_what_the_check_refuses_before_its_first_step(place):
    good_tables(place, truth=labels(user_ids(600, "x")))
    result = call("run", "--dataset", "parquet", "--data", "my_tables", "--out", "out")
    assert "nothing was started:\n  - none of 600 users of labels.parquet" in str(result.exception)
    assert not (place / "out" / "workspace" / "arguments.json").exists()


def test_tables_without_a_data_sets_name_are_somebodys_own(place):
    good_tables(place)
    result = call("config", "--data", "my_tables")
    assert "my_tables: has behaviour.parquet, so the data set is parquet" in result.stderr
    data = yaml.safe_load(result.stdout)["data"]
    assert (data["name"], data["path"], data["users"]) == ("parquet", str(place / "my_tables"), None)


@pytest.mark.parametrize("arguments", [["--data", "empty"], ["--data", "my_tables", "--dataset", "world"]])
def test_a_folder_that_the_generated_world_would_not_read_is_refused(place, arguments):
    good_tables(place)
    (place / "empty").mkdir()
    result = call("config", *arguments)
    assert "the data set 'world' is generated and reads no folder; give --dataset parquet" in str(result.exception)


def test_a_configuration_file_with_a_path_needs_nothing_else(place):
    good_tables(place)
    (place / "configurations").mkdir()
    (place / "configurations" / "mine.yaml").write_text("data: {name: parquet, path: my_tables}\n")
    result = call("check", "--config", "configurations/mine.yaml", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["data"]["source"] == str(place / "my_tables")


def test_relative_models_become_absolute_and_names_of_a_hub_stay(place):
    (place / "models" / "mine").mkdir(parents=True)

    def student(model):
        output = call("config", "--set=student.source=pretrained", f"--set=student.model={model}").output
        return yaml.safe_load(output)["student"]["model"]

    assert student("models/mine") == student("./models/mine") == str(place / "models" / "mine")
    assert student("Qwen/Qwen3-8B") == "Qwen/Qwen3-8B"


@pytest.mark.parametrize(
    ("change", "differences", "missing"),
    [
        ({}, [], []),
        ({"instruction": "You infer who reads."}, [], []),
        ({"attributes": {"age": ["25+", "18-24"], "gender": ["female", "male"]}}, [], []),
        ({"attributes": {"age": ["18-24", "25+"]}}, ["attribute gender is new"], []),
        ({"attributes": TASK["attributes"] | {"job": ["cook", "nurse"]}}, ["attribute job is gone"], []),
        (
            {"attributes": TASK["attributes"] | {"age": ["18-24", "25-64"]}},
            ["age has the tags 18-24, 25+ (before: 18-24, 25-64)"],
            [],
        ),
        ({"features": {"borrowed": "list"}}, [], []),
        ({"features": TASK["features"] | {"visits": "number"}}, [], ["visits (number) is missing"]),
    ],
)
def test_what_a_champions_task_may_differ_in(change, differences, missing):
    task, other = tasks.parse(TASK), tasks.parse(TASK | change)
    assert find_differences(task, other) == differences
    assert find_missing_features(task, other) == missing


def test_the_figures_a_user_are_those_of_the_scale_page():
    known = inputs.read().figures
    assert {name: known[name].value for name in FIGURES} == pytest.approx(dict(FIGURES), rel=0.01)


def test_the_task_of_the_tests_is_a_task_of_its_own():
    assert not set(TASK["features"]) & {"watch", "search", "submit", "self_age", "self_gender", "signature", "region"}


def test_a_task_without_scalar_features(place):
    task = {"attributes": TASK["attributes"], "features": {"borrowed": "list"}}
    good_tables(place, task=task)
    found = check()
    assert found["errors"] == [] and found["people"]["profiled"] == 600
    assert "from what is known of the user" in found["prompt"][0]["content"]
    assert found["prompt"][-1]["content"] == "borrowed: rose pruning; book 0; book 1; book 2"


@pytest.mark.parametrize(("name", "column"), [("behaviour", "borrowed"), ("demographics", "branch")])
def test_a_huge_cell_is_an_error_with_its_place(place, name, column):
    rows = {"behaviour": snapshots(USERS), "demographics": forms(USERS)}
    huge = "x" * 2_000_000
    rows[name][7] |= {column: [huge] if column == "borrowed" else huge}
    good_tables(place, **rows)
    path = place / "my_tables" / f"{name}.parquet"
    assert f"{path}: row 7: the column {column!r} has a text of more than 1 MiB" in only(check()["errors"])


def test_a_folder_that_is_not_there_is_told_so(place):
    assert "nowhere: there is no such folder" in str(call("check", "--data", "nowhere").exception)
