"""Templates in the admin: written with samples, changed with care, and chosen where messages are written."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.http import HttpResponse
from django.test import Client

from esms_viber.gateways.memory import outbox
from esms_viber.models import OutboundViberMessage as Message
from esms_viber.models import ViberTemplate
from tests.admin.conftest import LogIn
from tests.admin.pages import ADD, FORM, LIST, buttons

pytestmark = pytest.mark.django_db(transaction=True)

TEMPLATES = "/admin/esms_viber/vibertemplate/"
NEW = f"{TEMPLATES}add/"
MANY = f"{LIST}viber-send-to-many/"
FILL = {"_template": "order-paid", "_fill": "1"}
"""*Fill in the form* by the template that is written below."""
WRITTEN = {
    "name": "order-paid",
    "title": "Order is paid",
    "kind": "text_button",
    "content": "Chào {tên}, đơn {order}",
    "image_url": "",
    "button_label": "Xem",
    "button_url": "https://shop.example.vn/{order}",
    "purpose": "transactional",
}


@pytest.fixture
def template(db: None) -> ViberTemplate:
    texts = {name: value for name, value in WRITTEN.items() if name != "kind"}
    return ViberTemplate.objects.create(**texts)


def page_of(template: ViberTemplate, end: str = "change") -> str:
    return f"{TEMPLATES}{template.pk}/{end}/"


def errors(response: HttpResponse) -> dict[str, Any]:
    found: dict[str, Any] = response.context["adminform"].form.errors
    return found


def client_with(*codenames: str) -> Client:
    user = User.objects.create_user("-".join(codenames), is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
    client = Client()
    client.force_login(user)
    return client


# -- writing one -------------------------------------------------------------------------------------------------------


def test_one_is_written_and_listed(root: Client) -> None:
    root.post(NEW, WRITTEN | {"_save": "1", "value-tên": "Lan"})
    template = ViberTemplate.objects.get()
    assert (template.name, template.content, template.kind) == ("order-paid", "Chào {tên}, đơn {order}", "text_button")
    html = root.get(TEMPLATES).content.decode()
    for expected in ["order-paid", "Order is paid", "transactional", "text and button"]:
        assert expected in html
    assert Message.objects.count() == len(outbox) == 0


@pytest.mark.parametrize(
    ("wrong", "field", "sentence"),
    [
        ({"name": "order paid"}, "name", "without accents"),
        ({"image_url": "https://a.vn/b.png"}, "image_url", "has no such part"),
        ({"button_url": "shop/{order}"}, "button_url", "full address"),
        ({"content": "x" * 1001 + "{tên}"}, "content", "Shorten it by 1"),
        ({"content": "ệ" * 500 + "{tên}"}, "content", "take out about"),
        ({"button_label": "x" * 31}, "button_label", "Shorten it by 1"),
    ],
)
def test_what_no_value_can_mend_is_told_on_its_field(
    root: Client, wrong: dict[str, str], field: str, sentence: str
) -> None:
    response = root.post(NEW, WRITTEN | wrong | {"_save": "1"})
    assert sentence in " ".join(errors(response)[field])
    assert not ViberTemplate.objects.exists()


def test_a_name_that_is_taken_is_told_on_the_name(root: Client, template: ViberTemplate) -> None:
    assert errors(root.post(NEW, WRITTEN | {"_save": "1"})) == {"name": ["There is a template of this name already."]}


def test_the_name_cannot_be_changed(root: Client, template: ViberTemplate) -> None:
    assert 'name="name"' not in root.get(page_of(template)).content.decode()
    root.post(page_of(template), WRITTEN | {"name": "other", "title": "Other", "_save": "1"})
    template.refresh_from_db()
    assert (template.name, template.title) == ("order-paid", "Other")


def test_the_preview_shows_the_names_or_the_samples_that_were_typed(root: Client, template: ViberTemplate) -> None:
    shown = root.get(page_of(template))
    assert shown.context["bubble"].text == "Chào tên, đơn order"
    assert shown.context["viber_values"] == [("tên", ""), ("order", "")]
    refused = root.post(page_of(template), WRITTEN | {"title": "x" * 201, "value-tên": "<b>", "value-order": "1/2"})
    assert refused.context["bubble"].text == "Chào <b>, đơn 1/2"
    assert refused.context["bubble"].button_url == "https://shop.example.vn/1%2F2"
    html = refused.content.decode()
    assert 'name="value-tên" value="&lt;b&gt;"' in html
    assert "<b>," not in html


def test_it_is_checked_while_it_is_written(root: Client, template: ViberTemplate) -> None:
    for address in (NEW, page_of(template)):
        answer = root.post(address, WRITTEN | {"name": "b", "button_url": "x", "_check": "1"}).json()
        assert list(answer["errors"]) == ["button_url"]
        long = root.post(address, WRITTEN | {"name": "b", "value-tên": "ệ" * 300, "_check": "1"}).json()
        assert (long["errors"], long["room"]["is_over"]) == ({}, True)
    assert ViberTemplate.objects.get().button_url == WRITTEN["button_url"]


# -- what code relies on -----------------------------------------------------------------------------------------------


def test_a_new_name_in_braces_is_asked_about_first(root: Client, template: ViberTemplate) -> None:
    changed = WRITTEN | {"content": "Chào {TÊN}, đơn {order} của {shop}", "value-shop": "Sớm"}
    asked = root.post(page_of(template), changed | {"_save": "1"})
    [sentence] = errors(asked)["__all__"]
    assert "New in braces: shop." in sentence
    assert 'template="order-paid" would fail with a ValidationError' in sentence
    assert "_confirm_names" in buttons(asked)
    assert 'name="confirmed_names" value="{shop}"' in asked.content.decode()
    assert 'name="value-shop" value="Sớm"' in asked.content.decode()
    template.refresh_from_db()
    assert template.content == WRITTEN["content"]

    root.post(page_of(template), changed | {"_confirm_names": "Save", "confirmed_names": "{shop}"})
    template.refresh_from_db()
    assert template.content == "Chào {TÊN}, đơn {order} của {shop}"


def test_only_the_names_that_were_shown_are_confirmed(root: Client, template: ViberTemplate) -> None:
    changed = WRITTEN | {"content": "{shop} {another}"}
    for posted in (
        {"_confirm_names": "Save", "confirmed_names": "{shop}"},
        {"_save": "1", "confirmed_names": "{shop}{another}"},
    ):
        asked = root.post(page_of(template), changed | posted)
        assert "New in braces: shop, another." in errors(asked)["__all__"][0]


def test_fewer_names_and_a_new_template_are_saved_at_once(root: Client, template: ViberTemplate) -> None:
    root.post(page_of(template), WRITTEN | {"content": "Chào", "_save": "1"})
    template.refresh_from_db()
    assert template.content == "Chào"


@pytest.mark.parametrize("from_list", [False, True])
def test_deleting_one_says_that_code_may_use_it(root: Client, template: ViberTemplate, from_list: bool) -> None:
    address = TEMPLATES if from_list else page_of(template, "delete")
    picked = {"action": "delete_selected", "_selected_action": str(template.pk)} if from_list else {}
    asked = root.post(address, picked) if from_list else root.get(address)
    assert "Code may use this." in asked.content.decode()
    assert ViberTemplate.objects.exists()
    root.post(address, picked | {"post": "yes"})
    assert not ViberTemplate.objects.exists()


# -- who may -----------------------------------------------------------------------------------------------------------


def test_permissions_are_djangos_own(template: ViberTemplate) -> None:
    assert client_with("view_outboundvibermessage").get(TEMPLATES).status_code == 403
    viewer = client_with("view_vibertemplate")
    shown = viewer.get(page_of(template))
    assert shown.status_code == 200
    assert "Chào tên, đơn order" in shown.content.decode()
    assert 'name="value-' not in shown.content.decode()
    for data in ({"_save": "1"}, {"_check": "1"}, {"_rehearse": "form", "rehearsal_phone": "0901888484"}):
        assert viewer.post(page_of(template), WRITTEN | data).status_code == 403
        assert viewer.post(NEW, WRITTEN | data).status_code == 403
    assert client_with("change_vibertemplate").get(page_of(template, "delete")).status_code == 403


# -- chosen where messages are written ---------------------------------------------------------------------------------


def test_the_add_page_begins_with_a_template(root: Client, template: ViberTemplate) -> None:
    assert f'<option value="{template.name}">Order is paid</option>' in root.get(ADD).content.decode()
    ViberTemplate.objects.update(purpose="promotional")
    shown = root.post(ADD, {"phone": "12", "campaign": "tet", "content": "Old", **FILL})
    form = shown.context["adminform"].form
    begun = {name: form[name].value() for name in WRITTEN if name not in {"name", "title"}}
    assert begun == {name: WRITTEN[name] for name in begun} | {"purpose": "promotional"}
    assert shown.context["viber_values"] == [("tên", ""), ("order", "")]
    assert shown.context["bubble"].text == "Chào tên, đơn order"
    assert [form[name].value() for name in ("phone", "campaign")] == ["12", "tet"]
    assert not form.errors
    assert not Message.objects.exists()
    assert 'name="_from_template"' in shown.content.decode()
    assert f'<option value="{template.name}" selected>' in shown.content.decode()


FILLED = FORM | {name: WRITTEN[name] for name in ("kind", "content", "button_label", "button_url")}


def test_what_arrives_in_a_message_is_plain(root: Client, template: ViberTemplate) -> None:
    values = {"value-tên": "Lan", "value-order": "a/b", "_from_template": "1"}
    root.post(ADD, FILLED | values | {"_save": "1"})
    message = Message.objects.get()
    assert (message.content, message.button_url) == ("Chào Lan, đơn a/b", "https://shop.example.vn/a%2Fb")
    assert message.metadata == {}


@pytest.mark.parametrize("button", ["_save", "_send", "_check"])
def test_a_value_that_is_missing_is_asked_for(root: Client, template: ViberTemplate, button: str) -> None:
    values = {"value-tên": "Lan", "value-order": " ", "_from_template": "1"}
    response = root.post(ADD, FILLED | values | {button: "1"})
    found = response.json()["errors"] if button == "_check" else errors(response)
    assert found == {name: ["Give a value for: order."] for name in ("content", "button_url")}
    assert not Message.objects.exists()
    if button != "_check":
        html = response.content.decode()
        assert 'name="value-tên" value="Lan"' in html
        assert "Chào {tên}, đơn {order}" in html


def test_braces_that_somebody_types_are_text(root: Client) -> None:
    root.post(ADD, FORM | {"content": "Hi {tên}", "value-tên": "Lan", "_save": "1"})
    assert Message.objects.get().content == "Hi {tên}"
    assert 'data-part="values"' not in root.get(ADD).content.decode()


@pytest.mark.parametrize("name", ["gone", "a\x00b", "đơn"])
def test_a_template_that_is_gone_leaves_the_form_as_it_is(root: Client, name: str) -> None:
    for address in (ADD, MANY):
        response = root.post(address, {"content": "Mine", "_template": name, "_fill": "1"})
        assert response.status_code == 200
        assert "viber_values" not in response.context or response.context["viber_values"] is None
        assert ">\nMine</textarea>" in response.content.decode()


def test_send_to_many_begins_with_a_template(root: Client, template: ViberTemplate) -> None:
    assert root.get(MANY).context["form"]["purpose"].value() == "promotional"
    file = SimpleUploadedFile("list.csv", "phone,tên,order\n0901888484,Lan,17\n".encode())
    filled = root.post(MANY, {"campaign": "tet", "file": file, **FILL})
    form = filled.context["form"]
    begun = {name: form[name].value() for name in WRITTEN if name not in {"name", "title"}}
    assert begun == {name: WRITTEN[name] for name in begun} | {"purpose": "promotional"}
    assert form["campaign"].value() == "tet"
    assert not form.errors
    kept = filled.context["kept_rows"]
    shown = root.post(MANY, begun | {"campaign": "tet", "rows": kept})
    assert shown.context["samples"][0].bubble.text == "Chào Lan, đơn 17"
    assert shown.context["mailing"].purpose == "promotional"


@pytest.mark.parametrize(
    ("of_template", "chosen", "begins"),
    [
        ("transactional", None, "promotional"),
        ("transactional", "promotional", "promotional"),
        ("transactional", "transactional", "transactional"),
        ("promotional", "transactional", "promotional"),
    ],
)
def test_no_template_makes_what_goes_to_many_transactional(
    root: Client, template: ViberTemplate, of_template: str, chosen: str | None, begins: str
) -> None:
    """A person does: such messages also reach who has opted out of promotional ones, at any hour."""
    ViberTemplate.objects.filter(pk=template.pk).update(purpose=of_template)
    filled = root.post(MANY, FILL | ({"purpose": chosen} if chosen else {}))
    assert filled.context["form"]["purpose"].value() == begins
    assert root.post(ADD, FILL).context["adminform"].form["purpose"].value() == of_template


def test_who_may_not_view_templates_is_offered_none(template: ViberTemplate, log_in: LogIn) -> None:
    client = log_in("view", "add", "send")
    for address in (ADD, MANY):
        html = client.post(address, FILL).content.decode()
        assert "Order is paid" not in html
        assert "Chào {tên}" not in html
        assert 'name="_template"' not in html
