"""The second way, for kernels without Landlock: separate namespaces for files, network, users and IPC.

The process gets a root folder in memory, in which only what it may see is mounted, without the right to write.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

from bench.utils.confinement.system import call, machine, syscall
from bench.utils.confinement.view import View

_NEW_NS, _NEW_UTS, _NEW_IPC, _NEW_USER, _NEW_NET = 0x00020000, 0x04000000, 0x08000000, 0x10000000, 0x40000000
_NOSUID, _NODEV, _READ_ONLY, _REMOUNT, _BIND, _REC, _PRIVATE, _DETACH = 2, 4, 1, 32, 4096, 16384, 1 << 18, 2
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_PROBE = "import sys; sys.path[:] = {path!r}\nfrom bench.utils.confinement.namespaces import _enter\n_enter()"


@cache
def there() -> bool:
    """Whether this user may make such namespaces here: tried once, in another process."""
    if not machine():
        return False
    code = _PROBE.format(path=sys.path)
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, timeout=60, check=False)
    return done.returncode == 0


def restrict(view: View) -> None:
    """From now on this process sees and writes what ``view`` names, at the same paths, and nothing else.

    It must have one thread.

    Raises:
        OSError: the kernel refuses.
    """
    _enter()
    root = view.writable / ".root"
    root.mkdir()
    _mount("tmpfs", root, "tmpfs", _NOSUID, "mode=755")
    for path in view.listable:
        (root / path.relative_to("/")).mkdir(parents=True, exist_ok=True)
    for name in ("lib", "lib32", "lib64"):  # where the loader looks, on most systems a link
        link = Path("/") / name
        if link.is_symlink():
            (root / name).symlink_to(link.readlink())
    shown = {path: flags for flags, paths in ((_READ_ONLY, view.readable), (0, view.devices)) for path in paths}
    for path, flags in shown.items():
        if path.exists() and not any(parent in shown for parent in path.parents):
            _show(path, root / path.relative_to("/"), flags)
    _mount(None, root, None, _REMOUNT | _BIND | _READ_ONLY | _NOSUID | _NODEV)
    scratch = root / view.writable.relative_to("/")
    # its mount point must be there before the root is sealed, see View
    _mount(view.writable, scratch, None, _BIND)
    os.chdir(root)
    syscall(_PIVOT_ROOT[machine()], _text("."), _text("."))
    call("umount2", b".", _DETACH)
    os.chdir("/")


def _enter() -> None:
    user, group = os.geteuid(), os.getegid()
    call("unshare", _NEW_USER | _NEW_NS | _NEW_UTS | _NEW_IPC | _NEW_NET)
    Path("/proc/self/setgroups").write_text("deny", encoding="ascii")
    Path("/proc/self/uid_map").write_text(f"{user} {user} 1", encoding="ascii")
    Path("/proc/self/gid_map").write_text(f"{group} {group} 1", encoding="ascii")
    _mount("none", Path("/"), None, _REC | _PRIVATE)


def _show(path: Path, place: Path, flags: int) -> None:
    if path.is_dir():
        place.mkdir(parents=True, exist_ok=True)
    else:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.touch()
    _mount(path, place, None, _BIND | _REC)
    if flags:
        _mount(None, place, None, _REMOUNT | _BIND | _NOSUID | flags | _locked(path))


def _locked(path: Path) -> int:
    """Flags of the mount below a path, which no other user namespace may take away: nodev, noexec, atimes."""
    flags = os.statvfs(path).f_flag
    kept = ((os.ST_NODEV, _NODEV), (os.ST_NOEXEC, 8), (os.ST_NOATIME, 1024), (os.ST_NODIRATIME, 2048))
    return sum(mount for stat, mount in kept if flags & stat) | (1 << 21 if flags & os.ST_RELATIME else 0)


def _mount(source: str | Path | None, target: Path, kind: str | None, flags: int, data: str = "") -> None:
    what = os.fsencode(source) if source is not None else None
    call("mount", what, os.fsencode(target), kind.encode() if kind else None, ctypes.c_ulong(flags), data.encode())


def _text(value: str) -> ctypes.Array[ctypes.c_char]:
    return ctypes.create_string_buffer(value.encode())
