"""The app's own pages beside the list: their addresses, permissions and frames."""

from __future__ import annotations

from collections.abc import Callable
from functools import update_wrapper
from typing import Any

from django.contrib import admin
from django.contrib.messages import constants as levels
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse, reverse_lazy
from django.utils.http import urlencode
from django.utils.translation import gettext as _

from ..database import non_atomic_requests

View = Callable[[Any, HttpRequest], HttpResponseBase]

FOLDER = "admin/esms_viber/outboundvibermessage"
"""The folder of the templates."""


def route(model_admin: admin.ModelAdmin[Any], address: str, view: View, *, permission: str) -> URLPattern:
    """Make a URL under the list's, named after its view, for staff who may `view`, `add`, `change`, `send` or
    `redact`.

    Address and name begin with "viber", because packages for the admin have taken the plain words: `export/` of
    django-import-export would come before ours wherever its mixin does. The view runs outside of any transaction, even
    under `ATOMIC_REQUESTS`.
    """

    def guarded(request: HttpRequest) -> HttpResponseBase:
        if not getattr(model_admin, f"has_{permission}_permission")(request):
            raise PermissionDenied
        request.current_app = model_admin.admin_site.name  # read by the templates
        return view(model_admin, request)

    update_wrapper(guarded, view)
    page: Any = model_admin.admin_site.admin_view(guarded)
    # Read by Django's LoginRequiredMiddleware, as on the admin's own pages.
    page.login_url = reverse_lazy("admin:login", current_app=model_admin.admin_site.name)
    name = f"{_prefix(model_admin)}_viber_{view.__name__}"
    found: URLPattern = path(f"viber-{address}", non_atomic_requests(page), name=name)
    return found


def url_of(model_admin: admin.ModelAdmin[Any], name: str) -> str:
    """The address of a page by the end of its name: `changelist` is Django's, `viber_overview` one of `route()`."""
    return reverse(f"admin:{_prefix(model_admin)}_{name}", current_app=model_admin.admin_site.name)


def press_again(model_admin: admin.ModelAdmin[Any], request: HttpRequest) -> HttpResponseRedirect:
    """Answer a GET of a page that only a button opens, as it comes after somebody had to log in again."""
    model_admin.message_user(request, _("Nothing was done yet: press the button again."), levels.WARNING)
    return HttpResponseRedirect(url_of(model_admin, "viber_overview"))


def campaign_url(model_admin: admin.ModelAdmin[Any], name: str) -> str:
    return f"{url_of(model_admin, 'viber_campaign')}?{urlencode({'name': name})}"


def _prefix(model_admin: admin.ModelAdmin[Any]) -> str:
    """Return the beginning of Django's URL names for the registered model, which may be a site's proxy or child."""
    return f"{model_admin.opts.app_label}_{model_admin.opts.model_name}"


def framed(response: HttpResponse, template: str) -> HttpResponse:
    """Show a page of Django's in our `template`, which extends the template that the page would have had.

    That one may be Django's, a theme's, a mixin's or the site's. Ours needs only its block `content`, which every page
    of an admin has.
    """
    if isinstance(response, TemplateResponse) and not response.is_rendered:
        response.context_data = {
            **(response.context_data or {}),
            "viber_framed": response.resolve_template(response.template_name),
        }
        response.template_name = f"{FOLDER}/{template}.html"
    return response


def render(model_admin: admin.ModelAdmin[Any], request: HttpRequest, template: str, **context: Any) -> TemplateResponse:
    """Render a page in the admin's frame. `context` has to hold its `title`."""
    context = {**model_admin.admin_site.each_context(request), "opts": model_admin.opts, **context}
    return TemplateResponse(request, f"{FOLDER}/{template}.html", context)
