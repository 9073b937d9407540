"""Erasing one user from a run's folder: every store, the proof, what cannot be undone, and that no prompt follows."""

import json
import stat
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from components.features import step
from conf_profile import parquet_rows, tables
from conf_profile.cli.main import cli
from conf_profile.config import FeaturesConfig, StorageConfig
from conf_profile.data import dataset, run_folder, splits
from conf_profile.data.inferred import InferredProfile, InferredTag
from conf_profile.erasure import record as erasure_record
from conf_profile.errors import DataError, PipelineError, TeacherError
from conf_profile.files import write_text
from conf_profile.registry import trained_versions
from conf_profile.registry.format import Champion, Version
from conf_profile.registry.trained_versions import TrainedVersion
from conf_profile.teachers import answers
from conf_profile.teachers.answers import AnswerStore
from conf_profile.teachers.protocol import Completion
from feature_repo import inferred
from feature_repo import store as feature_store

AS_OF = datetime(2025, 6, 1, 12, tzinfo=UTC)
ADA, BOB, EVE = "user-ada", "user-bob", "user-eve"
PROMPT = ({"role": "user", "content": "watch: chess"},)
EMPTY = {"self_age": None, "self_gender": None, "signature": None, "region": None}


def behaviour(user):
    return {"user_id": user, "event_timestamp": AS_OF, "watch": [f"{user} watches"], "search": [], "submit": []}


def sign_up(user, consent=True, when=AS_OF):
    return {"user_id": user, "event_timestamp": when, **EMPTY, "consent": consent}


def write(path, table, *rows):
    tables.write(path, tables.from_rows(rows, table), table)


def make_data(folder):
    users = (ADA, BOB, EVE)
    write(folder / "behaviour.parquet", tables.BEHAVIOUR, *map(behaviour, users))
    write(folder / "demographics.parquet", tables.DEMOGRAPHICS, *map(sign_up, users))
    labels = [{"user_id": user, "attribute": "age", "tag": "25+"} for user in users]
    write(folder / "labels.parquet", tables.LABELS, *labels)
    ceiling = [label | {"level": 5, "score": 0.9} for label in labels]
    write(folder / "ceiling.parquet", tables.PREDICTIONS, *ceiling)
    (folder / "taxonomy.yaml").write_text("attributes: {age: ['18-24', '25+']}")
    dataset.finish(folder, "test", AS_OF, source="here", licence="none")


def make_artefacts(folder):
    """Without a suffix, as KFP names them."""
    given = {"user_id": ADA, "attribute": "age", "tag": "25+"}
    features = [
        {**behaviour(user), **EMPTY, "split": split} for user, split in ((ADA, "train"), (BOB, "train"), (EVE, "test"))
    ]
    write(folder / "features" / "features", tables.FEATURES, *features)
    samples = [
        given | {"user_id": user, "sample": sample, "level": 4, "rationale": "chess", "well_formed": True}
        for user in (ADA, BOB)
        for sample in range(3)
    ]
    for shard in (0, 1):
        write(folder / f"iteration-{shard}" / "synthesis" / "candidates", tables.CANDIDATES, *samples)
    voted = given | {"score": 0.9, "level": 4, "votes": 3, "rationale": "chess"}
    write(folder / "labelling" / "pseudo_labels", tables.PSEUDO_LABELS, voted, voted | {"user_id": BOB})
    write(folder / "filtering" / "filtered", tables.FILTERED, {"user_id": ADA, "confidence": 0.9, "kept": True})
    write_text(folder / "promotion" / "outcome", json.dumps({"promoted": True, "version": "v1"}))


def make_answers(folder):
    with AnswerStore(folder, "a teacher") as store:
        for user in (ADA, BOB, ADA):
            store.keep(PROMPT, Completion(user, len(store), f"about {user}"))


def make_arguments(run, data):
    storage = StorageConfig().model_dump()
    arguments = {
        **{f"{name}_uri": str(data / f"{name}.parquet") for name in ("behaviour", "demographics", "labels", "ceiling")},
        "as_of": AS_OF.isoformat(),
        "answers_folder": str(run / "workspace" / "answers"),
        "storage_config": json.dumps(storage),
        "features_config": FeaturesConfig().for_step(),
        "run_config": json.dumps({"data": {"name": "world" if data.is_relative_to(run) else "parquet"}}),
    }
    write_text(run / "workspace" / "arguments.json", json.dumps(arguments))


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "run", tmp_path / "run" / "data" / "test")


