"""Names say what they name: nouns for data, verbs for functions.

A name is refused where every word of it is one that names nothing by itself: a preposition, a participle, an adverb, a
pronoun or an adjective. `Asked`, `_into` and `passed_on` are; `ask`, `PredictRequest` and `asked_splits` are not. A
property may be called by an adjective, as a field may (`decision.passed`).
"""

import ast
import re

import pytest

from support.paths import ROOT

ROOMS = ("conf_profile", "components", "pipelines", "serving", "feature_repo", "charts", "benchmarks")
CHART = ROOT / "charts" / "conf-profile"
PREPOSITIONS = """
    about above across after against along among around as at back before behind below beside between beyond by down for
    from in inside instead into of off on out outside over since through to together under until up with within without
"""
IRREGULAR_PARTICIPLES = """
    begun built caught chosen cut dealt done drawn driven found frozen given gone grown held kept known lost made meant
    met paid put read said seen sent shown spent spoken swept taken taught told torn won worn written
"""
VERBS = {"cut", "put", "read"}
"""Participles that are verbs as well, and say what a function does."""
REGULAR_PARTICIPLES = re.compile(r"[a-z]{2,}ed")
NO_PARTICIPLES = {"embed", "exceed", "feed", "need", "proceed", "seed", "shed", "speed", "weed"}
ADVERBS_AND_PRONOUNS = """
    again all alone also always and any anew both each either else elsewhere ever every everything here never no none
    not nothing once only or other others ours same so some something sometimes soon still then there these this those
    where why yet yours
"""
ADJECTIVES = """
    current different empty few first further greatest high highest large largest last late later least loud low lowest
    many more most new newest next old older oldest ordinary own plain quick quiet raw ready silent similar single small
    smallest temporary usual whole wide
"""
LISTS = (PREPOSITIONS, IRREGULAR_PARTICIPLES, ADVERBS_AND_PRONOUNS, ADJECTIVES)
EMPTY_WORDS = frozenset(" ".join(LISTS).split()) - VERBS
TERMS = {"as_of", "filtered", "inferred"}
"""A moment's name in the configuration, and tables' names: what users type."""


def words(name):
    """The words of a name in snake case, upper case or camel case, in lower case."""
    return [word.lower() for word in re.findall(r"[A-Z]?[a-z0-9]+|[A-Z0-9]+(?![a-z])", name)]


def says_nothing(name):
    found = words(name)
    return (
        bool(found)
        and name.lower() not in TERMS
        and not name.startswith("__")
        and all(
            word in EMPTY_WORDS or (REGULAR_PARTICIPLES.fullmatch(word) and word not in NO_PARTICIPLES)
            for word in found
        )
    )


def is_property(node):
    """Data that a class computes; `x.setter` and `abstractmethod` do not matter here."""
    return any("property" in ast.unparse(decorator) for decorator in node.decorator_list)


def names(source):
    """Every class, function, method and module-level constant that a source defines, with its line."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        if isinstance(node, ast.ClassDef) or (is_function and not is_property(node)):
            yield node.name, node.lineno
    for node in tree.body:
        for target in getattr(node, "targets", [getattr(node, "target", None)]):
            yield from ((name.id, node.lineno) for name in ast.walk(target or ast.Pass()) if isinstance(name, ast.Name))


def files(room):
    """What the chart puts into a pod is part of the chart."""
    return [path for path in sorted((ROOT / room).rglob("*.py")) if CHART not in path.parents]


@pytest.mark.parametrize("room", ROOMS)
def test_every_name_says_something(room):
    empty = [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for path in files(room)
        for name, line in names(path.read_text(encoding="utf-8"))
        if says_nothing(name)
    ]
    assert not empty


@pytest.mark.parametrize(
    "source",
    [
        "class Asked: ...",
        "class _Said: ...",
        "def of(model): ...",
        "def _into(log): ...",
        "async def _tried(once): ...",
        "class Client:\n    def instead_of(self, bundle): ...",
        "def outer():\n    def once(): ...",
        "KEPT = 2",
        "SMALL, LARGE = 1, 2",
        "Wanted: object = None",
    ],
)
def test_a_name_that_says_nothing_is_found(source):
    assert any(says_nothing(name) for name, _ in names(source))


@pytest.mark.parametrize(
    "source",
    [
        "class PredictRequest: ...",
        "def read_features(): ...",
        "def put(): ...",
        "AS_OF = 0",
        "def seed(): ...",
        "ASKED_SPLITS = ()",
        "class Cells:\n    @property\n    def answered(self): ...",
        "def __init__(): ...",
    ],
)
def test_a_name_that_says_something_passes(source):
    assert not any(says_nothing(name) for name, _ in names(source))
