"""What a request is answered with when it gets no result: a status, and one line with the problem and the remedy."""

from fastapi.exceptions import HTTPException
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException as StarletteHTTPException

REASONS = {
    400: "options",
    401: "key",
    403: "foreign",
    408: "slow",
    413: "too large",
    422: "unusable",
    429: "full",
    499: "client gone",
    503: "stopping",
    504: "timeout",
}  # of the metric of refused requests
UNKNOWN = {404: "there is no such path", 405: "the path does not take this method"}


class Refused(HTTPException):
    """A request that is refused; the body of its answer is `{"error": problem, "remedy": remedy}`.

    Args:
        status: of HTTP.
        problem: what is wrong.
        remedy: what the client can do.
        headers: of the answer.
    """

    def __init__(self, status: int, problem: str, remedy: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(status, f"{problem}; {remedy}", headers)
        self.problem, self.remedy = problem, remedy


def full(problem: str) -> Refused:
    """The refusal of what there is no room for."""
    return Refused(429, problem, "send it again after the seconds of Retry-After", {"Retry-After": "1"})


def answer_of(error: StarletteHTTPException) -> JSONResponse:
    """The answer for a refusal, or for any other error with a status; its detail may end in `; remedy`."""
    if isinstance(error, Refused):
        problem, remedy = error.problem, error.remedy
    else:
        problem, _, remedy = str(error.detail).rpartition("; ")
        if not problem:
            problem, remedy = UNKNOWN.get(error.status_code, remedy), "see /docs"
    return JSONResponse({"error": problem, "remedy": remedy}, error.status_code, headers=error.headers)