def make_run(run, data):
    make_data(data)
    make_artefacts(run / "artefacts" / "first")
    make_answers(run / "workspace" / "answers")
    make_arguments(run, data)
    predicted = {"user_id": ADA, "attribute": "age", "tag": "25+", "level": 5, "score": 0.9}
    write(run / "backfill" / "v1-abc" / "part-00000.parquet", tables.PREDICTIONS, predicted)
    return run


def erase(run, user, *options):
    result = CliRunner().invoke(cli, ["erase", user, f"--run={run}", "--json", *options])
    if result.exception and not isinstance(result.exception, SystemExit | DataError):
        raise result.exception
    shown = json.loads(result.stdout) if result.stdout.startswith("{") else {"stores": []}
    return result, {store["store"]: (store["removed"], store["left"]) for store in shown["stores"]}, shown


def holding(folder, user):
    """Files in which the user still occurs, whatever they are."""
    found = [str(path) for path in parquet_rows.tables_of_users(folder) if parquet_rows.count(path, user)]
    texts = [path for path in folder.rglob("*") if path.suffix in (".json", ".jsonl", ".log")]
    return found + [str(path) for path in texts if user in path.read_text()]


# ---- the run's folder


def test_every_store_loses_the_user_and_no_other(run):
    result, rows, _ = erase(run, ADA)
    assert result.exit_code == 0, result.output
    assert rows == {
        "artefacts: candidates": (6, 0),
        "artefacts: features": (1, 0),
        "artefacts: filtered": (1, 0),
        "artefacts: pseudo_labels": (1, 0),
        "backfill": (1, 0),
        "data: behaviour": (1, 0),
        "data: ceiling": (1, 0),
        "data: demographics": (1, 0),
        "data: labels": (1, 0),
        "kept answers": (2, 0),
        "half-written files": (0, 0),
    }
    assert holding(run, ADA) == []
    left = tables.read(run / "artefacts/first/features/features", tables.FEATURES)
    assert left.column("user_id").to_pylist() == [BOB, EVE]
    with AnswerStore(run / "workspace" / "answers", "a teacher") as store:
        assert store.text(BOB, PROMPT, 1) == f"about {BOB}"
        assert store.text(ADA, PROMPT, 0) is None


def test_the_data_set_is_whole_again(run):
    erase(run, ADA)
    again = dataset.load(run / "data" / "test")
    assert again.users == 2


def test_the_record_names_nobody_and_knows_everybody(run):
    erase(run, ADA)
    record = (run / "erased.jsonl").read_text()
    assert ADA not in record and [json.loads(line).get("state") for line in record.splitlines()][1:] == [
        "begun",
        "erased",
    ]
    assert erasure_record.is_erased(run, ADA) and not erasure_record.is_erased(run, BOB)


def test_somebody_unknown_is_erased_without_a_trace(run):
    result, rows, shown = erase(run, "nobody")
    assert (result.exit_code, set(rows.values()), shown["versions"]) == (0, {(0, 0)}, [])


def test_a_killed_erasure_is_repeated_and_still_knows_the_versions(run, monkeypatch):
    version = TrainedVersion("v1", ("train",), "2025-06-02T00:00:00+00:00", True)
    monkeypatch.setattr("feature_repo.commands._versions", lambda *_: [version])
    remove = parquet_rows.remove

    def killed(path, user_id):
        if path.name == "pseudo_labels":
            raise KeyboardInterrupt
        return remove(path, user_id)

    with monkeypatch.context() as patched:
        patched.setattr(parquet_rows, "remove", killed)
        erase(run, ADA)
    assert holding(run, ADA) and not erasure_record.is_erased(run, ADA)
    monkeypatch.setattr("feature_repo.commands._versions", lambda *_: [])  # the split is no longer known
    result, _, shown = erase(run, ADA)
    assert (result.exit_code, holding(run, ADA)) == (0, [])
    assert [found["version"] for found in shown["versions"]] == ["v1"]


def test_rows_that_are_left_are_status_2_and_no_erasure(run, monkeypatch):
    monkeypatch.setattr(parquet_rows, "remove", lambda path, user_id: 0)
    result, rows, _ = erase(run, ADA)
    assert isinstance(result.exception, DataError) and "row(s) are left" in str(result.exception)
    assert rows["data: labels"] == (0, 1)
    assert not erasure_record.is_erased(run, ADA)


