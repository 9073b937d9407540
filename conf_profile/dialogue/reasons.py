"""Why a profile says nothing of an attribute, and how a teacher's answer was read.

Callers and reports show the text; whoever decides by a reason compares these.
"""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """The value is what the API says; a tag below its threshold has a text of its own.

    NO_LEVEL: nobody has judged the model, and no lowest level was given for the attribute (`gate.unjudged_levels`).
    """

    MALFORMED = "malformed answer"
    UNKNOWN = "the evidence says nothing"
    NO_CONSENT = "no consent"
    NO_USER = "unknown user"
    NO_FEATURES = "the feature store gave no answer"
    NO_ANSWER = "the predictor gave no answer"
    NO_LEVEL = "never accepted: the model is unjudged, and no lowest level was given"


class AnswerForm(StrEnum):
    """How an answer of the teacher was read (`answer_reader`); the value is what reports count.

    The first three are well-formed, the others say why nothing was read.
    """

    EXACT = "in the form of the prompt"
    OTHER_FORM = "in another form, read"
    CUT_RATIONALE = "with a rationale that was cut at the limit, read"
    EMPTY = "empty"
    REFUSED = "refused by the endpoint"
    LONG_PROMPT = "none, since the prompt is too long for the endpoint"
    NO_ANSWER = "neither elements nor JSON"
    CUT_OFF = "cut off before its end"
    MISSING_ATTRIBUTE = "an attribute is missing"
    OTHER_TAG = "a tag outside the task"
    AMBIGUOUS_TAG = "a tag that may be either of two"
    NO_LEVEL = "a level is missing"
    OTHER_LEVEL = "a level that is not one of 1 to 5"
    TWO_ANSWERS = "two different answers"

    @property
    def well_formed(self) -> bool:
        """Whether the answer counts."""
        return self in _WELL_FORMED

    @property
    def remedy(self) -> str:
        """What to change where most answers are like this; empty for a well-formed one."""
        return "" if self.well_formed else _REMEDIES.get(self, _ASK_ANOTHER)


_WELL_FORMED = frozenset({AnswerForm.EXACT, AnswerForm.OTHER_FORM, AnswerForm.CUT_RATIONALE})
_ASK_ANOTHER = "choose another teacher.model, or with kind vllm set teacher.structured_output"
_RAISE_TOKENS = "raise teacher.max_tokens, or choose a teacher.model that thinks less"
_REMEDIES = {
    AnswerForm.REFUSED: "choose another teacher.model, or put the instruction in task.yaml in other words",
    AnswerForm.LONG_PROMPT: "lower prompt.max_keyphrases",
    AnswerForm.EMPTY: _RAISE_TOKENS,
    AnswerForm.CUT_OFF: _RAISE_TOKENS,
    AnswerForm.OTHER_TAG: "describe the tags in task.yaml, or choose another teacher.model",
    AnswerForm.AMBIGUOUS_TAG: "give the tags in task.yaml names that differ in more than case or punctuation",
}
