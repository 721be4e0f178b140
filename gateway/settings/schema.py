"""The JSON Schema of the settings file, for editors and for checking files elsewhere."""

from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from gateway.settings.meanings import meanings
from gateway.settings.model import Settings
from gateway.settings.scalars import or_reference


class _AsWritten(GenerateJsonSchema):
    """Describes the file as it is written: defaults as `5s`, not 5.0, and `${NAME}` wherever a word may stand."""

    def literal_schema(self, schema: core_schema.LiteralSchema) -> JsonSchemaValue:
        """A choice of words."""
        return or_reference(super().literal_schema(schema))

    def enum_schema(self, schema: core_schema.EnumSchema) -> JsonSchemaValue:
        """A choice of words that has a name."""
        return or_reference(super().enum_schema(schema))

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        """A mapping, and what its keys mean."""
        described = super().model_schema(schema)
        section: Any = schema["cls"]
        for name, meaning in meanings(section).items():
            described["properties"][name]["description"] = meaning
        return described

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        """The schema of a field that has a default."""
        described = super().default_schema(schema)
        writing: Any = schema["schema"].get("serialization", {})
        if "default" in described and writing.get("type") == "function-plain":
            described["default"] = writing["function"](schema["default"])
        return described


def json_schema() -> dict[str, Any]:
    """The schema (draft 2020-12) that every file `load` accepts obeys; what it cannot say, `load` still refuses."""
    schema = Settings.model_json_schema(schema_generator=_AsWritten)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "Settings of the gateway"}
