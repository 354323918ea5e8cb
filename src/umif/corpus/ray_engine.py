"""The engine `ray`: the shards of a corpus are built by a Ray cluster.

The cluster is the one that the process is connected to already, or that of RAY_ADDRESS, or one on this machine that
lives as long as the build: without a dashboard, without usage reports, with its files in a folder that goes with it.

A shard is the same wherever it is built as long as the libraries are, and a node that does not see the raw folder would
count every picture there as missing. Neither may pass silently, so each worker looks first.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import re
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
import warnings
from collections import Counter
from dataclasses import replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2

import umif
from umif.corpus.workers import worker_died
from umif.errors import ConfigError, UmifError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator

    from umif.corpus.shards import Shard

# A lost node is an everyday thing on a cluster; a shard that loses every worker is not.
LOST_MOST = 3
# What decides the bytes of a stored picture; the same versions on every node, or none of its shards is taken.
_LIBRARIES = ("numpy", "pillow", "pydicom", "python-gdcm", "pylibjpeg-libjpeg", "pylibjpeg-openjpeg")
# Shards travel, pictures do not: the smallest store that Ray starts with is plenty.
_STORE_BYTES = 80 << 20
# A network file system may show a new file late.
_SEEN_WITHIN_SECONDS = 60.0
_KNOCK_SECONDS = 20.0
# Ray gives its own processes 30 seconds to come up, which a crowded machine may not keep.
_STARTS = 3
_SOCKET_ROOM = 40  # Ray's sockets lie in its folder, and a socket's path has about a hundred bytes
# Ray asks who connects; one secret a process, since Ray reads it once.
_TOKEN = secrets.token_hex(32)


def import_ray() -> Any:
    """Return the module `ray`.

    Raises:
        ConfigError: it is not installed, or cannot be imported.
    """
    try:
        import ray
    except ImportError as error:
        raise ConfigError(
            f"the engine 'ray' needs Ray, which cannot be imported ({error})",
            where="engine",
            fix="pip install 'umif[ray]', or leave the engine out: local processes build the same corpus",
        ) from None
    return ray


def run_on_ray(
    work: Callable[[Shard], dict[str, Any]], shards: list[Shard], folder: Path, workers: int | None
) -> Generator[tuple[Shard, dict[str, Any]], None, None]:
    """Work on a Ray cluster, as many shards at a time as it has cores or as `workers` says.

    Raises:
        ConfigError: Ray is not installed.
        UmifError: no cluster, a shard whose workers died again and again, a node that differs or sees other folders.
        Exception: whatever the work raises, as it was raised.
    """
    if not shards:
        return
    ray = import_ray()
    with _cluster(ray, folder, workers) as at_once:
        task = ray.remote(num_cpus=1, max_retries=0)(_work_on)
        versions = library_versions()
        waiting = iter(shards)
        running: dict[Any, Shard] = {}
        lost: Counter[str] = Counter()

        def submit(some: Iterable[Shard]) -> None:
            for shard in some:
                running[task.remote(work, _with_absolute_roots(shard), versions)] = shard

        try:
            submit(itertools.islice(waiting, at_once))
            while running:
                reference = ray.wait(list(running), num_returns=1)[0][0]
                shard = running.pop(reference)
                try:
                    sidecar = ray.get(reference)
                except ray.exceptions.RayTaskError as error:
                    raise error.cause from error  # its traceback is the worker's
                except ray.exceptions.RayError as error:  # the worker, its node or its memory is gone
                    lost[shard.key] += 1
                    if lost[shard.key] > LOST_MOST:
                        raise worker_died(folder, [shard]) from error
                    submit([shard])
                    continue
                _wait_until_seen(folder, shard, sidecar)
                yield shard, sidecar
                submit(itertools.islice(waiting, 1))
        finally:
            for reference in running:  # on a cluster that lives on, nobody is to go on writing
                with contextlib.suppress(Exception):
                    ray.cancel(reference, force=True)


def library_versions() -> dict[str, str | None]:
    """Return the versions of everything that the bytes of a stored picture depend on."""
    found: dict[str, str | None] = {"umif": umif.__version__, "opencv": cv2.__version__}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def _work_on(work: Callable[[Shard], dict[str, Any]], shard: Shard, versions: dict[str, str | None]) -> dict[str, Any]:
    """Run in a worker: do the work, if this node can be trusted with it."""
    here = library_versions()
    differing = [
        f"{name} {here.get(name)} instead of {known}" for name, known in versions.items() if known != here[name]
    ]
    if differing:
        raise UmifError(
            f"a Ray worker has other libraries than the main process: {', '.join(differing)}",
            where=os.uname().nodename,
            fix="install the same versions on every node, or the corpus would depend on who built what",
        )
    root = shard.items[0].root
    if not root.exists():
        raise UmifError(
            f"a Ray worker does not see the folder of {shard.dataset} ({root})",
            where=os.uname().nodename,
            fix="put the raw folders and OUT where every node has them under the same path",
        )
    cv2.setNumThreads(1)
    return work(shard)


def _with_absolute_roots(shard: Shard) -> Shard:
    """Return the shard as it can be read from any working directory; the key does not depend on the root."""
    return replace(shard, items=tuple(replace(item, root=item.root.absolute()) for item in shard.items))


def _wait_until_seen(folder: Path, shard: Shard, sidecar: dict[str, Any]) -> None:
    """Return when the files of a shard are here in full."""
    deadline = time.monotonic() + _SEEN_WITHIN_SECONDS
    while True:
        # Listed, since asking for one name may be answered from before it was there.
        seen = {entry.name: entry for entry in os.scandir(folder) if entry.name.startswith(shard.key)}
        whole = [name in seen and seen[name].stat().st_size == file["size"] for name, file in sidecar["files"].items()]
        if f"{shard.key}.json" in seen and all(whole):
            return
        if time.monotonic() > deadline:
            raise UmifError(
                "a Ray worker wrote its shard where the main process does not see it",
                where=folder,
                fix="put the raw folders and OUT where every node has them under the same path",
            )
        time.sleep(0.5)


@contextlib.contextmanager
def _cluster(ray: Any, folder: Path, workers: int | None) -> Iterator[int]:
    """Connect to the cluster, or start one; yields how many shards it is given at once. What was started is ended."""
    if ray.is_initialized():
        yield workers or _cores(ray)
        return
    address = os.environ.get("RAY_ADDRESS")
    with contextlib.ExitStack() as stack:
        if address:
            options: dict[str, Any] = {"address": address}
        else:
            workers = workers or os.cpu_count() or 1
            temporary = tempfile.TemporaryDirectory(prefix="umif-ray-", dir=_short_folder(), ignore_cleanup_errors=True)
            options = {
                "address": "local",
                "num_cpus": workers,
                "num_gpus": 0,
                "include_dashboard": False,
                "object_store_memory": _STORE_BYTES,
                "_node_ip_address": "127.0.0.1",
                "_temp_dir": stack.enter_context(temporary),
            }
            stack.callback(_end_leftovers, options["_temp_dir"])
        stack.enter_context(_sigterm_kept())
        stack.callback(ray.shutdown)
        _start(ray, folder, options)
        # On this machine num_cpus bounds what runs, and the next shard is there when one is finished.
        yield (workers or _cores(ray)) if address else 2 * (workers or 1)


def _start(ray: Any, folder: Path, options: dict[str, Any]) -> None:
    """Call `ray.init` so that it reports to nobody and prints nothing; whatever it raises is one typed error."""
    local = options["address"] == "local"
    quiet = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
    if local:
        quiet["RAY_AUTH_TOKEN"] = os.environ.get("RAY_AUTH_TOKEN", _TOKEN)
    logging.getLogger("ray").setLevel(logging.ERROR)  # what it says before it reads `logging_level`
    before = signal.getsignal(signal.SIGTERM)
    for attempt in range(_STARTS if local else 1):
        try:
            _knock(options["address"])
            with _environment(quiet), warnings.catch_warnings():
                # Its processes are forked and at once replaced by programs of their own, which Lance cannot know.
                warnings.filterwarnings("ignore", message="lance is not fork-safe")
                ray.init(log_to_driver=False, logging_level=logging.ERROR, **options)
            break
        except SystemExit:  # how it answers SIGTERM, with an exit code of its own
            sys.exit(128 + signal.SIGTERM)
        except Exception as error:
            if local:
                _end_leftovers(options["_temp_dir"])
            if local and attempt + 1 < _STARTS:
                continue
            where = "could not be started on this machine" if local else f"cannot be reached at {options['address']}"
            raise UmifError(
                f"Ray {where}: {error}",
                where=folder,
                fix="see that RAY_ADDRESS names a running cluster of the same Ray and Python, or unset it to use this "
                "machine alone; local processes build the same corpus",
            ) from error
    if threading.current_thread() is threading.main_thread():
        # So that SIGTERM ends Ray too; a handler of the caller's own knows better.
        signal.signal(signal.SIGTERM, before if callable(before) else partial(_exit, options.get("_temp_dir")))


def _knock(address: str) -> None:
    """Raise an `OSError` if nobody listens at `host:port`; Ray would go on trying for minutes."""
    found = re.fullmatch(r"(?:\w+://)?\[?(?P<host>[^/\]]+?)\]?:(?P<port>\d+)", address)
    if found:
        socket.create_connection((found["host"], int(found["port"])), timeout=_KNOCK_SECONDS).close()


def _end_leftovers(temporary: str) -> None:
    """End the processes of a Ray of ours, known by its folder, and all that they have started."""
    for pid in _family(temporary):
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)


def _family(temporary: str) -> set[int]:
    """Processes whose command names the folder, and their descendants: workers give themselves other names."""
    found: set[int] = set()
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            pid = int(folder.name)
            # The name of the program stands in brackets and may hold anything; the parent is the second field after it.
            parent = int((folder / "stat").read_bytes().rpartition(b")")[2].split()[1])
            children.setdefault(parent, []).append(pid)
            if pid != os.getpid() and temporary.encode() in (folder / "cmdline").read_bytes():
                found.add(pid)
    waiting = list(found)
    while waiting:
        for pid in children.get(waiting.pop(), ()):
            if pid not in found:
                found.add(pid)
                waiting.append(pid)
    return found


def _exit(temporary: str | None, signum: int, _: Any) -> None:
    """End a Ray of our own and this program at once; what is finished is kept, as after any other end.

    Not by an exception: Ray can abort while it is shut down with tasks under way, with an exit code of its own.
    """
    if temporary is not None:
        _end_leftovers(temporary)
        shutil.rmtree(temporary, ignore_errors=True)
    if sys.stderr.isatty():
        sys.stderr.write("\x1b[?25h\n")  # a bar hides the cursor
        sys.stderr.flush()
    os._exit(128 + signum)


@contextlib.contextmanager
def _sigterm_kept() -> Iterator[None]:
    """Put back what was done on SIGTERM."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def _cores(ray: Any) -> int:
    return max(1, int(ray.cluster_resources().get("CPU", 1)))


def _short_folder() -> str:
    """Return the folder for temporary files, or /tmp if its path is too long for sockets."""
    usual = tempfile.gettempdir()
    return usual if len(usual) <= _SOCKET_ROOM else "/tmp"


@contextlib.contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Set variables of the environment, which Ray's processes inherit, for a while."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