def test_your_own_tables_are_yours(tmp_path):
    mine = tmp_path / "mine"
    run = make_run(tmp_path / "run", mine)
    result, rows, shown = erase(run, ADA)
    assert isinstance(result.exception, DataError) and "--data-too" in str(result.exception)
    assert rows["your own behaviour.parquet (not touched)"] == (0, 1)
    assert rows["artefacts: features"] == (1, 0), "the run's own stores are erased all the same"
    assert "your own" in shown["advice"]
    result, rows, _ = erase(run, ADA, "--data-too")
    assert (result.exit_code, rows["your own behaviour.parquet"]) == (0, (1, 0))
    assert holding(tmp_path, ADA) == []


def test_a_generated_person_comes_back_and_that_is_said(run):
    _, _, shown = erase(run, ADA)
    assert "the next `run` builds its tables again, with this person" in shown["advice"]


def test_places_outside_the_run_are_remembered_or_named(run, tmp_path):
    row = {"user_id": ADA, "attribute": "age", "tag": "25+", "level": 5, "score": 0.9}
    for name in ("noted", "named"):
        write(tmp_path / name / "v1" / "part.parquet", tables.PREDICTIONS, row)
    run_folder.note_outside_folder(run, tmp_path / "noted")
    run_folder.note_outside_folder(run, run / "backfill")
    assert run_folder.read_outside_folders(run) == [tmp_path / "noted"]
    erase(run, ADA, f"--also={tmp_path / 'named'}")
    assert holding(tmp_path, ADA) == []


def test_the_configuration_is_read_from_older_and_from_newer_folders(tmp_path):
    path = tmp_path / "configuration.yaml"
    path.write_text("data: {name: parquet}\ngrpo: {learning_rate: 1.0e-05}\n")
    known = {"data": {"name": "parquet"}, "grpo": {"learning_rate": 1e-5}}
    assert run_folder.read_configuration({"configuration": str(path)}) == known
    assert run_folder.read_configuration({"run_config": json.dumps(known)}) == known


@pytest.mark.parametrize(
    ("text", "message"), [(None, "No such file"), ("a: [", "not valid YAML"), ("words", "is no mapping")]
)
def test_a_configuration_that_cannot_be_read(tmp_path, text, message):
    path = tmp_path / "configuration.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(DataError, match=f"(?s){message}.*run the pipeline"):
        run_folder.read_configuration({"configuration": str(path)})


def test_nobody_is_erased_while_a_run_is_under_way(run):
    with run_folder.lock_run_folder(run), pytest.raises(PipelineError, match="is under way"):
        erase(run, ADA)


# ---- versions


def version(name, created_at="2025-06-03T00:00:00+00:00"):
    return Version(name, created_at, "", "", {}, {}, b"")


def test_versions_of_a_user_who_trained():
    champion = Champion("v2", "", {}, "2025-06-04T00:00:00+00:00", "v1", "etag")
    found = trained_versions.trained_versions([version("v1"), version("v2")], champion, ("train",))
    assert found == [
        TrainedVersion("v1", ("train",), "2025-06-03T00:00:00+00:00", False),
        TrainedVersion("v2", ("train",), "2025-06-04T00:00:00+00:00", True),
    ]
    assert trained_versions.trained_versions([version("v1")], None, ()) == []


def test_the_splits_come_from_every_features_table_of_the_run(run):
    moved = {**behaviour(ADA), **EMPTY, "split": "second_stage"}
    write(run / "artefacts" / "second" / "features" / "features", tables.FEATURES, moved)
    assert trained_versions.training_splits(run, ADA) == ("train", "second_stage")
    assert trained_versions.training_splits(run, EVE) == (), "test users train nothing"
    assert set(trained_versions.TRAINING_SPLITS) == set(splits.SPLITS) - {"validation", "test"}
    assert trained_versions.read_published_versions(run) == {"v1"}


# ---- one file


