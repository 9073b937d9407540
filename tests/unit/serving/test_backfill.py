"""Profiles of everybody, offline: whole shards, nothing twice, the evaluation's own answers, and only with consent."""

import json
import sys
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from conf_profile import tables
from conf_profile.cli.main import cli
from conf_profile.config import FeaturesConfig, PromptConfig, StorageConfig, StudentConfig
from conf_profile.dialogue import task as tasks
from conf_profile.dialogue.prompts import UserFeatures
from conf_profile.errors import ServingError
from conf_profile.files import write_text
from conf_profile.students import examples, folder, model
from conf_profile.students.rollouts import predict
from feature_repo import inferred
from feature_repo import store as feature_store
from serving.backfill import backfill
from serving.backfill import engines as backfill_engines
from serving.backfill.backfill import Identity, Shard, Source
from serving.model.profile import Completion

AS_OF = datetime(2025, 6, 1, 12, tzinfo=UTC)
LATER = AS_OF + timedelta(days=1)
TAGS = tasks.builtin("profile")
BRIEF = PromptConfig(student_style="brief")
SMALL = StudentConfig(hidden_size=32, layers=1, heads=2, key_value_heads=1, max_completion_tokens=16)
EMPTY = {"self_age": None, "self_gender": None, "signature": None, "region": None}
REFUSED, WITHDRAWN, SILENT = "u03", "u05", "u07"
EVERYBODY = [f"u{number:02d}" for number in range(10)]
ASKED = [user for user in EVERYBODY if user not in (REFUSED, WITHDRAWN)]
PEOPLE = [UserFeatures(user, watch=() if user == SILENT else (f"rose pruning {user}",)) for user in ASKED]


def behaviour(user, phrase="rose pruning", when=AS_OF):
    return {"user_id": user, "event_timestamp": when, "watch": [f"{phrase} {user}"], "search": [], "submit": []}


def sign_up(user, consent=True, when=AS_OF):
    return {"user_id": user, "event_timestamp": when, **EMPTY, "consent": consent}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Ten users, one of them without behaviour, two of whom must not be asked about; and what came after."""
    data = tmp_path_factory.mktemp("data")
    acts = [behaviour(user) for user in reversed(EVERYBODY) if user != SILENT] + [behaviour("u00", "LEAK", LATER)]
    sign_ups = [sign_up(user, user != REFUSED) for user in EVERYBODY] + [sign_up(WITHDRAWN, False, LATER)]
    tables.write(data / "behaviour.parquet", tables.from_rows(acts, tables.BEHAVIOUR), tables.BEHAVIOUR)
    tables.write(data / "demographics.parquet", tables.from_rows(sign_ups, tables.DEMOGRAPHICS), tables.DEMOGRAPHICS)
    return Source(data / "behaviour.parquet", data / "demographics.parquet", AS_OF.isoformat())


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    """An untrained student's folder."""
    people = [UserFeatures(user, watch=[f"rose pruning {user}"]) for user in EVERYBODY]
    prompts = [examples.student_messages(person, TAGS, BRIEF)[-1]["content"] for person in people]
    network, pieces = model.build_base(SMALL, prompts, TAGS, seed=0)
    path = tmp_path_factory.mktemp("model") / "student"
    folder.save(network, pieces, TAGS, BRIEF, SMALL, people[:5], 4, path)
    return path


class Scripted:
    """Answers `25-34` at level 4, and dies once it has been asked for `limit` shards."""

    def __init__(self, limit=99):
        self.asked, self.people, self.limit = [], [], limit

    def answer(self, people):
        if len(self.asked) == self.limit:
            raise KeyboardInterrupt
        self.people += people
        self.asked.append([person.user_id for person in people])
        rows = [
            {"user_id": person.user_id, "attribute": name, "tag": tag, "level": level, "score": None}
            for name, tag, level in (("age", "25-34", 4), ("gender", "female", 2), ("industry", None, None))
            for person in people
        ]
        return tables.from_rows(rows, tables.PREDICTIONS)


@pytest.fixture
def plan(source, student, tmp_path):
    return backfill.plan(source, student, tmp_path / "out", "transformers", shard_users=4)


