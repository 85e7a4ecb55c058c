from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client

from esms_viber.models import OutboundViberMessage

Message = OutboundViberMessage
Make = Callable[..., OutboundViberMessage]
LogIn = Callable[..., Client]


@pytest.fixture
def make() -> Make:
    """A stored message in any state: `make("sent", content="Hi", sms_id="1")`."""

    def make(status: str = "draft", **columns: Any) -> OutboundViberMessage:
        callers = {name: columns.pop(name) for name in [*columns] if name in Message.CALLERS_COLUMNS}
        message = Message(**({"phone": "0901888484", "content": "Hello"} | callers))
        message.keep_draft = True
        message.save()
        Message.objects.filter(pk=message.pk).update(status=status, **columns)
        message.refresh_from_db()
        return message

    return make


@pytest.fixture
def log_in(db: None) -> LogIn:
    """A client of a staff member with these permissions on messages: `log_in("view", "send")`."""

    def log_in(*permissions: str, superuser: bool = False) -> Client:
        name = "-".join(permissions) or ("root" if superuser else "nobody")
        user = User.objects.create_user(name, is_staff=True, is_superuser=superuser)
        codenames = [f"{permission}_outboundvibermessage" for permission in permissions]
        user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
        client = Client()
        client.force_login(user)
        return client

    return log_in


@pytest.fixture
def root(log_in: LogIn) -> Client:
    return log_in(superuser=True)
