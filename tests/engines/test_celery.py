"""Through Celery and RabbitMQ, by a dispatcher of the site's own."""

from __future__ import annotations

import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.engines.cases import EngineTests, TimeLimitTests
from tests.engines.engine import Engine, need
from tests.fake_gateway import wait_until

BROKER = "amqp://guest:guest@127.0.0.1:5672//"
QUEUE = f"esms-viber-tests-{uuid.uuid4().hex}"


class CeleryEngine(Engine):
    settings = {
        "CELERY_BROKER_URL": BROKER,
        "CELERY_TASK_DEFAULT_QUEUE": QUEUE,
        # A task that is not in the queue for sure is an error, and told.
        "CELERY_BROKER_TRANSPORT_OPTIONS": {"confirm_publish": True},
        # A worker takes no task but the one that it runs: the tests count those that wait.
        "CELERY_WORKER_PREFETCH_MULTIPLIER": 1,
        # Its queues on the broker would be more to clean up.
        "CELERY_WORKER_ENABLE_REMOTE_CONTROL": False,
        "CELERY_TASK_SOFT_TIME_LIMIT": None,
    }
    dispatcher = "tests.engines.celery_tasks.dispatch"
    worker = [
        *["celery", "--app", "tests.engines.celery_app", "--quiet", "worker", "--concurrency", "1"],
        *["--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel", "WARNING"],
    ]
    delivers_again = True

    def waiting(self) -> int:
        with _queue() as queue:
            return queue.queue_declare().message_count

    def stop_broker(self) -> None:
        done = _rabbitmqctl("stop_app")
        if done.returncode:
            pytest.skip(f"RabbitMQ cannot be stopped: {done.stdout.strip()}")

    def start_broker(self) -> None:
        _rabbitmqctl("start_app").check_returncode()


def _rabbitmqctl(command: str) -> subprocess.CompletedProcess[str]:
    arguments = ["rabbitmqctl", "--quiet", command]
    return subprocess.run(arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@contextmanager
def _queue() -> Iterator[Any]:
    from kombu import Connection, Queue

    with Connection(BROKER, connect_timeout=5) as connection:
        yield Queue(QUEUE, channel=connection.default_channel)


@pytest.fixture(scope="module")
def rabbitmq() -> Iterator[None]:
    """With the queue. It stays until the end: were it deleted before, Celery would not notice, and go on publishing."""
    need("celery", programs=["rabbitmqctl"])
    import kombu.pools

    try:
        with _queue() as queue:
            queue.queue_declare()
    except kombu.exceptions.OperationalError as error:
        pytest.skip(f"RabbitMQ does not answer at 127.0.0.1:5672: {error}")
    # A site does so in the `__init__` of its project. The task belongs to the app that is there.
    from tests.engines import celery_app  # noqa: F401

    yield
    # Celery's connections, which it keeps here for its lifetime.
    kombu.pools.reset()
    with _queue() as queue:
        queue.delete()
        queue.channel.exchange_delete(QUEUE)


@pytest.fixture
def engine(rabbitmq: None) -> Iterator[CeleryEngine]:
    yield CeleryEngine()
    with _queue() as queue:
        # What a killed worker had taken is back in the queue when RabbitMQ has noticed that it is gone.
        wait_until(lambda: queue.queue_declare().consumer_count == 0)
        queue.purge()


@pytest.fixture
def short_time_limit(esms: object, settings) -> None:
    settings.CELERY_TASK_SOFT_TIME_LIMIT = 2


class TestCelery(EngineTests, TimeLimitTests):
    pass
