"""Settings of the example shop. Everything that differs between machines comes from the environment.

Nothing needs to be set for the demo. `.env.example` lists what can be; copy it to `.env` to begin.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import environ
from django.utils.translation import gettext_lazy as _

from .images import local_images

BASE_DIR = Path(__file__).resolve().parent.parent

env = environ.Env()
if (BASE_DIR / ".env").exists():
    env.read_env(BASE_DIR / ".env")

DEBUG = env.bool("DEBUG", default=True)
SECRET_KEY = env("SECRET_KEY", default="only-for-the-demo") if DEBUG else env("SECRET_KEY")
ALLOWED_HOSTS = env.list("ALLOWED_HOSTS", default=["localhost", "127.0.0.1"])

SITE_ORIGIN = env("SITE_ORIGIN", default="http://127.0.0.1:8000")
"""Scheme and host of this site, for links in messages."""

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "esms_viber",
    "shop",
    "simulator",
    "demo",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "config.middleware.content_security_policy",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "config.urls"
WSGI_APPLICATION = "config.wsgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.template.context_processors.i18n",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]

DATABASES = {"default": env.db("DATABASE_URL", default=f"sqlite:///{BASE_DIR / 'db.sqlite3'}")}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

LANGUAGE_CODE = "vi"
LANGUAGES = [("vi", _("Vietnamese")), ("en", _("English"))]
LOCALE_PATHS = [BASE_DIR / "locale"]
# Django knows how Vietnamese separates thousands, but not that it does.
NUMBER_GROUPING = 3
TIME_ZONE = "Asia/Ho_Chi_Minh"
USE_TZ = True

STATIC_URL = "static/"
STATICFILES_DIRS = [BASE_DIR / "static"]

LOGIN_URL = "admin:login"

# The defaults are the account of the simulator, which answers on this site's own port.
ESMS_VIBER = {
    "API_KEY": env("ESMS_API_KEY", default="demo-api-key"),
    "SECRET_KEY": env("ESMS_SECRET_KEY", default="demo-secret-key"),
    "BRANDNAME": env("ESMS_BRANDNAME", default="CA PHE SOM"),
    "SANDBOX": env.bool("ESMS_SANDBOX", default=False),
    "CALLBACK_ORIGIN": env("ESMS_CALLBACK_ORIGIN", default=SITE_ORIGIN),
    "BASE_URL": env("ESMS_BASE_URL", default=f"{SITE_ORIGIN}/MainService.svc/json/"),
    # Shorter than the app's own, so that nobody waits half a minute for a time-out of the simulator.
    "TIMEOUT": (3, 8),
}

SIMULATOR = {
    "BRANDNAMES": ("CA PHE SOM",),
    "LOCAL_IMAGES": local_images(SITE_ORIGIN),
}

ESMS_IS_SIMULATED = urlsplit(str(ESMS_VIBER["BASE_URL"])).hostname in ("127.0.0.1", "localhost")
