from .mlflow import MLflow
from .tensorboard import TensorBoard
from .wandb import WandB

__all__ = ["MLflow", "TensorBoard", "WandB"]

TRACKERS: dict[str, str]

def check_installed(name: str) -> None: ...
