"""A task of ecs-task-definition.json, run by podman: each field becomes the option that it stands for."""

import json
import re
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

FILE = Path(__file__).parents[2] / "ecs-task-definition.json"
IMAGE = json.loads(FILE.read_text())["containerDefinitions"][0]["image"]
DOCKER_DEFAULT = (
    *("AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE", "NET_RAW"),
    *("SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT"),
)
# The network is one for all and there are no log drivers here: nothing to do for these.
ELSEWHERE = {"dependsOn", "essential", "logConfiguration", "portMappings", "restartPolicy"}

Container = dict[str, Any]


def podman(*arguments: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
    """Run podman. What the containers say on standard error counts as said too."""
    run = subprocess.run(
        ["podman", *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=120
    )
    assert not check or run.returncode == 0, run.stdout
    return run


def options(container: Container, volumes: Path, secrets: Mapping[str, str]) -> list[str]:
    """What `podman run` is told for a container. A field that it does not know is a KeyError, not left out."""
    translations: dict[str, Callable[[Any], list[str]]] = {
        **dict.fromkeys(("name", "image", "command", *ELSEWHERE), lambda _: []),
        "user": lambda user: [f"--user={user}"],
        "environment": lambda pairs: [f"--env={pair['name']}={pair['value']}" for pair in pairs],
        "secrets": lambda pairs: [f"--env={pair['name']}={secrets[pair['name']]}" for pair in pairs],
        "mountPoints": lambda mounts: [_mount(mount, volumes) for mount in mounts],
        "readonlyRootFilesystem": lambda yes: [f"--read-only={str(yes).lower()}", "--read-only-tmpfs=false"],
        "linuxParameters": _capabilities,
        "healthCheck": _health_check,
        "stopTimeout": lambda seconds: [f"--stop-timeout={seconds}"],
    }
    named = [f"--name={container['name']}", "--network=host", "--pull=never", "--log-driver=k8s-file"]
    return [*named, *(option for name, value in container.items() for option in translations[name](value))]


def _mount(mount: Mapping[str, Any], volumes: Path) -> str:
    directory = volumes / mount["sourceVolume"]
    # Empty, and root's with 0755 as Fargate makes one, but where the image has a volume itself.
    if not directory.exists():
        directory.mkdir()
        directory.chmod(modes_of_volumes().get(mount["containerPath"], 0o755))
    return f"--volume={directory}:{mount['containerPath']}:{'ro' if mount['readOnly'] else 'rw'}"


@cache
def modes_of_volumes() -> dict[str, int]:
    """The directories that the image declares as volumes, and the mode that each has in it."""
    declared = json.loads(podman("image", "inspect", "--format={{json .Config.Volumes}}", IMAGE).stdout) or {}
    told = podman("run", "--rm", "--network=none", "--entrypoint=stat", IMAGE, "--format=%a %n", *declared).stdout
    return {path: int(mode, 8) for mode, path in (line.split() for line in told.splitlines())}


def _capabilities(linux: Mapping[str, Any]) -> list[str]:
    assert list(linux) == ["capabilities"]
    dropped = linux["capabilities"]["drop"]
    left = [] if "ALL" in dropped else [name for name in DOCKER_DEFAULT if name not in dropped]
    return ["--cap-drop=ALL", *(f"--cap-add={name}" for name in left)]


def _health_check(check: Mapping[str, Any]) -> list[str]:
    """podman puts the CMD before a list itself; a timer of its own would need systemd."""
    kind, *command = check["command"]
    assert kind == "CMD"
    return [
        f"--health-cmd={json.dumps(command)}",
        "--health-interval=disable",
        f"--health-timeout={check['timeout']}s",
        f"--health-retries={check['retries']}",
        f"--health-start-period={check['startPeriod']}s",
    ]


@dataclass
class Task:
    """The containers in the order in which they start, and how long each took until it was healthy."""

    volumes: Path
    secrets: Mapping[str, str]
    containers: dict[str, Container] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        waiting = {container["name"]: container for container in json.loads(FILE.read_text())["containerDefinitions"]}
        while waiting:
            name = next(name for name in waiting if all(on in self.containers for on in self._needs(waiting[name])))
            self.containers[name] = waiting.pop(name)

    def _needs(self, container: Container) -> list[str]:
        return [on["containerName"] for on in container.get("dependsOn", ())]

    def start(self) -> None:
        for name, container in self.containers.items():
            begun = time.monotonic()
            for on in container.get("dependsOn", ()):
                if on["condition"] == "HEALTHY":
                    wait_until_healthy(on["containerName"])
            told = options(container, self.volumes, self.secrets)
            podman("run", "--detach", *told, container["image"], *container["command"])
            self.seconds[name] = -begun
        for name in self.containers:
            wait_until_healthy(name)
            self.seconds[name] += time.monotonic()

    def stop(self) -> Iterator[tuple[str, int, float]]:
        """Stop them as ECS does: the last one first. Gives name, exit status and seconds of each."""
        for name in reversed(self.containers):
            begun = time.monotonic()
            podman("stop", name)
            yield name, exit_status(name), time.monotonic() - begun


def wait_until(holds: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.1)


def wait_until_healthy(name: str, seconds: float = 30) -> None:
    """Until the container's own health check says so."""

    def is_healthy() -> bool:
        assert podman("inspect", "--format={{.State.Running}}", name).stdout == "true\n", logs(name)
        return podman("healthcheck", "run", name, check=False).returncode == 0

    wait_until(is_healthy, seconds)


def run_in(name: str, *command: str) -> "subprocess.CompletedProcess[str]":
    """Run a command in a container, as its user and with its rights."""
    return podman("exec", name, *command, check=False)


def logs(name: str) -> str:
    return podman("logs", name).stdout


def exit_status(name: str) -> int:
    return int(podman("inspect", "--format={{.State.ExitCode}}", name).stdout)


def megabytes(name: str) -> float:
    """Memory of all processes of a container, shared pages counted once (PSS)."""
    pids = podman("top", name, "hpid").stdout.split()[1:]
    lines = [line for pid in pids for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()]
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def is_running(name: str) -> bool:
    return podman("inspect", "--format={{.State.Running}}", name).stdout == "true\n"


def attempts(name: str, recipient: str) -> int:
    """How often Postfix has tried to deliver to a recipient, as its log has it."""
    return len(re.findall(rf"to=<{recipient}>.* status=deferred", logs(name)))


def last_drain(name: str) -> tuple[dict[str, Any], str]:
    """The line of the last drain in the audit, and the last line that says that mail would be lost."""
    lines = logs(name).splitlines()
    drains = [json.loads(line) for line in lines if line.startswith("{") and '"event": "drain"' in line]
    return drains[-1], [line for line in lines if "lost with the task" in line][-1]
