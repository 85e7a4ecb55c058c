from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

from django.core.exceptions import ValidationError
from django.db import models, router
from django.db.models import CheckConstraint, UniqueConstraint
from django.utils.translation import gettext_lazy as _

from ..database import atomic_for_writing, begin_with_write
from . import choices, validators
from .choices import KIND_FIELDS, Purpose
from .fields import KeyField
from .placeholders import comparable, example_of, fill, fill_parts, placeholders_in, visible
from .querysets import ForWriting
from .saving import Normalized


class TemplateQuerySet(ForWriting):
    def named(self, name: str) -> ViberTemplate:
        """Return the template of this name. Raises `ValidationError` where there is none."""
        found: ViberTemplate | None = None
        if _is_slug(name):
            rows = self.for_writing().filter(name=name)
            # The message is stored next, maybe in a transaction that has done nothing yet.
            begin_with_write(rows, "name")
            found = rows.first()
        if found is None:
            sentence = _("No template is called “%(name)s”.")
            raise ValidationError({"template": ValidationError(sentence, "unknown", {"name": name})})
        return found


def _is_slug(name: str) -> bool:
    """Could it be the name of a template? Some databases refuse to look for what is no text."""
    try:
        validators.validate_name(name)
    except ValidationError:
        return False
    return True


class ViberTemplate(Normalized):
    """A message with names in braces, for code and for people to fill in. A change changes no message queued before."""

    Purpose = Purpose

    name = KeyField(
        _("name"),
        max_length=100,
        validators=[validators.validate_name],
        error_messages={
            "unique": _("There is a template of this name already."),
            "invalid": _("Use letters without accents, digits, hyphens and underscores, and no spaces."),
        },
        help_text=_("For code, e.g. order-paid. It cannot be changed later."),
    )
    title = models.CharField(
        _("title"),
        max_length=200,
        blank=True,
        validators=[validators.validate_text],
        help_text=_("For people, e.g. “Order is paid”."),
    )
    content = models.TextField(
        _("text"),
        blank=True,
        help_text=_("A name in braces, e.g. {customer}, stands for a value that is given with each message."),
    )
    image_url = models.CharField(_("image"), max_length=1000, blank=True)
    button_label = models.CharField(_("button label"), max_length=255, blank=True)
    button_url = models.CharField(
        _("button link"),
        max_length=1000,
        blank=True,
        help_text=_("The page that the button opens, e.g. https://shop.example.vn/orders/{order}."),
    )
    purpose = models.CharField(
        _("purpose"),
        max_length=16,
        choices=Purpose,
        default=Purpose.TRANSACTIONAL,
        help_text=_("Promotional messages go out after all others, and not to people who have opted out."),
    )

    objects: ClassVar[Any] = TemplateQuerySet.as_manager()

    class Meta:
        verbose_name = _("template")
        verbose_name_plural = _("templates")
        ordering = ["name"]
        constraints = [
            UniqueConstraint(fields=["name"], name="esms_viber_template_name"),
            CheckConstraint(
                condition=choices.any_kind(),
                name="esms_viber_template_kind",
                violation_error_message=_(
                    "A Viber message is a text; a text and a button; an image; or a text, an image and a button."
                ),
            ),
        ]

    def __str__(self) -> str:
        return self.title or self.name

    @property
    def parts(self) -> dict[str, str]:
        """The texts and links, by the names of their columns."""
        return {name: getattr(self, name) for name in KIND_FIELDS}

    @property
    def kind(self) -> choices.Kind | None:
        """The layout; None for a mix of parts that Viber does not have."""
        return choices.kind_of(name for name, text in self.parts.items() if text)

    @property
    def placeholders(self) -> list[str]:
        """The names in braces, as written, each once."""
        return placeholders_in(self.parts.values())

    def filled(self, context: Mapping[str, Any]) -> dict[str, str]:
        """Return the four texts with the values of the context, which are text; one within a link is quoted.

        Raises a `ValidationError` that names each name in braces without a value, and also where a value within a link
        has a character that cannot be sent.
        """
        values = {comparable(str(name)): str(value) for name, value in context.items() if value is not None}
        if missing := [visible(name) for name in self.placeholders if comparable(name) not in values]:
            sentence = _("The template “%(template)s” has no value for: %(names)s.")
            params = {"template": self.name, "names": ", ".join(missing)}
            raise ValidationError({"context": ValidationError(sentence, "missing", params)})
        try:
            return fill_parts(self.parts, values)
        except UnicodeEncodeError:  # by a lone surrogate within a link
            raise ValidationError({"context": _("A value has a character that cannot be sent.")}) from None

    # -- validation and saving -----------------------------------------------------------------------------------------

    def normalize(self) -> None:
        """Bring the texts into the form in which those of a message are stored.

        Raises one `ValidationError` that names every column that some database could not store.
        """
        errors = {}
        for name in ("title", *KIND_FIELDS, "purpose"):
            try:
                setattr(self, name, validators.as_stored(self._meta.get_field(name), getattr(self, name)))
            except ValidationError as error:
                errors[name] = error
        if errors:
            raise ValidationError(errors)

    def clean(self) -> None:
        """Check the parts as far as that does not depend on the values that are filled in."""
        super().clean()
        validators.validate_kind(self.parts)
        nothing = dict.fromkeys(map(comparable, self.placeholders), "")
        checks: list[tuple[str, str, Callable[[str], None]]] = [
            ("content", self.content, validators.validate_text),
            ("content", fill(self.content, nothing), validators.validate_content),
            ("button_label", self.button_label, validators.validate_text),
            ("button_label", fill(self.button_label, nothing), validators.validate_label),
            ("image_url", example_of(self.image_url), validators.validate_image_url),
            ("button_url", example_of(self.button_url), validators.validate_button_url),
        ]
        errors: dict[str, ValidationError] = {}
        for name, text, check in checks:
            try:
                if text:
                    check(text)
            except ValidationError as error:
                errors.setdefault(name, error)
        if errors:
            raise ValidationError(errors)

    def save(
        self,
        *,
        force_insert: Any = False,
        force_update: bool = False,
        using: str | None = None,
        update_fields: Iterable[str] | None = None,
    ) -> None:
        """Store the normalised texts.

        Raises `ValidationError` for a mix of parts that Viber does not have, for a name that is no slug, and for one
        that differs from the stored name, because code uses it.
        """
        self.normalize()
        validators.validate_kind(self.parts)
        alias = using or router.db_for_write(type(self))
        with atomic_for_writing(alias):
            self._keep_name(alias)
            super().save(force_insert=force_insert, force_update=force_update, using=alias, update_fields=update_fields)

    def _keep_name(self, alias: str) -> None:
        field: Any = self._meta.get_field("name")
        stored = type(self)._base_manager.using(alias).filter(pk=self.pk).values_list("name", flat=True).first()
        if stored is None:
            try:
                field.clean(self.name, self)
            except ValidationError as error:
                raise ValidationError({"name": error}) from None
        elif self.name != stored:
            sentence = _("The name of the template “%(name)s” cannot be changed, because code may use it.")
            raise ValidationError({"name": ValidationError(sentence, "fixed", {"name": stored})})
