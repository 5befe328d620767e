"""Processes on several machines that train one model together: `jax.distributed`, started and ended with one line.

JAX aborts a process whose cluster does not assemble or loses a process. A handler of that signal, written in C's terms
because the abort happens in a thread that Python does not know, replaces the abort by one line and an exit code.
"""

import contextlib
import ctypes
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import keras
import numpy as np

from keras_vae.core.backend.hardware import name
from keras_vae.core.errors import InputError

PROCESS_LOST = 75
"""Exit code of a process that ends because another one was lost: `EX_TEMPFAIL`, "try again later"."""

TIMEOUT = "KERAS_VAE_CLUSTER_TIMEOUT"
"""Environment variable: seconds that a process waits for all others to start; 300 by default."""

_HEARTBEAT_SECONDS, _SHUTDOWN_SECONDS = 30, 20
_KERAS = ("KERAS_DISTRIBUTION_JOB_ADDRESSES", "KERAS_DISTRIBUTION_NUM_PROCESSES", "KERAS_DISTRIBUTION_PROCESS_ID")
_SLURM = ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID")
_LOSS = re.compile("gloo|nccl|coordination service|connection closed|connection reset|unavailable:", re.IGNORECASE)


class ClusterPlan(NamedTuple):
    """The place of this process in a cluster.

    Args:
        coordinator: Address and port of process 0; None if JAX finds them in the variables of SLURM.
        num_processes: Number of processes.
        process_id: Number of this process, counted from 0.
    """

    coordinator: str | None
    num_processes: int
    process_id: int

    @classmethod
    def from_environment(cls) -> "ClusterPlan":
        """Read the variables of Keras if any is set, else those of SLURM.

        Raises:
            InputError: Variables are missing or invalid.
        """
        values = [os.environ.get(variable, "") for variable in _KERAS]
        if not any(values) and all(variable in os.environ for variable in _SLURM):
            return cls(None, int(os.environ["SLURM_NTASKS"]), int(os.environ["SLURM_PROCID"]))
        for variable, value in zip(_KERAS, values, strict=True):
            if not value:
                raise InputError(
                    f"--distributed: ${variable} is not set, and this is not a SLURM job; start the command with srun, "
                    f"or set {', '.join(_KERAS)} in every process"
                )
        count, process_id = (_integer(variable, value) for variable, value in zip(_KERAS[1:], values[1:], strict=True))
        addresses = values[0].split(",")
        if not re.fullmatch(r".+:\d{1,5}", addresses[0]):
            raise InputError(f"${_KERAS[0]} = {values[0]}: no port; write the address of process 0 as HOST:PORT")
        if count < 1:
            raise InputError(f"${_KERAS[1]} = {count}: no process; pass at least 1")
        if len(addresses) not in (1, count):
            raise InputError(
                f"${_KERAS[1]} = {count}: there are {len(addresses)} addresses in ${_KERAS[0]}; pass one, or one per "
                "process"
            )
        if not 0 <= process_id < count:
            raise InputError(f"${_KERAS[2]} = {process_id}: there are {count} processes; pass 0 to {count - 1}")
        return cls(addresses[0], count, process_id)


def _integer(variable: str, value: str) -> int:
    if not re.fullmatch("[0-9]{1,6}", value):
        raise InputError(f"${variable} = {value}: not an integer; pass digits only, such as 2")
    return int(value)


def join_cluster(folder: Path) -> None:
    """Join the processes that train one model together, and divide every batch among all of their devices.

    It must be called before JAX computes anything. `ClusterPlan.from_environment` reads the place of this process from
    the variables of SLURM or Keras.

    Args:
        folder: A folder that all processes see. They are listed there until all have started.

    Raises:
        InputError: The backend is not JAX, the variables are missing or invalid, or the numbers of devices differ.
    """
    if name() != "jax":
        raise InputError(f"--distributed: the backend is {name()}; use --backend jax, or KERAS_BACKEND=jax")
    plan, seconds = ClusterPlan.from_environment(), _integer(TIMEOUT, os.environ.get(TIMEOUT, "300"))
    folder.mkdir(parents=True, exist_ok=True)
    present = folder / str(plan.process_id)
    present.write_text(socket.gethostname(), "utf-8")

    def describe_missing() -> str:
        started = {file.name for file in folder.iterdir() if file.stat().st_mtime > time.time() - 2 * seconds - 60}
        missing = [str(number) for number in range(plan.num_processes) if str(number) not in started]
        present.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            folder.rmdir()
        which = f"{'process' if len(missing) == 1 else 'processes'} {', '.join(missing)} of {plan.num_processes}"
        if missing:
            return f"{which} did not start within {seconds} s; start all, or set ${TIMEOUT}"
        return f"process 0 cannot be reached at {plan.coordinator or 'the first node'} within {seconds} s"

    _replace_abort(describe_missing)
    _initialize(plan, seconds)
    present.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        folder.rmdir()
    _replace_abort(lambda: "another process of the cluster was lost")
    with _quiet_stdout():
        # The first communication prints a line to stdout, which belongs to the results.
        wait_for_all("joined")
    _distribute_among_processes()


