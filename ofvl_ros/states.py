"""The states a localizer can be in, and how bad each is."""

from diagnostic_msgs.msg import DiagnosticStatus

OK, WARN, ERROR, STALE = (
    DiagnosticStatus.OK,
    DiagnosticStatus.WARN,
    DiagnosticStatus.ERROR,
    DiagnosticStatus.STALE,
)

LEVELS = {
    "localized": OK,
    "starting": WARN,
    "searching": WARN,
    "rejected": WARN,
    "stale image": WARN,
    "lost": ERROR,
    "unknown scene": ERROR,
    "wrong scene": ERROR,
    "no images": ERROR,
    "no camera_info": ERROR,
    "bad image": ERROR,
    "no transform": ERROR,
    "failed": ERROR,
    "inactive": STALE,
}
"""Each state with its DiagnosticStatus level. Only in 'localized' is a pose published."""

WITHOUT_MAP = {"starting", "searching", "lost", "unknown scene", "wrong scene", "inactive"}
"""States in which the map's transform is no longer true; the others are a bad image among good ones."""
