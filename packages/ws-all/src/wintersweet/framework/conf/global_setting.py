"""The default of each setting: `ws_web.global_setting`."""

from ws_web.global_setting import APP_CONFIG as APP_CONFIG
from ws_web.global_setting import DATABASES as DATABASES
from ws_web.global_setting import DEBUG as DEBUG
from ws_web.global_setting import ES_CONFIG as ES_CONFIG
from ws_web.global_setting import EXCEPTION_HANDLERS as EXCEPTION_HANDLERS
from ws_web.global_setting import HTTP_CONFIG as HTTP_CONFIG
from ws_web.global_setting import LISTEN_HOST as LISTEN_HOST
from ws_web.global_setting import LISTEN_PORT as LISTEN_PORT
from ws_web.global_setting import LOGGING_CONFIG as LOGGING_CONFIG
from ws_web.global_setting import MIDDLEWARES as MIDDLEWARES
from ws_web.global_setting import MONGO_CONFIG as MONGO_CONFIG
from ws_web.global_setting import PROCESS_NUM as PROCESS_NUM
from ws_web.global_setting import REDIS_CONFIG as REDIS_CONFIG
from ws_web.global_setting import SECRET as SECRET

__all__ = (
    "APP_CONFIG",
    "DATABASES",
    "DEBUG",
    "ES_CONFIG",
    "EXCEPTION_HANDLERS",
    "HTTP_CONFIG",
    "LISTEN_HOST",
    "LISTEN_PORT",
    "LOGGING_CONFIG",
    "MIDDLEWARES",
    "MONGO_CONFIG",
    "PROCESS_NUM",
    "REDIS_CONFIG",
    "SECRET",
)