def test_every_user_is_in_one_shard(plan):
    assert plan.shards == [Shard(0, "u00", "u03", 4), Shard(1, "u04", "u07", 4), Shard(2, "u08", "u09", 2)]
    assert plan.users == 10


def test_everybody_with_consent_is_profiled_once(plan):
    engine, done = Scripted(), []
    parts = backfill.fill(plan, lambda: engine, done.append)
    assert [user for shard in engine.asked for user in shard] == ASKED
    assert engine.people == PEOPLE, "not what was known at the moment"
    assert done == [4, 4, 2]
    assert [(part.users, part.profiled, part.answered) for part in parts] == [(4, 3, 3), (4, 3, 3), (2, 2, 2)]
    written = [tables.read(plan.part(shard), tables.PREDICTIONS) for shard in plan.shards]
    assert sorted(set(pa.concat_tables(written).column("user_id").to_pylist())) == ASKED
    assert {path.name for path in plan.folder.iterdir()} == {
        "backfill.json", "part-00000.parquet", "part-00001.parquet", "part-00002.parquet",
    }  # fmt: skip


def test_a_killed_backfill_goes_on_and_does_nothing_twice(plan):
    first = Scripted(limit=1)
    with pytest.raises(KeyboardInterrupt):
        backfill.fill(plan, lambda: first)
    kept = plan.part(plan.shards[0]).stat().st_mtime_ns
    assert not (plan.folder / ".work").exists() and not plan.part(plan.shards[1]).exists()
    second = Scripted()
    parts = backfill.fill(plan, lambda: second)
    assert [user for shard in first.asked + second.asked for user in shard] == ASKED
    assert (len(parts), plan.part(plan.shards[0]).stat().st_mtime_ns) == (3, kept)
    assert backfill.fill(plan, lambda: pytest.fail("nothing is left to do")) == parts


def test_a_file_that_is_not_whole_or_not_ours_is_done_again(plan):
    backfill.fill(plan, Scripted)
    first, second, _ = map(plan.part, plan.shards)
    first.write_bytes(first.read_bytes()[:-20])
    pq.write_table(pq.read_table(second).replace_schema_metadata({}), second)
    again = Scripted()
    backfill.fill(plan, lambda: again)
    assert again.asked == [ASKED[:3], ASKED[3:6]]


def test_what_was_cut_out_by_a_killed_call_is_in_nobodys_way(plan):
    (plan.folder / ".work").mkdir(parents=True)
    (plan.folder / ".work" / "behaviour.parquet").write_bytes(b"PAR1")
    backfill.fill(plan, Scripted)
    assert not (plan.folder / ".work").exists()


def test_another_model_other_data_or_other_shards_have_a_folder_of_their_own(plan, source, student, tmp_path):
    others = [
        backfill.plan(source, student, tmp_path / "out", "transformers", shard_users=5),
        backfill.plan(source, student, tmp_path / "out", "vllm", shard_users=4),
        backfill.plan(
            Source(source.behaviour, source.behaviour, source.as_of), student, tmp_path / "out", "transformers", 4
        ),
        backfill.plan(
            Source(source.behaviour, source.demographics, LATER.isoformat()),
            student, tmp_path / "out", "transformers", 4,
        ),
    ]  # fmt: skip
    assert len({found.folder for found in (plan, *others)}) == 5
    assert plan.identity.model_version.startswith("unreleased-"), "bound to the folder's content"
    fields = {"model_version": "v1", "data_digest": "d", "as_of": "a", "engine": "vllm", "shard_users": 1}
    assert Identity(**fields).digest != Identity(**fields | {"model_version": "v2"}).digest


def test_the_answers_are_those_of_the_evaluation(plan, student):
    """Prompts, generation and partition: the same functions on the same features."""
    engine = backfill_engines.make_engine("transformers", student, plan.bundle, "float32", 4)
    backfill.fill(plan, lambda: engine)
    loaded = folder.load(student, "float32")
    expected = predict.to_table(loaded.answer(PEOPLE, 8), folder.load_calibration(student), TAGS)
    found = pa.concat_tables(tables.read(plan.part(shard), tables.PREDICTIONS) for shard in plan.shards)
    assert found.to_pylist() == expected.sort_by("user_id").to_pylist()


