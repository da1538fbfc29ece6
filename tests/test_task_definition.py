"""ecs-task-definition.json as Amazon would judge it: botocore's model of the call, and the rules that its texts state.

`faults` says what is wrong; nothing is wrong with ours, and each row of BROKEN is one change that it must find.
The texts are those of RegisterTaskDefinition in the model; a rule that stands elsewhere says where.
"""

import copy
import functools
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import botocore.session  # type: ignore[import-untyped]
import pytest
from botocore.validate import ParamValidator  # type: ignore[import-untyped]

from postqueue_api import config

FILE = Path(__file__).parent.parent / "ecs-task-definition.json"
GIGABYTE = 1024
# members.memory: "This determines your range of supported values for the cpu parameter."
MEMORY_BY_CPU = {
    "256": {512, 1024, 2048},
    "512": {n * GIGABYTE for n in range(1, 5)},
    "1024": {n * GIGABYTE for n in range(2, 9)},
    "2048": {n * GIGABYTE for n in range(4, 17)},
    "4096": {n * GIGABYTE for n in range(8, 31)},
    "8192": {n * GIGABYTE for n in range(16, 61, 4)},
    "16384": {n * GIGABYTE for n in range(32, 121, 8)},
}
# capabilities.drop: "removed from the default configuration provided by Docker"
DOCKER_DEFAULT = {
    *("AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE", "NET_RAW"),
    *("SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT"),
}
NOT_ON_FARGATE_TASK = ("placementConstraints", "ipcMode", "inferenceAccelerators")
# The last three: not with the network mode awsvpc ("Task definition parameters for Fargate", in ECS's Developer Guide).
NOT_ON_FARGATE_CONTAINER = (
    *("privileged", "dockerSecurityOptions", "links", "extraHosts", "hostname"),
    *("dnsServers", "dnsSearchDomains", "disableNetworking"),
)
NOT_ON_FARGATE_LINUX = ("devices", "sharedMemorySize", "maxSwap", "swappiness", "tmpfs")
LOG_DRIVERS = {"awslogs", "splunk", "awsfirelens"}
LOG_OPTIONS = {"awslogs-group", "awslogs-region", "awslogs-stream-prefix"}
RANGES = {"interval": (5, 300), "timeout": (2, 60), "retries": (1, 10), "startPeriod": (0, 300)}

Definition = dict[str, Any]
Fault = Iterator[str]


@functools.cache
def call() -> Any:
    """The shape of what the call takes. Untyped, as botocore is."""
    model = botocore.session.get_session().get_service_model("ecs")
    return model.operation_model("RegisterTaskDefinition").input_shape


def load() -> Definition:
    definition: Definition = json.loads(FILE.read_text())
    return definition


def faults(definition: Definition) -> list[str]:
    """What is wrong, a sentence each. The rules are asked only about what has the right shape."""
    found = [*shape_faults(definition), *enumeration_faults(definition, call(), "")]
    return found or [fault for rule in RULES for fault in rule(definition)]


def shape_faults(definition: Definition) -> Fault:
    report = ParamValidator().validate(definition, call())
    if report.has_errors():
        yield str(report.generate_report())


def enumeration_faults(value: Any, shape: Any, path: str) -> Fault:
    """botocore leaves enumerations to the server."""
    if shape.type_name == "structure" and isinstance(value, dict):
        for name, member in value.items():
            if name in shape.members:
                yield from enumeration_faults(member, shape.members[name], f"{path}.{name}")
    elif shape.type_name == "list" and isinstance(value, list):
        for number, member in enumerate(value):
            yield from enumeration_faults(member, shape.member, f"{path}[{number}]")
    elif getattr(shape, "enum", None) and value not in shape.enum:
        yield f"{path} is {value!r}, not one of {shape.enum}"


def containers(definition: Definition) -> list[Definition]:
    found: list[Definition] = definition["containerDefinitions"]
    return found


