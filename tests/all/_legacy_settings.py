"""A settings module as one for wintersweet 1.1.4, where the servers are the tests' own."""

import os
from urllib.parse import urlsplit

_MYSQL = urlsplit(os.environ["LEGACY_MYSQL"])
_REDIS = urlsplit(os.environ["LEGACY_REDIS"])

DEBUG = False
SECRET = "some secret"
LISTEN_PORT = 8080
PROCESS_NUM = 1

APP_CONFIG = {"title": "legacy"}

LOGGING_CONFIG = {"level": "info", "file_path": "", "file_name": "legacy.log"}

DATABASES = {
    "default": {
        "host": _MYSQL.hostname,
        "port": _MYSQL.port,
        "user": "root",
        "password": "",
        "db": _MYSQL.path[1:],
        "charset": "utf8mb4",
        "autocommit": True,
        "minsize": 1,
        "maxsize": 5,
        "pool_recycle": 7200,
    }
}

REDIS_CONFIG = {
    "default": {
        "address": (_REDIS.hostname, _REDIS.port),
        "password": None,
        "db": int(_REDIS.path[1:] or 0),
        "encoding": "utf-8",
        "minsize": 1,
        "maxsize": 10,
    }
}

SHOP_NAME = "an undeclared setting"
