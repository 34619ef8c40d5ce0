"""What a user or a data set can cause; our own broken invariants are assertions.

DatamillError
├── ParamsError   a value in params.yaml, or a setting in the environment, is wrong
├── DataError     the data is not what was declared, or is damaged
└── StageError    a stage cannot run: an input is missing, a gate failed, a rule was broken
"""


class DatamillError(Exception):
    """Base of every error with a message written for the user; the command line prints it without a traceback."""


class ParamsError(DatamillError):
    """A value in ``params.yaml``, or a setting in the environment, is wrong."""


class DataError(DatamillError):
    """The data is not what was declared, or is damaged."""


class StageError(DatamillError):
    """A stage cannot run or broke a rule: an input is missing, a gate failed, samples do not add up."""
