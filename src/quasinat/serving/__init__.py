"""The layer, and a classifier behind it, as a service over HTTP; the packages of the extra `serve` are needed."""

from quasinat.errors import UsageError

try:
    import fastapi  # noqa: F401
    import prometheus_client  # noqa: F401
    import uvicorn  # noqa: F401
except ImportError as error:
    problem = "quasinat.serving needs FastAPI, uvicorn and prometheus-client"
    raise UsageError(problem, "pip install 'quasinat[serve]'") from error
