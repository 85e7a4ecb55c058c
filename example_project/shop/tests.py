from __future__ import annotations

from typing import Any

from django.conf import settings
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.db import transaction
from django.test import TestCase, override_settings
from django.urls import reverse
from esms_viber.models import OutboundViberMessage, ViberTemplate
from esms_viber.testing import outbox

from .models import Order


def make_order(**fields: Any) -> Order:
    defaults = {"customer": "Lan", "phone": "0901 888 484", "items": "1 × Culi", "amount": 260_000}
    return Order.objects.create(**defaults | fields)


def mark(order: Order, status: Order.Status) -> None:
    order.status = status
    order.save()


class MessageTests(TestCase):
    def test_new_order_says_nothing(self) -> None:
        make_order()
        self.assertFalse(OutboundViberMessage.objects.exists())

    def test_paid_order_queues_one_message(self) -> None:
        order = make_order()
        mark(order, Order.Status.PAID)
        mark(order, Order.Status.PAID)
        message = OutboundViberMessage.objects.for_object(order).get()
        self.assertEqual((message.status, message.phone, message.campaign), ("queued", "+84901888484", "orders"))
        self.assertIn("260.000 đ", message.content)
        self.assertEqual(message.button_url, f"{settings.SITE_ORIGIN}/orders/{order.public_id}/")

    @override_settings(SITE_ORIGIN="http://127.0.0.1:8001")
    def test_shipped_order_queues_another_one_with_an_image_of_this_site(self) -> None:
        order = make_order(status=Order.Status.PAID)
        mark(order, Order.Status.SHIPPED)
        mark(order, Order.Status.PAID)
        images = OutboundViberMessage.objects.for_object(order).order_by("pk").values_list("image_url", flat=True)
        self.assertEqual(list(images), ["", "https://127.0.0.1:8001/static/shop/parcel.png"])

    def test_what_a_shipped_order_says_is_the_staffs_to_write(self) -> None:
        template = ViberTemplate.objects.get(name="order-shipped")
        template.content = "Chào {customer}, đơn {order} đã đi"
        template.save()
        order = make_order(status=Order.Status.SHIPPED)
        message = OutboundViberMessage.objects.for_object(order).get()
        self.assertEqual(message.content, f"Chào Lan, đơn {order.pk} đã đi")
        self.assertEqual(message.button_url, order.link)

    def test_each_order_has_its_own_message(self) -> None:
        for _ in range(2):
            mark(make_order(), Order.Status.PAID)
        self.assertEqual(OutboundViberMessage.objects.queued().count(), 2)

    def test_rolled_back_order_says_nothing(self) -> None:
        order = make_order()
        with self.captureOnCommitCallbacks() as callbacks, self.assertRaises(ZeroDivisionError), transaction.atomic():
            mark(order, Order.Status.PAID)
            raise ZeroDivisionError
        self.assertFalse(OutboundViberMessage.objects.exists())
        self.assertEqual(callbacks, [])

    def test_order_is_kept_when_its_phone_gets_no_viber(self) -> None:
        with self.assertLogs("shop.receivers", "WARNING"):
            order = make_order(phone="02838 123 456", status=Order.Status.PAID)
        self.assertTrue(Order.objects.filter(pk=order.pk, status="paid").exists())
        self.assertFalse(OutboundViberMessage.objects.exists())

    def test_fixtures_say_nothing(self) -> None:
        order = make_order()
        order.status = Order.Status.PAID
        order.save_base(raw=True)
        self.assertFalse(OutboundViberMessage.objects.exists())

    def test_form_refuses_a_phone_that_is_no_mobile_number(self) -> None:
        with self.assertRaises(ValidationError) as caught:
            Order(customer="Lan", phone="02838123456", items="x", amount=1).full_clean()
        self.assertEqual(list(caught.exception.message_dict), ["phone"])

    def test_message_leaves_after_the_commit(self) -> None:
        order = make_order()
        with self.captureOnCommitCallbacks(execute=True):
            mark(order, Order.Status.PAID)
            self.assertEqual(outbox, [])
        self.assertEqual([message.phone for message in outbox], ["+84901888484"])
        self.assertEqual(OutboundViberMessage.objects.get().status, "sent")


class PageTests(TestCase):
    def test_start_page_shows_orders_with_the_status_of_their_newest_message(self) -> None:
        order = make_order(status=Order.Status.PAID)
        make_order(customer="Minh", phone="not a phone")
        with self.assertNumQueries(1):
            response = self.client.get("/")
        self.assertContains(response, str(order))
        self.assertContains(response, "pill-queued", count=1)
        self.assertContains(response, reverse("simulator:phone", args=["0901888484"]))

    @override_settings(DEBUG=True, DEMO_LOGINS=[("admin", "secret", "may do everything")])
    def test_logins_of_the_demo(self) -> None:
        self.assertContains(self.client.get("/"), "secret")
        with self.settings(DEBUG=False):
            self.assertNotContains(self.client.get("/"), "secret")

    def test_order_page(self) -> None:
        self.assertContains(self.client.get(make_order().get_absolute_url()), "260.000 đ")

    def test_both_languages_and_the_policy(self) -> None:
        for language in ("vi", "en"):
            response = self.client.get("/", headers={"accept-language": language})
            self.assertContains(response, f'<html lang="{language}">')
            self.assertIn("default-src 'self'", response["Content-Security-Policy"])

    def test_admin_speaks_of_the_shop_in_both_languages(self) -> None:
        self.client.force_login(User.objects.create_superuser("admin"))
        for language, name in (("vi", "Cửa hàng"), ("en", "Shop")):
            response = self.client.get(reverse("admin:index"), headers={"accept-language": language})
            self.assertIn(name, [str(app["name"]) for app in response.context["app_list"]])

    def test_admin_list(self) -> None:
        make_order(status=Order.Status.PAID)
        self.client.force_login(User.objects.create_superuser("admin"))
        response = self.client.get(reverse("admin:shop_order_changelist"))
        self.assertContains(response, 'class="field-viber"')
