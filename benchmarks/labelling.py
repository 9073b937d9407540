"""Speed and memory of the labelling step: vote and calibrate, Parquet to Parquet, at growing user numbers.

    python -m benchmarks.labelling [--users 10000,100000,1000000] [--samples 10] [--vote em] [--rationales]

Candidates are generated into a temporary folder (not timed), each size is labelled by a fresh process
(start-up and imports are timed too), and the peak is that process's own resident memory. Prints JSON and a
Markdown table. A million users need about 1 GB of disk for as long as they are measured.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from benchmarks import usage
from conf_profile import tables
from conf_profile.consensus import voting
from conf_profile.dialogue import task as tasks
from conf_profile.dialogue.taxonomy import Taxonomy
from conf_profile.features import DEFAULT_FEATURES

SIZES = (10_000, 100_000, 1_000_000)
_USERS_AT_ONCE = 20_000
_UNKNOWN_SHARE = 0.05
_MALFORMED_SHARE = 0.02
_LEVEL_SHARES = (0.04, 0.06, 0.15, 0.4, 0.35)
_KEYPHRASES = 5_000

_CHILD = """
import sys
from pathlib import Path
from components.labelling.step import run
from conf_profile.config import LabellingConfig
folder = Path(sys.argv[1])
run([folder / "candidates.parquet"], folder / "taxonomy.yaml", folder / "features.parquet",
    folder / "pseudo_labels.parquet", folder / "calibration.json", folder / "report.json",
    LabellingConfig(vote=sys.argv[3]), int(sys.argv[2]))
"""


@dataclass(frozen=True)
class Measurement:
    """One size: seconds of wall and of processor time, and the child's peak of resident memory in MiB."""

    users: int
    rows: int
    file_mib: float
    pseudo_labels: int
    seconds: float
    cpu_seconds: float
    rows_per_second: float
    peak_mib: float


def generate(folder: Path, users: int, samples: int, with_rationales: bool) -> None:
    """Writes taxonomy, features and candidates of `users` users; three quarters of them are in training."""
    questions = tasks.builtin("profile")
    questions.save(folder / "taxonomy.yaml")
    random = np.random.default_rng(0)
    _write_features(folder / "features.parquet", users, random)
    with tables.writer(folder / "candidates.parquet", tables.CANDIDATES) as out:
        for first in range(0, users, _USERS_AT_ONCE):
            ids = np.arange(first, min(first + _USERS_AT_ONCE, users))
            out.write_table(_candidates(ids, questions, samples, with_rationales, random))


def measure(users: int, samples: int, with_rationales: bool, vote: str) -> Measurement:
    """Generates, labels in a fresh process, and reads that process's own resource usage."""
    with tempfile.TemporaryDirectory(prefix="labelling-benchmark-") as name:
        folder = Path(name)
        generate(folder, users, samples, with_rationales)
        started = time.perf_counter()
        used = usage.measure(_CHILD, name, samples, vote)
        seconds = time.perf_counter() - started
        report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
        file_mib = (folder / "candidates.parquet").stat().st_size / 2**20
    return Measurement(
        users=users,
        rows=report["rows"],
        file_mib=file_mib,
        pseudo_labels=report["pseudo_labels"],
        seconds=seconds,
        cpu_seconds=used.seconds,
        rows_per_second=report["rows"] / seconds,
        peak_mib=used.mib,
    )


def markdown(measurements: list[Measurement]) -> str:
    """The table that goes into the documentation."""
    lines = [
        "| users | candidate rows | file | seconds | processor seconds | rows/s | peak memory |",
        "|--:|--:|--:|--:|--:|--:|--:|",
    ]
    lines += [
        f"| {m.users:,} | {m.rows:,} | {m.file_mib:,.0f} MiB | {m.seconds:.1f} "
        f"| {m.cpu_seconds:.1f} | {m.rows_per_second:,.0f} | {m.peak_mib:,.0f} MiB |"
        for m in measurements
    ]
    return "\n".join(lines)


