"""The task of a site that runs Celery, and the dispatcher that starts it."""

from __future__ import annotations

from celery import shared_task

from esms_viber.services import deliver_messages


@shared_task(acks_late=True, reject_on_worker_lost=True, ignore_result=True)
def deliver(pks: list[int]) -> None:
    deliver_messages(pks)


def dispatch(pks: list[int]) -> None:
    deliver.delay(pks)