def size(definition: Definition) -> Fault:
    if "FARGATE" not in definition.get("requiresCompatibilities", ()):
        yield "requiresCompatibilities lacks FARGATE"
    cpu, memory = definition.get("cpu", ""), definition.get("memory", "")
    if not memory.isdecimal() or int(memory) not in MEMORY_BY_CPU.get(cpu, ()):
        yield f"cpu {cpu!r} and memory {memory!r} are no pair that Fargate has"
    for name, whole in (("cpu", cpu), ("memory", memory)):
        asked = sum(container.get(name, 0) for container in containers(definition))
        if whole.isdecimal() and asked > int(whole):
            yield f"the containers ask for more {name} than the task has"


def network(definition: Definition) -> Fault:
    if definition.get("networkMode") != "awsvpc":
        yield "networkMode must be awsvpc on Fargate"
    ports = [mapping for container in containers(definition) for mapping in container.get("portMappings", ())]
    for mapping in ports:
        if mapping.get("hostPort", mapping["containerPort"]) != mapping["containerPort"]:
            yield f"hostPort of {mapping['containerPort']} must be left out or the same in awsvpc"
        if not 0 < mapping["containerPort"] < 65536:
            yield f"{mapping['containerPort']} is no port"
        if not re.fullmatch(r"[a-z0-9_][a-z0-9_-]{0,63}", mapping.get("name", "a")):
            yield f"the name of port {mapping['containerPort']} holds what it may not"
    for number, count in Counter(mapping["containerPort"] for mapping in ports).items():
        if count > 1:
            yield f"port {number} is taken twice: all containers have one network"


def names(definition: Definition) -> Fault:
    known = Counter(container["name"] for container in containers(definition))
    yield from (f"the name {name} is taken twice" for name, count in known.items() if count > 1)
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,255}", definition["family"]):
        yield "family holds what it may not"
    if not any(container.get("essential", True) for container in containers(definition)):
        yield "no container is essential"
    for container in containers(definition):
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,255}", container["name"]):
            yield f"the name {container['name']} holds what it may not"
        if not container.get("image"):
            yield f"{container['name']} has no image"


def order(definition: Definition) -> Fault:
    by_name = {container["name"]: container for container in containers(definition)}
    waits = {name: [on["containerName"] for on in one.get("dependsOn", ())] for name, one in by_name.items()}
    for name, container in by_name.items():
        for on in container.get("dependsOn", ()):
            other = by_name.get(on["containerName"])
            if other is None:
                yield f"{name} depends on {on['containerName']}, which is not there"
            elif on["condition"] == "HEALTHY" and "healthCheck" not in other:
                yield f"{name} waits until {on['containerName']} is healthy, which has no health check"
            elif on["condition"] in ("COMPLETE", "SUCCESS") and other.get("essential", True):
                yield f"{name} waits until {on['containerName']} ends, but it is essential"
    while free := [name for name, others in waits.items() if not set(others) & set(waits)]:
        for name in free:
            del waits[name]
    if waits:
        yield f"{', '.join(waits)} wait for each other"


def volumes(definition: Definition) -> Fault:
    known = Counter(volume["name"] for volume in definition.get("volumes", ()))
    yield from (f"volume {name} is there twice" for name, count in known.items() if count > 1)
    for volume in definition.get("volumes", ()):
        windows_or_docker = {"dockerVolumeConfiguration", "fsxWindowsFileServerVolumeConfiguration"} & set(volume)
        if windows_or_docker or volume.get("host", {}).get("sourcePath"):
            yield f"volume {volume['name']} is of a kind that Fargate does not have"
    used = set()
    for container in containers(definition):
        paths = Counter(mount["containerPath"] for mount in container.get("mountPoints", ()))
        yield from (f"{container['name']} mounts {path} twice" for path, count in paths.items() if count > 1)
        for mount in container.get("mountPoints", ()):
            used.add(mount["sourceVolume"])
            if mount["sourceVolume"] not in known:
                yield f"{container['name']} mounts {mount['sourceVolume']}, which is not there"
            if not mount["containerPath"].startswith("/"):
                yield f"{mount['containerPath']} is no absolute path"
    yield from (f"volume {name} is mounted nowhere" for name in sorted(set(known) - used))
    if not 21 <= definition.get("ephemeralStorage", {}).get("sizeInGiB", 21) <= 200:
        yield "ephemeralStorage must be from 21 to 200 GiB"


