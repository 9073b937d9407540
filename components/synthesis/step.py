"""Synthesis: the teacher answers for each user several times; every answer becomes rows of candidates.

No label is read here, and no answer is judged beyond its form: that is the labelling step's work.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from components.synthesis import inspection
from components.synthesis.progress import AnswerProgress
from conf_profile import tables
from conf_profile.config import PromptConfig, TeacherConfig
from conf_profile.dialogue import task as tasks
from conf_profile.dialogue.answer_reader import ReadAnswer, read_answer
from conf_profile.dialogue.prompts import UserFeatures, render_messages
from conf_profile.dialogue.reasons import AnswerForm
from conf_profile.dialogue.task import Task
from conf_profile.dialogue.taxonomy import Taxonomy
from conf_profile.errors import MalformedAnswersError, TeacherError
from conf_profile.teachers import remote_answers
from conf_profile.teachers.answers import AnswerStore, AskCounts, ask
from conf_profile.teachers.factory import make_teacher
from conf_profile.teachers.protocol import Request, Teacher
from conf_profile.teachers.spending import Spending

ASKED_SPLITS = ("train", "validation", "test")
"""The test users' answers serve to evaluate the teacher alone; `second_stage` users are never asked about."""
ANSWERS_PER_BATCH = 5_000
"""Answers parsed and written at once; bounds the memory of the writing part."""
WARNED_SHARE = 0.1
"""Share of malformed answers from which on the log says so; the report says it always."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SynthesisCounts:
    """What a shard did: users, completions asked now, completions kept before, completions malformed."""

    users: int
    asked: int
    kept_before: int
    malformed: int


def run(
    features: Path,
    task_file: Path,
    lexicon: Path | None,
    candidates: Path,
    config: TeacherConfig,
    prompt: PromptConfig,
    seed: int,
    shard: int,
    answers_folder: Path | str,
    ask_splits: Sequence[str] = ASKED_SPLITS,
) -> dict[str, int]:
    """Asks the teacher about one shard's users, writes `candidates`, returns `SynthesisCounts` as a dict.

    Rows are ordered by user, sample and the taxonomy's attributes, so a user's rows are contiguous. Answers
    that `answers_folder` keeps (a folder, or s3://BUCKET/PREFIX) are not asked for again. Raises TeacherError when the
    teacher cannot go on (MalformedAnswersError: when most of its answers are malformed) and DataError for a features
    table that breaks its schema.
    """
    task = tasks.load(task_file)
    users = _shard_of(tables.read_features(features), ask_splits, shard, config.shards)
    requests = [_request(row, task, config, prompt) for row in _rows(users)]
    spending = Spending()
    teacher = make_teacher(_limit_to_shard_budget(config, shard), task, lexicon, seed, spending)
    with _store(answers_folder, teacher, shard, config.shards) as store:
        if config.max_requests is not None:
            spending.continue_in(store, requests)
        total = len(requests) * config.samples
        progress = AnswerProgress(f"synthesis {shard + 1}", total, task, config)
        counts = asyncio.run(_ask(teacher, requests, store, progress, task, config.malformed_limit))
        forms = _write(candidates, requests, store, task)
    malformed = {form: count for form, count in forms.items() if not form.well_formed}
    _warn_if_malformed(malformed, total)
    return asdict(SynthesisCounts(len(requests), counts.asked, counts.kept_before, sum(malformed.values())))


def shard_of(user_id: str, shards: int) -> int:
    """The shard that asks about a user: the same on every machine and in every run."""
    digest = hashlib.blake2b(user_id.encode(), digest_size=8, person=b"shard").digest()
    return int.from_bytes(digest, "big") % shards


def _shard_of(features: pa.Table, splits: Sequence[str], shard: int, shards: int) -> pa.Table:
    asked = features.filter(pc.is_in(features.column("split"), value_set=pa.array(splits, pa.string())))
    mine = [shard_of(user_id, shards) == shard for user_id in asked.column("user_id").to_pylist()]
    return asked.filter(pa.array(mine, pa.bool_())).sort_by("user_id")


def _rows(users: pa.Table) -> Iterator[dict[str, Any]]:
    for batch in users.to_batches(max_chunksize=1_000):
        yield from batch.to_pylist()


def _request(row: dict[str, Any], task: Task, config: TeacherConfig, prompt: PromptConfig) -> Request:
    user = UserFeatures(**{name: value for name, value in row.items() if name != "split"})
    messages = render_messages(user, task, "full", prompt.max_keyphrases)
    return Request(user.user_id, tuple(messages), tuple(range(config.samples)))


def _limit_to_shard_budget(config: TeacherConfig, shard: int) -> TeacherConfig:
    """The budget is for all shards together; each may spend its part, however often it is tried."""
    if config.max_requests is None:
        return config
    share, rest = divmod(config.max_requests, config.shards)
    return config.model_copy(update={"max_requests": share + (shard < rest)})


@contextmanager
def _store(place: Path | str, teacher: Teacher, shard: int, shards: int) -> Iterator[AnswerStore]:
    # The files of the other shards of this same division hold other users.
    writer, others = f"shard-{shard:04d}-of-{shards:04d}", f"shard-*-of-{shards:04d}"
    with (
        remote_answers.folder_of(place, teacher.fingerprint, writer, others) as folder,
        AnswerStore(folder, teacher.fingerprint, writer, unrelated=others) as store,
    ):
        yield store


async def _ask(
    teacher: Teacher,
    requests: Sequence[Request],
    store: AnswerStore,
    progress: AnswerProgress,
    task: Task,
    limit: float,
) -> AskCounts:
    """Asks for the first answers, looks at them, and asks for the others."""
    first, others = inspection.split_first(requests)
    try:
        before = await ask(teacher, first, store, progress)
        read = (_read_answer(store, request, sample, task) for request in first for sample in request.samples)
        inspection.require_well_formed(Counter(each.form for each in read), limit, "first")
        after = await ask(teacher, others, store, progress)
    except MalformedAnswersError:
        raise
    except TeacherError as error:
        raise _add_rest(error, requests, store) from error.__cause__
    finally:
        await teacher.aclose()
    return AskCounts(before.asked + after.asked, before.kept_before + after.kept_before)


def _add_rest(error: TeacherError, requests: Sequence[Request], store: AnswerStore) -> TeacherError:
    """The error, with what is left to do."""
    kept = [store.text(r.user_id, r.messages, sample) is not None for r in requests for sample in r.samples]
    return TeacherError(f"{error} ({kept.count(False)} of this shard's {len(kept)} answers are left to ask for)")


def _write(path: Path, requests: Sequence[Request], store: AnswerStore, taxonomy: Taxonomy) -> Counter[AnswerForm]:
    """Streams the kept answers into the table; returns how many were read in which form."""
    answers = ((request, sample) for request in requests for sample in request.samples)
    forms: Counter[AnswerForm] = Counter()
    with tables.writer(path, tables.CANDIDATES) as out:
        while batch := list(islice(answers, ANSWERS_PER_BATCH)):
            found = [_read_answer(store, request, sample, taxonomy) for request, sample in batch]
            rows = _table([(r.user_id, s) for r, s in batch], found, taxonomy)
            out.write_table(tables.check(rows, tables.CANDIDATES, str(path)))
            forms.update(each.form for each in found)
    return forms


def _read_answer(store: AnswerStore, request: Request, sample: int, taxonomy: Taxonomy) -> ReadAnswer:
    text = store.text(request.user_id, request.messages, sample) or ""
    found = read_answer(text, taxonomy)
    if found.answer:
        return found
    return read_answer(text, taxonomy, store.reason(request.user_id, request.messages, sample))


def _table(keys: Sequence[tuple[str, int]], found: Sequence[ReadAnswer], taxonomy: Taxonomy) -> pa.Table:
    """One row for each answer and attribute; a malformed answer has nulls in all of them."""
    read = [each.answer for each in found]
    given = [answer.answers[name] if answer else None for answer in read for name in taxonomy.names]
    each = len(taxonomy.names)
    columns = {
        "user_id": [user_id for user_id, _ in keys for _ in range(each)],
        "sample": [sample for _, sample in keys for _ in range(each)],
        "attribute": list(taxonomy.names) * len(keys),
        "tag": [answer.tag if answer else None for answer in given],
        "level": [answer.level if answer else None for answer in given],
        "rationale": [answer.rationale if answer else None for answer in read for _ in range(each)],
        "well_formed": [answer is not None for answer in read for _ in range(each)],
        "form": [str(answer.form) for answer in found for _ in range(each)],
    }
    return pa.table(columns, schema=tables.CANDIDATES.schema)


def _warn_if_malformed(malformed: Mapping[AnswerForm, int], answers: int) -> None:
    count = sum(malformed.values())
    if count > WARNED_SHARE * answers:
        _log.warning("%d of %d answers are malformed: %s", count, answers, inspection.describe_forms(malformed))
