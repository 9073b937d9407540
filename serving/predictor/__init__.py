"""The predictor: vLLM's OpenAI server on a model of the registry."""
