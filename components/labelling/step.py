"""Labelling: from the teacher's candidates to voted, calibrated pseudo-labels, Parquet to Parquet.

Two passes in bounded memory. The first streams the candidates in blocks of whole users, votes, and spills the
winners to a scratch file beside the output; the second gives them their calibrated level. In between, the
calibration is fitted on the users of the training split. A vote that learns (`learned_votes`) is fitted before
both, on the first users of the stream. What grows with the number of users is their ids
(to see that nobody appears twice) and two bytes for each attribute.

It reads no true label, and it asks no teacher.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from components.labelling import rationales
from conf_profile import tables
from conf_profile.config import LabellingConfig
from conf_profile.consensus import confidence, voting
from conf_profile.consensus.candidates import BLOCK_ROWS, Block, UserRows, blocks, check_users, count_forms
from conf_profile.dialogue.task import load as load_task
from conf_profile.dialogue.taxonomy import Taxonomy
from conf_profile.errors import DataError
from conf_profile.files import write_text

KIND = "teacher-vote"
TRAIN = "train"
FIT_USERS = 20_000
"""Users that a learned vote is fitted on: its tables have some hundred entries an attribute."""
SCORE_STEPS = 50_000
"""Scores are counted in steps of 1 / 50,000 (two bytes): finer than any vote over up to 100 samples tells apart."""

_SPILL = pa.schema(
    [
        ("user_id", pa.string()),
        ("attribute", pa.int16()),
        ("tag", pa.int16()),
        ("score", pa.float64()),
        ("votes", pa.int32()),
        ("rationale", pa.string()),
    ]
)

log = logging.getLogger(__name__)


@dataclass
class _Totals:
    """What the first pass leaves behind: counts for the report, each user's support for the calibration."""

    attributes: int
    samples: int
    rows: int = 0
    malformed: int = 0
    user_rows: list[UserRows] = field(default_factory=list)
    support: list[npt.NDArray[np.uint16]] = field(default_factory=list)
    raw_levels: npt.NDArray[np.int64] = field(init=False)
    disagreement: npt.NDArray[np.float64] = field(init=False)
    answered: npt.NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        self.raw_levels = np.zeros((self.attributes, confidence.LEVEL_COUNT), dtype=np.int64)
        self.disagreement = np.zeros(self.attributes)
        self.answered = np.zeros(self.attributes, dtype=np.int64)

    @property
    def users(self) -> pa.ChunkedArray:
        return pa.chunked_array([found.users for found in self.user_rows], pa.string())


def run(
    candidates: list[Path],
    task_file: Path,
    features: Path | None,
    pseudo_labels: Path,
    calibration: Path,
    report: Path,
    config: LabellingConfig,
    samples: int,
    block_rows: int = BLOCK_ROWS,
) -> None:
    """Writes pseudo-labels, the calibration that gave them their levels, and a report (JSON).

    `candidates` are the shards of one table, each user in one of them; `samples` is M. The calibration is
    fitted on the users of split "train" in `features`, on all users without it. Rows where nobody answered
    are left out and counted. Raises DataError for input that breaks the tables' rules, and writes nothing.
    """
    questions = load_task(task_file)
    with _spill_beside(pseudo_labels) as spill:
        voters = _voters(candidates, questions, samples, config.vote, block_rows)
        totals = _vote_all(candidates, questions, samples, voters, spill, block_rows)
        check_users(totals.user_rows)
        fitted = _fit(totals, features, questions)
        levels = _write_labels(spill, pseudo_labels, fitted, questions)
    confidence.save(fitted, calibration)
    summary = _report(totals, levels, questions, config) | _answers(candidates, questions)
    write_text(report, json.dumps(summary, indent=2) + "\n")
    log.info("labelled %d users, %d pseudo-labels", len(totals.users), int(totals.answered.sum()))


@contextmanager
def _spill_beside(final: Path) -> Iterator[Path]:
    """A scratch file in the output's folder; one that a killed run left behind is written over."""
    spill = final.with_name(f".{final.name}.spill")
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        yield spill
    except OSError as error:
        problem = error.strerror or error
        raise DataError(f"{spill}: cannot be written: {problem}; nothing was changed") from error
    finally:
        spill.unlink(missing_ok=True)