def file_systems(definition: Definition) -> Fault:
    """members.efsVolumeConfiguration and its authorizationConfig."""
    for volume in definition.get("volumes", ()):
        efs = volume.get("efsVolumeConfiguration", {})
        by = efs.get("authorizationConfig", {})
        if (by.get("iam") == "ENABLED" or "accessPointId" in by) and efs.get("transitEncryption") != "ENABLED":
            yield f"volume {volume['name']} needs encryption in transit, for its role or its access point"
        if "accessPointId" in by and efs.get("rootDirectory", "/") != "/":
            yield f"volume {volume['name']} has an access point, so rootDirectory must be left out"


def volumes_of_others(definition: Definition) -> Fault:
    known = {container["name"] for container in containers(definition)}
    for container in containers(definition):
        for other in container.get("volumesFrom", ()):
            if other.get("sourceContainer") not in known:
                yield f"{container['name']} takes the volumes of {other.get('sourceContainer')}, which is not there"
            elif other["sourceContainer"] == container["name"]:
                yield f"{container['name']} takes its own volumes"


def stopping(definition: Definition) -> Fault:
    for container in containers(definition):
        for name in ("stopTimeout", "startTimeout"):
            if not 2 <= container.get(name, 30) <= 120:
                yield f"{name} of {container['name']} must be from 2 to 120"
        policy = container.get("restartPolicy", {})
        if not 60 <= policy.get("restartAttemptPeriod", 300) <= 1800:
            yield f"restartAttemptPeriod of {container['name']} must be from 60 to 1800"
        if len(policy.get("ignoredExitCodes", ())) > 50:
            yield f"ignoredExitCodes of {container['name']} must be at most 50"


def health(definition: Definition) -> Fault:
    for container in containers(definition):
        check = container.get("healthCheck")
        if check is None:
            continue
        if check["command"][:1] not in (["CMD"], ["CMD-SHELL"]) or len(check["command"]) < 2:
            yield f"the health check of {container['name']} must start with CMD or CMD-SHELL"
        for name, (least, most) in RANGES.items():
            if not least <= check.get(name, least) <= most:
                yield f"{name} of the health check of {container['name']} must be from {least} to {most}"


def refused_by_fargate(definition: Definition) -> Fault:
    yield from (f"{name} is not for Fargate" for name in NOT_ON_FARGATE_TASK if name in definition)
    if definition.get("pidMode", "task") != "task":
        yield "pidMode may only be task on Fargate"
    for container in containers(definition):
        linux = container.get("linuxParameters", {})
        yield from (f"{name} is not for Fargate" for name in NOT_ON_FARGATE_CONTAINER if name in container)
        yield from (f"{name} is not for Fargate" for name in NOT_ON_FARGATE_LINUX if name in linux)
        yield from (f"{asked['type']} is not for Fargate" for asked in container.get("resourceRequirements", ()))
        capabilities = linux.get("capabilities", {})
        if set(capabilities.get("add", ())) - {"SYS_PTRACE"}:
            yield f"{container['name']} adds a capability, and Fargate only gives SYS_PTRACE"
        valid = set(re.findall(r'"([A-Z_]+)"', _text("linuxParameters", "capabilities", "drop")))
        if unknown := set(capabilities.get("drop", ())) - valid:
            yield f"{container['name']} drops {unknown}, which is no capability"