@contextlib.contextmanager
def _quiet_stdout() -> Iterator[None]:
    """Discard what C code prints to stdout during a block."""
    sys.stdout.flush()
    kept, null = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(null)


def _initialize(plan: ClusterPlan, seconds: int) -> None:
    import jax

    jax.distributed.initialize(
        coordinator_address=plan.coordinator,
        num_processes=plan.num_processes,
        process_id=plan.process_id,
        initialization_timeout=seconds,
        heartbeat_timeout_seconds=_HEARTBEAT_SECONDS,
        shutdown_timeout_seconds=_SHUTDOWN_SECONDS,
    )


def _distribute_among_processes() -> None:
    import jax

    counts = [sum(device.process_index == number for device in jax.devices()) for number in range(num_processes())]
    if len(set(counts)) > 1:
        raise InputError(
            f"--distributed: the processes have {', '.join(map(str, counts))} devices; give each the same number"
        )
    devices = keras.distribution.list_devices()
    # Each process passes its own rows of a batch: see `own_rows`.
    keras.distribution.set_distribution(keras.distribution.DataParallel(devices=devices, auto_shard_dataset=False))


def num_processes() -> int:
    """Return the number of processes that compute together; 1 without a cluster."""
    if name() != "jax":
        return 1
    import jax

    return jax.process_count() if jax.distributed.is_initialized() else 1


def process_id() -> int:
    """Return the number of this process in its cluster; 0 without a cluster. Process 0 writes the run."""
    if num_processes() == 1:
        return 0
    import jax

    return jax.process_index()


def own_rows(rows: Any) -> Any:
    """Return the rows of a batch that this process computes: all without a cluster.

    Args:
        rows: Indices of the images of the batch; their number is a multiple of that of the processes.
    """
    count = len(rows) // num_processes()
    return rows[process_id() * count : (process_id() + 1) * count]


def own_values(tensor: Any) -> Any:
    """Return the rows of a tensor that this process holds; the tensor itself without a cluster."""
    if num_processes() == 1 or getattr(tensor, "is_fully_addressable", True):
        return tensor
    return np.concatenate([np.asarray(shard.data) for shard in tensor.addressable_shards])


def wait_for_all(point: str) -> None:
    """Wait until all processes have reached a point of the program; return at once without a cluster.

    Args:
        point: Name of the point.
    """
    if num_processes() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(point)


def stops_together(step: int) -> bool:
    """Return whether all processes stop after this step, because one of them received SIGTERM.

    Args:
        step: Number of calls so far; every process must call this function after every step.
    """
    if num_processes() == 1:
        return False
    from jax.experimental import multihost_utils

    return multihost_utils.reached_preemption_sync_point(step)


def leave_cluster() -> None:
    """Leave the cluster together with all other processes; this process can then compute alone."""
    if num_processes() > 1:
        import jax

        keras.distribution.set_distribution(None)
        jax.distributed.shutdown()


@contextlib.contextmanager
def ending_with_others(advice: str) -> Iterator[None]:
    """End this process with one line and the exit code `PROCESS_LOST` if another one is lost during the block.

    Args:
        advice: The end of the line: how to continue.
    """
    if num_processes() == 1:
        yield
        return
    message = f"another process of the cluster was lost; {advice}"
    _replace_abort(lambda: message)
    try:
        yield
    except (InputError, KeyboardInterrupt):
        raise
    except Exception as error:
        if not _LOSS.search(str(error)):
            raise
        _end(PROCESS_LOST, message)


def end_process(code: int) -> NoReturn:
    """End this process with an exit code; a member of a cluster waits at most `_SHUTDOWN_SECONDS` for the others."""
    if num_processes() > 1:
        _replace_abort(lambda: "", code)
        leave_cluster()
        _end(code, "")
    sys.exit(code)


def _replace_abort(describe: Callable[[], str], code: int = PROCESS_LOST) -> None:
    """Replace the abort of this process by one line, if any, and an exit code."""
    global _handler
    _handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(lambda number: _end(code, describe()))
    ctypes.CDLL(None).signal(signal.SIGABRT, _handler)


# C keeps no reference to the handler.
_handler: Any = None


def _end(code: int, message: str) -> NoReturn:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    if message:
        os.write(2, f"vae: {message}\n".encode())
    os._exit(code)
