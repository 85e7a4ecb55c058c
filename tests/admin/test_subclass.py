"""A site that shows the messages in an admin of its own: another AdminSite, and a subclass that shows less."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth.models import User
from django.core.exceptions import ImproperlyConfigured
from django.test import Client
from django.urls import include, path

from esms_viber.admin import OutboundViberMessageAdmin
from esms_viber.models import OutboundViberMessage as Message
from tests.admin.conftest import Make
from tests.admin.pages import FORM, form_with
from tests.subclasses.models import Birthday, Reminder, Ticket

pytestmark = pytest.mark.django_db

LIST = "/office/esms_viber/outboundvibermessage/"

office = admin.AdminSite("office")


@admin.register(Message, site=office)
class OneBrand(OutboundViberMessageAdmin):
    readonly_fields = ("dedupe_key", "content")
    exclude = ("sandbox", "button_label")

    def get_queryset(self, request: Any) -> Any:
        return super().get_queryset(request).filter(brandname="SHOP", events__isnull=False).distinct()


@admin.register(Birthday, Reminder, site=office)
class OfSomeKind(OutboundViberMessageAdmin):
    pass


# In this one the message itself has no page.
alone = admin.AdminSite("alone")
alone.register(Birthday, OutboundViberMessageAdmin)

urlpatterns = [
    path("office/", office.urls),
    path("alone/", alone.urls),
    path("esms-viber/", include("esms_viber.urls")),
]


@pytest.fixture(autouse=True)
def _office(settings: Any) -> None:
    settings.ROOT_URLCONF = __name__


def test_every_number_is_of_what_the_list_shows(root: Client, make: Make) -> None:
    message = make("sent", brandname="SHOP", campaign="tet")
    message.events.create(kind="note"), message.events.create(kind="note")
    make("sent", brandname="OTHER", campaign="tet")
    make("sent", brandname="OTHER", campaign="secret")
    for url in (f"{LIST}viber-overview/", f"{LIST}viber-campaign/?name=tet"):
        response = root.get(url)
        assert response.context["cards"][0].number.text == "1"
        assert "secret" not in response.content.decode()


@pytest.mark.parametrize("kind", ["undecided", "unconfirmed"])
def test_the_filters_take_any_queryset(root: Client, kind: str) -> None:
    assert root.get(f"{LIST}?attention={kind}").status_code == 200


def test_fields_can_be_shown_only_or_left_out(root: Client, make: Make) -> None:
    message = make(brandname="SHOP")
    message.events.create(kind="note")
    for url in (f"{LIST}add/", f"{LIST}{message.pk}/change/"):
        html = root.get(url).content.decode()
        assert 'name="content"' in html
        assert 'name="button_label"' in html
        assert 'name="dedupe_key"' not in html
        assert 'name="sandbox"' not in html


def test_the_pages_lead_to_one_another(root: Client, make: Make, admin_user: User) -> None:
    message = make("sent", brandname="SHOP", campaign="tet")
    message.events.create(kind="note")
    for url in (LIST, f"{LIST}{message.pk}/change/", f"{LIST}viber-overview/", f"{LIST}viber-send-to-many/"):
        html = root.get(url).content.decode()
        assert LIST in html
        assert '="/admin/' not in html


DERIVED = ["/office/subclasses/birthday/", "/office/subclasses/reminder/", "/alone/subclasses/birthday/"]


@pytest.mark.parametrize("folder", DERIVED)
def test_a_proxy_or_child_has_all_the_pages(root: Client, folder: str) -> None:
    model = Reminder if "reminder" in folder else Birthday
    message = model.objects.create(phone="0901888484", content="Chúc mừng", campaign="birthday")
    own = f"{folder}{message.pk}/change/"
    for url in (folder, f"{folder}add/", own, f"{folder}viber-overview/", f"{folder}viber-export/"):
        assert root.get(url).status_code == 200, url
    response = root.get(f"{folder}viber-send-to-many/")
    assert f'href="{folder}"' in response.content.decode()


@pytest.mark.parametrize("folder", DERIVED)
@pytest.mark.django_db(transaction=True)
def test_a_proxy_or_child_is_saved_and_sent(root: Client, folder: str) -> None:
    form = form_with(root.get(f"{folder}add/"), kind="text")
    assert form["buttons"]["_send"] == ["Save and send"]
    mark = {name: values[0] for name, values in form["fields"].items() if name == "_form_id"}
    assert mark
    data = {**FORM, "kind": "text", "campaign": "birthday", "appointment": "Monday", **mark, "_send": "1"}
    for _double_click in range(2):
        root.post(f"{folder}add/", data)
    [message] = Message.objects.all()
    assert message.status == "sent"


def test_the_list_of_a_child_with_a_key_of_its_own_is_refused() -> None:
    with pytest.raises(ImproperlyConfigured, match="Ticket has a primary key of its own"):
        admin.AdminSite("tickets").register(Ticket, OutboundViberMessageAdmin)
