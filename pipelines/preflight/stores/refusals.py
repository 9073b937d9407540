"""What a store's refusal means for a run, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from conf_profile.storage.object_address import REGION
from pipelines.preflight.finding import Finding, Level
from pipelines.preflight.stores.keys import StoreKeys
from pipelines.preflight.stores.probe import NO_KEYS, UNREACHABLE_STORE, UNTRUSTED_CERTIFICATE, Outcome, Place

_WRONG_REGION = ("PermanentRedirect", "301", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException")
_PATH_STYLE = ("SecondLevelDomainForbidden", "PathStyleDomainForbidden", "PathStyleRequestNotAllowed")
_TRY_AGAIN = ("SlowDown", "ServiceUnavailable", "InternalError", "RequestTimeout", "500", "502", "503", "504")
_ACCESS_DENIED = (
    "{owner} may not read it",
    "give them the right to list the bucket and to read there, or correct the address or {setting}",
)
_KEY_REFUSALS: Mapping[str, tuple[str, str]] = {
    "AccessDenied": _ACCESS_DENIED,
    "403": _ACCESS_DENIED,
    "InvalidAccessKeyId": ("the store does not know {owner}", "correct the access key ({setting})"),
    "SignatureDoesNotMatch": ("the store refuses {owner}: wrong secret", "correct the secret access key ({setting})"),
    "ExpiredToken": ("{owner} have expired", "get new ones ({setting})"),
    NO_KEYS: ("it was not looked for, since there are no keys here", "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
}
_DATA_REFUSALS: Mapping[str, tuple[str, str]] = {
    "NoSuchBucket": ("the bucket does not exist", "create it, or correct its name (storage.bucket, or the address)"),
    "NoSuchKey": ("it does not exist", "correct the address, or upload it; docs/data.md says what a data set has"),
    "404": ("it does not exist", "correct the address, or upload it"),
}


def explain(outcome: Outcome, subject: str, place: Place, keys: StoreKeys, is_steps_view: bool) -> Iterator[Finding]:
    """At most one finding. What is refused to the caller's own keys may be allowed to the steps': a warning.

    `is_steps_view`: the store is reached from here as the steps reach it, so that one that is silent is an error.
    """
    code = outcome.code
    if code in _KEY_REFUSALS:
        what, remedy = (text.format(owner=keys.owner, setting=keys.setting) for text in _KEY_REFUSALS[code])
        yield Finding("error" if keys.are_steps else "warning", f"{subject}: {what}", remedy)
    elif code in _DATA_REFUSALS:
        what, remedy = _DATA_REFUSALS[code]
        yield Finding("error", f"{subject}: {what}", remedy)
    elif code in _WRONG_REGION or (place.region and outcome.region not in ("", place.region)):
        yield _wrong_region(outcome, subject, place)
    elif code:
        yield _other_finding(outcome, subject, "error" if is_steps_view else "warning")


def _wrong_region(outcome: Outcome, subject: str, place: Place) -> Finding:
    found = outcome.region or "another region, which the store does not name"
    region = outcome.region or "NAME"
    return Finding(
        "error" if outcome.code else "warning",
        f"{subject}: the bucket lies in {found}, and is asked for in {place.region or REGION}",
        f"set storage.region and s3.region to {region} with the endpoint of that region, or write region={region} into "
        "the address (s3://BUCKET/KEY?region=NAME)",
    )


def _other_finding(outcome: Outcome, subject: str, silent: Level) -> Finding:
    code, said = outcome.code, " ".join(outcome.detail.split())[:300]
    if code == UNREACHABLE_STORE:
        return Finding(
            silent,
            f"{subject}: the store does not answer here ({said})",
            "check that it runs and its endpoint; where pods alone reach it, set AWS_ENDPOINT_URL to a way from here",
        )
    if code == UNTRUSTED_CERTIFICATE:
        return Finding(
            silent,
            f"{subject}: {said.partition('; ')[0]}",
            f"{said.partition('; ')[2]}; the steps have the authority's certificate from the ConfigMap that "
            "s3.caConfigMap names",
        )
    if code in _PATH_STYLE:
        what = "the store takes no path-style addresses (ENDPOINT/BUCKET), the only ones used outside Amazon"
        return Finding("error", f"{subject}: {what}", "use a store or an endpoint that takes them")
    if code in _TRY_AGAIN:
        return Finding(
            "warning", f"{subject}: the store does not answer now ({code})", "try again if the run waits for it"
        )
    return Finding("error", f"{subject}: the store refuses it ({code}: {said})", "correct the address or the endpoint")