def test_a_files_form_metadata_and_permissions_stay(tmp_path):
    schema = pa.schema(
        [("user_id", pa.dictionary(pa.int32(), pa.string())), ("watch", pa.large_list(pa.large_string()))],
        metadata={"model": "v1"},
    )
    rows = {"user_id": pa.array([ADA, BOB, ADA, None]).dictionary_encode(), "watch": [["a"], [], None, ["b"]]}
    path = tmp_path / "table"
    pq.write_table(pa.table(rows, schema=schema), path, row_group_size=1)
    path.chmod(0o600)
    before = pq.read_schema(path)
    assert (parquet_rows.remove(path, ADA), parquet_rows.count(path, ADA), parquet_rows.remove(path, ADA)) == (2, 0, 0)
    left = pq.read_table(path)
    assert left.schema.equals(before, check_metadata=True)
    assert ADA not in left.column("user_id").unify_dictionaries().chunk(0).dictionary.to_pylist()
    assert left.to_pylist() == [{"user_id": BOB, "watch": []}, {"user_id": None, "watch": ["b"]}]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_half_written_files_are_deleted_and_a_damaged_one_is_an_error(run):
    (run / "artefacts" / ".features.0123.tmp").write_bytes(b"PAR1 user-ada")
    _, rows, _ = erase(run, ADA)
    assert rows["half-written files"] == (1, 0)
    (run / "artefacts" / "candidates").write_bytes(b"PAR1 user-bob")
    result, _, _ = erase(run, BOB)
    assert "candidates: cannot be read as Parquet" in str(result.exception)


def test_answers_are_forgotten_with_what_is_damaged(tmp_path):
    make_answers(tmp_path)
    (path,) = tmp_path.glob("*.jsonl")
    with path.open("ab") as file:
        file.write(b'{"user_id": "user-ada", "sa\n{"user_id": "user-ada", "sample": 7')
    (tmp_path / f".{path.name}.0123.tmp").write_text(f"about {ADA}")
    assert answers.forget(tmp_path, ADA) == 2
    assert [json.loads(line).get("user_id") for line in path.read_bytes().splitlines()] == [None, BOB]
    assert list(tmp_path.iterdir()) == [path]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert answers.count_kept(tmp_path, BOB) == 1


def test_what_was_spent_stays_when_answers_are_forgotten(tmp_path):
    make_answers(tmp_path)
    with AnswerStore(tmp_path, "a teacher") as store:
        store.keep_spent("job", 7)
    answers.forget(tmp_path, ADA)
    with AnswerStore(tmp_path, "a teacher") as store:
        assert store.read_spent("job") == 7


def test_answers_that_somebody_appends_to_are_left_alone(tmp_path):
    with AnswerStore(tmp_path, "a teacher"), pytest.raises(TeacherError, match="another process"):
        answers.forget(tmp_path, ADA)


# ---- no prompt from then on


def features_of(data, folder):
    step.run(
        data / "behaviour.parquet", data / "demographics.parquet", data / "taxonomy.yaml",
        folder / "features", folder / "report.json",
        folder / "work", AS_OF.isoformat(), FeaturesConfig(),
    )  # fmt: skip
    return tables.read(folder / "features", tables.FEATURES).column("user_id").to_pylist()


def filled_store(run, data):
    store = feature_store.open_store(
        run / "serving" / "features", data / "behaviour.parquet", data / "demographics.parquet", FeaturesConfig()
    )
    feature_store.materialise(store, AS_OF)
    return store


def test_who_was_erased_gets_no_prompt_and_is_written_nowhere(run, tmp_path):
    data = run / "data" / "test"
    store = filled_store(run, data)
    profile = InferredProfile(ADA, (InferredTag("age", "25+", 5),), "v1", AS_OF + timedelta(days=30))
    inferred.write_inferred(store, [profile])
    assert ADA in features_of(data, tmp_path / "before")
    result, rows, _ = erase(run, ADA)
    assert result.exit_code == 0, result.output
    assert rows["features: online, sqlite"] == (12, 0)
    assert rows["features: inferred tags"] == (1, 0)
    assert features_of(data, tmp_path / "after") == [BOB, EVE]
    assert feature_store.read_online(store, [ADA]) == [None]
    assert feature_store.online_features(filled_store(run, data), [ADA, BOB])[0] is None, "came back"
    assert inferred.write_inferred(store, [profile]).without_consent == 1
    assert holding(run, ADA) == []


def test_who_has_withdrawn_consent_gets_no_prompt(run, tmp_path):
    data = run / "data" / "test"
    rows = [sign_up(ADA, when=AS_OF - timedelta(days=1)), sign_up(ADA, consent=False), sign_up(BOB)]
    write(data / "demographics.parquet", tables.DEMOGRAPHICS, *rows)
    assert features_of(data, tmp_path / "features") == [BOB]
    store = filled_store(run, data)
    ada, bob = feature_store.online_features(store, [ADA, BOB])
    assert ada is None and bob is not None
