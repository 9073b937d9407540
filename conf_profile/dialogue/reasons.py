"""Why a profile says nothing of an attribute. Callers read the text; whoever decides by a reason compares these."""

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
