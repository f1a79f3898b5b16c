"""The reference of the service as a page of HTML: what OpenAPI says of each path, without scripts or other hosts."""

import json
from collections.abc import Iterator
from html import escape
from typing import Any


def reference(schema: dict[str, Any]) -> str:
    """The page of an OpenAPI schema; it needs nothing but itself."""
    title = escape(f"{schema['info']['title']} {schema['info']['version']}")
    lines = [
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{title}</title></head><body><main><h1>{title}</h1>",
        f"<p>{escape(schema['info'].get('description', ''))}</p>",
        '<p>For machines: <a href="/openapi.json">openapi.json</a>.</p>',
    ]
    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            lines += _operation(f"{method.upper()} {path}", operation, schema)
    return "\n".join([*lines, "</main></body></html>"])


def _operation(name: str, operation: dict[str, Any], schema: dict[str, Any]) -> Iterator[str]:
    """One operation: what it does, takes and answers."""
    yield f"<h2><code>{escape(name)}</code></h2><p>{escape(operation.get('description', operation['summary']))}</p>"
    if body := operation.get("requestBody"):
        kinds = ", ".join(body["content"])
        yield f"<p>Body: {escape(body.get('description', ''))} <small>({escape(kinds)})</small></p>"
    for given in operation.get("parameters", []):
        default = given["schema"].get("default")
        usual = "" if default is None else f" (by default {default})"
        yield f"<p>Parameter <code>{escape(given['name'])}</code>: {escape(given.get('description', '') + usual)}</p>"
    yield '<table border="1"><tr><th>status</th><th>answer</th></tr>'
    for status, answer in operation["responses"].items():
        yield f"<tr><td>{escape(status)}</td><td>{escape(answer['description'])}</td></tr>"
    yield "</table>"
    for content in operation["responses"].get("200", {}).get("content", {}).values():
        if example := _example(content.get("schema", {}), schema):
            yield f"<pre>{escape(json.dumps(example, indent=1))}</pre>"


def _example(part: dict[str, Any], schema: dict[str, Any]) -> Any:
    """The example of a schema that is named by reference, if it has one."""
    name = part.get("$ref", "").rpartition("/")[2]
    examples = schema["components"]["schemas"].get(name, {}).get("examples", [None])
    return examples[0]
