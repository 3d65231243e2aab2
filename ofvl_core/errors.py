"""Errors a user can act on: each message is one sentence with cause and remedy."""


class OfvlError(Exception):
    """Base of every error that is the input's fault, not the program's."""


class DataError(OfvlError):
    """A data set is missing something or holds something unusable."""


class CheckpointError(OfvlError):
    """A checkpoint is missing, damaged or does not fit what is asked of it."""


class ConfigError(OfvlError):
    """An option or a configuration value makes no sense."""


class WorkerError(OfvlError):
    """One of several processes that train together says what went wrong in it."""
