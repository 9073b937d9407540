"""JSON schemas of the values that occur in several places of the chart, or whose default says too little."""

from __future__ import annotations

from typing import Any

from components.steps import BY_NAME, FORMER_NAMES

Schema = dict[str, Any]


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
_TOLERATION = _object(
    {
        "key": _TEXT,
        "operator": {"enum": ["Equal", "Exists"]},
        "value": _TEXT,
        "effect": {"enum": ["NoExecute", "NoSchedule", "PreferNoSchedule"]},
        "tolerationSeconds": {"type": "integer"},
    },
    required=[],
)
_GPU = _object({"resource": _NAME, "count": {"type": "integer", "minimum": 0}}, required=[])
_RETRIES = _object(
    {
        "count": {"type": "integer", "minimum": 0},
        "backoffSeconds": {"type": "integer", "minimum": 1},
        "factor": {"type": "integer", "minimum": 1},
        "maxSeconds": {"type": "integer", "minimum": 0},
    },
    required=[],
)

DEFINITIONS: Schema = {
    "strings": {"type": "object", "additionalProperties": _TEXT},
    "nameReference": _object({"name": _NAME}),
    "image": _object(
        {
            "repository": _NAME,
            "tag": {"type": "string", "pattern": "^([A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?$", "not": {"const": "latest"}},
            "pullPolicy": {"enum": ["Always", "IfNotPresent", "Never"]},
        }
    ),
    "cpu": {
        "anyOf": [
            {"type": "string", "pattern": r"^([0-9]*\.)?[0-9]+m?$"},
            {"type": "number", "exclusiveMinimum": 0},
        ]
    },
    "quantity": {"type": "string", "pattern": "^[0-9]+([KMGTPE]i?)?$"},
    "amounts": _object({"cpu": _reference("cpu"), "memory": _reference("quantity")}),
    "resources": _object({"requests": _reference("amounts"), "limits": _reference("amounts")}),
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
    "nodePools": {
        "type": "object",
        "minProperties": 1,
        "additionalProperties": _object(
            {
                "nodeSelector": _reference("strings"),
                "tolerations": {"type": "array", "items": _TOLERATION},
                "gpu": _GPU,
                "sharedMemory": {"anyOf": [{"const": ""}, _reference("quantity")]},
            },
            required=[],
        ),
    },
    "steps": _object(
        {
            name: _object(
                {
                    "pool": _NAME,
                    "requests": _reference("amounts"),
                    "limits": _reference("amounts"),
                    "gpus": {"type": "integer", "minimum": 0},
                    "timeoutSeconds": {"type": "integer", "minimum": 1},
                    "retries": _RETRIES,
                },
                required=["requests", "limits", "timeoutSeconds"],
            )
            for name in (*BY_NAME, *FORMER_NAMES)
        },
        required=[],
    ),
}
