"""Small helpers and logging."""

import json
import logging
import os
import tempfile
import time

from ._setup import behaviour


@behaviour
def utils_addresses():
    """`ip2int` and `int2ip`."""
    from wintersweet.utils.base import Utils

    return [Utils.ip2int("10.0.0.1"), Utils.int2ip(167772161), Utils.ip2int("::1")]


@behaviour
def utils_times():
    """Times as text, stamp and datetime."""
    import datetime

    from wintersweet.utils.base import Utils

    os.environ["TZ"] = "UTC"
    time.tzset()
    return [
        Utils.time2stamp("2022-03-09 10:00:00"),
        Utils.stamp2time(1646820000),
        Utils.stamp2time(1646820000, "%Y%m%d"),
        Utils.stamp2time(1646820000, timezone="Asia/Tokyo"),
        Utils.datetime2time(datetime.datetime(2022, 3, 9, 10)),
        str(Utils.time2datetime("2022-03-09 10:00:00")),
        abs(Utils.timestamp() - time.time()) < 2,
        Utils.format_time("%Y") == time.strftime("%Y"),
    ]


@behaviour
def utils_delta():
    """`delta_datetime` adds to now, and can go to midnight."""
    import datetime

    from wintersweet.utils.base import Utils

    now = datetime.datetime.now()
    ahead = Utils.delta_datetime(hours=1) - now
    midnight = Utils.delta_datetime(origin=True, add=False, days=1)
    return [round(ahead.total_seconds()), midnight.hour, midnight.minute, (now.date() - midnight.date()).days]


@behaviour
def utils_xml():
    """`xml_encode` and `xml_decode`."""
    import xml.dom.minidom  # noqa: F401 - 1.1.4 left this to its users

    from wintersweet.utils.base import Utils

    text = Utils.xml_encode({"a": 1, "b": {"c": "x"}}, root_tag="doc")
    if not isinstance(text, str):
        text = text.toxml()
    found = Utils.xml_decode(text)
    return json.loads(json.dumps(found))


@behaviour
def utils_split_int():
    """`split_int` with separators and limits."""
    from wintersweet.utils.base import Utils

    return [
        Utils.split_int("1,2, 3"),
        Utils.split_int("1:x:-2", ":"),
        Utils.split_int("1", minsplit=3),
        Utils.split_int("1,2,3", maxsplit=1),
    ]


@behaviour
def utils_re_match():
    """`re_match` returns the match, or None."""
    from wintersweet.utils.base import Utils

    return [Utils.re_match("a+", "aab").group(), Utils.re_match("b", "aab")]


@behaviour
async def utils_loop_helpers():
    """`wait_frame`, `loop_time` and `package_task`."""
    from wintersweet.utils.base import Utils

    async def double(number, plus=0):
        return number * 2 + plus

    await Utils.wait_frame(3)
    return [
        await Utils.package_task(double, 4, plus=1)(),
        await Utils.package_task(double)(1),
        Utils.loop_time() > 0,
    ]


@behaviour
def utils_modules():
    """Modules that hang on `Utils`, and the log."""
    from wintersweet.utils.base import Utils

    names = "os sys math uuid time random hashlib asyncio datetime textwrap traceback itertools functools"
    return [[getattr(Utils, name).__name__ for name in names.split()], hasattr(Utils.log, "info")]


@behaviour
def utils_catch_error():
    """`with catch_error()` logs and goes on."""
    from wintersweet.utils.errors import catch_error

    with catch_error():
        raise ValueError("logged")
    return "on"


@behaviour
def utils_singletons():
    """Classes of which there is one object, by base class and by metaclass."""
    from wintersweet.utils.metaclass import (
        SafeSingleton,
        SafeSingletonMetaclass,
        Singleton,
        SingletonMetaclass,
    )

    class One(Singleton):
        pass

    class Two(SafeSingleton):
        def __init__(self, value):
            self.value = value

    class Three(metaclass=SingletonMetaclass):
        pass

    class Four(metaclass=SafeSingletonMetaclass):
        pass

    return [One() is One(), Two(1) is Two(1), Three() is Three(), Four() is Four(), One() is Three()]


@behaviour
def utils_singleton_with_other_arguments():
    """A second call with other arguments returns the first object."""
    from wintersweet.utils.metaclass import SafeSingleton

    class One(SafeSingleton):
        def __init__(self, value):
            self.value = value

    return [One(1).value, One(2).value]


@behaviour
def logging_to_a_file():
    """`register_logger(level, file_path=, file_name=)` writes lines of loguru and of the standard library."""
    from wintersweet.utils.base import Utils
    from wintersweet.utils.logging import register_logger

    folder = tempfile.mkdtemp()
    register_logger("info", file_path=folder, file_name="app.log")
    Utils.log.info("from loguru")
    Utils.log.debug("not this")
    logging.getLogger("shop").warning("from %s", "logging")
    time.sleep(2.5)
    with open(os.path.join(folder, "app.log")) as file:
        text = file.read()
    return ["from loguru" in text, "not this" in text, "from logging" in text, "WARNING" in text]


@behaviour
def logging_to_a_handler():
    """`register_logger(level, handler)` takes a function."""
    from wintersweet.utils.base import Utils
    from wintersweet.utils.logging import register_logger

    seen = []
    register_logger("info", lambda message: seen.append(str(message)))
    Utils.log.info("text")
    time.sleep(0.5)
    Utils.log.complete()
    return [len(seen), "text" in seen[0]]


@behaviour
def logging_parts():
    """The parts of logging: `LogFileRotator.make`, `LogInterceptor`, `QueuedFileSink`."""
    import loguru

    from wintersweet.utils.logging import LogFileRotator, LogInterceptor, QueuedFileSink

    folder = tempfile.mkdtemp()
    path = os.path.join(folder, "queued.log")
    sink = QueuedFileSink(
        path, buffer_size=100, buffer_block=True, rotation=LogFileRotator.make(_size=1, _time="03:00")
    )
    number = loguru.logger.add(sink, level="INFO")
    loguru.logger.info("queued")
    logger = logging.getLogger("legacy.parts")
    logger.addHandler(LogInterceptor())
    logger.warning("intercepted")
    time.sleep(1.5)
    loguru.logger.remove(number)
    with open(path) as file:
        text = file.read()
    return ["queued" in text, "intercepted" in text, callable(LogFileRotator.make())]