def _voters(
    candidates: Sequence[Path], taxonomy: Taxonomy, samples: int, method: str, block_rows: int
) -> list[voting.Voter]:
    """One fitted vote for each attribute; a counting vote needs no users for it."""
    shape = (len(taxonomy.names), 0, samples)
    tags, levels = [np.empty(shape, np.int16)], [np.empty(shape, np.int8)]
    if method in voting.LEARNED_VOTES:
        for block in _first_blocks(candidates, taxonomy, samples, block_rows):
            tags.append(block.tags)
            levels.append(block.levels)
    every_tag, every_level = np.concatenate(tags, axis=1), np.concatenate(levels, axis=1)
    return [
        voting.fit(every_tag[position, :FIT_USERS], every_level[position, :FIT_USERS], len(attribute.tags), method)
        for position, attribute in enumerate(taxonomy.attributes)
    ]


def _first_blocks(candidates: Sequence[Path], taxonomy: Taxonomy, samples: int, block_rows: int) -> Iterator[Block]:
    """Blocks until they hold FIT_USERS users."""
    users = 0
    for path in candidates:
        for block in blocks(path, taxonomy, samples, block_rows):
            yield block
            users += len(block.users)
            if users >= FIT_USERS:
                return


def _vote_all(
    candidates: Sequence[Path],
    taxonomy: Taxonomy,
    samples: int,
    voters: Sequence[voting.Voter],
    spill: Path,
    block_rows: int,
) -> _Totals:
    totals = _Totals(len(taxonomy.names), samples)
    with pq.ParquetWriter(spill, _SPILL, compression="none") as out:
        for path in candidates:
            for block in blocks(path, taxonomy, samples, block_rows):
                votes = [
                    voter.elect(block.tags[position], block.levels[position]) for position, voter in enumerate(voters)
                ]
                _count(totals, block, votes, taxonomy)
                out.write_table(_winners(block, votes))
    if not totals.rows:
        files = ", ".join(map(str, candidates)) or "no file"
        raise DataError(f"{files}: the table 'candidates' has no rows; run the synthesis step for some users")
    return totals


def _count(totals: _Totals, block: Block, votes: Sequence[voting.Vote], taxonomy: Taxonomy) -> None:
    totals.rows += block.rows
    totals.malformed += block.malformed
    totals.user_rows.append(block.user_rows)
    totals.support.append(np.stack([_steps(vote) for vote in votes]))
    for position, attribute in enumerate(taxonomy.attributes):
        stated = np.bincount(block.levels[position].ravel(), minlength=confidence.LEVEL_COUNT + 1)
        totals.raw_levels[position] += stated[1:]
        totals.disagreement[position] += np.nansum(voting.disagreement(block.tags[position], len(attribute.tags)))
        totals.answered[position] += np.count_nonzero(votes[position].tag != voting.NO_ANSWER)


def _steps(vote: voting.Vote) -> npt.NDArray[np.uint16]:
    """Scores in steps, [users]; 0 where nobody answered, and there alone."""
    answered = vote.tag != voting.NO_ANSWER
    return np.where(answered, np.maximum(np.rint(vote.score * SCORE_STEPS), 1), 0).astype(np.uint16)


def _winners(block: Block, votes: Sequence[voting.Vote]) -> pa.Table:
    """The spill's rows of one block: user by user, each with its answered attributes in order."""
    tags = np.stack([vote.tag for vote in votes], axis=1)
    user, attribute = np.nonzero(tags != voting.NO_ANSWER)
    chosen = (attribute, user)
    columns = [
        block.users.take(pa.array(user)),
        attribute.astype(np.int16),
        tags[user, attribute],
        np.stack([vote.score for vote in votes])[chosen],
        np.stack([vote.votes for vote in votes])[chosen],
        _rationales(block, tags).take(pa.array(attribute * len(tags) + user)),
    ]
    return pa.table(columns, schema=_SPILL)


def _rationales(block: Block, tags: npt.NDArray[np.int16]) -> pa.Array:
    """The joined rationales, attribute by attribute, each for all users of the block."""
    if block.citations is None or block.rationales is None:
        return pa.nulls(tags.size, pa.string())
    citations, keyphrases = rationales.split(block.citations, block.rationales)
    named = block.tags != voting.NO_ANSWER
    return pa.concat_arrays(
        [
            rationales.join(citations[position], named[position] & (answers == tags[:, [position]]), keyphrases)
            for position, answers in enumerate(block.tags)
        ]
    )


def _fit(totals: _Totals, features: Path | None, taxonomy: Taxonomy) -> confidence.Calibration:
    support = np.concatenate(totals.support, axis=1)
    if features is not None:
        support = support[:, _training_mask(totals.users, features)]
    histograms = {}
    for name, of_attribute in zip(taxonomy.names, support, strict=True):
        counts = np.bincount(of_attribute, minlength=1)
        # 0 means that nobody answered: such a user gets no label and takes no part.
        histograms[name] = {value / SCORE_STEPS: int(counts[value]) for value in np.flatnonzero(counts) if value}
    return confidence.fit_histograms(histograms, KIND)