def test_tables_in_other_encodings_are_cut_the_same(plan, source, student, tmp_path):
    given = pq.read_table(source.demographics)
    encoded = given.set_column(0, "user_id", given.column("user_id").dictionary_encode())
    pq.write_table(encoded, tmp_path / "demographics.parquet", row_group_size=3)
    other = backfill.plan(
        Source(source.behaviour, tmp_path / "demographics.parquet", source.as_of), student, tmp_path, "transformers", 4
    )
    engine = Scripted()
    backfill.fill(other, lambda: engine)
    assert [user for shard in engine.asked for user in shard] == ASKED


def test_accepted_tags_go_to_feast_once(plan, source, tmp_path):
    store = feature_store.open_store(tmp_path / "features", source.behaviour, source.demographics, FeaturesConfig())
    feature_store.materialise(store, LATER)
    backfill.fill(plan, Scripted)
    strict = SimpleNamespace(**vars(plan.bundle) | {"thresholds": dict.fromkeys(TAGS.names, 3)})
    plan = backfill.Plan(**vars(plan) | {"bundle": strict})
    assert backfill.write_to_feast(plan, store) == backfill.WriteCounts(8, 0, 0)
    (found,) = inferred.read_inferred(store, ["u00"])
    assert [(tag.attribute, tag.tag, tag.level) for tag in found.tags] == [("age", "25-34", 4)]
    assert found.model_version == plan.identity.model_version
    assert backfill.write_to_feast(plan, store) == backfill.WriteCounts(0, 8, 0)
    assert len(tables.read(inferred.inferred_file(store), tables.INFERRED)) == 8


# ---- vLLM, as far as it goes without it


def test_a_level_is_read_off_vllms_log_probabilities():
    def step(chosen, **others):
        pieces = {chosen: -0.1, **others}
        return {
            number: SimpleNamespace(decoded_token=p, logprob=value) for number, (p, value) in enumerate(pieces.items())
        }

    output = SimpleNamespace(
        text="<age>old<level>4</level></age>",
        token_ids=[0, 0, 0, 0],
        logprobs=[step("<age>old"), step("<level>"), step("4", **{"5": -0.1}), step("</level></age>")],
    )
    assert backfill_engines._completion(output) == Completion(output.text, [pytest.approx(4.5)])


def test_a_model_is_not_loaded_for_an_engine_that_is_missing(student, plan, monkeypatch):
    monkeypatch.setattr(backfill_engines, "environment", lambda *_: {})
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(ServingError, match="choose --engine transformers"):
        backfill_engines.make_engine("vllm", student, plan.bundle, "float32", 4)


# ---- the command


def test_the_command_from_the_runs_folder_to_feast(source, student, tmp_path):
    arguments = {
        "behaviour_uri": str(source.behaviour),
        "demographics_uri": str(source.demographics),
        "task_uri": str(student / "task.yaml"),
        "as_of": source.as_of,
        "dtype": "float32",
        "storage_config": StorageConfig().for_step(),
        "features_config": FeaturesConfig().for_step(),
    }
    write_text(tmp_path / "run" / "workspace" / "arguments.json", json.dumps(arguments))
    command = ["backfill", f"--run={tmp_path / 'run'}", f"--model-folder={student}", "--engine=transformers"]
    command += ["--shard-users=4", "--json", f"--out={tmp_path / 'out'}"]
    first = json.loads(CliRunner().invoke(cli, command, catch_exceptions=False).stdout)
    assert (first["users"], first["profiled"], first["feast"]) == (10, 8, None)
    again = json.loads(CliRunner().invoke(cli, [*command, "--feast"], catch_exceptions=False).stdout)
    assert {**again, "feast": None} == first
    assert sum(again["feast"].values()) == first["answered"]
    noted = json.loads((tmp_path / "run" / "elsewhere.json").read_text())
    assert noted == {"folders": [str(tmp_path / "out")]}, "an erasure would not find the files"
