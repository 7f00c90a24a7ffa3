"""Errors for people: each message says what is wrong, where, and what to do."""


class JourneyLabError(ValueError):
    """The base of every error that a user can mend; the command line prints its text and nothing else."""


class DataError(JourneyLabError):
    """The data handed in cannot be used as they are."""


class ConfigError(JourneyLabError):
    """An experiment file, an option or a setting is wrong."""
