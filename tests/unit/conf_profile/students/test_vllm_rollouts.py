"""That rollouts with vLLM leave no engine behind. The engine is played: what a GPU would hold cannot be seen here."""

import sys
from types import SimpleNamespace

import pytest

from conf_profile.students.rollouts import vllm as vllm_rollouts
from conf_profile.students.rollouts.rollouts import Sampling


@pytest.mark.parametrize("failure", [None, ValueError("too long")])
def test_the_engine_of_rollouts_is_stopped_before_training_needs_the_gpu(tmp_path, monkeypatch, failure):
    stopped = []

    class Engine:
        def __init__(self, **_):
            core = SimpleNamespace(shutdown=lambda timeout: stopped.append(timeout))
            self.llm_engine = SimpleNamespace(engine_core=core)

        def generate(self, prompts, parameters):
            assert not stopped
            if failure:
                raise failure
            texts = [SimpleNamespace(text=f"to {prompts[0]}")] * parameters.n
            return [SimpleNamespace(outputs=texts)]

    monkeypatch.setitem(sys.modules, "vllm", SimpleNamespace(LLM=Engine, SamplingParams=SimpleNamespace))
    sampling = Sampling(1.0, 2, 8, 16, seed=0)
    if failure:
        with pytest.raises(ValueError, match="too long"):
            vllm_rollouts.generate(tmp_path, ["x"], sampling)
    else:
        assert vllm_rollouts.generate(tmp_path, ["x"], sampling) == [["to x", "to x"]]
    assert stopped == [vllm_rollouts.SHUTDOWN_SECONDS]
