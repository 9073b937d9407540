"""Training steps with keys that are refused at the labels: they read their own tables from the store, and no truth.

A real SeaweedFS with two keys. What the compiled pipeline promises (no step but the evaluation is given the labels'
address) is shown here from the other side: the steps before it need no right to read them.
"""

from dataclasses import dataclass, field

import pytest

from components.evaluation import task as evaluation
from components.features import task as features
from components.labelling import task as labelling
from components.sft import task as sft
from components.synthesis import task as synthesis
from conf_profile import config, tables
from conf_profile.data import inputs
from conf_profile.data.build import build
from conf_profile.dialogue import task as tasks
from conf_profile.errors import DataError, RegistryError
from conf_profile.storage import object_store
from conf_profile.storage.object_store import ObjectStore
from pipelines import cluster_data
from support.s3 import client_of, guarded_s3

CONFIG = config.resolve(
    "tiny",
    overrides=[
        "data.users=60", "teacher.samples=2", "teacher.shards=1", "sft.epochs=0.1", "sft.report_to=[]",
        "sft.min_steps=1",
        "student.hidden_size=16", "student.heads=2", "student.key_value_heads=1", "student.vocabulary_size=300",
        "student.layers=1",
    ],
)  # fmt: skip


@dataclass
class Artefact:
    """An artefact as KFP hands it to a task, metrics among them."""

    path: str
    metadata: dict = field(default_factory=dict)

    def log_metric(self, name, value):
        self.metadata[name] = value


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    with guarded_s3(tmp_path_factory.mktemp("s3")) as found:
        yield found


@pytest.fixture(scope="module")
def given(store, tmp_path_factory):
    """The addresses of an uploaded data set, as a run on a cluster gets them."""
    owner = ObjectStore(client_of(store.owner), "conf-profile")
    return cluster_data.upload(build(CONFIG, tmp_path_factory.mktemp("data")), CONFIG, owner)


@pytest.fixture(autouse=True)
def keys_of_the_steps(store, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for name, value in store.steps.environment().items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def artefact(tmp_path):
    return lambda name: Artefact(str(tmp_path / name))


def test_the_keys_are_refused_at_labels_and_ceiling_and_at_nothing_else(given, tmp_path):
    for address in given.teaching:
        assert inputs.fetch(address, address.rpartition("/")[2], tmp_path).stat().st_size
    assert len(given.truth) == 2
    for address in given.truth:
        where, key = object_store.locate(address)
        for refused, further in ((where.size, ()), (where.read, ()), (where.write_new, (b"x",))):
            with pytest.raises(RegistryError, match="access denied"):
                refused(key, *further)


def test_the_steps_that_train_run_with_these_keys(given, artefact):
    table, shard, votes = artefact("features"), artefact("candidates"), artefact("pseudo_labels")
    features.run(
        table, artefact("report"), given.behaviour_uri, given.demographics_uri, given.task_uri, given.data_digest,
        given.as_of, CONFIG.features.for_step(),
    )  # fmt: skip
    synthesis.run(
        table, shard, given.task_uri, given.lexicon_uri, CONFIG.teacher.for_step(), CONFIG.prompt.for_step(), 0, 0,
        "s3://conf-profile/answers/conf-profile",
    )  # fmt: skip
    labelling.run(
        [shard], table, votes, artefact("calibration"), artefact("labelling"), given.task_uri,
        CONFIG.labelling.for_step(), CONFIG.teacher.samples,
    )  # fmt: skip
    student, metrics = artefact("student"), artefact("metrics")
    sft.run(
        table, votes, student, artefact("log"), metrics, given.task_uri, CONFIG.sft.for_step(),
        CONFIG.student.for_step(), CONFIG.prompt.for_step(), "s3://conf-profile/checkpoints/conf-profile", 0,
    )  # fmt: skip
    assert metrics.metadata["steps"] == 1
    assert len(tables.read(votes.path, tables.PSEUDO_LABELS))


def evaluate(given, artefact):
    nothing = artefact("nothing")
    evaluation.run(
        nothing, [], nothing, nothing, artefact("evaluation"), artefact("metrics"), artefact("confusion"),
        given.task_uri, given.labels_uri, given.ceiling_uri, "", CONFIG.student.for_step(), "", "", 0,
    )  # fmt: skip


def test_the_evaluation_reads_them_with_keys_of_its_own(given, store, artefact, monkeypatch):
    """Before it asks any student: with the wrong keys it fails at once."""
    with pytest.raises(RegistryError, match="access denied"):
        evaluate(given, artefact)
    monkeypatch.setenv(inputs.LABELS_ACCESS_KEY, store.owner.access_key)
    monkeypatch.setenv(inputs.LABELS_SECRET_KEY, store.owner.secret_key)
    with pytest.raises(Exception, match="nothing"):  # the first thing that is missing is a student
        evaluate(given, artefact)


def test_tables_in_the_store_are_checked_as_those_of_this_machine(given, store, tmp_path):
    owner = ObjectStore(client_of(store.owner), "conf-profile")
    owner.write_new("data/bad/behaviour.parquet", b"not Parquet")
    bad = given.behaviour_uri.rpartition("/data/")[0] + "/data/bad/behaviour.parquet"
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        inputs.fetch_features(bad, given.demographics_uri, inputs.fetch_task(given.task_uri, tmp_path), tmp_path)
    with pytest.raises(DataError, match=r"bad/none\.parquet: there is no such object; correct the address"):
        inputs.fetch(bad.replace("behaviour", "none"), "behaviour.parquet", tmp_path)
    owner.write_new("data/bad/taxonomy.yaml", b"attributes: {age: [young, old]}")
    former = inputs.fetch_task(bad.replace("behaviour.parquet", "task.yaml"), tmp_path / "former")
    assert tasks.load(former).names == ("age",)
    owner.write_new("data/bad/lexicon.json", b"{}")
    with pytest.raises(DataError, match="needs the key 'entries'"):
        tags = inputs.fetch_task(given.task_uri, tmp_path)
        inputs.fetch_lexicon(bad.replace("behaviour.parquet", "lexicon.json"), tags, tmp_path)
