"""The pipeline on a real KFP backend, where there is one.

Needs, beside KFP_ENDPOINT: KFP_IMAGE, an image of the steps that the cluster can pull; KFP_VALUES, a values file with
`s3.endpoint` and `pipelines.s3Secret`; and the same object store in AWS_ENDPOINT_URL and AWS's keys, as it is reached
from here. KFP_NAMESPACE and KFP_TOKEN where the backend asks for them.
"""

import os
import subprocess
import sys

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif("KFP_ENDPOINT" not in os.environ, reason="KFP_ENDPOINT names no KFP backend to run it on"),
]
SMALL = [
    "--users=400",
    "--set=sft.epochs=2",
    "--set=sft.min_steps=0",
    "--set=reference.samples=3",
    "--set=grpo.steps=2",
]


def test_a_run_succeeds(tmp_path):
    namespace = [f"--namespace={os.environ['KFP_NAMESPACE']}"] if "KFP_NAMESPACE" in os.environ else []
    options = [f"--image={os.environ['KFP_IMAGE']}", f"--values={os.environ['KFP_VALUES']}", *namespace, *SMALL]
    result = subprocess.run(
        [sys.executable, "-m", "conf_profile", "submit", *options], cwd=tmp_path, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "✓ report" in result.stderr
