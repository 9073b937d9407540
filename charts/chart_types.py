"""JSON schemas of the values that occur in several places of the chart, or whose default says too little.

What the pipeline reads, too (node pools, steps, quantities), is declared by the models of `pipelines.resources`, and
its schema is made of them.
"""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode

from components.steps import BY_NAME, FORMER_NAMES
from pipelines.resources import Memory, NodePools, Step

Schema = dict[str, Any]


class ModelSchema(GenerateJsonSchema):
    """A model's schema for Helm: null takes a key away before it is checked, and defaults stand in values.yaml."""

    def nullable_schema(self, schema: Any) -> Schema:
        return self.generate_inner(schema["schema"])

    def default_schema(self, schema: Any) -> Schema:
        return self.generate_inner(schema["schema"])

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def model_schema(self, schema: Any) -> Schema:
        """Without the docstring, which is about the class."""
        return {
            key: value for key, value in super().model_schema(schema).items() if key not in ("title", "description")
        }


def model_definitions() -> Schema:
    """Definitions by the models' names, and of two types that are no models by the chart's own names."""
    mode: JsonSchemaMode = "validation"
    types = {"quantity": Memory, "nodePools": NodePools, "step": Step}
    found, models = TypeAdapter.json_schemas(
        [(name, mode, TypeAdapter(kind)) for name, kind in types.items()],
        schema_generator=ModelSchema,
        ref_template="#/$defs/{model}",
    )
    return {**{name: found[name, mode] for name in ("quantity", "nodePools")}, **models["$defs"]}


def _object(properties: Schema, required: list[str] | None = None) -> Schema:
    """An object with these keys and no others; by default each is required."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties) if required is None else required,
        "additionalProperties": False,
    }


def _reference(name: str) -> Schema:
    return {"$ref": f"#/$defs/{name}"}


_TEXT: Schema = {"type": "string"}
_NAME: Schema = {"type": "string", "minLength": 1}
DEFINITIONS: Schema = {
    **model_definitions(),
    "strings": {"type": "object", "additionalProperties": _TEXT},
    "nameReference": _object({"name": _NAME}),
    "image": _object(
        {
            "repository": _NAME,
            "tag": {"type": "string", "pattern": "^([A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?$", "not": {"const": "latest"}},
            "pullPolicy": {"enum": ["Always", "IfNotPresent", "Never"]},
        }
    ),
    "resources": _object({"requests": _reference("Quantities"), "limits": _reference("Quantities")}),
    "environment": {
        "type": "array",
        "items": {
            **_object({"name": _NAME, "value": _TEXT, "valueFrom": {"type": "object"}}, required=["name"]),
            "oneOf": [{"required": ["value"]}, {"required": ["valueFrom"]}],
        },
    },
    "amount": {
        "anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": "^(100|[0-9]{1,2})%$"}],
    },
    "rollingUpdate": _object({"maxSurge": _reference("amount"), "maxUnavailable": _reference("amount")}),
    "persistence": _object(
        {
            "existingClaim": _TEXT,
            "size": _reference("quantity"),
            "storageClass": _TEXT,
            "accessMode": {"enum": ["ReadWriteOnce", "ReadWriteOncePod", "ReadWriteMany"]},
        }
    ),
    "peers": {
        "type": "array",
        "items": _object(
            {"podSelector": {"type": "object"}, "namespaceSelector": {"type": "object"}, "ipBlock": {"type": "object"}},
            required=[],
        ),
    },
    "cron": {"type": "string", "pattern": r"^(@[a-z]+|\S+( \S+){4,5})$"},
    "duration": {"type": "string", "pattern": "^([0-9]+(ms|s|m|h|d|w))+$"},
    "share": {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
    "steps": _object({name: _reference("Step") for name in (*BY_NAME, *FORMER_NAMES)}, required=[]),
}
