"""Time and memory of the steps that see every user: features, synthesis, evaluation, reading people for training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from benchmarks import labelling, usage
from benchmarks.scale import people
from benchmarks.scale.people import Tables
from benchmarks.usage import MILLION, Usage
from conf_profile import tables
from conf_profile.config import FeaturesConfig
from conf_profile.data import splits
from conf_profile.dialogue import task as tasks

SIZES = (20_000, 100_000)
SAMPLES = 10

_FEATURES = """
import sys
from pathlib import Path
from components.features.step import run
from conf_profile.config import FeaturesConfig
folder = Path(sys.argv[1])
run(folder / "behaviour.parquet", folder / "demographics.parquet", folder / "features.parquet",
    folder / "report.json", folder / "feast", sys.argv[2], FeaturesConfig())
"""
_SYNTHESIS = """
import sys
from pathlib import Path
from components.synthesis.step import run
from conf_profile.config import PromptConfig, TeacherConfig
folder, shards = Path(sys.argv[1]), int(sys.argv[4])
run(folder / "features.parquet", Path(sys.argv[2]), Path(sys.argv[3]), folder / f"candidates-{shards}.parquet",
    TeacherConfig(shards=shards), PromptConfig(), 0, 0, folder / f"answers-{shards}")
"""
_PEOPLE = """
import sys
from conf_profile import tables
from conf_profile.students import examples
people = examples.users(tables.read_features(sys.argv[1]), ["train", "second_stage", "validation", "test"])
"""
_EVALUATION = """
import sys
from pathlib import Path
from components.evaluation.step import score
from conf_profile.config import EvaluationConfig
folder = Path(sys.argv[1])
score({"sft": folder / "predictions.parquet"}, [folder / "candidates.parquet"], folder / "features.parquet",
      folder / "labels.parquet", folder / "taxonomy.yaml", None, folder / "evaluation.json", EvaluationConfig(), 0)
"""


def features(work: Path) -> dict[str, float]:
    """The features step, and what its input and output weigh."""
    given, grown = _grow_tables(work)
    used = [usage.measure(_FEATURES, folder, given.as_of) for folder in grown]
    few = _originals(work)
    sizes = {name: (few / f"{name}.parquet").stat().st_size for name in ("behaviour", "demographics", "features")}
    return {f"features.{name}": value for name, value in _growth(used).items()} | {
        "features.bytes_per_user": sizes["features"] / people.ORIGINALS,
        "tables.bytes_per_user": (sizes["behaviour"] + sizes["demographics"]) / people.ORIGINALS,
    }


def synthesis(work: Path) -> dict[str, float]:
    """The synthesis step with the lexicon teacher: what everybody costs a shard, and what those whom it asks cost.

    One shard of all users and one of a twentieth over the smaller table, one of a twentieth over the larger: three
    equations for what a shard needs at all, for each user in the table, and for each user asked.
    """
    given, (small, large) = _grow_tables(work)
    for folder in (small, large):
        usage.measure(_FEATURES, folder, given.as_of)
    runs = [(small, 1), (small, 20), (large, 20)]
    used = [usage.measure(_SYNTHESIS, folder, given.taxonomy, given.lexicon, shards) for folder, shards in runs]
    asked = [tables.read(folder / f"candidates-{shards}.parquet", tables.CANDIDATES) for folder, shards in runs]
    users = [len(table) / SAMPLES / 6 for table in asked]
    sizes = np.array([[1, everybody, own] for everybody, own in zip((SIZES[0], *SIZES), users, strict=True)])
    _, table_mib, asked_mib = np.linalg.solve(sizes, [one.mib for one in used]) * MILLION
    _, table_seconds, asked_seconds = np.linalg.solve(sizes, [one.seconds for one in used]) * MILLION
    few = _originals(work)
    usage.measure(_SYNTHESIS, few, given.taxonomy, given.lexicon, 1)
    answers, candidates = next((few / "answers-1").glob("*.jsonl")), few / "candidates-1.parquet"
    asked_of_few = len(tables.read(candidates, tables.CANDIDATES)) / SAMPLES / 6
    return {
        "synthesis.table_mib_per_million": table_mib,
        "synthesis.asked_mib_per_million": asked_mib,
        "synthesis.table_seconds_per_million": table_seconds,
        "synthesis.asked_seconds_per_million": asked_seconds,
        "synthesis.candidate_bytes_per_asked": candidates.stat().st_size / asked_of_few,
        "synthesis.answer_bytes_per_asked": answers.stat().st_size / asked_of_few,
    }


def students(work: Path) -> dict[str, float]:
    """What every step that trains or asks a student holds before it begins: its people as Python objects."""
    given, grown = _grow_tables(work)
    for folder in grown:
        usage.measure(_FEATURES, folder, given.as_of)
    used = [usage.measure(_PEOPLE, folder / "features.parquet") for folder in grown]
    return {"students.mib_per_million": _growth(used)["mib_per_million"]}


def evaluation(work: Path) -> dict[str, float]:
    """Scoring: the teacher's candidates and one student's predictions, without asking any model."""
    used = []
    for users in SIZES:
        folder = work / f"evaluation-{users}"
        folder.mkdir(parents=True)
        labelling.generate(folder, users, SAMPLES, with_rationales=False)
        _write_predictions(folder, users)
        used.append(usage.measure(_EVALUATION, folder))
    return {f"evaluation.{name}": value for name, value in _growth(used).items()}


def _grow_tables(work: Path) -> tuple[Tables, list[Path]]:
    """Tables of both sizes, made once in a work folder."""
    world = people.originals(work / "world")
    folders = [work / f"users-{users}" for users in SIZES]
    made = [people.grow(world, users, folder) for users, folder in zip(SIZES, folders, strict=True)]
    return made[-1], folders


def _originals(work: Path) -> Path:
    """The originals alone, with their features: copies compress too well to be weighed."""
    folder = work / "originals"
    given = people.grow(people.originals(work / "world"), people.ORIGINALS, folder)
    usage.measure(_FEATURES, folder, given.as_of)
    return folder


def _growth(used: list[Usage]) -> dict[str, float]:
    return usage.growth(used[0], used[1], SIZES[1] - SIZES[0])


def _write_predictions(folder: Path, users: int) -> None:
    """Splits as the pipeline makes them, true labels of everybody, and random predictions."""
    table = tables.read_features(folder / "features.parquet")
    ids = table.column("user_id").to_pylist()
    split = pa.array(splits.split_of(ids, FeaturesConfig()))
    tables.write(folder / "features.parquet", table.set_column(1, "split", split), tables.FEATURES)
    kinds, random = tasks.load(folder / "taxonomy.yaml"), np.random.default_rng(0)
    columns = {
        "user_id": pa.array(np.repeat(ids, len(kinds.names))),
        "attribute": pa.array(list(kinds.names) * users),
        "tag": pa.array([tag for one in kinds.attributes for tag in random.choice(one.tags, users)]),
    }
    by_user = np.arange(users * len(kinds.names)).reshape(len(kinds.names), users).T.ravel()
    columns["tag"] = columns["tag"].take(pa.array(by_user))
    tables.write(folder / "labels.parquet", pa.table(columns), tables.LABELS)
    levels = random.integers(1, 6, len(by_user))
    columns |= {"level": pa.array(levels, pa.int8()), "score": pa.array(levels / 5.0)}
    tables.write(folder / "predictions.parquet", pa.table(columns), tables.PREDICTIONS)
