"""When NYSE and Nasdaq trade, by NYSE's Rule 7.2 and its announcements: the standard library only, no list of days.

Holds from 2010 on. Times are of New York.
"""

import datetime
import functools
from zoneinfo import ZoneInfo

NEW_YORK = ZoneInfo("America/New_York")
MONDAY, THURSDAY, SATURDAY, SUNDAY = 0, 3, 5, 6
DAY = datetime.timedelta(days=1)

# Closures that no rule foresees: hurricane Sandy, and the mourning of presidents Bush and Carter.
CLOSED = {datetime.date(2012, 10, 29), datetime.date(2012, 10, 30), datetime.date(2018, 12, 5), datetime.date(2025, 1, 9)}


def nth(year, month, weekday, n):
    """The n-th such weekday of a month."""
    first = datetime.date(year, month, 1)
    return first + DAY * ((weekday - first.weekday()) % 7 + 7 * (n - 1))


def easter(year):
    """Gauss's rule, as Butcher wrote it."""
    a, (b, c) = year % 19, divmod(year, 100)
    h = (19 * a + b - b // 4 - (b - (b + 8) // 25 + 1) // 3 + 15) % 30
    l = (32 + 2 * (b % 4) + 2 * (c // 4) - h - c % 4) % 7  # noqa: E741 - its name there
    month, day = divmod(h + l - 7 * ((a + 11 * h + 22 * l) // 451) + 114, 31)
    return datetime.date(year, month, day + 1)


def observed(date):
    """A Saturday's holiday is kept on the Friday, a Sunday's on the Monday."""
    return date + DAY * {SATURDAY: -1, SUNDAY: 1}.get(date.weekday(), 0)


@functools.cache
def holidays(year):
    new_year = datetime.date(year, 1, 1)
    days = {
        nth(year, 1, MONDAY, 3),  # Martin Luther King
        nth(year, 2, MONDAY, 3),  # Washington's birthday
        easter(year) - 2 * DAY,  # Good Friday
        nth(year, 6, MONDAY, 1) - 7 * DAY,  # Memorial Day, the last Monday of May
        observed(datetime.date(year, 7, 4)),
        nth(year, 9, MONDAY, 1),  # Labor Day
        nth(year, 11, THURSDAY, 4),  # Thanksgiving
        observed(datetime.date(year, 12, 25)),
    }
    if new_year.weekday() != SATURDAY:  # the Friday before ends a year, and is traded
        days.add(observed(new_year))
    if year >= 2022:
        days.add(observed(datetime.date(year, 6, 19)))
    return days


def is_half(date):
    """The day after Thanksgiving; the days before Independence Day and Christmas, if those are kept on their own weekday."""
    eves = {datetime.date(date.year, 7, 3), datetime.date(date.year, 12, 24)}
    return date == nth(date.year, 11, THURSDAY, 4) + DAY or (date in eves and date.weekday() <= THURSDAY)


@functools.cache
def hours(date):
    """Begin of pre-market, open, close and end of post-market, in minutes since midnight; none without trading."""
    if date.weekday() >= SATURDAY or date in CLOSED or date in holidays(date.year):
        return None
    return (240, 570, 780, 1020) if is_half(date) else (240, 570, 960, 1200)


def session(millis):
    """Of an instant, in ms since 1970."""
    at = datetime.datetime.fromtimestamp(millis / 1000, datetime.UTC).astimezone(NEW_YORK)
    borders = hours(at.date())
    minute = at.hour * 60 + at.minute
    if borders is None or not borders[0] <= minute < borders[3]:
        return "closed"
    return "pre" if minute < borders[1] else "regular" if minute < borders[2] else "post"
