"""In which precision a drafter is trained, and on what: as the machine and the target say.

Knows transformers' names of these options, and no training.
"""

from typing import Any

import torch


def trainer_options(precision: str, target_dtype: torch.dtype, report_to: str = "none") -> dict[str, Any]:
    """`TrainingArguments` that depend on the machine.

    Args:
        precision: `"bf16"` or `"fp32"` matrix products; `"auto"` takes bf16 where the target runs in it.
        report_to: as transformers' Trainer knows it.
    """
    bf16 = precision == "bf16" or (precision == "auto" and target_dtype == torch.bfloat16)
    return {"bf16": bf16, "report_to": report_to, "use_cpu": not torch.cuda.is_available()}
