"""A small data set of somebody's own tables, which a test then puts wrong in one place."""

from datetime import UTC, datetime, timedelta

import yaml

from conf_profile import tables
from conf_profile.dialogue import task as tasks

DAY = datetime(2025, 1, 1, tzinfo=UTC)
TASK = {
    "attributes": {"gender": ["female", "male"], "age": ["18-24", "25+"]},
    "features": {"borrowed": "list", "branch": {"type": "category", "label": "library branch"}},
}
LEXICON = '{"entries": {"rose pruning": {"gender": {"female": 1.0, "male": -1.0}}}}'


def user_ids(count, prefix="u"):
    return [f"{prefix}{number:04d}" for number in range(count)]


def snapshots(users, keyphrases=4):
    texts = ["rose pruning", *(f"book {number}" for number in range(keyphrases - 1))]
    return [{"user_id": user, "event_timestamp": DAY, "borrowed": texts} for user in users]


def events(users, count=5):
    """One row an event: what a log looks like, and no snapshot is."""
    return [
        {"user_id": user, "event_timestamp": DAY + timedelta(hours=hour), "borrowed": ["rose pruning"]}
        for user in users
        for hour in range(count)
    ]


def forms(users, consent=True):
    return [{"user_id": user, "event_timestamp": DAY, "branch": "north", "consent": consent} for user in users]


def labels(users):
    pairs = [(name, tags[0]) for name, tags in TASK["attributes"].items()]
    return [{"user_id": user, "attribute": name, "tag": tag} for user in users for name, tag in pairs]


def write_own_tables(folder, behaviour, demographics, truth=(), lexicon=LEXICON, task=None):
    """The folder of a data set from rows; no labels.parquet without a true label, no lexicon.json for None."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "task.yaml").write_text(yaml.safe_dump(task or TASK, sort_keys=False))
    features = tasks.load(folder / "task.yaml").features
    rows = [
        (tables.behaviour_table(features), behaviour),
        (tables.demographics_table(features), demographics),
        (tables.LABELS, truth),
    ]
    for table, content in rows:
        if content:
            tables.write(folder / f"{table.name}.parquet", tables.from_rows(content, table), table)
    if lexicon is not None:
        (folder / "lexicon.json").write_text(lexicon)
    return folder
