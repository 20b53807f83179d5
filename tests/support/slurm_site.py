"""A Slurm of one's own on this machine: controller, several nodes and munge, without systemd, in about a second."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

NEEDED = ("slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "munged")
CONF = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmctldPort={port}
AuthType=auth/munge
AuthInfo=socket={base}/run/munge.sock
CredType=cred/munge
StateSaveLocation={base}/state
SlurmdSpoolDir={base}/spool/%n
SlurmctldPidFile={base}/run/slurmctld.pid
SlurmdPidFile={base}/run/slurmd.%n.pid
SlurmctldLogFile={base}/log/slurmctld.log
SlurmdLogFile={base}/log/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,batch_sched_delay=0,sched_min_interval=100000,bf_interval=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmdParameters=config_overrides
ReturnToService=2
JobRequeue=1
KillWait=5
MinJobAge=300
InactiveLimit=0
SlurmctldTimeout=10
SlurmdTimeout=10
MessageTimeout=10
MpiDefault=none
SwitchType=switch/none
"""
NODE = "NodeName=node{i} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=1 RealMemory=4000 State=UNKNOWN\n"
PARTITIONS = """
PartitionName=main Nodes=node[1-{nodes}] Default=YES MaxTime=INFINITE State=UP PriorityTier=1 OverSubscribe=NO
PartitionName=urgent Nodes=node[1-{nodes}] MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=off OverSubscribe=NO
"""


def why_no_slurm() -> str:
    """Why there can be none here; empty where there can."""
    if missing := [name for name in NEEDED if shutil.which(name) is None]:
        return f"Slurm is not installed: no {missing[0]} (packages slurmctld, slurmd, slurm-client, munge)"
    return "" if os.geteuid() == 0 else "Slurm's daemons are started as root only"


class Site:
    """What a test does to it."""

    def __init__(self, base: Path) -> None:
        self.base = base

    def tell(self, *words: str) -> str:
        return subprocess.run(words, capture_output=True, text=True, check=True, timeout=60).stdout

    def kill_node(self, name: str) -> None:
        """The node dies, with all that runs on it: its daemon and the processes of its jobs."""
        daemon = int((self.base / "run" / f"slurmd.{name}.pid").read_text())
        jobs = [line.split()[0] for line in self.tell("squeue", "-h", "-w", name, "-o", "%A").splitlines() if line]
        os.kill(daemon, signal.SIGKILL)
        for process in _processes():
            environment = _environment(process)
            if any(f"SLURM_JOB_ID={job}" in environment for job in jobs) or _is_step(process, jobs):
                try:
                    os.kill(process, signal.SIGKILL)
                except ProcessLookupError:
                    continue


def _processes() -> list[int]:
    return [int(each.name) for each in Path("/proc").iterdir() if each.name.isdecimal()]


def _environment(process: int) -> list[str]:
    try:
        return Path(f"/proc/{process}/environ").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return []


def _is_step(process: int, jobs: list[str]) -> bool:
    try:
        words = Path(f"/proc/{process}/cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return False
    return any(f"slurmstepd: [{job}." in words for job in jobs)


@contextmanager
def slurm(base: Path, nodes: int = 3) -> Iterator[Site]:
    """Inside, Slurm's commands talk to a site of these nodes: ``SLURM_CONF`` names it."""
    for name in ("state", "spool", "log", "run", "munge"):
        (base / name).mkdir(parents=True)
    (base / "munge").chmod(0o700)
    (base / "munge" / "key").write_bytes(os.urandom(128))
    (base / "munge" / "key").chmod(0o400)
    host, port = socket.gethostname().partition(".")[0], _free(nodes + 1)
    text = CONF.format(host=host, port=port, base=base)
    text += "".join(NODE.format(i=number, host=host, port=port + number) for number in range(1, nodes + 1))
    (base / "slurm.conf").write_text(text + PARTITIONS.format(nodes=nodes), encoding="ascii")
    before = os.environ.get("SLURM_CONF")
    os.environ["SLURM_CONF"] = str(base / "slurm.conf")
    try:
        munge = {"key-file": "munge/key", "socket": "run/munge.sock", "pid-file": "run/munged.pid"}
        munge |= {"log-file": "log/munged.log", "seed-file": "munge/seed"}
        words = [f"--{name}={base / place}" for name, place in munge.items()]
        subprocess.run(["munged", "--force", "--num-threads=2", *words], check=True, capture_output=True)
        subprocess.run(["slurmctld", "-f", str(base / "slurm.conf"), "-c"], check=True, capture_output=True)
        for number in range(1, nodes + 1):
            (base / "spool" / f"node{number}").mkdir()
            subprocess.run(["slurmd", "-N", f"node{number}"], check=True, capture_output=True)
        site = Site(base)
        wait_for(lambda: site.tell("sinfo", "-h", "-N", "-p", "main", "-o", "%T").split().count("idle") == nodes)
        yield site
    finally:
        subprocess.run(["scancel", "--user=root"], check=False, capture_output=True, timeout=60)
        for file in sorted((base / "run").glob("*.pid"), reverse=True):
            try:
                os.kill(int(file.read_text()), signal.SIGKILL if "slurmd." in file.name else signal.SIGTERM)
            except (ProcessLookupError, ValueError):
                continue
        if before is None:
            del os.environ["SLURM_CONF"]
        else:
            os.environ["SLURM_CONF"] = before


def _free(count: int) -> int:
    """The first of so many ports that nobody listens on."""
    # Processes of one test run have neighbouring numbers, and must not look at the same ports at the same moment.
    for port in range(16_900 + os.getpid() * count % 10_000, 30_000, count):
        sockets = [socket.socket() for _ in range(count)]
        try:
            for number, each in enumerate(sockets):
                each.bind(("127.0.0.1", port + number))
            return port
        except OSError:
            continue
        finally:
            for each in sockets:
                each.close()
    raise AssertionError("no free ports")


def wait_for(condition: Callable[[], bool], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.2)
