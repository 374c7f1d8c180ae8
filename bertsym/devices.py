"""Device names of the command line as MXNet contexts."""

from __future__ import annotations

import re
from typing import Any

from bertsym.errors import ModelError, UsageError


def contexts(device: str) -> list[Any]:
    """``cpu``, ``gpu:0`` or ``gpu:0,1`` as a list of mx.Context, one a device.

    Raises UsageError for another form and ModelError when MXNet sees no such GPU.
    """
    match = re.fullmatch(r"cpu|gpu:(\d+(?:,\d+)*)", device)
    if not match:
        raise UsageError(f"device {device!r} is not one of cpu, gpu:0, gpu:0,1 ...")
    from bertsym.mxnet_runtime import mx

    if device == "cpu":
        return [mx.cpu()]
    numbers = [int(number) for number in match[1].split(",")]
    if len(set(numbers)) != len(numbers):
        raise UsageError(f"device {device!r} names a GPU twice")
    try:
        available = mx.context.num_gpus()
    except mx.MXNetError:
        available = 0
    missing = [number for number in numbers if number >= available]
    if missing:
        raise ModelError(f"--device {device}: MXNet sees {available} GPUs; the wheel mxnet is for CPU only")
    return [mx.gpu(number) for number in numbers]
