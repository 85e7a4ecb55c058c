from typing import Any

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models

BOTH: Any = {
    'blank': True,
    'null': True,
    'on_delete': django.db.models.deletion.DO_NOTHING,
    'related_name': '+',
}
CONTENT_TYPE: Any = {**BOTH, 'to': 'contenttypes.contenttype', 'verbose_name': 'type of related object'}
USER: Any = {**BOTH, 'to': settings.AUTH_USER_MODEL, 'verbose_name': 'user'}


class Migration(migrations.Migration):

    dependencies = [
        ('contenttypes', '0002_remove_content_type_name'),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
        ('esms_viber', '0003_exact_campaign_names'),
    ]

    operations = [
        # The first migration makes no such constraint any more, because with the users in another database it could
        # not. Where it did, the constraints go now: Django drops those that it believes to be there, and finds.
        migrations.SeparateDatabaseAndState(
            state_operations=[
                migrations.AlterField('outboundvibermessage', 'content_type', models.ForeignKey(**CONTENT_TYPE)),
                migrations.AlterField('vibermessageevent', 'user', models.ForeignKey(**USER)),
            ]
        ),
        migrations.AlterField(
            'outboundvibermessage', 'content_type', models.ForeignKey(**CONTENT_TYPE, db_constraint=False)
        ),
        migrations.AlterField('vibermessageevent', 'user', models.ForeignKey(**USER, db_constraint=False)),
    ]
