"""The pipeline's arguments for a run on this machine, with labels and without."""

from datetime import UTC, datetime

import pytest

from conf_profile import tables
from conf_profile.config import resolve
from conf_profile.data import inputs, own
from conf_profile.errors import ConfigError
from pipelines import arguments

MOMENT = datetime(2025, 1, 1, tzinfo=UTC)
FORM = {"self_age": None, "self_gender": None, "signature": None, "region": None, "consent": True}
ROWS = {
    "behaviour": (tables.BEHAVIOUR, {"event_timestamp": MOMENT, "watch": ["tea"], "search": [], "submit": []}),
    "demographics": (tables.DEMOGRAPHICS, {"event_timestamp": MOMENT, **FORM}),
    "labels": (tables.LABELS, {"attribute": "gender", "tag": "female"}),
}


@pytest.fixture
def folder(tmp_path):
    """One's own tables, with labels."""
    for name, (schema, row) in ROWS.items():
        tables.write(tmp_path / f"{name}.parquet", tables.from_rows([{"user_id": "u1", **row}], schema), schema)
    (tmp_path / "taxonomy.yaml").write_text("attributes: {gender: [female, male], age: [young, old]}")
    return tmp_path


def build(folder, *overrides):
    return arguments.build(resolve(overrides=overrides), own.check_folder(folder), "", folder / "workspace")


def test_labels_have_an_address_and_where_there_are_none_it_is_empty(folder):
    assert build(folder)["labels_uri"] == str(folder / "labels.parquet")
    (folder / "labels.parquet").unlink()
    given = build(folder)
    assert (given["labels_uri"], given["ceiling_uri"]) == ("", "")
    assert given["behaviour_uri"] == str(folder / "behaviour.parquet")


def test_the_evaluation_of_a_run_without_labels_fetches_none(folder):
    assert inputs.fetch_labels("", folder / "taxonomy.yaml", folder / "work") is None
    assert not (folder / "work").exists()


def test_levels_of_unknown_attributes_are_refused_before_the_run(folder):
    with pytest.raises(ConfigError, match=r"gate\.unjudged_levels names 'agee'.*it has gender, age$"):
        build(folder, "gate.unjudged_levels.agee=3")
    assert '"age":3' in build(folder, "gate.unjudged_levels.age=3")["gate_config"].replace(" ", "")
