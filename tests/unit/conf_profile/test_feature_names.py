"""The features of a user have the same names wherever they pass: in tables, in Feast and in prompts."""

from dataclasses import fields, replace

import pytest

from conf_profile import tables
from conf_profile.dialogue.prompts import UserFeatures, render_user
from conf_profile.features import LISTS, SIGN_UP
from conf_profile.students.tokenizer import FIELDS
from feature_repo import definitions


def test_a_users_features_are_the_lists_and_what_was_said_at_sign_up():
    assert tuple(field.name for field in fields(UserFeatures)) == ("user_id", *LISTS, *SIGN_UP)


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
    ],
    ids=lambda given: getattr(given, "name", ""),
)
def test_the_columns_of_the_tables(table, names):
    assert tuple(table.schema.names) == names


def test_what_feast_serves_is_what_the_tables_hold():
    served = {field.name for view in (definitions.behaviour, definitions.demographics) for field in view.schema} - {
        definitions.USER_ID,
        definitions.CONSENT,
    }
    assert served == {*LISTS, *SIGN_UP}


def test_a_prompt_has_a_line_for_each_of_them():
    known = replace(
        UserFeatures("u", **{name: (f"{name} this",) for name in LISTS}),
        **{name: f"my {name}"[:20] for name in SIGN_UP},
    )
    assert render_user(known, 5).splitlines() == [
        "watch: watch this",
        "search: search this",
        "submit: submit this",
        "age: my self_age",
        "gender: my self_gender",
        "signature: my signature",
        "region: my region",
    ]
    assert tuple(line.partition(":")[0] for line in render_user(known, 5).splitlines()) == FIELDS


@pytest.mark.parametrize(("name", "limit"), [("self_age", 20), ("self_gender", 20), ("signature", 160), ("region", 40)])
def test_what_was_said_at_sign_up_is_cut(name, limit):
    (line,) = render_user(UserFeatures("u", **{name: "x" * 500}), 5).splitlines()
    assert line == f"{SIGN_UP[name]}: {'x' * limit}"