def _write_features(path: Path, users: int, random: np.random.Generator) -> None:
    empty = pa.array([[]] * users, pa.list_(pa.string()))
    splits = np.where(random.random(users) < 0.75, "train", "test")
    columns = {
        "user_id": _user_ids(np.arange(users)),
        "split": pa.array(splits.tolist()),
        **dict.fromkeys(DEFAULT_FEATURES.lists, empty),
        **dict.fromkeys(DEFAULT_FEATURES.scalars, pa.nulls(users, pa.string())),
    }
    with tables.writer(path, tables.FEATURES) as out:
        out.write_table(pa.table(columns, schema=tables.FEATURES.schema))


def _candidates(
    ids: np.ndarray,
    questions: Taxonomy,
    samples: int,
    with_rationales: bool,
    random: np.random.Generator,
) -> pa.Table:
    """Rows in the order of the synthesis step: user by user, sample by sample, attribute by attribute."""
    attributes = len(questions.names)
    rows = len(ids) * samples * attributes
    well_formed = np.repeat(random.random(len(ids) * samples) >= _MALFORMED_SHARE, attributes)
    answered = well_formed & (random.random(rows) >= _UNKNOWN_SHARE)
    attribute = np.tile(np.arange(attributes, dtype=np.int32), len(ids) * samples)
    levels = random.choice(np.arange(1, 6, dtype=np.int8), size=rows, p=_LEVEL_SHARES)
    columns = {
        "user_id": _user_ids(ids).take(pa.array(np.repeat(np.arange(len(ids)), samples * attributes))),
        "sample": np.tile(np.repeat(np.arange(samples, dtype=np.int32), attributes), len(ids)),
        "attribute": pa.array(list(questions.names)).take(pa.array(attribute)),
        "tag": _tags(len(ids), questions, samples, answered, random),
        "level": pa.array(levels, mask=~well_formed),
        "rationale": _rationales(rows // attributes, attributes, random) if with_rationales else pa.nulls(rows),
        "well_formed": well_formed,
        "form": pa.nulls(rows, pa.string()),
    }
    return pa.table(columns).cast(tables.CANDIDATES.schema)


def _tags(users: int, questions: Taxonomy, samples: int, answered: np.ndarray, random: np.random.Generator) -> pa.Array:
    """A tag for each user and attribute that most samples agree on, the others anything."""
    counts = np.asarray([len(attribute.tags) for attribute in questions.attributes])
    shape = (users, samples, len(counts))
    favourite = random.random((users, 1, len(counts)))
    agrees = random.random(shape) < 0.3 + 0.6 * random.random((users, 1, len(counts)))
    chosen = np.where(agrees, favourite, random.random(shape)) * counts
    first = np.cumsum([0, *counts[:-1]])
    codes = (chosen.astype(np.int32) + first).ravel()
    names = pa.array([tag for attribute in questions.attributes for tag in attribute.tags])
    return names.take(pa.array(codes, mask=~answered))


def _rationales(completions: int, attributes: int, random: np.random.Generator) -> pa.Array:
    drawn = random.integers(_KEYPHRASES, size=(completions, 4)).tolist()
    texts = pa.array(["; ".join(f"keyphrase number {code}" for code in codes) for codes in drawn])
    return texts.take(pa.array(np.repeat(np.arange(completions), attributes)))


def _user_ids(ids: np.ndarray) -> pa.Array:
    return pa.array([f"user-{number:09d}" for number in ids.tolist()])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", default=",".join(map(str, SIZES)), help="sizes, separated by commas")
    parser.add_argument("--samples", type=int, default=10)
    parser.add_argument("--vote", default="weighted", choices=voting.VOTES)
    parser.add_argument("--rationales", action="store_true", help="candidates with a rationale in each sample")
    arguments = parser.parse_args()
    sizes = [int(size) for size in arguments.users.split(",")]
    measurements = [measure(size, arguments.samples, arguments.rationales, arguments.vote) for size in sizes]
    machine = {"cores": os.cpu_count(), "processor": platform.machine(), "python": platform.python_version()}
    print(
        json.dumps(
            {"machine": machine, "vote": arguments.vote, "measurements": [asdict(m) for m in measurements]}, indent=2
        )
    )
    print(markdown(measurements))


if __name__ == "__main__":
    main()
