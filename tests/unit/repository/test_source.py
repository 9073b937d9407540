"""What is kept is made again when the code that makes it has changed, and only then."""

import shutil

import pytest

from conf_profile import source
from conf_profile.source import hash_of
from pipelines.local.pipeline_process import STEPS_CODE
from support.paths import ROOT

ROOMS = frozenset(
    {"benchmarks", "charts", "components", "conf_profile", "configs", "feature_repo", "pipelines", "serving"}
)
STEPS = {
    step: f"components.{step}.task" for step in ("features", "labelling", "sft", "evaluation", "promotion", "report")
}
ALL = {"run", *STEPS}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    root = tmp_path_factory.mktemp("checkout")
    for room in ROOMS:
        shutil.copytree(ROOT / room, root / room, ignore=shutil.ignore_patterns("__pycache__"))
    return root


def hashes(root):
    """Of a local run's cache key, and of single steps' checkpoints."""
    return {"run": hash_of(root, ROOMS, (STEPS_CODE,))} | {
        step: hash_of(root, ROOMS, (module,)) for step, module in STEPS.items()
    }


@pytest.fixture(scope="module")
def before(checkout):
    return hashes(checkout)


@pytest.mark.parametrize(
    ("file", "changed"),
    [
        ("conf_profile/errors.py", ALL),
        ("conf_profile/dialogue/prompts.py", ALL - {"report"}),
        ("conf_profile/dialogue/taxonomies/profile.yaml", ALL - {"report"}),
        ("conf_profile/consensus/voting.py", {"run", "labelling", "evaluation"}),
        ("conf_profile/students/training.py", {"run", "sft", "evaluation"}),
        ("conf_profile/evaluation/metrics.py", {"run", "evaluation"}),
        ("conf_profile/registry/registry.py", {"run", "evaluation", "promotion"}),
        ("components/sft/step.py", {"run", "sft"}),
        ("components/report/page.html", {"run", "report"}),
        ("conf_profile/evaluation/model_card.md.jinja", {"run", "evaluation", "promotion", "report"}),
        ("feature_repo/definitions.py", {"run", "features"}),
        ("pipelines/training.py", {"run"}),
        ("pipelines/local/pipeline_process.py", set()),
        ("pipelines/cluster/submit.py", set()),
        ("pipelines/commands/run.py", set()),
        ("conf_profile/cli/main.py", set()),
        ("conf_profile/erasure/erasure.py", set()),
        ("feature_repo/commands.py", set()),
        ("serving/transformer/transformer.py", set()),
        ("charts/chart.py", set()),
        ("charts/conf-profile/values.yaml", set()),
        ("benchmarks/evidence/plan.py", set()),
    ],
)
def test_a_change_counts_where_it_can_change_a_result(checkout, before, file, changed):
    path = checkout / file
    whole = path.read_bytes()
    path.write_bytes(whole + b"\n# changed\n")
    try:
        after = hashes(checkout)
    finally:
        path.write_bytes(whole)
    assert {name for name in after if after[name] != before[name]} == changed


def test_the_rooms_are_those_that_are_installed():
    assert {"components", "conf_profile", "feature_repo", "pipelines", "serving"} <= source.rooms() <= ROOMS


def test_a_module_that_is_not_there_has_no_hash(checkout):
    with pytest.raises(ValueError, match=r"components\.none"):
        hash_of(checkout, ROOMS, ("components.none",))
