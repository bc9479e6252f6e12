#!/usr/bin/env python3
"""Everything that a checkout needs, in one program without dependencies.

python3 tools/dev.py demo    sets up and serves the flash-sale demo; Ctrl-C stops it
python3 tools/dev.py test    sets up and runs every test against real servers
python3 tools/dev.py check   linters, types, wheels, isolated test runs, documentation
python3 tools/dev.py bench   lists the benchmarks, or runs one
python3 tools/dev.py docs    builds or serves the documentation

Environments are made below ``.dev`` and ``.venv`` in the checkout, and nowhere else; delete the two
to start afresh. A set-up that was interrupted is finished by the next run.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

if sys.platform != "win32":  # there, two set-ups at once are the user's own care
    import fcntl

THREADS = threading.RLock()
HELD: list[bool] = []

ROOT = Path(__file__).resolve().parent.parent
STATE = ROOT / ".dev"
TOOLS = STATE / "tools"
NEEDED_PYTHON = (3, 11)
UV = "uv>=0.9,<1"
HATCH = "hatch>=1.18,<2"

DISTRIBUTIONS = (
    "ws-core", "ws-logging", "ws-tasks", "ws-redislock", "ws-pool", "ws-web", "ws-all", "wintersweet",
)  # fmt: skip

BROWSER = "chromium"
# program → Debian package; a program counts as there when any of its names is.
SYSTEM_PROGRAMS = {
    ("redis-server",): "redis-server",
    ("redis-sentinel",): "redis-sentinel",
    ("mariadbd", "mysqld"): "mariadb-server",
    ("postgres",): "postgresql",
    ("pgbouncer",): "pgbouncer",
    ("promtool",): "prometheus",
    ("logrotate",): "logrotate",
    ("chromium", "chromium-browser", "google-chrome"): BROWSER,
}


class Stop(Exception):
    """Ends the program with one clear message and exit code 1."""

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.remedy = remedy


def say(text: str) -> None:
    """Report what is being done, on stderr: stdout belongs to the program that is run."""
    print(f"▸ {text}", file=sys.stderr, flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """
    Run one command, and return the exit code.

    Args:
        argv: Arguments, or None for those of the process.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    commands = {"demo": demo, "test": test, "check": check, "bench": bench, "docs": docs}

    if not arguments or arguments[0] in {"-h", "--help"}:
        print(__doc__)
        return 0 if arguments else 2

    name, *rest = arguments

    if name not in commands:
        print(f"unknown command {name!r}: use one of {', '.join(commands)}", file=sys.stderr)
        return 2

    # Hundreds of processes are started, and each would compile the libraries anew.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

    try:
        check_python()
        return commands[name](rest)
    except Stop as stop:
        print(f"\n✗ {stop}", file=sys.stderr)

        if stop.remedy:
            print(f"  {stop.remedy}", file=sys.stderr)

        return 1
    except KeyboardInterrupt:
        print("\n✗ interrupted; the next run finishes what was begun", file=sys.stderr)
        return 130


# The commands


def demo(arguments: list[str]) -> int:
    """Serve the demo from an environment that holds the libraries and nothing else."""
    environment = demo_environment()
    program = executable(environment, "wintersweet")
    say("wintersweet demo" + "".join(f" {shlex.quote(word)}" for word in arguments))
    return become([str(program), "demo", *arguments])


def test(arguments: list[str]) -> int:
    """Run the tests; without arguments all of them, on every core."""
    if arguments[:1] in (["-h"], ["--help"]):
        print("usage: dev.py test [--soak] [arguments of pytest]\n\nWithout arguments, every test is run.")
        return 0

    system_packages()
    python = developer_environment()
    selected = [word for word in arguments if word != "--soak"]
    spread = (
        []
        if selected
        else ["-n", str(min(3 * (os.cpu_count() or 1), 8)), "--dist", "loadfile", "--durations=40"]
    )
    command = [str(python), "-m", "pytest", *spread, *arguments]
    listen_to_interrupts()
    say(shlex.join(["pytest", *spread, *arguments]))
    return become(command, directory=ROOT)


def check(arguments: list[str]) -> int:
    """Run the checks of ``tools/checks``, or those that are named."""
    python = developer_environment()
    listen_to_interrupts()
    return become([str(python), "-m", "tools.checks", *arguments], directory=ROOT)


