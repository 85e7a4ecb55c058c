"""The template that the shop's code names; its text is the staff's to change."""

from django.db import migrations

TEMPLATE = {
    "name": "order-shipped",
    "title": "Đơn đã gửi",
    "content": "Đơn #{order} đang trên đường đến {customer} 🛵\nBạn vui lòng để ý điện thoại giúp shop nhé.",
    "image_url": "{image}",
    "button_label": "Xem đơn hàng",
    "button_url": "{link}",
}


def create_template(apps, schema_editor):
    apps.get_model("esms_viber", "ViberTemplate").objects.using(schema_editor.connection.alias).create(**TEMPLATE)


class Migration(migrations.Migration):
    dependencies = [("shop", "0001_initial"), ("esms_viber", "0001_initial")]

    operations = [migrations.RunPython(create_template, migrations.RunPython.noop)]