def _training_mask(users: pa.ChunkedArray, features: Path) -> npt.NDArray[np.bool_]:
    table = _read_splits(features)
    training = table.column("user_id").filter(pc.equal(table.column("split"), TRAIN))
    mask: npt.NDArray[np.bool_] = pc.is_in(users, value_set=training.cast(pa.string())).to_numpy()
    if not mask.any():
        raise DataError(f"{features}: no user with candidates is in split {TRAIN!r}; nothing to calibrate on")
    return mask.astype(np.bool_)


def _read_splits(features: Path) -> pa.Table:
    """Two columns alone: the keyphrases of a million users would not fit beside the rest."""
    try:
        return pq.read_table(features, columns=["user_id", "split"]).select(["user_id", "split"])
    except (OSError, pa.ArrowInvalid, KeyError) as error:
        raise DataError(f"{features}: cannot read user_id and split of the table 'features': {error}") from error


def _write_labels(
    spill: Path, pseudo_labels: Path, fitted: confidence.Calibration, taxonomy: Taxonomy
) -> npt.NDArray[np.int64]:
    """Second pass: adds the calibrated level; returns how often each was given, [attributes, 5]."""
    given = np.zeros((len(taxonomy.names), confidence.LEVEL_COUNT), dtype=np.int64)
    with tables.writer(pseudo_labels, tables.PSEUDO_LABELS) as out, pq.ParquetFile(spill) as file:
        for batch in file.iter_batches(BLOCK_ROWS):
            out.write_table(_labels(batch, fitted, taxonomy, given))
    return given


def _labels(
    batch: pa.RecordBatch,
    fitted: confidence.Calibration,
    taxonomy: Taxonomy,
    given: npt.NDArray[np.int64],
) -> pa.Table:
    attribute, tag, score = (batch.column(name).to_numpy() for name in ("attribute", "tag", "score"))
    levels = np.zeros(len(score), dtype=np.int8)
    for position, name in enumerate(taxonomy.names):
        rows = attribute == position
        levels[rows] = confidence.apply(fitted, name, score[rows])
        given[position] += confidence.level_counts(levels[rows])
    first_tag = np.cumsum([0, *(len(of.tags) for of in taxonomy.attributes)])
    columns = {
        "user_id": batch.column("user_id"),
        "attribute": _decode(attribute, taxonomy.names),
        "tag": _decode(first_tag[attribute] + tag, [tag for of in taxonomy.attributes for tag in of.tags]),
        "score": batch.column("score"),
        "level": levels,
        "votes": batch.column("votes"),
        "rationale": batch.column("rationale"),
    }
    return pa.table(columns, schema=tables.PSEUDO_LABELS.schema)


def _decode(codes: npt.NDArray[np.integer[Any]], names: Sequence[str]) -> pa.Array:
    dictionary = pa.array(list(names), pa.string())
    return pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int32)), dictionary).cast(pa.string())


def _answers(candidates: Sequence[Path], taxonomy: Taxonomy) -> dict[str, Any]:
    counts = count_forms(candidates, taxonomy)
    return {"answers": asdict(counts)} if counts else {}


def _report(
    totals: _Totals, levels: npt.NDArray[np.int64], taxonomy: Taxonomy, config: LabellingConfig
) -> dict[str, Any]:
    users, names = len(totals.users), taxonomy.names
    # Rounded, since the last digits of a sum depend on where the blocks were cut.
    disagreement = np.round(totals.disagreement / np.maximum(totals.answered, 1), 9)

    def by_attribute(values: Any) -> dict[str, Any]:
        return dict(zip(names, values, strict=True))

    def balances(counts: npt.NDArray[np.int64]) -> dict[str, float]:
        return by_attribute([confidence.balance_of_counts(row) for row in counts])

    return {
        "users": users,
        "attributes": list(names),
        "samples": totals.samples,
        "vote": config.vote,
        "rows": totals.rows,
        "missing_rows": users * len(names) * totals.samples - totals.rows,
        "malformed_share": totals.malformed / totals.rows,
        "pseudo_labels": int(totals.answered.sum()),
        "unanswered": by_attribute((users - totals.answered).tolist()),
        "disagreement": by_attribute(disagreement.tolist()),
        "raw_levels": by_attribute(totals.raw_levels.tolist()),
        "calibrated_levels": by_attribute(levels.tolist()),
        "balance": {"before": balances(totals.raw_levels), "after": balances(levels)},
    }
