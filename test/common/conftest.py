from ..builders.in_process import run_here

__all__ = ["run_here"]