def bench(arguments: list[str]) -> int:
    """List the benchmarks, or run one."""
    known = sorted(path.stem.removeprefix("bench_") for path in (ROOT / "tools/bench").glob("bench_*.py"))

    if not arguments or arguments[0] in {"-h", "--help"}:
        print("usage: dev.py bench NAME [--quick] [--case TEXT] [--rounds N] [--strict]\n")
        print("\n".join(f"  {name}" for name in known) or "  (there are none)")
        return 0

    name, *rest = arguments

    if name not in known:
        raise Stop(f"there is no benchmark {name!r}", f"Choose one of: {', '.join(known)}")

    system_packages(optional=True)
    python = hatch_environment("bench")
    return become([str(python), "-m", f"tools.bench.bench_{name}", *rest], directory=ROOT)


def docs(arguments: list[str]) -> int:
    """Build the documentation into ``site``, or serve it."""
    parser = argparse.ArgumentParser(prog="dev.py docs")
    parser.add_argument("action", nargs="?", choices=("build", "serve"), default="build")
    options = parser.parse_args(arguments)
    python = hatch_environment("docs")
    extra = ["--strict"] if options.action == "build" else []
    os.environ["NO_MKDOCS_2_WARNING"] = "1"
    return become([str(python), "-m", "mkdocs", options.action, *extra], directory=ROOT)


# Environments


def demo_environment() -> Path:
    """Install the libraries, editable, into an environment of their own."""
    environment = STATE / "demo"
    requirements = [word for name in DISTRIBUTIONS for word in ("-e", str(ROOT / "packages" / name))]
    wanted = fingerprint(*package_files())

    with set_up_lock():
        if is_ready(environment, wanted):
            return environment

        uv = install_uv()

        if not executable(environment, "python").exists():
            say("creating the demo's environment")
            run([uv, "venv", "--quiet", "--clear", "--python", base_python(), str(environment)])

        say("installing the libraries and what they need")
        python = str(executable(environment, "python"))
        run([uv, "pip", "install", "--python", python, *requirements], network=True)
        mark_ready(environment, wanted)

    return environment


def developer_environment() -> Path:
    """Return the Python of ``.venv``, with every library editable and the tools of the tests."""
    return hatch_environment("default")


def hatch_environment(
    name: str, *, variables: Mapping[str, str] | None = None, marker: str | None = None
) -> Path:
    """
    Create or update one of the environments of ``hatch.toml``.

    Args:
        name: The environment's name.
        variables: Variables for hatch, such as a ``PATH`` with other Pythons.
        marker: Under which name it is noted as finished; None for its own.

    Returns:
        Its Python.

    Raises:
        Stop: It could not be created.
    """
    wanted = fingerprint(ROOT / "pyproject.toml", ROOT / "hatch.toml", *package_files())
    note = STATE / f"env-{(marker or name).replace('.', '-')}"

    with set_up_lock():
        recorded = note.with_suffix(".python")

        if is_ready(note, wanted) and recorded.is_file():
            python = Path(recorded.read_text(encoding="utf-8"))

            if python.exists():
                return python

        hatch = install_tool("hatch", HATCH)
        environment = {**hatch_variables(), **(variables or {})}
        say(f"creating or updating the environment {name!r}")
        command = [str(hatch), "-e", name, "run", "python", "-c", "import sys; print(sys.executable)"]

        try:
            output = run(command, network=True, environment=environment)
        except Stop:
            say(f"the environment {name!r} is broken; building it anew")
            run([str(hatch), "env", "remove", name], environment=environment, must_succeed=False)
            output = run(command, network=True, environment=environment)

        python = Path(output.strip().splitlines()[-1])
        refresh_editables(python)
        recorded.write_text(str(python), encoding="utf-8")
        mark_ready(note, wanted)

    return python


def hatch_variables() -> dict[str, str]:
    """Keep hatch inside of the checkout: its environments, its settings, and the uv beside it."""
    settings = STATE / "hatch.toml"
    settings.write_text('mode = "local"\n', encoding="utf-8")
    return {
        "HATCH_CONFIG": str(settings),
        "HATCH_DATA_DIR": str(STATE / "hatch"),
        "HATCH_PYTHON": base_python(),
        "HATCH_ENV_TYPE_VIRTUAL_UV_PATH": str(executable(TOOLS, "uv")),
        "NO_COLOR": "1",
    }


def refresh_editables(python: Path) -> None:
    """Write the metadata of editable libraries again: hatch does so only when dependencies change."""
    uv = install_uv()
    listed = run([uv, "pip", "list", "--python", str(python), "--editable", "--format", "json"])
    names = [entry["name"] for entry in json.loads(listed)]
    editable = [word for name in names for word in ("-e", str(ROOT / "packages" / name))]

    if editable:
        run([uv, "pip", "install", "--no-deps", "--python", str(python), *editable], network=True)


