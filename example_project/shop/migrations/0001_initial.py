import uuid

from django.db import migrations, models

import shop.models


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="Order",
            fields=[
                (
                    "id",
                    models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID"),
                ),
                ("public_id", models.UUIDField(default=uuid.uuid4, editable=False, unique=True)),
                ("customer", models.CharField(max_length=100, verbose_name="customer")),
                (
                    "phone",
                    models.CharField(
                        help_text="A mobile number, e.g. 0901 888 484.",
                        max_length=20,
                        validators=[shop.models.validate_mobile],
                        verbose_name="phone",
                    ),
                ),
                ("items", models.CharField(max_length=200, verbose_name="items")),
                ("amount", models.PositiveIntegerField(verbose_name="amount (đ)")),
                (
                    "status",
                    models.CharField(
                        choices=[("new", "new"), ("paid", "paid"), ("shipped", "shipped")],
                        default="new",
                        max_length=10,
                        verbose_name="status",
                    ),
                ),
                ("created_at", models.DateTimeField(auto_now_add=True, verbose_name="created")),
            ],
            options={"verbose_name": "order", "verbose_name_plural": "orders", "ordering": ["-pk"]},
        ),
    ]
