"""The bodies of requests and answers as OpenAPI describes them, with an example of each."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Problem(BaseModel):
    """Why there is no result: one line in two parts."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"error": "the image has 4 x 4 pixels, fewer than 8 a side", "remedy": "send a larger one"}]
        }
    )
    error: str = Field(description="what is wrong")
    remedy: str = Field(description="what the client can do")


class Likely(BaseModel):
    """A class and how probable a classifier holds it."""

    label: int = Field(description="the number of the class, from 0")
    name: str | None = Field(description="its name, where the classifier's file has names")
    probability: float = Field(ge=0, le=1, description="of the softmax")


class Opinion(BaseModel):
    """What a classifier says of an image."""

    label: int = Field(description="the most probable class")
    name: str | None = Field(description="its name, where known")
    top: list[Likely] = Field(description="the most probable classes, in falling order")


_SURE: dict[str, Any] = {"label": 3, "name": "cat", "probability": 0.91}


class Classified(BaseModel):
    """What the classifiers say of an image and of its projection."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "before": {
                        "label": 5,
                        "name": "dog",
                        "top": [{"label": 5, "name": "dog", "probability": 0.62}, _SURE | {"probability": 0.35}],
                    },
                    "after": {
                        "label": 3,
                        "name": "cat",
                        "top": [_SURE, {"label": 5, "name": "dog", "probability": 0.07}],
                    },
                    "disagreement": 0.56,
                    "stratum": 1,
                }
            ]
        }
    )
    before: Opinion = Field(description="of the image itself, by the plain classifier where there is one")
    after: Opinion = Field(description="of its projection, by the classifier: the answer to act on")
    disagreement: float = Field(
        ge=0, le=1, description="half the sum over all classes of |before - after|: their total variation"
    )
    stratum: int = Field(ge=0, description="whose dictionary coded the image; 0 without strata")


class Alive(BaseModel):
    """That all is well."""

    status: str = Field(examples=["ok"])


OF_A_BODY = (401, 403, 408, 413, 422, 429, 500, 503, 504)  # how any request with an image may be refused
_BINARY = {"schema": {"type": "string", "format": "binary"}}
IMAGE_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "The bytes of a PNG, JPEG, WebP or BMP file; its content decides, not the media type.",
        "content": {f"image/{kind}": _BINARY for kind in ("png", "jpeg", "webp", "bmp")}
        | {"application/octet-stream": _BINARY},
    }
}
PNG_ANSWER: dict[str, Any] = {
    "description": "T(x) as an 8-bit PNG of the same size: round(255 T(x)).",
    "content": {"image/png": _BINARY},
    "headers": {"X-Stratum": {"description": "whose dictionary coded it", "schema": {"type": "integer"}}},
}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The answers with these statuses, described."""
    what = {
        400: "The options make no sense.",
        401: "The key is missing or wrong.",
        403: "A page of another site asks, or the name in Host is not the service's.",
        404: "The service has no classifier.",
        408: "The body took too long to arrive.",
        413: "The body has too many bytes.",
        422: "The image, or a parameter, cannot be used.",
        429: "Too many requests are waiting; Retry-After says for how many seconds to wait.",
        500: "The service failed at this request.",
        503: "The service is not ready, or stopping.",
        504: "There was no answer in time.",
    }
    return {status: {"model": Problem, "description": what[status]} for status in sorted(statuses)}