def install_uv() -> str:
    """Return the path of uv, installed into the private environment of tools."""
    return str(install_tool("uv", UV))


def install_tool(name: str, requirement: str) -> Path:
    """Install one tool into ``.dev/tools``, which is made anew when it is not whole."""
    with set_up_lock():
        return _install_tool(name, requirement)


def _install_tool(name: str, requirement: str) -> Path:
    python = executable(TOOLS, "python")

    if not is_ready(TOOLS, base_python()) or not python.exists():
        shutil.rmtree(TOOLS, ignore_errors=True)
        say(f"creating an environment for tools with Python {sys.version.split()[0]}")
        create_venv(TOOLS)
        mark_ready(TOOLS, base_python())

    marker = STATE / f"tool-{name}"
    program = executable(TOOLS, name)

    if not is_ready(marker, f"{requirement} {base_python()}") or not program.exists():
        say(f"installing {name}")

        if name == "uv":
            command = [
                str(python),
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
                requirement,
            ]
        else:
            command = [install_uv(), "pip", "install", "--quiet", "--python", str(python), requirement]

        run(command, network=True)
        mark_ready(marker, f"{requirement} {base_python()}")

    return program


def create_venv(path: Path) -> None:
    """Create an environment with pip, and get Debian's ``python3-venv`` first when it is missing."""
    if subprocess.run(
        [base_python(), "-c", "import ensurepip, venv"], capture_output=True, check=False
    ).returncode:
        package = f"python{sys.version_info[0]}.{sys.version_info[1]}-venv"
        apt_install([package], why="Python's venv module")

    run([base_python(), "-m", "venv", "--clear", str(path)])


# Programs of the system


def system_packages(*, optional: bool = False) -> None:
    """
    Install what the tests need beside Python, or say how.

    Args:
        optional: Say what is missing, and go on.

    Raises:
        Stop: Something is missing and cannot be installed from here.
    """
    missing = [package for names, package in SYSTEM_PROGRAMS.items() if not any(map(find_program, names))]

    if not missing:
        return

    if optional:
        say(f"not installed, so candidates that need them will fail: {', '.join(missing)}")
        return

    if BROWSER not in missing or shutil.which("apt-get") is None or os.geteuid() != 0:
        apt_install(missing, why="servers and a browser that the tests run against")
        return

    if len(missing) > 1:
        servers = [package for package in missing if package != BROWSER]
        apt_install(servers, why="servers that the tests run against")

    try:
        apt_install([BROWSER], why="tests of pages")
    except Stop:
        say(f"apt has no {BROWSER} here (Ubuntu's is a snap): tests that need a browser are skipped")


def find_program(name: str) -> str | None:
    """Look for a program, also where servers are kept out of a user's way."""
    folders = ["/usr/local/sbin", "/usr/sbin", "/sbin", *map(str, Path("/usr/lib/postgresql").glob("*/bin"))]
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), *folders])
    return shutil.which(name, path=path)


def apt_install(packages: Sequence[str], *, why: str) -> None:
    """Install Debian packages as root; otherwise stop with the line to run."""
    line = f"apt-get update && apt-get install --no-install-recommends -y {' '.join(packages)}"

    if shutil.which("apt-get") is None:
        raise Stop(
            f"missing: {', '.join(packages)} ({why})",
            "There is no apt here: install them by hand, then run this again.",
        )

    if os.geteuid() != 0:
        raise Stop(
            f"missing: {', '.join(packages)} ({why})", f"Run this, then try again:  sudo sh -c '{line}'"
        )

    say(f"installing with apt: {', '.join(packages)} ({why})")
    quiet = {"DEBIAN_FRONTEND": "noninteractive", "NEEDRESTART_SUSPEND": "1"}
    wait = ["-o", "DPkg::Lock::Timeout=300"]
    run(["dpkg", "--configure", "-a"], environment=quiet, must_succeed=False)
    run(["apt-get", *wait, "update"], environment=quiet, must_succeed=False)
    run(
        ["apt-get", *wait, "install", "--no-install-recommends", "-y", *packages],
        environment=quiet,
        network=True,
    )


# Small tools


def check_python() -> None:
    """Refuse a Python that is too old, and a place that cannot be written to."""
    if sys.version_info < NEEDED_PYTHON:
        wanted = ".".join(map(str, NEEDED_PYTHON))
        raise Stop(
            f"this is Python {sys.version.split()[0]}, and wintersweet needs {wanted} or newer",
            f"Run it with another one, for example:  python{wanted} tools/dev.py …",
        )

    try:
        STATE.mkdir(exist_ok=True)
        (STATE / "writable").touch()
    except OSError as error:
        raise Stop(
            f"cannot write to {STATE}: {error.strerror}", "Use a checkout that belongs to you."
        ) from error