def logs_and_secrets(definition: Definition) -> Fault:
    for container in containers(definition):
        log = container.get("logConfiguration", {"logDriver": "none"})
        if log["logDriver"] not in LOG_DRIVERS:
            yield f"{container['name']} logs to {log['logDriver']}, which Fargate does not have"
        if log["logDriver"] == "awslogs" and (missing := LOG_OPTIONS - set(log.get("options", ()))):
            yield f"{container['name']} lacks the log options {sorted(missing)}"
        secret_names = [secret["name"] for secret in container.get("secrets", ())]
        set_twice = Counter([*secret_names, *(pair["name"] for pair in container.get("environment", ()))])
        yield from (f"{name} of {container['name']} is set twice" for name, count in set_twice.items() if count > 1)
        for secret in container.get("secrets", ()):
            if not re.match(r"arn:aws[a-z-]*:(secretsmanager|ssm):[a-z0-9-]+:\d{12}:", secret["valueFrom"]):
                yield f"{secret['name']} comes from no full ARN of Secrets Manager or of the Parameter Store"
        if secret_names and "executionRoleArn" not in definition:
            yield "without executionRoleArn nothing can be read for secrets"


RULES = (
    size,
    network,
    names,
    order,
    volumes,
    file_systems,
    volumes_of_others,
    stopping,
    health,
    refused_by_fargate,
    logs_and_secrets,
)


def _text(*path: str) -> str:
    shape = call().members["containerDefinitions"].member
    for name in path:
        shape = shape.members[name]
    return str(shape.documentation)


def test_ours_has_no_fault() -> None:
    assert faults(load()) == []


Change = Callable[[Definition], object]


def container(number: int, **members: Any) -> Change:
    return lambda definition: containers(definition)[number].update(members)


def task(**members: Any) -> Change:
    return lambda definition: definition.update(members)


def without(name: str) -> Change:
    return lambda definition: definition.pop(name)


def linux(number: int, **members: Any) -> Change:
    return lambda definition: containers(definition)[number]["linuxParameters"].update(members)


def efs(**members: Any) -> Change:
    return lambda definition: definition["volumes"][0].update(
        efsVolumeConfiguration={"fileSystemId": "fs-0123456789abcdef0", **members}
    )


def checked(**members: Any) -> Change:
    return lambda definition: containers(definition)[1]["healthCheck"].update(members)


