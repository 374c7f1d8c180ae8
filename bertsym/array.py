"""The type of arrays; importing it fails where numpy is too old."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bertsym.compat.installing import OLDEST_VERSIONS, at_least, install_command, version_numbers
from bertsym.errors import InstallationError

if version_numbers(np.__version__) < OLDEST_VERSIONS["numpy"]:
    _command = install_command(at_least("numpy", OLDEST_VERSIONS["numpy"]))
    raise InstallationError(f"numpy {np.__version__} is too old; run: {_command}")

if TYPE_CHECKING:
    Array = np.ndarray[Any, np.dtype[Any]]  #: an array of any shape and type
else:
    Array = np.ndarray
