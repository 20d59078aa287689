"""What policies are computed in, where settings leave that to the machine. Loads torch only when it is asked."""

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

_CPU_BFLOAT16 = ("avx512_bf16", "amx_bf16", "bf16")
"""Instructions that multiply bfloat16, on x86 and on ARM, as `torch.cpu.get_capabilities` names them."""


def computed_in(dtype: str) -> "torch.dtype":
    """The dtype of this name; of `auto`, bfloat16 where the machine multiplies it, float32 where it only emulates it.

    A CPU without such instructions takes about three times as long in bfloat16 as in float32.
    """
    import torch

    if dtype != "auto":
        return getattr(torch, dtype)  # type: ignore[no-any-return]
    if _multiplies_bfloat16():
        return torch.bfloat16
    log.info("computing in float32: this machine has no instructions for bfloat16")
    return torch.float32


def _multiplies_bfloat16() -> bool:
    import torch

    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capable = torch.cpu.get_capabilities()
    return any(capable.get(name, False) for name in _CPU_BFLOAT16)