POSTFIX, AGENT, WEB = range(3)
BROKEN: list[tuple[str, Change, str]] = [
    ("a member is misspelt", task(familly="x"), "Unknown parameter"),
    ("a member is of another type", container(WEB, stopTimeout="120"), "Invalid type"),
    ("a number stands for cpu", task(cpu=512), "Invalid type"),
    ("a member is missing", without("family"), "Missing required parameter"),
    ("an architecture does not exist", task(runtimePlatform={"cpuArchitecture": "ARM"}), "not one of"),
    ("a condition does not exist", container(WEB, dependsOn=[{"containerName": "agent", "condition": "UP"}]), "not"),
    ("a log driver does not exist", container(WEB, logConfiguration={"logDriver": "cloudwatch"}), "not one of"),
    ("it is for EC2", task(requiresCompatibilities=["EC2"]), "lacks FARGATE"),
    ("cpu and memory are no pair", task(memory="8192"), "no pair"),
    ("there is no cpu", without("cpu"), "no pair"),
    ("a container asks for too much memory", container(AGENT, memory=2048), "more memory"),
    ("a container asks for too much cpu", container(AGENT, cpu=1024), "more cpu"),
    ("the network is another", task(networkMode="bridge"), "awsvpc"),
    ("a host port is another", container(WEB, portMappings=[{"containerPort": 8025, "hostPort": 80}]), "hostPort"),
    ("a port is taken twice", container(WEB, portMappings=[{"containerPort": 25}]), "taken twice"),
    ("a port is out of range", container(WEB, portMappings=[{"containerPort": 80250}]), "no port"),
    ("a port's name has capitals", container(WEB, portMappings=[{"containerPort": 1, "name": "HTTP"}]), "name of port"),
    ("two containers have one name", container(WEB, name="agent"), "taken twice"),
    ("a container's name has a space", container(WEB, name="the web"), "holds what it may not"),
    ("the family has a slash", task(family="mail/queue"), "family"),
    ("there is no image", container(WEB, image=""), "no image"),
    ("nothing is essential", container(POSTFIX, essential=False), "essential"),
    (
        "it depends on what is not there",
        container(WEB, dependsOn=[{"containerName": "nginx", "condition": "START"}]),
        "not there",
    ),
    ("it waits for health that nobody checks", lambda d: (containers(d)[AGENT].pop("healthCheck"),
        containers(d)[WEB]["dependsOn"][0].update(condition="HEALTHY")), "no health check"),
    (
        "it waits for the end of what is essential",
        container(AGENT, dependsOn=[{"containerName": "postfix", "condition": "SUCCESS"}]),
        "it is essential",
    ),
    (
        "two wait for each other",
        container(POSTFIX, dependsOn=[{"containerName": "web", "condition": "START"}]),
        "wait for each other",
    ),
    ("a volume is missing", lambda d: d["volumes"].pop(), "which is not there"),
    ("a volume is there twice", lambda d: d["volumes"].append({"name": "spool"}), "there twice"),
    ("a volume is mounted nowhere", lambda d: d["volumes"].append({"name": "spare"}), "mounted nowhere"),
    ("a volume is a host's", lambda d: d["volumes"][0].update(host={"sourcePath": "/srv"}), "a kind that Fargate"),
    ("a volume is Docker's", lambda d: d["volumes"][0].update(dockerVolumeConfiguration={}), "a kind that Fargate"),
    ("a path is relative", lambda d: containers(d)[WEB]["mountPoints"][0].update(containerPath="run"), "absolute"),
    ("a path is mounted twice", lambda d: containers(d)[WEB]["mountPoints"].extend(
        containers(d)[WEB]["mountPoints"]), "twice"),
    ("the disk is too small", task(ephemeralStorage={"sizeInGiB": 20}), "21 to 200"),
    ("it may take too long to stop", container(AGENT, stopTimeout=121), "stopTimeout"),
    ("it may take too long to start", container(AGENT, startTimeout=1), "startTimeout"),
    ("it is started again too soon", container(WEB, restartPolicy={"enabled": True, "restartAttemptPeriod": 59}), "60"),
    ("too many exit codes are ignored", container(WEB, restartPolicy={
        "enabled": True, "ignoredExitCodes": list(range(51))}), "at most 50"),
    ("a health check is no command", checked(command=["postqueue-api", "health"]), "must start with CMD"),
    ("a health check is asked too often", checked(interval=4), "interval"),
    ("a health check may take too long", checked(timeout=61), "timeout"),
    ("a health check is tried too often", checked(retries=11), "retries"),
    ("a health check begins too late", checked(startPeriod=301), "startPeriod"),
    ("it is privileged", container(AGENT, privileged=True), "privileged"),
    ("it has Docker's security options", container(WEB, dockerSecurityOptions=["no-new-privileges"]), "not for"),
    ("a capability is added", linux(AGENT, capabilities={"drop": ["ALL"], "add": ["CHOWN"]}), "only gives SYS_PTRACE"),
    ("a capability does not exist", linux(AGENT, capabilities={"drop": ["CAP_CHOWN"]}), "no capability"),
    ("it has a device", linux(AGENT, devices=[{"hostPath": "/dev/fuse"}]), "devices"),
    ("it has shared memory of a size", linux(WEB, sharedMemorySize=64), "sharedMemorySize"),
    ("it has a tmpfs", linux(WEB, tmpfs=[{"containerPath": "/tmp", "size": 64}]), "tmpfs"),
    ("it swaps", linux(WEB, swappiness=0), "swappiness"),
    ("it sees the host's processes", task(pidMode="host"), "pidMode"),
    ("it shares memory", task(ipcMode="task"), "ipcMode"),
    ("it is placed", task(placementConstraints=[{"type": "memberOf", "expression": "x"}]), "placementConstraints"),
    ("it logs to a file", container(WEB, logConfiguration={"logDriver": "json-file"}), "Fargate does not have"),
    ("it logs with half the options", container(WEB, logConfiguration={"logDriver": "awslogs"}), "log options"),
    ("a secret is no ARN", container(WEB, secrets=[{"name": "A", "valueFrom": "credentials"}]), "no full ARN"),
    ("a secret is a variable too", lambda d: containers(d)[WEB]["environment"].append(
        {"name": "POSTQUEUE_API_CREDENTIALS", "value": "x"}), "set twice"),
    ("a file system is mounted by its role without encryption", efs(authorizationConfig={"iam": "ENABLED"}), "transit"),
    ("an access point is used without encryption", efs(authorizationConfig={"accessPointId": "fsap-1"}), "transit"),
    ("an access point has a root directory too", efs(transitEncryption="ENABLED", rootDirectory="/mail",
        authorizationConfig={"accessPointId": "fsap-1"}), "rootDirectory"),
    ("a file system is for Windows", lambda d: d["volumes"][0].update(fsxWindowsFileServerVolumeConfiguration={
        "fileSystemId": "fs-1", "rootDirectory": "/",
        "authorizationConfig": {"credentialsParameter": "x", "domain": "x"}}), "a kind that Fargate"),
    ("it has no network", container(WEB, disableNetworking=True), "disableNetworking"),
    ("it searches names in a domain", container(WEB, dnsSearchDomains=["example.org"]), "dnsSearchDomains"),
    ("it asks a server for names", container(WEB, dnsServers=["192.0.2.53"]), "dnsServers"),
    ("it has a graphics processor", container(WEB, resourceRequirements=[{"type": "GPU", "value": "1"}]), "GPU"),
    ("it takes volumes of what is not there", container(WEB, volumesFrom=[{"sourceContainer": "nginx"}]), "not there"),
    ("it takes its own volumes", container(WEB, volumesFrom=[{"sourceContainer": "web"}]), "its own"),
    ("nobody may read the secret", without("executionRoleArn"), "executionRoleArn"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "said"), [row[1:] for row in BROKEN], ids=[row[0] for row in BROKEN])
