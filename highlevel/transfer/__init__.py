"""Fine-tuning pretrained networks."""

from .finetune import FineTuned, finetune

__all__ = ["FineTuned", "finetune"]
