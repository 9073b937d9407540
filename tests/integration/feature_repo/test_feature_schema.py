"""Features of a task of one's own, none of them called as the paper's, through Feast to the prompt."""

from datetime import UTC, datetime, timedelta

import pytest

from components.features import step
from conf_profile import tables
from conf_profile.config import FeaturesConfig
from conf_profile.dialogue import task as tasks
from conf_profile.dialogue.prompts import render_user
from conf_profile.errors import DataError, ServingError
from conf_profile.students import examples
from feature_repo import store as feature_store
from serving.transformer.features import OnlineFeatures

TASK = tasks.parse(
    {
        "attributes": {"职业": ["学生", "教师"]},
        "features": {
            "read": {"type": "list", "label": "读过"},
            "asked": "list",
            "bought": "list",
            "city": "category",
            "visits": {"type": "number", "label": "visits a month"},
            "note": "text",
        },
    }
)
AS_OF = datetime(2026, 6, 1, tzinfo=UTC)
CONFIG = FeaturesConfig()


def row(user, **values):
    return {"user_id": user, "event_timestamp": AS_OF - timedelta(days=1), **values}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    TASK.save(folder / "task.yaml")
    behaviour, demographics = tables.behaviour_table(TASK.features), tables.demographics_table(TASK.features)
    acts = [
        row("1", read=["红楼梦", "三国"], asked=[], bought=["کتاب\u200cها"]),
        row("2", read=[], asked=["x"], bought=[]),
    ]
    people = [
        row("1", city="杭州", visits=3.5, note=None, consent=True),
        row("2", city=None, visits=None, note="hi", consent=True),
        row("3", city="杭州", visits=0.0, note=None, consent=False),
    ]
    tables.write(folder / "behaviour.parquet", tables.from_rows(acts, behaviour), behaviour)
    tables.write(folder / "demographics.parquet", tables.from_rows(people, demographics), demographics)
    return folder


@pytest.fixture(scope="module")
def store(files, tmp_path_factory):
    repository = tmp_path_factory.mktemp("feast")
    opened = feature_store.open_store(
        repository, files / "behaviour.parquet", files / "demographics.parquet", CONFIG, TASK.features
    )
    feature_store.materialise(opened, AS_OF)
    return opened


@pytest.fixture(scope="module")
def people(files, tmp_path_factory):
    out = tmp_path_factory.mktemp("step")
    step.run(
        files / "behaviour.parquet", files / "demographics.parquet", files / "task.yaml", out / "features",
        out / "report.json", out / "work", AS_OF.isoformat(), CONFIG,
    )  # fmt: skip
    return {person.user_id: person for person in examples.users(tables.read_features(out / "features"))}


def test_the_step_reads_what_is_declared_and_nobody_without_consent(people):
    assert {user: dict(person.values) for user, person in people.items()} == {
        "1": {"read": ("红楼梦", "三国"), "bought": ("کتاب\u200cها",), "city": "杭州", "visits": 3.5},
        "2": {"asked": ("x",), "note": "hi"},
    }


def test_online_equals_offline(store, people):
    found = feature_store.online_features(store, ["1", "2", "3", "4"])
    assert found == [people["1"], people["2"], None, None]


def test_the_prompt_has_the_tasks_words(people):
    assert render_user(people["1"], TASK.features, 10) == (
        "读过: 红楼梦; 三国\nbought: کتاب\u200cها\ncity: 杭州\nvisits a month: 3.5"
    )


def test_a_server_refuses_a_model_with_other_features(store):
    online = OnlineFeatures(store.repo_path)
    try:
        online.require(TASK.features, "v1")
        with pytest.raises(ServingError) as refused:
            online.require(tasks.builtin("profile").features, "v2")
    finally:
        online.close()
    assert "does not have the features of the model version v2: watch (list) is missing; " in str(refused.value)
    assert "read (list) is not declared" in str(refused.value) and "register the features" in str(refused.value)


def test_tables_of_another_task_are_refused_by_name(files, tmp_path):
    tasks.builtin("profile").save(tmp_path / "task.yaml")
    with pytest.raises(DataError, match=r"lacks the column\(s\) watch, search, submit; it has user_id"):
        step.run(
            files / "behaviour.parquet", files / "demographics.parquet", tmp_path / "task.yaml", tmp_path / "f",
            tmp_path / "r", tmp_path / "w", AS_OF.isoformat(), CONFIG,
        )  # fmt: skip


def test_a_task_without_scalar_fields_has_consent_alone_in_demographics(tmp_path):
    task = tasks.parse({"attributes": {"home": ["flat", "house"]}, "features": {"text": "list"}})
    behaviour, demographics = tables.behaviour_table(task.features), tables.demographics_table(task.features)
    paths = tmp_path / "behaviour.parquet", tmp_path / "demographics.parquet"
    tables.write(paths[0], tables.from_rows([row("1", text=["tea"]), row("2", text=["cup"])], behaviour), behaviour)
    tables.write(
        paths[1], tables.from_rows([row("1", consent=True), row("2", consent=False)], demographics), demographics
    )
    opened = feature_store.open_store(tmp_path / "feast", *paths, CONFIG, task.features)
    feature_store.materialise(opened, AS_OF)
    found = feature_store.online_features(opened, ["1", "2"])
    assert [person and dict(person.values) for person in found] == [{"text": ("tea",)}, None]
