"""What a site gets for its own tests."""

from __future__ import annotations

import pytest

from esms_viber.exceptions import GatewayRefused
from esms_viber.gateways.base import Reach
from esms_viber.services import send_viber_message
from esms_viber.testing import answer_next, outbox, play_callback

pytestmark = pytest.mark.django_db


def test_the_fixture_keeps_what_is_sent_whatever_gateway_the_site_has(settings, viber_outbox):
    message = send_viber_message("0901 888 484", "Xin chào")
    assert [sent.request_id for sent in viber_outbox] == [message.request_id]


def test_the_outbox_is_empty_for_the_next_test():
    assert outbox == []


def test_answers_are_scripted_one_by_one():
    answer_next("104", text="Brand name code is not exist")
    answer_next(reach=Reach.NO_ANSWER)
    statuses = [send_viber_message("0901 888 484", f"{number}").status for number in range(3)]
    assert statuses == ["failed", "unknown", "sent"]


@pytest.mark.parametrize(("delivered", "status"), [(True, "delivered"), (False, "undelivered")])
def test_a_callback_is_played(delivered, status):
    message = send_viber_message("0901 888 484", "Xin chào")
    assert play_callback(message, delivered=delivered).status_code == 200
    message.refresh_from_db()
    assert message.status == status
    if not delivered:
        with pytest.raises(GatewayRefused):
            message.raise_for_status()
