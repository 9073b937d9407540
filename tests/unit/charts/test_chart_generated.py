"""What is generated of the chart is current, and Kubernetes' and KServe's own schemas take the renderings.

    python -m charts.chart

makes it anew. KServe's resource definitions are not part of this project: CONF_PROFILE_KSERVE_CRDS names a folder with
KServe's YAML files (serving.kserve.io_*.yaml); on a cluster that has KServe tests/cluster checks the same.
"""

import os
from functools import cache
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import yaml

from charts import chart
from conf_profile.errors import ConfigError
from support.chart_manifests import MATRIX, render

KUBERNETES = "1.34"
CRDS = os.environ.get("CONF_PROFILE_KSERVE_CRDS", "")
NOT_KUBERNETES = ("serving.kserve.io", "keda.sh", "monitoring.coreos.com")
DOCUMENTATION = list(chart.documentation().items())
OBJECTS = [
    pytest.param(document, id=f"{name}:{document['kind']}/{document['metadata']['name']}")
    for name, layers in MATRIX.items()
    for document in render(*layers)
]


@pytest.mark.parametrize(("path", "text"), DOCUMENTATION, ids=[path.name for path, _ in DOCUMENTATION])
def test_schema_and_readme_are_current(path, text):
    assert path.read_text(encoding="utf-8") == text


@pytest.mark.parametrize("name", chart.RENDERINGS)
def test_golden_renderings_are_current(name):
    path = chart.GOLDEN / f"{name}.yaml"
    assert path.read_text(encoding="utf-8") == chart.renderings()[path]
    assert path.stat().st_size < 2**20


def test_the_last_rendering_has_every_template():
    text = (chart.GOLDEN / "chart-gpu.yaml").read_text(encoding="utf-8")
    for template in (chart.CHART / "templates").rglob("*.yaml"):
        if template.name != "checks.yaml":
            assert f"# Source: conf-profile/templates/{template.relative_to(chart.CHART / 'templates')}\n" in text


@pytest.mark.parametrize("document", OBJECTS)
def test_kubernetes_own_schemas_take_it(document):
    if document["apiVersion"].split("/")[0] not in NOT_KUBERNETES:
        kubernetes_validate.validate(document, KUBERNETES, strict=True)


@cache
def definitions():
    """(group, kind) -> validator, from KServe's files, closed to unknown keys where they are."""
    found = {}
    for path in Path(CRDS).glob("serving.kserve.io_*.yaml"):
        definition = yaml.safe_load(path.read_text(encoding="utf-8"))["spec"]
        for version in definition["versions"]:
            schema = jsonschema.Draft202012Validator(closed(version["schema"]["openAPIV3Schema"]))
            found[f"{definition['group']}/{version['name']}", definition["names"]["kind"]] = schema
    return found


def closed(schema):
    """As the API server prunes: keys that a schema does not name are unknown, except where it keeps them all."""
    if not isinstance(schema, dict):
        return schema
    made = {
        key: closed(value) for key, value in schema.items() if key not in ("properties", "x-kubernetes-validations")
    }
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    if "properties" in schema:
        made["properties"] = {key: closed(value) for key, value in schema["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            made["additionalProperties"] = False
            made["properties"].setdefault("apiVersion", {}), made["properties"].setdefault("kind", {})
    return made


@pytest.mark.skipif(not CRDS, reason="CONF_PROFILE_KSERVE_CRDS names no folder with KServe's resource definitions")
@pytest.mark.parametrize("name", MATRIX)
def test_kserves_own_schemas_take_it(name):
    known = definitions()
    for document in render(*MATRIX[name]):
        schema = known.get((document["apiVersion"], document["kind"]))
        if schema is not None:
            # An object's metadata is the API server's own to check.
            schema.validate({key: value for key, value in document.items() if key != "metadata"})
    assert ("serving.kserve.io/v1beta1", "InferenceService") in known


VALUES = """
# -- A section.
section:
  # -- A number.
  # @schema {type: integer, minimum: 1}
  number: 1
  # Not a description.
  # -- Two lines
  # of text.
  text: ""
# -- A mapping that is a value.
# @schema {type: object}
free: {a: 1}
"""


def test_descriptions_and_schemas_are_read():
    section, number, text, free = chart.read(VALUES)
    assert (section.schema, section.key) == (None, "section")
    assert (number.key, number.schema, number.default) == ("section.number", {"type": "integer", "minimum": 1}, 1)
    assert (text.description, text.schema) == ("Two lines of text.", {"type": "string"})
    assert free.default == {"a": 1}
    made = chart.schema([section, number, text, free])
    assert made["additionalProperties"] is False
    assert made["properties"]["section"]["additionalProperties"] is False
    assert set(made["properties"]) == {"global", "section", "free"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("key: 1\n", "key: has no description"),
        ("# -- A section.\nsection:\n  key: 1\n", r"section\.key: has no description"),
        ("# -- A list.\nitems: []\n", "items: needs a `# @schema`"),
    ],
)
def test_a_value_without_description_or_type_is_an_error(text, message):
    with pytest.raises(ConfigError, match=message):
        chart.read(text)