def base_python() -> str:
    """Return the interpreter itself, also when this runs inside of an environment."""
    return os.path.realpath(getattr(sys, "_base_executable", sys.executable))


def executable(environment: Path, name: str) -> Path:
    """Return the path of a program of an environment."""
    return environment / "Scripts" / f"{name}.exe" if os.name == "nt" else environment / "bin" / name


def package_files() -> list[Path]:
    """Return the files that decide what the libraries need."""
    return sorted((ROOT / "packages").glob("*/pyproject.toml"))


def fingerprint(*paths: Path) -> str:
    """Digest files and the interpreter, to notice when an environment has to be updated."""
    digest = hashlib.sha256(f"{base_python()} {sys.version}".encode())

    for path in paths:
        digest.update(str(path.relative_to(ROOT)).encode())
        digest.update(path.read_bytes())

    return digest.hexdigest()


def is_ready(path: Path, wanted: str) -> bool:
    """Return whether a set-up was finished, and for the same wish."""
    try:
        return path.with_suffix(".ready").read_text(encoding="utf-8") == wanted
    except OSError:
        return False


def mark_ready(path: Path, wanted: str) -> None:
    """Note that a set-up is finished, in one step."""
    marker = path.with_suffix(".ready")
    draft = marker.with_suffix(".draft")
    draft.write_text(wanted, encoding="utf-8")
    draft.replace(marker)


@contextlib.contextmanager
def set_up_lock() -> Iterator[None]:
    """Let only one thread of one process at a time change the environments; may be nested."""
    with THREADS:
        if sys.platform == "win32" or HELD:
            yield
            return

        with (STATE / "lock").open("w", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say("waiting for another dev.py that sets up this checkout")
                fcntl.flock(file, fcntl.LOCK_EX)

            HELD.append(True)

            try:
                yield
            finally:
                HELD.clear()


def run(
    command: Sequence[str],
    *,
    environment: Mapping[str, str] | None = None,
    network: bool = False,
    must_succeed: bool = True,
) -> str:
    """
    Run a step of the set-up, with a clock on a terminal; show all that it said when it fails.

    Args:
        command: Program and arguments.
        environment: Variables to add.
        network: Whether a failure may come from the network.
        must_succeed: Whether a failure ends the program.

    Returns:
        What it wrote to stdout.

    Raises:
        Stop: It failed.
    """
    started = time.monotonic()

    try:
        with ticking():
            done = subprocess.run(
                command,
                env={**os.environ, **(environment or {})},
                cwd=str(ROOT),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                check=False,
            )
    except OSError as error:
        raise Stop(f"cannot start {command[0]}: {error.strerror}") from error

    if done.returncode and must_succeed:
        print(f"{done.stdout}{done.stderr}", file=sys.stderr)
        remedy = "Is this machine online, and is the package index within reach?" if network else ""
        raise Stop(f"exit code {done.returncode} from: {shlex.join(command)}", remedy)

    took = time.monotonic() - started

    if took > 2:
        say(f"  done in {took:.0f} s")

    return done.stdout


@contextlib.contextmanager
def ticking() -> Iterator[None]:
    """Show on a terminal that a step is still running."""
    if not sys.stderr.isatty():
        yield
        return

    ended = threading.Event()
    started = time.monotonic()

    def tick() -> None:
        while not ended.wait(1):
            print(f"\r  {time.monotonic() - started:.0f} s", end="", file=sys.stderr, flush=True)

        print("\r\x1b[K", end="", file=sys.stderr, flush=True)

    clock = threading.Thread(target=tick, daemon=True)
    clock.start()

    try:
        yield
    finally:
        ended.set()
        clock.join()


def listen_to_interrupts() -> None:
    """Undo what a shell does to jobs in the background, so that tests of Ctrl-C mean something there."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def become(command: Sequence[str], *, directory: Path | None = None) -> int:
    """Replace this process by a program, so that signals, the terminal and the exit code are its own."""
    sys.stdout.flush()
    sys.stderr.flush()

    if directory is not None:
        os.chdir(directory)

    if os.name == "nt":
        return subprocess.run(command, check=False).returncode

    os.execv(command[0], list(command))  # noqa: S606 - no shell is wanted
    raise AssertionError("exec does not return")


if __name__ == "__main__":
    sys.exit(main())
