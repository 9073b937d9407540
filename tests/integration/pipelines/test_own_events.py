"""From event logs to served profiles, with no line of code: CSV over ingestion, check, run and promotion to answers, a
backfill and an erasure.

The logs are the sample in examples/events: 500 customers with integer ids, English and Persian, three kinds of events,
and fields with gaps. None of its features is called like one of the paper's.
"""

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from conf_profile.config import StorageConfig
from conf_profile.features import DEFAULT_FEATURES
from conf_profile.registry import registry
from conf_profile.storage.local_s3 import local_s3
from support.local_serving import Serving, alive
from support.paths import ROOT
from support.report_page import serving_command
from support.running import environment
from support.s3 import wait_until

pytestmark = pytest.mark.slow

LOGS = ROOT / "examples" / "events"
TUTORIAL = ROOT / "docs" / "tutorial.md"
FAST = [
    "student.hidden_size=64", "student.heads=2", "student.key_value_heads=1", "student.vocabulary_size=800",
    "sft.epochs=10", "sft.min_steps=0", "sft.batch_size=32", "rejection.rounds=0", "reference.samples=4",
    "grpo.steps=2", "grpo.prompts_per_step=8", "grpo.rollouts=4", "evaluation.bootstrap=200",
]  # fmt: skip
"""What makes the tutorial's run short."""


def words_of(command):
    """The arguments of the tutorial's first command of this name."""
    page = re.sub(r"\\\n\s*", "", TUTORIAL.read_text(encoding="utf-8"))
    return shlex.split(re.search(rf"^    conf-profile ({command} .*)$", page, re.MULTILINE)[1])


def call(place, *arguments):
    """A command as a user gives it; what it printed."""
    result = subprocess.run(
        [sys.executable, "-m", "conf_profile", *arguments],
        cwd=place, env=environment(), capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-6000:]
    return result.stdout


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A working directory like the checkout's, with the ingested logs in `shop`, and a finished run in `runs/shop`."""
    place = tmp_path_factory.mktemp("place")
    (place / "examples").symlink_to(ROOT / "examples")
    call(place, *words_of("ingest"))
    shutil.copy(LOGS / "lexicon.json", place / "shop")
    call(place, *words_of("run"), *(f"--set={setting}" for setting in FAST))
    return place


@pytest.fixture(scope="module")
def customers(place):
    """Ids of those who will be profiled."""
    rows = pq.read_table(place / "shop" / "demographics.parquet").to_pylist()
    return sorted(row["user_id"] for row in rows if row["consent"])


def test_ingestion_has_found_features_that_the_paper_does_not_have(place):
    features = yaml.safe_load((place / "shop" / "task.yaml").read_text(encoding="utf-8"))["features"]
    assert [name for name, given in features.items() if given["type"] == "list"] == ["cart", "searched", "viewed"]
    assert list(features)[3:] == ["language", "plan", "age"]
    assert not set(features) & set(DEFAULT_FEATURES.names)


def test_the_check_counts_what_the_run_has_read(place, customers):
    found = json.loads(call(place, *words_of("check"), "--json"))
    summary = json.loads((place / "runs" / "shop" / "summary.json").read_text())
    assert (found["people"]["both"], found["people"]["profiled"]) == (500, len(customers))
    assert summary["users"] == len(customers)
    assert summary["warnings"] == found["warnings"]


def test_the_gate_promotes_a_version_that_carries_its_task(place):
    gate = json.loads((place / "runs" / "shop" / "summary.json").read_text())["gate"]
    assert gate["decision"] == "promote", gate["reasons"]
    with local_s3(place / "runs" / "shop" / "s3") as access:
        target = registry.connect(StorageConfig(), access)
        task = yaml.safe_load(target.read(target.show(), "task.yaml"))
    assert list(task["attributes"]) == ["household", "home"]


def test_the_reports_command_serves_the_run_whatever_the_champion_is(place, customers):
    """And SIGTERM ends all that was started."""
    model = json.loads((place / "runs" / "shop" / "summary.json").read_text())["model"]["version"]
    student = Path(json.loads((place / "runs" / "shop" / "workspace" / "outputs.json").read_text())["student"])
    with local_s3(place / "runs" / "shop" / "s3") as access:
        target = registry.connect(StorageConfig(), access)
        other = target.publish(student, generated={"thresholds.json": b'{"home": 5}'})
        target.promote(other.name, {})
    program, command, *arguments = serving_command(
        (place / "runs" / "shop" / "report.html").read_text(encoding="utf-8")
    )
    assert (program, command) == ("conf-profile", "serve")
    running = Serving(place / "runs" / "shop", *arguments)
    told = {"cart": ["کتاب کودک", "کیف مدرسه"], "searched": [], "viewed": ["چمن‌زن"], "age": 31, "plan": None}
    known, given = running.ask(
        {"user_id": customers[0]}, {"user_id": "nobody", "features": told | {"consent": True}}
    ).json()["predictions"]
    refused = running.ask({"user_id": "nobody", "features": {"watch": ["chess"], "consent": True}})
    assert (running.state["version"], known["model_version"], other.name != model) == (model, model, True)
    assert set(known["profile"]) == set(given["profile"]) == {"household", "home"}
    assert given["profile"]["household"]["tag"] in ("family", None)
    assert refused.status_code == 400 and "watch" in refused.text and "cart" in refused.text
    assert running.stop() == 0
    wait_until(lambda: not any(alive(child) for child in running.family), "the children to end")


def test_a_backfill_profiles_everybody_who_agreed(place, customers):
    call(place, *words_of("backfill"))
    files = list((place / "runs" / "shop" / "backfill").rglob("*.parquet"))
    rows = [row for path in files for row in pq.read_table(path).to_pylist()]
    assert sorted({row["user_id"] for row in rows}) == customers
    assert {row["attribute"] for row in rows} == {"household", "home"}


def test_an_erased_customer_is_in_no_table(place, customers):
    def holders(user):
        tables = {path for path in place.rglob("*") if path.is_file() and path.read_bytes()[:4] == b"PAR1"}
        keyed = [path for path in tables if "user_id" in pq.read_schema(path).names]
        return {path for path in keyed if user in pq.read_table(path, columns=["user_id"])["user_id"].to_pylist()}

    command = words_of("erase")
    gone, stays = customers[0], customers[1]
    before = holders(gone)
    assert {path.name for path in before} >= {"behaviour.parquet", "demographics.parquet", "labels.parquet", "features"}
    assert command[1] == gone
    call(place, *command)
    assert not holders(gone)
    assert {path.name for path in holders(stays)} >= {path.name for path in before}
