"""The Conf-Profile method (arXiv 2509.18864), its command line, and its functions for a notebook.

    import conf_profile as cp

    votes = cp.vote(samples)
    levels = cp.apply_calibration(votes, cp.fit_calibration(votes))
    table = cp.evaluate(levels, labels)

This package is the room that every other room depends on: it holds pure functions, the tables' schemas and
the command line. It imports no torch, kfp, kserve, feast or vllm at import time. The names of `__all__` are loaded when
they are first used; `__init__.pyi` beside this file gives their types.
"""

from importlib import import_module

__version__ = "0.1.0"

_HOMES = {
    "Calibration": "consensus.confidence",
    "ConfProfileError": "errors",
    "apply_calibration": "analysis.calibration",
    "choose_thresholds": "analysis.judgement",
    "evaluate": "analysis.judgement",
    "fit_calibration": "analysis.calibration",
    "vote": "analysis.votes",
}
"""Where each public name is defined. An import here, for types only too, would count as one of every step."""

__all__ = list(_HOMES)


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found: object = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
