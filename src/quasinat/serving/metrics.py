"""What Prometheus is told; docs/service.md lists the names."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from quasinat.serving.refusal import REASONS
from quasinat.serving.worker import Worker

KIND = "text/plain; version=0.0.4; charset=utf-8"  # what `generate_latest` writes
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
IMAGES = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """The counters of one service, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)  # memory, open files, processor time
        self._requests = Counter("quasinat_requests", "Answered requests.", ["path", "status"], registry=self.registry)
        self._seconds = Histogram(
            "quasinat_request_seconds", "From head to answer.", ["path"], buckets=SECONDS, registry=self.registry
        )
        self._refused = Counter("quasinat_refused", "Refused requests, by reason.", ["reason"], registry=self.registry)
        self._images = Counter("quasinat_images", "Images that the layer coded.", registry=self.registry)
        self._batches = Histogram(
            "quasinat_batch_images", "Images coded together.", buckets=IMAGES, registry=self.registry
        )
        self.in_flight = Gauge("quasinat_in_flight", "Requests with a body and no answer yet.", registry=self.registry)
        self._queue = Gauge("quasinat_queue_length", "Requests that wait for the models.", registry=self.registry)
        for reason in REASONS.values():
            self._refused.labels(reason)  # zero until it happens

    def watch(self, worker: Worker) -> None:
        """Reads the length of a worker's queue whenever it is asked for."""
        self._queue.set_function(lambda: len(worker))

    def batch(self, count: int) -> None:
        """A batch of so many images was coded."""
        self._batches.observe(count)
        self._images.inc(count)

    def answered(self, path: str, status: int, seconds: float) -> None:
        """A request ended: its path, one of few; its status, 499 where the client went away."""
        self._requests.labels(path, str(status)).inc()
        self._seconds.labels(path).observe(seconds)
        if status in REASONS:
            self._refused.labels(REASONS[status]).inc()

    def text(self) -> bytes:
        """All of them, in Prometheus's text format."""
        return generate_latest(self.registry)
