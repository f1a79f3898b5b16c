"""What one request may cost, and how many may wait."""

import math
from dataclasses import dataclass, fields

from quasinat.errors import UsageError


@dataclass(frozen=True)
class Limits:
    """The bounds of a service; what lies beyond one is refused in one line.

    Attributes:
        batch: images of one size that are coded together, at most.
        wait_ms: how long, in milliseconds, the first image of a batch waits for others; 0 takes what is there.
        queue: requests that wait for the models, at most; further ones are answered with 429.
        timeout: seconds from a request's whole body to its answer; then 504.
        body_timeout: seconds that a request's head, and then its body, may take to arrive; then 408.
        max_bytes: of a body; then 413.
        max_pixels: of an image, by its header; then 422.
        page_pixels: the same of a JPEG for the demo page, such as a telephone's; other formats may have a third of it.

    Raises:
        UsageError: names a value that is out of range.
    """

    batch: int = 16
    wait_ms: float = 4.0
    queue: int = 64
    timeout: float = 30.0
    body_timeout: float = 10.0
    max_bytes: int = 8 * 2**20
    max_pixels: int = 2**20
    page_pixels: int = 25_000_000

    def __post_init__(self) -> None:
        for field in fields(self):
            value, option = getattr(self, field.name), "--" + field.name.replace("_", "-")
            if not math.isfinite(value) or value < 0 or (value == 0 and field.name != "wait_ms"):
                raise UsageError(f"{option} {value} is out of range", "give a finite number above 0")

    @property
    def in_flight(self) -> int:
        """Requests with a body that are read, decoded, waiting or coded at once, at most; further ones get 429."""
        return 2 * self.queue

    @property
    def queue_pixels(self) -> int:
        """Of all images that wait, at most; one image alone may always wait."""
        return 16 * self.max_pixels
