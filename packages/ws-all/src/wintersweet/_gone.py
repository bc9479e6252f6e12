"""Names of wintersweet 1.x that have no successor: asking for one says what to write instead."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, NoReturn

_POOL_OPTIONS: Final = "pass options to HttpPool or HTTP_CONFIG instead"
_OWN_LIST: Final = "LRUCache keeps its entries itself; write your own class if you used this one"

GONE: Final[Mapping[str, Mapping[str, str]]] = {
    "asyncs.http": {"request_ws": "use `async with client.websocket(url)` of ws_pool.http"},
    "asyncs.http.api": {"request_ws": "use `async with client.websocket(url)` of ws_pool.http"},
    "asyncs.http.default": {
        "DEFAULT_DOWNLOAD_TIMEOUT": "pass timeout= to download()",
        "DEFAULT_SSL_CONTEXT": f"certificates are verified by default; {_POOL_OPTIONS} (verify=)",
        "get_session_args": _POOL_OPTIONS,
    },
    "asyncs.task.tasks": {
        "AsyncIOSchedulerManager": "use ws_tasks.Scheduler, or tag= of a task",
        "BaseAsyncIOScheduler": "use ws_tasks.Scheduler",
        "BaseTask": "use TaskInterface for annotations",
        "TIMEZONE": "pass tz= to CrontabTask, or set WS_TIMEZONE",
    },
    "framework.conf": {
        "DynamicSetting": "settings is a ws_web.Settings; subclass that for names of your own"
    },
    "framework.fastapi.app": {"DEFAULT_HEADERS": "add headers in a middleware"},
    "framework.fastapi.middlewares": {"REQUEST_ID_CONTEXT": "use get_request_id()"},
    "utils.cache": {"TimestampNode": _OWN_LIST},
    "utils.logging": {
        "DEFAULT_LOG_FILE_NAME": "pass file_name= to register_logger()",
        "DEFAULT_LOG_FILE_ROTATOR": "pass file_rotation= to register_logger()",
        "DEFAULT_LOG_INTERCEPTOR": "register_logger() installs the interceptor itself",
    },
    "utils.structure": {"Node": _OWN_LIST},
}
"""Module below ``wintersweet`` → name → what to use instead. The migration page has the same rows."""


def explain(module: str) -> Callable[[str], NoReturn]:
    """Make the ``__getattr__`` of a module that had more names in 1.x."""
    names = GONE[module.removeprefix("wintersweet.")]

    def missing(name: str) -> NoReturn:
        if name in names:
            # An AttributeError would lose its text in `from module import name`.
            raise ImportError(f"{module}.{name} of 1.x is gone: {names[name]}", name=module)

        message = f"module {module!r} has no attribute {name!r}"
        raise AttributeError(message, name=name)

    return missing
