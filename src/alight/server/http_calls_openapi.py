"""The description of ``http_calls`` for programs and people: an OpenAPI document."""

from __future__ import annotations

from typing import Any

from alight.wire.version import __version__

_ERROR = {"type": "object", "properties": {"error": {"type": "object", "additionalProperties": True}}}
_RESULT = {
    "type": "object",
    "required": ["call_id", "value"],
    "properties": {"call_id": {"type": "string"}, "value": {"description": "What the function returned."}},
}
_PENDING = {"type": "object", "required": ["call_id"], "properties": {"call_id": {"type": "string"}}}


def _answer(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _query(name: str, kind: str, description: str) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": False, "schema": {"type": kind}, "description": description}


def _path(name: str, description: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string"}, "description": description}


_ANSWERS = {
    "200": _answer("It has ended, with a value.", _RESULT),
    "202": _answer("It has not ended yet. The Location field says where to ask.", _PENDING),
    "400": _answer("The request, or the arguments, cannot be read.", _ERROR),
    "401": _answer("There is no token, or none that is known.", _ERROR),
    "403": _answer("The token may not do this.", _ERROR),
    "404": _answer("There is no such app, function or call.", _ERROR),
    "409": _answer("The Idempotency-Key was used for another function; or the call was cancelled.", _ERROR),
    "422": _answer("The function returned something that JSON lacks: the message names its type.", _ERROR),
    "500": _answer("The function raised an exception.", _ERROR),
    "503": _answer("No machine can run it.", _ERROR),
    "504": _answer("The function took longer than its timeout.", _ERROR),
}

DOCUMENT: dict[str, Any] = {
    "openapi": "3.1.0",
    "info": {
        "title": "Alight: calls without Python",
        "version": __version__,
        "description": "Calls functions of deployed apps with JSON. Arguments are decoded, and values encoded, in the "
        "function's own container.",
    },
    "components": {
        "securitySchemes": {
            "token": {
                "type": "http",
                "scheme": "bearer",
                "description": "A token that `alight token new --call APP` made: wk-….ws-…",
            }
        }
    },
    "security": [{"token": []}],
    "paths": {
        "/v1/apps/{app}/functions/{function}/call": {
            "post": {
                "operationId": "call",
                "summary": "Call a function",
                "parameters": [
                    _path("app", "The name of a deployed app, or the id of any that lives."),
                    _path("function", 'A function\'s name, or "Class.method".'),
                    _query("environment", "string", "Where the app is. Default: main, or the token's."),
                    _query("wait", "number", "How many seconds to wait for the end. Default: as long as it takes."),
                    {
                        "name": "Idempotency-Key",
                        "in": "header",
                        "required": False,
                        "schema": {"type": "string"},
                        "description": "The same key of the same owner is the same call: it is run once.",
                    },
                ],
                "requestBody": {
                    "required": False,
                    "content": {
                        "application/json": {
                            "schema": {
                                "type": "object",
                                "additionalProperties": False,
                                "properties": {"args": {"type": "array", "items": {}}, "kwargs": {"type": "object"}},
                            },
                            "example": {"args": [1, 2], "kwargs": {"name": 3}},
                        }
                    },
                },
                "responses": _ANSWERS,
            }
        },
        "/v1/calls/{call_id}": {
            "get": {
                "operationId": "result",
                "summary": "What came of a call",
                "parameters": [
                    _path("call_id", "As the call was answered."),
                    _query("wait", "number", "How many seconds to wait for the end. Default: 0."),
                ],
                "responses": _ANSWERS,
            }
        },
    },
}
