"""The errors that users can meet; the command line turns each into one line and an exit code."""

from __future__ import annotations


class BertsymError(Exception):
    """Something in the data, the model or the machine prevents the work; exit code 1."""

    exit_code = 1


class DataError(BertsymError):
    """A table, a vocabulary or a text is not what it should be."""


class ModelError(BertsymError):
    """Weights, a configuration, a symbol or a bundle is not what it should be."""


class VerificationError(ModelError):
    """What was written does not compute what was meant."""


class UsageError(BertsymError):
    """The call itself is wrong (an option, a combination, an existing target); exit code 2."""

    exit_code = 2


class TrainingStopped(BertsymError):
    """A signal stopped a training run; its checkpoint was written. `exit_code` is 128 and the signal's number."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number
