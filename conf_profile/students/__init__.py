"""The student: a causal language model that is built or loaded here, trained by the steps, and served.

torch, transformers and tokenizers are imported inside the functions that need them: importing these modules
costs nothing.
"""