def test_a_broken_one_is_found(change: Change, said: str) -> None:
    definition = copy.deepcopy(load())
    change(definition)
    assert any(said in fault for fault in faults(definition)), faults(definition)


def test_every_rule_was_red() -> None:
    """Each rule finds at least one broken variant, and nothing else has to."""
    biting = {rule.__name__: 0 for rule in RULES}
    for _, change, _ in BROKEN:
        definition = copy.deepcopy(load())
        change(definition)
        if not [*shape_faults(definition), *enumeration_faults(definition, call(), "")]:
            for rule in RULES:
                biting[rule.__name__] += bool(list(rule(definition)))
    assert all(biting.values()), biting


# What we promise of ours, beyond what Amazon asks.


def by_name() -> dict[str, Definition]:
    return {container["name"]: container for container in containers(load())}


def mounted(name: str) -> dict[str, bool]:
    """The volumes of a container, and whether each is read-only."""
    return {mount["sourceVolume"]: mount["readOnly"] for mount in by_name()[name]["mountPoints"]}


def test_web_shares_socket_and_state_only_and_writes_temporary_files_only() -> None:
    assert mounted("web") == {"state": True, "socket": True, "temporary": False}
    assert "temporary" not in {*mounted("postfix"), *mounted("agent")}
    assert mounted("agent")["spool"] is mounted("postfix")["spool"] is False


