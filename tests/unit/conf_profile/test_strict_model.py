"""What a user writes is checked in one way, and what is wrong with it is said in one way."""

import pytest
from pydantic import ConfigDict, Field, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from conf_profile.config import RunConfig
from conf_profile.errors import ConfigError, ServingError
from conf_profile.storage import configuration_file
from conf_profile.strict_model import StrictModel, explain
from pipelines.resources import Resources
from serving import settings


class Part(StrictModel):
    size: int = Field(1, ge=1)


class Whole(StrictModel):
    part: Part = Part()
    names: list[str] = Field([])

    @model_validator(mode="after")
    def _few(self):
        if len(self.names) > self.part.size:
            raise ValueError("more names than part.size")
        return self


def explained(given, whole="", kind=Whole):
    with pytest.raises(ValidationError) as refused:
        kind.model_validate(given)
    return explain(refused.value, whole)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"part": {"size": 0}}, "part.size: Input should be greater than or equal to 1 (given: 0)"),
        ({"part": {"sizes": "secret"}}, "part.sizes: there is no such key"),
        ({"names": ["a", 2]}, "names.1: Input should be a valid string (given: 2)"),
        ({"names": ["a", "b"]}, "more names than part.size"),
        ({"part": {"size": 0}, "x": 1},
         "part.size: Input should be greater than or equal to 1 (given: 0); x: there is no such key"),
        ([], "Input should be a valid dictionary or instance of Whole (given: [])"),
    ],
)  # fmt: skip
def test_every_problem_is_said_with_its_key(given, text):
    assert explained(given) == text


def test_what_concerns_several_keys_has_the_name_of_the_whole():
    assert explained({"names": ["a", "b"]}, "run") == "run: more names than part.size"
    assert explained({"part": {"size": 0}}, "run").startswith("part.size: ")


def test_a_value_does_not_change_after_the_check():
    with pytest.raises(ValidationError, match="frozen"):
        Whole().names = ["a"]


@pytest.mark.parametrize("kind", [RunConfig, Resources, settings.Settings])
def test_all_that_a_user_writes_is_checked_so(kind):
    assert issubclass(kind, StrictModel)
    assert "typo: there is no such key" in explained({"typo": 1}, kind=kind)


def test_a_part_may_add_to_the_rules_and_keeps_them():
    class Camel(StrictModel):
        model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)
        some_size: int = 1

    assert Camel(someSize=2) == Camel(some_size=2)
    assert explained({"other": 1}, kind=Camel) == "other: there is no such key"


def test_the_callers_name_their_source():
    with pytest.raises(ServingError, match=r"^s\.yaml: model: Field required; web: .* \(given: 'maybe'\)$"):
        settings.parse({"web": "maybe"}, "s.yaml")
    with pytest.raises(ConfigError, match=r"of this release: gate\.floor: there is no such key$"):
        configuration_file.read("{gate: {floor: 1}}")
