"""Puts the clock of a process wrong by FAULTS_CLOCK_SHIFT_S seconds from its start on. Monotonic time stays."""

import datetime as dt
import os
import time

_shift_s = float(os.environ.get("FAULTS_CLOCK_SHIFT_S", "0"))
_time, _time_ns = time.time, time.time_ns
_localtime, _gmtime, _strftime = time.localtime, time.gmtime, time.strftime
_Real = dt.datetime


class _Kind(type(_Real)):  # type: ignore[misc]  # a metaclass of datetime's own
    def __instancecheck__(cls, it: object) -> bool:
        return isinstance(it, _Real)

    def __subclasscheck__(cls, kind: type) -> bool:
        return issubclass(kind, _Real)


class _Shifted(_Real, metaclass=_Kind):
    @classmethod
    def now(cls, tz: dt.tzinfo | None = None) -> "_Shifted":
        return cls.fromtimestamp(time.time(), tz)

    @classmethod
    def utcnow(cls) -> "_Shifted":
        return cls.fromtimestamp(time.time(), dt.UTC).replace(tzinfo=None)


def _shifted() -> float:
    return _time() + _shift_s


time.time = _shifted
time.time_ns = lambda: _time_ns() + int(_shift_s * 1e9)
time.localtime = lambda seconds=None: _localtime(_shifted() if seconds is None else seconds)
time.gmtime = lambda seconds=None: _gmtime(_shifted() if seconds is None else seconds)
time.strftime = lambda form, moment=None: _strftime(form, _localtime(_shifted()) if moment is None else moment)
dt.datetime = _Shifted  # type: ignore[misc]
