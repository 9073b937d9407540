"""What a run without labels comes to, said before it is paid for."""

from __future__ import annotations

from pipelines.preflight.finding import Finding
from pipelines.preflight.request import PreflightRequest


def labels_findings(request: PreflightRequest) -> list[Finding]:
    """A warning where nobody can be judged and the model will be rejected for it; a note where that is allowed."""
    if not request.starts_run or request.labels_addresses.get("labels") != "":
        return []
    return [
        unjudged_finding(
            request.allows_unjudged, "put labels.parquet beside the tables, or name its place with --labels-uri"
        )
    ]


def unjudged_finding(allowed: bool, remedy: str) -> Finding:
    """What a run without labels comes to; `allowed`: gate.unjudged lets its model be promoted."""
    if allowed:
        return Finding(
            "note",
            "labels: there are none, so the run is unjudged; gate.unjudged allows its model to be promoted",
            "give true labels of some users to know how often it is right",
        )
    return Finding(
        "warning",
        "labels: there are none, so the run is unjudged, and its model will be rejected",
        f"{remedy}; or allow it by name with gate.unjudged and gate.unjudged_levels (docs/data.md)",
    )
