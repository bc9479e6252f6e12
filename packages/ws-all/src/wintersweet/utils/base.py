"""The helpers of the original's class `Utils`; new code uses the functions of `ws_core.base` directly."""

from ws_core import base
from ws_logging import logger

__all__ = ("Utils", "install_uvloop")

install_uvloop = base.install_uvloop


class Utils:
    """
    Helpers under one name, as in the first wintersweet.

    Example:
        >>> Utils.int2ip(Utils.ip2int("10.0.0.1"))
        '10.0.0.1'
    """

    log = logger

    ip2int = staticmethod(base.ip2int)
    int2ip = staticmethod(base.int2ip)
    time2stamp = staticmethod(base.time2stamp)
    stamp2time = staticmethod(base.stamp2time)
    datetime2time = staticmethod(base.datetime2time)
    time2datetime = staticmethod(base.time2datetime)
    timestamp = staticmethod(base.timestamp)
    delta_datetime = staticmethod(base.delta_datetime)
    loop_time = staticmethod(base.loop_time)
    format_time = staticmethod(base.format_time)
    re_match = staticmethod(base.re_match)
    xml_encode = staticmethod(base.xml_encode)
    xml_decode = staticmethod(base.xml_decode)
    split_int = staticmethod(base.split_int)
    package_task = staticmethod(base.package_task)  # type: ignore[arg-type,var-annotated]  # overloads
    wait_frame = staticmethod(base.wait_frame)
