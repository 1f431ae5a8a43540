"""Stand-ins for NVIDIA's driver."""

from ..fakes.driver import no_gpu, put_driver, set_gpus

__all__ = ["no_gpu", "put_driver", "set_gpus"]
