"""Why a transform cannot be had; the names are those of tf2."""


class TransformException(Exception):  # noqa: N818 (tf2's own name)
    """Base of every tf2 exception."""


class LookupException(TransformException):
    """A frame was never heard of."""


class ConnectivityException(TransformException):
    """Both frames are known but share no ancestor."""


class ExtrapolationException(TransformException):
    """The time asked for lies outside what the buffer holds."""


class InvalidArgumentException(TransformException):
    """A frame name is empty or starts with a slash."""


class TimeoutException(TransformException):
    """Part of tf2's names; a buffer reports a timeout as the reason it was still waiting for."""
