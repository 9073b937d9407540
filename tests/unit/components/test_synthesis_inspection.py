"""The look at the first answers, and the line that tells how far the teacher is."""

from collections import Counter

import pytest

from components.synthesis.inspection import FIRST_ANSWERS, LATEST_ANSWERS, require_well_formed, split_first
from components.synthesis.progress import AnswerProgress
from conf_profile.config import ConfigError, TeacherConfig, parse_section
from conf_profile.dialogue import task as tasks
from conf_profile.dialogue.reasons import AnswerForm
from conf_profile.errors import MalformedAnswersError
from conf_profile.teachers.protocol import Completion, Request, Usage

TASK = tasks.parse({"attributes": {"gender": ["female", "male"]}})
GOOD = "<rationale>roses</rationale><gender>female<level>4</level></gender>"
BAD = "I would rather not say."
PROMPT = ({"role": "user", "content": "x" * 400},)
REMOTE = {"kind": "openai", "base_url": "http://127.0.0.1:1/v1", "model": "m"}


def requests(users, samples):
    return [Request(f"u{n}", PROMPT, tuple(range(samples))) for n in range(users)]


def pairs(found):
    return [(request.user_id, sample) for request in found for sample in request.samples]


@pytest.mark.parametrize(("users", "samples"), [(100, 10), (100, 1), (3, 30), (1, 100), (4, 10), (2, 3), (0, 10)])
def test_the_first_answers_are_a_few_dozen_and_the_others_are_all_the_rest(users, samples):
    everything = requests(users, samples)
    first, others = split_first(everything)
    assert pairs(first) + pairs(others) == pairs(everything)
    assert len(pairs(first)) == min(FIRST_ANSWERS, users * samples)
    assert all(request.samples for request in (*first, *others))


def test_the_error_has_counts_reasons_and_remedy_in_one_line():
    forms = Counter({AnswerForm.CUT_OFF: 30, AnswerForm.EXACT: 8, AnswerForm.NO_ANSWER: 2})
    with pytest.raises(MalformedAnswersError) as told:
        require_well_formed(forms, 0.5, "first")
    message = str(told.value)
    assert message.startswith(
        "32 of the first 40 answers of the teacher are malformed (30 cut off before its end, 2 neither elements nor "
        "JSON), so nothing more is asked. Raise teacher.max_tokens"
    )
    assert "conf-profile try" in message and "teacher.malformed_limit" in message
    # What reads a step's output takes the first line.
    assert "\n" not in message


@pytest.mark.parametrize(
    ("well_formed", "malformed", "limit", "stops"),
    [(20, 20, 0.5, False), (19, 21, 0.5, True), (0, 40, 1.0, False), (39, 1, 0.0, True), (0, 19, 0.5, True),
     (1, 18, 0.5, False), (0, 5, 0.5, True), (0, 4, 0.5, False), (0, 20, 0.5, True), (0, 0, 0.5, False)],
)  # fmt: skip
def test_asking_stops_where_more_than_the_limit_is_malformed(well_formed, malformed, limit, stops):
    forms = Counter({AnswerForm.EXACT: well_formed, AnswerForm.OTHER_TAG: malformed})
    if stops:
        with pytest.raises(MalformedAnswersError):
            require_well_formed(forms, limit, "first")
    else:
        require_well_formed(forms, limit, "first")


def progress(total=1000, **config):
    return AnswerProgress("synthesis 1", total, TASK, TeacherConfig(**{**REMOTE, **config}))


def feed(watch, *texts, **more):
    for number, text in enumerate(texts):
        watch.add(PROMPT, Completion("u", number, text, **more))


def test_the_line_has_the_share_of_well_formed_answers_and_the_cost():
    watch = progress(price=2.0, answer_price=8.0)
    watch.begin(10)
    assert watch.line() == "synthesis 1 10/1000 answers"
    feed(watch, GOOD, f"```\n{GOOD}\n```", BAD, usage=Usage(100_000, 50_000))
    assert watch.line() == "synthesis 1 13/1000 answers, 66.7% of 3 new ones well-formed, cost about 1.80 so far"


def test_without_a_count_of_the_endpoint_tokens_are_estimated_and_without_a_price_told():
    watch = progress()
    feed(watch, GOOD)
    tokens = 400 // 4 + len(GOOD) // 4
    assert watch.line() == f"synthesis 1 1/1000 answers, 100.0% of 1 new ones well-formed, about {tokens} tokens so far"


def test_one_price_is_of_both_kinds_of_tokens():
    watch = progress(price=3.0)
    feed(watch, GOOD, usage=Usage(100, 50))
    assert watch.line().endswith("cost about 0.0004 so far")


def test_the_teacher_of_this_machine_costs_nothing():
    watch = AnswerProgress("synthesis 1", 10, TASK, TeacherConfig())
    feed(watch, GOOD)
    assert watch.line() == "synthesis 1 1/10 answers, 100.0% of 1 new ones well-formed"


def test_a_line_comes_at_the_start_and_at_the_end_and_holds_no_text(capsys):
    watch = progress(total=3)
    watch.begin(0)
    feed(watch, GOOD, BAD, GOOD)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split()[2] for line in lines] == ["0/3", "3/3"]
    assert "roses" not in "".join(lines) and "rather" not in "".join(lines)


def test_a_teacher_that_changes_in_the_middle_is_noticed():
    watch = progress(total=100_000)
    feed(watch, *[GOOD] * 1000, *[BAD] * (LATEST_ANSWERS // 2))
    with pytest.raises(MalformedAnswersError, match=f"101 of the latest {LATEST_ANSWERS} answers"):
        feed(watch, BAD)
    feed(progress(malformed_limit=1.0), *[BAD] * 1000)


def test_a_price_of_answers_alone_is_refused():
    with pytest.raises(ConfigError, match=r"teacher\.price"):
        parse_section(TeacherConfig, '{"answer_price": 2}')
