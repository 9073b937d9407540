"""What the tests on a real node share: a small model made by the pipeline, its store, and the chart that serves it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from conf_profile import tables
from conf_profile.config import StorageConfig
from conf_profile.dialogue.prompts import UserFeatures
from conf_profile.registry import registry
from conf_profile.registry.registry import Registry
from conf_profile.storage import object_store
from conf_profile.storage.local_s3 import S3Access
from conf_profile.students import examples
from serving.backfill import backfill
from support.cluster.caller import Caller
from support.cluster.kube import Release
from support.cluster.outside import Relay

SECRET = "object-store"
RUN = (
    "--users=300",
    "--set=student.hidden_size=64",
    "--set=student.heads=2",
    "--set=student.key_value_heads=1",
    "--set=student.vocabulary_size=800",
    "--set=sft.epochs=14",
    "--set=sft.min_steps=0",
    "--set=sft.batch_size=32",
    "--set=rejection.rounds=1",
    "--set=rejection.kept_per_user=1",
    "--set=reference.samples=3",
    "--set=grpo.steps=2",
    "--set=grpo.prompts_per_step=4",
    "--set=grpo.rollouts=4",
    "--set=evaluation.bootstrap=200",
    # Whether so little training makes a good model is not what these tests ask.
    "--set=gate.min_precision=0",
    "--set=gate.require_hierarchy=false",
    "--set=gate.tolerance=1",
)
"""The preset `tiny` in a minute; its student has heads of 32 dimensions, as vLLM on a CPU wants them."""


@dataclass(frozen=True)
class World:
    """A finished run, and its store as this machine (`access`) and the pods (`relay`) reach it."""

    folder: Path
    access: S3Access
    relay: Relay
    model: str

    @property
    def outputs(self) -> dict[str, str]:
        return dict(json.loads((self.folder / "workspace" / "outputs.json").read_text(encoding="utf-8")))

    @property
    def student(self) -> Path:
        return Path(self.outputs["student"])

    @property
    def people(self) -> list[Any]:
        """Users of the test split, with their features."""
        return examples.users(tables.read_features(Path(self.outputs["features"])), ["test"])

    @property
    def models(self) -> Registry:
        return registry.connect(StorageConfig(model=self.model), self.access)

    @property
    def arguments(self) -> dict[str, Any]:
        return dict(json.loads((self.folder / "workspace" / "arguments.json").read_text(encoding="utf-8")))

    def people_now(self, users: Sequence[str], work: Path) -> list[UserFeatures]:
        """Their features of today, as the online store has them; the run's tables go on after the run's moment."""
        source = replace(backfill.source_of(self.arguments), as_of=datetime.now(UTC).isoformat())
        plan = backfill.plan(source, self.student, work, "transformers")
        people = {person.user_id: person for shard in plan.shards for person in backfill.people(plan, shard)}
        return [people[user] for user in users]

    def upload_tables(self) -> None:
        """Where the chart looks for them."""
        for name in ("behaviour", "demographics"):
            self.client.upload_file(self.arguments[f"{name}_uri"], "conf-profile", f"tables/{name}.parquet")

    def publish(self, thresholds: Mapping[str, int]) -> str:
        """Another version: the champion's weights and smoke profiles, and thresholds of its own."""
        champion = self.models.show()
        kept = {"smoke.json"} & champion.files.keys()
        generated = {name: self.models.read(champion, name) for name in kept}
        generated["thresholds.json"] = json.dumps(thresholds).encode()
        return self.models.publish(self.student, generated=generated).name

    def flip_a_byte(self, version: str) -> None:
        """In the weights of a published version, as a disk might."""
        key = f"models/{self.model}/versions/{version}/model.safetensors"
        body = bytearray(self.client.get_object(Bucket="conf-profile", Key=key)["Body"].read())
        body[len(body) // 2] ^= 1
        self.client.put_object(Bucket="conf-profile", Key=key, Body=bytes(body))

    @property
    def client(self) -> Any:
        given = self.access
        return object_store.s3_client(given.endpoint, given.region, given.access_key, given.secret_key)


def run_pipeline(folder: Path, model: str) -> None:
    """`conf-profile run`, to a promoted version of this model."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("AWS_")}
    command = [sys.executable, "-m", "conf_profile", "run", f"--out={folder}", f"--set=storage.model={model}", *RUN]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout[-3000:]


def values(world_url: str, images: Mapping[str, Any], node: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Layers over `values-cpu.yaml`: these images, this node, this store."""
    host = node["metadata"]["labels"]["kubernetes.io/hostname"]
    return [
        images,
        {
            "nodePools": {"cpu": {"nodeSelector": {"kubernetes.io/hostname": host}}},
            "s3": {"endpoint": world_url, "existingSecret": SECRET},
            # Two vLLMs share two cores during a rollout.
            "serving": {"deadlineSeconds": 30},
            "features": {"materialise": {"suspend": True}},
            "pipelines": {"enabled": True, "s3Secret": {"name": SECRET}},
        },
    ]


@dataclass(frozen=True)
class Served:
    """The chart, serving a model on a real node, and who asks it."""

    world: World
    release: Release
    caller: Caller

    @property
    def version(self) -> str:
        """What the InferenceService is pinned to, else the champion."""
        uri = self.release.namespace.get("inferenceservice", self.release.fullname)["spec"]["predictor"]["model"][
            "storageUri"
        ]
        return str(registry.parse_uri(uri).version or self.world.models.show().name)

    def pods(self, component: str) -> list[dict[str, Any]]:
        selector = f"serving.kserve.io/inferenceservice={self.release.fullname},component={component}"
        return self.release.namespace.pods(selector)

    def job(self, cronjob: str, name: str) -> None:
        """Runs what the CronJob would, to its end."""
        namespace = self.release.namespace
        namespace.kubectl("create", "job", name, f"--from=cronjob/{self.release.fullname}-{cronjob}")
        namespace.wait("condition=Complete", f"job/{name}", seconds=240)