@pytest.mark.parametrize(
    ("name", "left"),
    [
        ("postfix", "CHOWN DAC_OVERRIDE FOWNER KILL NET_BIND_SERVICE SETGID SETUID"),
        ("agent", "CHOWN DAC_OVERRIDE FOWNER FSETID KILL SETGID SETUID"),
        ("web", ""),
    ],
)
def test_capabilities_that_are_left(name: str, left: str) -> None:
    dropped = set(by_name()[name]["linuxParameters"]["capabilities"]["drop"])
    assert (set() if "ALL" in dropped else DOCKER_DEFAULT - dropped) == set(left.split())


def test_no_root_can_be_written_and_all_stop_in_two_minutes() -> None:
    for container in by_name().values():
        assert container["readonlyRootFilesystem"] is True
        assert container["stopTimeout"] == 120


def test_the_end_of_web_or_agent_does_not_end_the_task_with_its_mail() -> None:
    assert [name for name, container in by_name().items() if container["essential"]] == ["postfix"]
    assert all(container["restartPolicy"]["enabled"] for container in by_name().values())


def test_nobody_waits_for_health_of_which_a_task_could_end() -> None:
    """startTimeout: who waits for health gives up one day, and then the task ends, with its mail."""
    conditions = {on["condition"] for container in by_name().values() for on in container.get("dependsOn", ())}
    assert conditions == {"START"}


def test_postfix_has_time_to_wait_for_the_spool_of_the_last_task() -> None:
    entry = (FILE.parent / "deploy" / "container-entry").read_text()
    seconds = {int(number) for number in re.findall(r"wait_for_spool (\d+)", entry)}
    assert len(seconds) == 1
    for name in ("postfix", "agent"):
        assert by_name()[name]["healthCheck"]["startPeriod"] >= max(seconds) + 30
    (agent,) = (int(number) for number in re.findall(r"wait_for_configuration (\d+)", entry))
    assert agent > max(seconds)


def test_the_agent_drains_in_less_time_than_it_has_and_postfix_is_stopped_after_it() -> None:
    """At a stop ECS reverses dependsOn. Beside the drain: a last listing of ten seconds, and eight for its own end."""
    agent = by_name()["agent"]
    given = {pair["name"]: pair["value"] for pair in agent["environment"]}
    assert 60 <= int(given["POSTQUEUE_API_DRAIN_SECONDS"]) <= agent["stopTimeout"] - 30
    assert [on["containerName"] for on in agent["dependsOn"]] == ["postfix"]
    assert [on["containerName"] for on in by_name()["web"]["dependsOn"]] == ["agent"]
    assert "dependsOn" not in by_name()["postfix"]


def test_health_checks_are_our_own_command() -> None:
    assert {name: container["healthCheck"]["command"][1:] for name, container in by_name().items()} == {
        "postfix": ["postqueue-api", "health", "--smtp"],
        "agent": ["postqueue-api", "health", "--agent"],
        "web": ["postqueue-api", "health"],
    }


def test_every_variable_of_ours_is_a_setting() -> None:
    for container in by_name().values():
        given = {pair["name"]: pair["value"] for pair in container.get("environment", ())}
        secret = dict.fromkeys((pair["name"] for pair in container.get("secrets", ())), "[a]")
        config.load({**given, **secret})


def test_only_web_is_given_the_credentials_and_none_as_plain_text() -> None:
    assert {name for name, container in by_name().items() if container.get("secrets")} == {"web"}
    assert "CREDENTIALS" not in str([container.get("environment") for container in by_name().values()])


def test_one_region_and_one_image() -> None:
    text = FILE.read_text()
    assert len(set(re.findall(r"[a-z]{2}-[a-z]+-\d\b", text))) == 1
    assert len({container["image"] for container in by_name().values()}) == 1
