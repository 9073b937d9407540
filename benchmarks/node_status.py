"""What a run costs KFP, before the steps read their tables themselves and since: pods, node status, bytes of arguments.

    python -m benchmarks.node_status

By the rule of `pipelines.node_status`, which gives what was seen of the pipeline of before (37 and 28 pods, 116 nodes,
1,118 kB within 5%). That pipeline and its arguments are kept in tests/golden/before.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.steps import FORMER_NAMES, STEPS
from conf_profile.config import RunConfig, resolve
from pipelines import arguments, cluster_data, resources
from pipelines.compile import compile_to
from pipelines.node_status import count_pods, estimate

FORMER_PIPELINES = Path(__file__).resolve().parents[1] / "tests" / "golden" / "before"
TRAINING = tuple(
    name.replace("_", "-")
    for step in STEPS
    if step.makes_model
    for name in (step.name, *(former for former, present in FORMER_NAMES.items() if present == step.name))
)
"""The steps that a second run takes from the cache, in the pipeline of the release before by their former names."""
_HASH = "0123456789abcdef" * 2


def main() -> None:
    """Prints the table."""
    config = resolve("tiny", values={"data": {"users": 1200}})
    given = json.loads((FORMER_PIPELINES / "arguments.json").read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / "pipeline.yaml"
        compile_to(package, config, resources.load(), caching=True)
        show("before", FORMER_PIPELINES / "training-pipeline.yaml", given)
        show("now", package, uploaded_arguments(config))


def uploaded_arguments(config: RunConfig) -> dict[str, Any]:
    """The arguments that `submit` gives for an uploaded data set."""

    def address(folder: str, name: str) -> str:
        return cluster_data.address_of(config.storage, f"{folder}/{_HASH}/{name}")

    inputs = arguments.Inputs(
        behaviour_uri=address("data", "behaviour.parquet"),
        demographics_uri=address("data", "demographics.parquet"),
        task_uri=address("data", "task.yaml"),
        lexicon_uri=address("data", "lexicon.json"),
        labels_uri=address("truth", "labels.parquet"),
        ceiling_uri=address("truth", "ceiling.parquet"),
        as_of="2025-01-31T00:00:00+00:00",
        data_digest=_HASH * 2,
        labels_digest=_HASH * 2,
    )
    configuration = cluster_data.address_of(config.storage, f"configurations/{_HASH[:24]}.yaml")
    return arguments.pipeline_arguments(config, inputs, "any", cluster_data.places_of(config.storage, configuration))


def show(name: str, package: Path, given: Mapping[str, Any]) -> None:
    """A line of figures."""
    two, four = (estimate(package, {**given, "shards": list(range(shards))}) for shards in (2, 4))
    print(
        f"{name}: {count_pods(package, given)} pods, {count_pods(package, given, TRAINING)} from the cache; "
        f"{two.nodes} nodes, {two.bytes / 1000:.0f} kB of status, with 4 shards {four.bytes / 1000:.0f} kB; "
        f"{len(json.dumps(given))} bytes of arguments"
    )


if __name__ == "__main__":
    main()
