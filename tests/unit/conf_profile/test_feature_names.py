"""A user's features have the same names wherever they pass, and the code knows none of them but by declaration."""

import ast
import re

import pytest

from conf_profile import tables
from conf_profile.dialogue import task as tasks
from conf_profile.dialogue.prompts import UserFeatures, render_user
from conf_profile.features import DEFAULT_FEATURES
from feature_repo import definitions
from support.paths import ROOT

TASK = tasks.parse(
    {
        "attributes": {"plan": ["free", "paid"]},
        "features": {"read": {"type": "list", "label": "قرأ"}, "visits": "number", "city": "category"},
    }
)
ROOMS = ("conf_profile", "components", "pipelines", "serving", "feature_repo", "charts")
PAPERS_NAMES = re.compile(r"\b(watch|submit|self_age|self_gender)\b")
"""Those of the paper's names that are no other thing's name too (S3 has regions, files are searched and signed)."""


@pytest.mark.parametrize(
    ("table", "names"),
    [
        (tables.BEHAVIOUR, ("user_id", "event_timestamp", "watch", "search", "submit")),
        (
            tables.DEMOGRAPHICS,
            ("user_id", "event_timestamp", "self_age", "self_gender", "signature", "region", "consent"),
        ),
        (
            tables.FEATURES,
            ("user_id", "split", "watch", "search", "submit", "self_age", "self_gender", "signature", "region"),
        ),
        (tables.behaviour_table(TASK.features), ("user_id", "event_timestamp", "read")),
        (tables.demographics_table(TASK.features), ("user_id", "event_timestamp", "visits", "city", "consent")),
        (tables.features_table(TASK.features), ("user_id", "split", "read", "visits", "city")),
    ],
    ids=lambda given: getattr(given, "name", ""),
)
def test_the_columns_of_the_tables(table, names):
    assert tuple(table.schema.names) == names


@pytest.mark.parametrize("features", [DEFAULT_FEATURES, TASK.features], ids=["default", "another"])
def test_what_feast_serves_is_what_is_declared(features):
    views = definitions.behaviour_view("b", features), definitions.demographics_view("d", features)
    served = {
        field.name: definitions.feature_type(field.dtype)
        for view in views
        for field in view.schema
        if field.name not in (definitions.USER_ID, definitions.CONSENT)
    }
    assert not features.differences(served)


def test_a_prompt_has_a_line_for_each_of_them():
    lists = {name: (f"{name} this",) for name in DEFAULT_FEATURES.lists}
    known = UserFeatures("u", **lists, **{name: f"my {name}"[:20] for name in DEFAULT_FEATURES.scalars})
    assert render_user(known, DEFAULT_FEATURES, 5).splitlines() == [
        "watch: watch this",
        "search: search this",
        "submit: submit this",
        "age: my self_age",
        "gender: my self_gender",
        "signature: my signature",
        "region: my region",
    ]


def test_a_prompt_calls_features_by_their_labels_in_the_declared_order():
    known = UserFeatures("u", city="Rasht", visits=12.0, read=["کتاب\u200cها"])
    assert render_user(known, TASK.features, 5) == "قرأ: کتاب\u200cها\nvisits: 12\ncity: Rasht"


@pytest.mark.parametrize(("name", "limit"), [("self_age", 20), ("self_gender", 20), ("signature", 160), ("region", 40)])
def test_what_was_said_at_sign_up_is_cut(name, limit):
    (line,) = render_user(UserFeatures("u", **{name: "x" * 500}), DEFAULT_FEATURES, 5).splitlines()
    assert line.partition(": ")[2] == "x" * limit


@pytest.mark.parametrize(
    ("stored", "differences"),
    [
        ({"read": "list", "visits": "number", "city": "text"}, []),
        ({"read": "list", "city": "text"}, ["visits (number) is missing"]),
        ({"read": "list", "visits": "text", "city": "text"}, ["visits is text, declared as number"]),
        (
            {"read": "list", "visits": "number", "city": "category", "age": "text"},
            ["age (text) is not declared"],
        ),
    ],
)
def test_differences_are_told_in_words(stored, differences):
    assert TASK.features.differences(stored) == differences


def named_in(source):
    """The paper's names in a module's strings (docstrings left out) and in its attributes."""
    tree = ast.parse(source)
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    texts = [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings
    ]
    return {text for text in texts if PAPERS_NAMES.fullmatch(text)}


def test_the_papers_names_stand_in_the_default_task_alone():
    found = {
        path.relative_to(ROOT).as_posix(): names
        for room in ROOMS
        for path in (ROOT / room).rglob("*.py")
        if (names := named_in(path.read_text(encoding="utf-8")))
    }
    # The commands of that name, and what Kubernetes calls following a resource.
    commands = {
        name: names - {"submit", "watch"} for name, names in found.items() if name != "conf_profile/features.py"
    }
    assert {name: names for name, names in commands.items() if names} == {}
    assert found["conf_profile/features.py"] == {"watch", "submit", "self_age", "self_gender"}


def test_the_check_would_find_a_name():
    assert named_in('"""self_age"""\nrow = {"self_age": None}') == {"self_age"}
