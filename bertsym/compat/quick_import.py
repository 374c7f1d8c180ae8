"""Let mxnet be imported quickly, as commands, the sandbox and the doctor import it."""

from __future__ import annotations

from bertsym.compat.operator_functions import make_operators_when_called
from bertsym.compat.optional_packages import import_mxnet_without_optional_packages


def speed_up_mxnet_import() -> None:
    """Let an import of mxnet that follows leave out, or postpone, what no command uses."""
    make_operators_when_called()
    import_mxnet_without_optional_packages()
