import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models


def content_type(**kwargs):
    return models.ForeignKey(
        blank=True,
        null=True,
        on_delete=django.db.models.deletion.DO_NOTHING,
        related_name='+',
        to='contenttypes.contenttype',
        verbose_name='type of related object',
        **kwargs,
    )


def user(**kwargs):
    return models.ForeignKey(
        blank=True,
        null=True,
        on_delete=django.db.models.deletion.DO_NOTHING,
        related_name='+',
        to=settings.AUTH_USER_MODEL,
        verbose_name='user',
        **kwargs,
    )


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
                migrations.AlterField('outboundvibermessage', 'content_type', content_type()),
                migrations.AlterField('vibermessageevent', 'user', user()),
            ]
        ),
        migrations.AlterField('outboundvibermessage', 'content_type', content_type(db_constraint=False)),
        migrations.AlterField('vibermessageevent', 'user', user(db_constraint=False)),
    ]
