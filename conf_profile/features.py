"""The names of what is known of a user: the same in tables, in Feast, in requests and in prompts."""

from __future__ import annotations

from collections.abc import Mapping

LISTS = ("watch", "search", "submit")
"""Lists of keyphrases, the most recent ones last."""
SIGN_UP: Mapping[str, str] = {
    "self_age": "age",
    "self_gender": "gender",
    "signature": "signature",
    "region": "region",
}
"""Texts that a user may give at sign-up, and what a prompt calls them."""
