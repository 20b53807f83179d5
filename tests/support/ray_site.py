"""A Ray cluster of one's own on this machine: nodes that are started and killed, each with all that runs on it."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import psutil

START_SECONDS = "300"  # Ray's own limits are short for a busy machine
TASK = "ray::dfkd "  # what a worker that runs a trial calls its process


def why_no_ray() -> str:
    """Why there can be none here; empty where there can."""
    if find_spec("ray") is None:
        return "Ray is not installed: pip install 'dfkd-bench[ray]'"
    return "" if sys.platform == "linux" else "nodes are killed as on Linux"


class Site:
    """What a test does to it. The head is the first node, and drivers are there."""

    def __init__(self, base: Path) -> None:
        self._base = base
        self._port = _free()
        self.address = f"127.0.0.1:{self._port}"
        self.nodes: list[subprocess.Popen[bytes]] = []

    def start_node(self) -> subprocess.Popen[bytes]:
        """One more node, with one CPU. Of two that start at the same moment, one may fail: they share a folder."""
        words = ["--num-cpus=1", "--num-gpus=0", "--object-store-memory=100000000", "--disable-usage-stats", "--block"]
        words += [f"--dashboard-agent-listen-port={_free()}", f"--temp-dir={self._base}"]
        if self.nodes:
            words.append(f"--address={self.address}")
        else:
            words += ["--head", f"--port={self._port}", "--include-dashboard=false", "--node-ip-address=127.0.0.1"]
        file = self._base / f"node{len(self.nodes)}.txt"
        with file.open("wb") as log:
            self.nodes.append(
                subprocess.Popen(
                    [sys.executable, "-m", "ray.scripts.scripts", "start", *words],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            )
        deadline = time.monotonic() + float(START_SECONDS)
        while "Ray runtime started" not in file.read_text(errors="replace"):
            assert self.nodes[-1].poll() is None, self.log()
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.1)
        return self.nodes[-1]

    def wait(self, nodes: int, seconds: float = 300) -> None:
        """Until so many nodes are alive."""
        code = (
            "import ray, sys, time\n"
            "ray.init(address=sys.argv[1], log_to_driver=False)\n"
            "while sum(node['Alive'] for node in ray.nodes()) != int(sys.argv[2]): time.sleep(0.2)\n"
        )
        command = [sys.executable, "-c", code, self.address, str(nodes)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
        assert done.returncode == 0, done.stderr + self.log()

    def workers(self, node: subprocess.Popen[bytes]) -> list[tuple[psutil.Process, int]]:
        """The processes of Ray's that run a trial on a node, each with the trial's seed."""
        titles = [(each, _title(each).strip()) for each in _below(node)]
        return [(each, int(title.rpartition(" ")[2])) for each, title in titles if title.startswith(TASK)]

    def kill(self, node: subprocess.Popen[bytes]) -> None:
        """The node dies, with all that runs on it."""
        below = _below(node)
        node.kill()  # nothing happens where it was killed before
        for each in below:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()
        node.wait()

    def log(self) -> str:
        return "\n".join(file.read_text(errors="replace")[-2000:] for file in sorted(self._base.glob("node*.txt")))


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def _below(node: subprocess.Popen[bytes]) -> list[psutil.Process]:
    try:
        return psutil.Process(node.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


@contextmanager
def ray_site(nodes: int = 3) -> Iterator[Site]:
    """Inside, a cluster runs; its processes and those of drivers share a token, so that no file in a home is needed."""
    base = Path(tempfile.mkdtemp(prefix="ray-"))  # its sockets' paths may not be long
    settings = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_raylet_start_wait_time_s": START_SECONDS,
        "RAY_health_check_initial_delay_ms": "1000",  # a dead node is noticed early
        "RAY_health_check_period_ms": "1000",
        "RAY_USAGE_STATS_ENABLED": "0",
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]),
    }
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    site = Site(base)
    try:
        for _ in range(nodes):
            site.start_node()
        site.wait(nodes)
        yield site
    finally:
        for node in reversed(site.nodes):
            site.kill(node)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        shutil.rmtree(base, ignore_errors=True)


def _free() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
