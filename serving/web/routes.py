"""The page at /web: what is known of one user, the rationale, the levels, and what each threshold accepts.

It shows personal data to everybody who can reach the server, and asks nobody who they are. It is off by default for
that reason, and belongs on a developer's machine. Somebody without consent is not shown on it either.

The profile itself comes from the ordinary predict API, which the page's script calls like any other caller. Here are
only the page's three files and what that API does not say: the model served now, and a user's features.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Depends, FastAPI, HTTPException
from fastapi.responses import FileResponse, JSONResponse, Response

from conf_profile.dialogue.output_format import LEVELS
from conf_profile.dialogue.prompts import UserFeatures, quote
from conf_profile.dialogue.reasons import Reason
from conf_profile.features import FeatureSchema
from serving.model.bundle import UNJUDGED_STATUS, Bundle
from serving.transformer.features import FeatureLookup
from serving.transformer.transformer import ProfileTransformer
from serving.transformer.versions import ServedVersion

FILES = {
    "/web": ("page.html", "text/html"),
    "/web/page.js": ("page.js", "text/javascript"),
    "/web/page.css": ("page.css", "text/css"),
}
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    # Addresses name users, and answers are about them: neither is left with anybody else.
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
RATES = ("precision", "recall", "coverage")


def register(app: FastAPI, transformer: ProfileTransformer) -> None:
    """Adds the page to a server. Its routes answer 404 once settings with `web: false` have been changed over to."""

    def current_version() -> ServedVersion:
        # Asked for at every request: `replace` puts another version in its place.
        return transformer.served

    def require_web_page() -> None:
        if not current_version().settings.web:
            raise HTTPException(404)

    async def state() -> Response:
        return _json(_state(current_version()))

    async def features(user_id: str) -> Response:
        # The way that every request goes, so the page can know nobody whom the API may not know.
        asked = await transformer.preprocess({"instances": [{"user_id": user_id}]})
        return _user(user_id, asked.known[0], current_version().bundle.task.features)

    router = APIRouter(dependencies=[Depends(require_web_page)], include_in_schema=False)
    for path, (name, media_type) in FILES.items():
        router.add_api_route(path, _sender(name, media_type))
    router.add_api_route("/web/state", state)
    router.add_api_route("/web/features/{user_id:path}", features)
    app.include_router(router)


def _sender(name: str, media_type: str) -> Callable[[], Awaitable[Response]]:
    async def send() -> Response:
        return FileResponse(Path(__file__).parent / name, media_type=media_type, headers=HEADERS)

    return send


def _state(served: ServedVersion) -> dict[str, Any]:
    """The model served now: per attribute the tags, the default threshold, and what the evaluation measured.

    A threshold is null where the model's answers are never accepted.
    """
    bundle, settings = served.bundle, served.settings
    thresholds = bundle.override_thresholds(settings.thresholds)
    return {
        "model": settings.name,
        "version": bundle.version,
        **({} if bundle.judged else {"status": UNJUDGED_STATUS}),
        "attributes": [
            {
                "name": attribute.name,
                "tags": attribute.tags,
                "threshold": thresholds[attribute.name],
                "measured": _measured_rates(bundle, attribute.name),
            }
            for attribute in bundle.task.attributes
        ],
    }


def _measured_rates(bundle: Bundle, attribute: str) -> list[dict[str, float | None]]:
    """The rates of the arm that became this model, at each threshold; None where nothing was measured."""
    arm = bundle.evaluation.get("arms", {}).get(bundle.evaluation.get("candidate"), {})
    curve = {point["tau"]: point for point in arm.get("sweep_per_attribute", {}).get(attribute, [])}
    return [{"tau": tau, **_rates(curve.get(tau, {}))} for tau in LEVELS]


def _rates(point: dict[str, float]) -> dict[str, float | None]:
    rates = {name: point.get(name) for name in RATES}
    # The evaluation writes a precision of 0 for "nothing was accepted", which a reader would take for "all wrong".
    return rates if rates["coverage"] else {**rates, "precision": None}


def _user(user_id: str, known: FeatureLookup, declared: FeatureSchema) -> Response:
    if known.features is not None:
        return _json(_features_json(known.features, declared, known))
    if known.reason is Reason.NO_CONSENT:
        return _json({"consent": False})
    if known.error is not None:
        return _json({"error": str(known.error)}, known.error.status)
    return _json({"error": f"the online store knows no user {user_id!r}"}, 404)


def _features_json(user: UserFeatures, declared: FeatureSchema, known: FeatureLookup) -> dict[str, Any]:
    """Lists and scalars that are known, in the task's order; `quoted` is a text as prompt and rationale have it."""
    return {
        "consent": True,
        "features_as_of": known.as_of and known.as_of.isoformat(),
        "lists": [
            {
                "label": feature.label,
                "texts": [
                    {"text": text, "quoted": quote(text, feature.max_characters)} for text in user.texts(feature.name)
                ],
            }
            for feature in declared
            if feature.type == "list"
        ],
        "scalars": [
            {"label": feature.label, "value": user.values.get(feature.name)}
            for feature in declared
            if feature.type != "list"
        ],
    }


def _json(content: dict[str, Any], status: int = 200) -> Response:
    return JSONResponse(content, status, HEADERS)
