from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('contenttypes', '0002_remove_content_type_name'),
        ('esms_viber', '0001_initial'),
    ]

    operations = [
        migrations.AddField(
            model_name='outboundvibermessage',
            name='next_query_at',
            field=models.DateTimeField(blank=True, editable=False, null=True, verbose_name='next status query'),
        ),
        migrations.AddIndex(
            model_name='outboundvibermessage',
            index=models.Index(fields=['next_query_at'], name='esms_viber_query'),
        ),
    ]
