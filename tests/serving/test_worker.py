"""The queue and its thread: what goes together, what is refused, what is dropped, and how it ends."""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from quasinat.errors import InputError, UsageError
from quasinat.serving.limits import Limits
from quasinat.serving.refusal import Refused
from quasinat.serving.worker import Worker


class Doubler:
    """Doubles numbers, and keeps the batches that it saw; refuses a batch with a 13 in it."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []

    def __call__(self, numbers: list[int]) -> list[int]:
        self.batches.append(numbers)
        if 13 in numbers:
            raise InputError("13 is no number", "send another")
        return [2 * number for number in numbers]


@contextmanager
def working(code: Callable[[list[Any]], list[Any]], most: int = 100, **limits: Any) -> Iterator[Worker]:
    worker = Worker(code, lambda height, width: most, Limits(**{"wait_ms": 20.0, **limits}))
    worker.start()
    try:
        yield worker
    finally:
        worker.close(20.0)


async def hold(worker: Worker) -> tuple[asyncio.Future[None], threading.Event]:
    """Keeps the thread busy until the event is set."""
    entered, opened = threading.Event(), threading.Event()

    def wait() -> None:
        entered.set()
        opened.wait(20)

    task = asyncio.ensure_future(worker.run(wait))
    while not entered.is_set():
        await asyncio.sleep(0.001)
    return task, opened


async def queued(worker: Worker, *work: Coroutine[Any, Any, Any]) -> list[asyncio.Future[Any]]:
    """Starts them in order, and waits until all are in the queue."""
    tasks = [asyncio.ensure_future(each) for each in work]
    await asyncio.sleep(0.01)
    assert len(worker) == len(tasks)
    return tasks


def test_images_of_a_size_go_together_in_their_order() -> None:
    code = Doubler()

    async def main(worker: Worker) -> list[int]:
        holding, opened = await hold(worker)
        sizes = [(8, 8), (8, 9), (8, 8), (8, 8), (8, 9), (8, 8)]
        tasks = await queued(worker, *(worker.image(i, *size) for i, size in enumerate(sizes)))
        opened.set()
        await holding
        return await asyncio.gather(*tasks)

    with working(code, batch=3) as worker:
        assert asyncio.run(main(worker)) == [0, 2, 4, 6, 8, 10]
    assert code.batches == [[0, 2, 3], [1, 4], [5]]


def test_no_more_go_together_than_the_memory_holds() -> None:
    code = Doubler()

    async def main(worker: Worker) -> None:
        holding, opened = await hold(worker)
        tasks = await queued(worker, *(worker.image(i, 8, 8) for i in range(5)))
        opened.set()
        await asyncio.gather(holding, *tasks)

    with working(code, most=2) as worker:
        asyncio.run(main(worker))
    assert [len(batch) for batch in code.batches] == [2, 2, 1]


def test_an_image_waits_for_others_but_not_long() -> None:
    code = Doubler()

    async def main(worker: Worker) -> float:
        began = asyncio.get_running_loop().time()
        first = asyncio.ensure_future(worker.image(1, 8, 8))
        await asyncio.sleep(0.05)
        second = asyncio.ensure_future(worker.image(2, 8, 8))
        assert await asyncio.gather(first, second) == [2, 4]
        return asyncio.get_running_loop().time() - began

    with working(code, wait_ms=800.0) as worker:
        assert 0.8 <= asyncio.run(main(worker)) < 5
    assert code.batches == [[1, 2]]


def test_an_image_that_fails_fails_alone() -> None:
    code = Doubler()

    async def main(worker: Worker) -> list[Any]:
        holding, opened = await hold(worker)
        tasks = await queued(worker, *(worker.image(i, 8, 8) for i in (1, 13, 2)))
        opened.set()
        return (await asyncio.gather(holding, *tasks, return_exceptions=True))[1:]

    with working(code) as worker:
        first, second, third = asyncio.run(main(worker))
    assert (first, third) == (2, 4)
    assert isinstance(second, InputError)
    assert code.batches == [[1, 13, 2], [1], [13], [2]]


def test_functions_go_alone_between_images_and_raise_to_who_waits() -> None:
    async def main(worker: Worker) -> None:
        assert await worker.run(threading.current_thread) is not threading.current_thread()
        with pytest.raises(ZeroDivisionError):
            await worker.run(lambda: 1 // 0)
        assert await worker.image(4, 8, 8) == 8

    with working(Doubler()) as worker:
        asyncio.run(main(worker))


def test_a_full_queue_refuses_images_and_functions() -> None:
    async def main(worker: Worker) -> None:
        holding, opened = await hold(worker)
        tasks = await queued(worker, worker.image(1, 8, 8), worker.run(lambda: 7))
        for refused in (worker.image(3, 8, 8), worker.run(lambda: 8)):
            with pytest.raises(Refused, match="2 requests are waiting") as caught:
                await refused
            assert (caught.value.status_code, caught.value.headers) == (429, {"Retry-After": "1"})
        opened.set()
        assert await asyncio.gather(holding, *tasks) == [None, 2, 7]

    with working(Doubler(), queue=2) as worker:
        asyncio.run(main(worker))


def test_the_queue_is_bounded_in_pixels_too() -> None:
    async def main(worker: Worker) -> None:
        holding, opened = await hold(worker)
        tasks = await queued(worker, worker.image(1, 40, 40))
        with pytest.raises(Refused, match="waiting"):
            await worker.image(2, 8, 8)
        opened.set()
        await asyncio.gather(holding, *tasks)

    with working(Doubler(), max_pixels=100) as worker:
        asyncio.run(main(worker))


def test_what_is_given_up_leaves_the_queue() -> None:
    code, ran = Doubler(), threading.Event()

    async def main(worker: Worker) -> None:
        holding, opened = await hold(worker)
        image, function = await queued(worker, worker.image(1, 8, 8), worker.run(ran.set))
        image.cancel()
        await asyncio.sleep(0.01)
        assert len(worker) == 1
        with pytest.raises(Refused, match=r"no answer within 0\.5 seconds") as caught:
            await function
        assert caught.value.status_code == 504
        assert len(worker) == 0
        opened.set()
        with pytest.raises(Refused):  # it too waited longer than the timeout
            await holding

    with working(code, timeout=0.5) as worker:
        asyncio.run(main(worker))
    assert code.batches == []
    assert not ran.is_set()


def test_closed_it_does_what_waits_and_takes_no_more() -> None:
    code = Doubler()

    async def main(worker: Worker) -> None:
        holding, opened = await hold(worker)
        tasks = await queued(worker, worker.image(1, 8, 8), worker.image(2, 9, 9))
        ending = asyncio.ensure_future(asyncio.to_thread(worker.close))
        await asyncio.sleep(0.05)
        assert (worker.accepts, worker.alive) == (False, True)
        with pytest.raises(Refused, match="stopping") as caught:
            await worker.image(3, 8, 8)
        assert caught.value.status_code == 503
        opened.set()
        assert await asyncio.gather(holding, *tasks) == [None, 2, 4]
        await ending
        assert not worker.alive

    with working(code) as worker:
        asyncio.run(main(worker))


def test_a_batch_that_takes_minutes_is_taken_for_hung(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(worker: Worker) -> None:
        holding, opened = await hold(worker)
        assert worker.alive
        monkeypatch.setattr("quasinat.serving.worker.STUCK", 0.0)
        assert not worker.alive
        opened.set()
        await holding

    with working(Doubler()) as worker:
        asyncio.run(main(worker))


@pytest.mark.parametrize(
    ("name", "value"), [("batch", 0), ("queue", -1), ("timeout", float("nan")), ("max_pixels", 0), ("wait_ms", -1.0)]
)
def test_limits_out_of_range_are_named(name: str, value: Any) -> None:
    with pytest.raises(UsageError, match=f"--{name.replace('_', '-')} .* out of range"):
        Limits(**{name: value})
