"""deploy/cloudformation.yaml: cfn-lint has nothing to say, its task is our task, and its promises hold."""

import contextlib
import io
import json
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from cfnlint.decode import cfn_yaml  # type: ignore[import-untyped]

from postqueue_api import config, server

FILE = Path(__file__).parent.parent / "deploy" / "cloudformation.yaml"
TASK = FILE.parent.parent / "ecs-task-definition.json"

# What the template asks for or makes, and what stands in the task definition instead.
GIVEN = {
    "Ref": {
        "AWS::Region": "eu-central-1",
        "AWS::StackName": "postqueue-api",
        "CpuArchitecture": "ARM64",
        "CredentialsSecret": "arn:aws:secretsmanager:eu-central-1:123456789012:secret:postqueue-api/credentials",
        "Image": "postqueue-api:0.1.0",
        "Log": "/ecs/postqueue-api",
        "MailHostname": "relay.example.org",
    },
    "Fn::Sub": {"127.0.0.0/8 ${VpcCidr}": "127.0.0.0/8 10.0.0.0/16"},
    "Fn::GetAtt": {"ExecutionRole.Arn": "arn:aws:iam::123456789012:role/postqueue-api-execution"},
}

Template = dict[str, Any]


def load() -> Template:
    template: Template = json.loads(json.dumps(cfn_yaml.load(str(FILE))))
    return template


def resources(kind: str) -> dict[str, Template]:
    """The properties of all resources of a kind, by name."""
    return {name: resource["Properties"] for name, resource in load()["Resources"].items() if resource["Type"] == kind}


def lint(path: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("cfn-lint")), "--include-checks", "I", "--", str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_cfn_lint_is_silent() -> None:
    said = lint(FILE)
    assert (said.returncode, said.stdout, said.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("text", "broken", "rule"),
    [
        ("LaunchType: FARGATE", "LaunchType: FARGAET", "E3030"),
        ("StopTimeout: 120", "StopTimeuot: 120", "E3002"),
        ("!Ref TargetGroup}", "!Ref TargetGruop}", "E1020"),
        ("!GetAtt Log.Arn", "!GetAtt Log.Name", "E1010"),
        ("Default: ARM64", "Default: ARM65", "E2015"),
    ],
)
def test_cfn_lint_finds_a_broken_one(tmp_path: Path, text: str, broken: str, rule: str) -> None:
    assert text in FILE.read_text()
    path = tmp_path / "broken.yaml"
    path.write_text(FILE.read_text().replace(text, broken, 1))
    assert rule in lint(path).stdout


def as_in_a_task_definition(value: Any, path: tuple[str, ...] = ()) -> Any:
    """Members in camel case, parameters as GIVEN; what EFS adds is left out. The names in maps are not ours to turn."""
    if isinstance(value, list):
        return [as_in_a_task_definition(member, path) for member in value]
    if not isinstance(value, dict):
        return value
    for function, known in GIVEN.items():
        if list(value) == [function]:
            argument = value[function]
            return known[".".join(argument) if isinstance(argument, list) else argument]
    keep = path[-1:] == ("Options",)
    return {
        name if keep else name[0].lower() + name[1:]: as_in_a_task_definition(member, (*path, name))
        for name, member in value.items()
    }


def test_the_task_is_that_of_the_task_definition() -> None:
    (properties,) = resources("AWS::ECS::TaskDefinition").values()
    del properties["TaskRoleArn"], properties["Volumes"][0]["EFSVolumeConfiguration"]
    properties["Cpu"], properties["Memory"] = (load()["Parameters"][name]["Default"] for name in ("Cpu", "Memory"))
    del properties["ContainerDefinitions"][0]["Secrets"]
    of_postfix, of_web = (properties["ContainerDefinitions"][number]["Environment"] for number in (0, 2))
    for environment, name in ((of_postfix, "POSTFIX_RELAYHOST"), (of_web, "POSTQUEUE_API_TRUSTED_PROXIES")):
        environment[:] = [pair for pair in environment if "Fn::If" not in pair and pair["Name"] != name]
    assert as_in_a_task_definition(properties) == json.loads(TASK.read_text())


def test_a_client_certificate_counts_only_where_the_load_balancer_verifies_it() -> None:
    (task,) = resources("AWS::ECS::TaskDefinition").values()
    environment = task["ContainerDefinitions"][2]["Environment"]
    chosen = [pair["Fn::If"] for pair in environment if "Fn::If" in pair]
    settings = {then["Name"]: (condition, then["Value"]) for condition, then, _ in chosen}
    assert settings == {
        "POSTQUEUE_API_CLIENT_CERTIFICATE_HEADER": ("WithClientCertificates", "X-Amzn-Mtls-Clientcert-Subject"),
    }
    listener = resources("AWS::ElasticLoadBalancingV2::Listener")["Listener"]
    condition, verify, otherwise = listener["MutualAuthentication"]["Fn::If"]
    assert (condition, verify["Mode"], otherwise) == ("WithClientCertificates", "verify", {"Mode": "off"})
    given = dict.fromkeys(settings, "X-Amzn-Mtls-Clientcert-Subject")
    config.load({**given, "POSTQUEUE_API_TRUSTED_PROXIES": "10.0.1.0/24, 10.0.2.0/24"})


def needs(value: Any) -> set[str]:
    """What a value names, so that CloudFormation makes it first."""
    if isinstance(value, list):
        return {name for each in value for name in needs(each)}
    if not isinstance(value, dict):
        return set()
    named = {value["Ref"]} if "Ref" in value else set()
    named |= set(re.findall(r"\$\{([A-Za-z]+)", str(value.get("Fn::Sub", ""))))
    return named | {name for each in value.values() for name in needs(each)}


def test_with_efs_the_service_waits_for_both_mount_targets_and_runs_only_where_they_are() -> None:
    (service,) = resources("AWS::ECS::Service").values()
    condition, tags, otherwise = service["Tags"]["Fn::If"]
    assert (condition, otherwise) == ("WithEfs", {"Ref": "AWS::NoValue"})
    targets = resources("AWS::EFS::MountTarget")
    assert needs(tags) == set(targets)
    condition, on_efs, otherwise = service["NetworkConfiguration"]["AwsvpcConfiguration"]["Subnets"]["Fn::If"]
    assert (condition, otherwise) == ("WithEfs", {"Ref": "TaskSubnetIds"})
    assert on_efs == [target["SubnetId"] for target in targets.values()]


def parameter(name: str) -> Template:
    found: Template = load()["Parameters"][name]
    return found


@pytest.mark.parametrize("name", ["TaskSubnetIds", "LoadBalancerSubnetIds"])
def test_subnets_are_asked_for_in_different_zones(name: str) -> None:
    assert "in different zones" in parameter(name)["Description"]


def test_the_monitor_is_where_it_reaches_secrets_manager_and_takes_no_share_of_the_accounts_functions() -> None:
    """A function gets no public address, so the task's subnets are not its own when they are public."""
    (function,) = resources("AWS::Lambda::Function").values()
    assert function["VpcConfig"]["SubnetIds"] == {"Ref": "MonitorSubnetIds"}
    assert "NAT" in parameter("MonitorSubnetIds")["Description"]
    assert "ReservedConcurrentExecutions" not in function


def test_the_load_balancer_is_internal_unless_said_otherwise() -> None:
    (balancer,) = resources("AWS::ElasticLoadBalancingV2::LoadBalancer").values()
    assert balancer["Scheme"] == {"Ref": "LoadBalancerScheme"}
    found = parameter("LoadBalancerScheme")
    assert (found["Default"], found["AllowedValues"]) == ("internal", ["internal", "internet-facing"])


def test_web_knows_each_client_behind_the_load_balancer_or_one_could_lock_out_all() -> None:
    found = parameter("LoadBalancerCidrs")
    assert "Default" not in found
    for text in ("10.0.1.0/24", "10.0.1.0/24,10.0.2.0/24", "10.0.1.0/24, 10.0.2.0/24"):
        assert re.fullmatch(found["AllowedPattern"], text)
        assert config.load({"POSTQUEUE_API_TRUSTED_PROXIES": text}).trusted_proxies
    assert not re.fullmatch(found["AllowedPattern"], "")
    (task,) = resources("AWS::ECS::TaskDefinition").values()
    told = {"Name": "POSTQUEUE_API_TRUSTED_PROXIES", "Value": {"Ref": "LoadBalancerCidrs"}}
    assert told in task["ContainerDefinitions"][2]["Environment"]


def test_the_password_at_the_relay_is_a_secret_which_only_the_execution_role_reads() -> None:
    (task,) = resources("AWS::ECS::TaskDefinition").values()
    postfix = task["ContainerDefinitions"][0]
    (user,) = [pair["Fn::If"] for pair in postfix["Environment"] if "Fn::If" in pair]
    assert user[:2] == ["WithRelayLogin", {"Name": "POSTFIX_RELAY_USER", "Value": {"Ref": "RelayUser"}}]
    secret = {"Name": "POSTFIX_RELAY_PASSWORD", "ValueFrom": {"Ref": "RelaySecret"}}
    assert postfix["Secrets"]["Fn::If"] == ["WithRelayLogin", [secret], {"Ref": "AWS::NoValue"}]
    assert load()["Resources"]["RelaySecret"]["Condition"] == "WithRelayLogin"
    readers = {name for name, statement in statements() if "RelaySecret" in needs(statement["Resource"])}
    assert readers == {"ExecutionRole"}


def test_the_load_balancer_closes_an_idle_connection_before_web_does() -> None:
    """Else it sends a request on a connection that web has just closed, and its client gets 502."""
    attributes = resources("AWS::ElasticLoadBalancingV2::LoadBalancer")["LoadBalancer"]["LoadBalancerAttributes"]
    (idle,) = [int(each["Value"]) for each in attributes if each["Key"] == "idle_timeout.timeout_seconds"]
    assert idle + 10 <= server.KEEPALIVE_SECONDS


def test_two_postfix_never_share_a_spool() -> None:
    (service,) = resources("AWS::ECS::Service").values()
    assert service["DesiredCount"] == 1
    assert service["DeploymentConfiguration"]["MaximumPercent"] == {"Fn::If": ["WithEfs", 100, 200]}
    assert service["DeploymentConfiguration"]["MinimumHealthyPercent"] == {"Fn::If": ["WithEfs", 0, 100]}
    assert service["AvailabilityZoneRebalancing"] == "DISABLED"


def statements() -> Iterator[tuple[str, Template]]:
    for name, role in resources("AWS::IAM::Role").items():
        policies = role["Policies"]
        for policy in policies["Fn::If"][1] if isinstance(policies, dict) else policies:
            for statement in policy["PolicyDocument"]["Statement"]:
                yield name, statement


def test_no_role_may_do_everything_or_touch_everything() -> None:
    everywhere = set()
    for _, statement in statements():
        actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
        assert not [action for action in actions if "*" in action]
        if statement["Resource"] == "*":
            everywhere.update(actions)
    assert everywhere == {
        "ecr:GetAuthorizationToken",
        *(f"ec2:{verb}NetworkInterface" for verb in ("Create", "Delete")),
        *(f"ec2:Describe{what}" for what in ("NetworkInterfaces", "Subnets")),
        *(f"ec2:{verb}PrivateIpAddresses" for verb in ("Assign", "Unassign")),
    }


def test_the_containers_may_do_nothing_in_the_account_but_mount_the_spool() -> None:
    actions = [action for name, one in statements() if name == "TaskRole" for action in one["Action"]]
    assert sorted(actions) == [f"elasticfilesystem:Client{what}" for what in ("Mount", "RootAccess", "Write")]


def test_only_the_load_balancer_the_monitor_and_prometheus_if_there_is_one_reach_web() -> None:
    ingress = resources("AWS::EC2::SecurityGroup")["TaskSecurityGroup"]["SecurityGroupIngress"]
    (if_wanted,) = [rule["Fn::If"] for rule in ingress if "Fn::If" in rule]
    always = [rule for rule in ingress if "Fn::If" not in rule]
    assert (if_wanted[0], if_wanted[2]) == ("WithPrometheus", {"Ref": "AWS::NoValue"})
    sources = [rule.get("SourceSecurityGroupId") for rule in [*always, if_wanted[1]] if rule["FromPort"] == 8025]
    names = ("LoadBalancerSecurityGroup", "MonitorSecurityGroup", "PrometheusSecurityGroupId")
    assert sources == [{"Ref": name} for name in names]


def test_logs_are_kept_for_a_stated_time() -> None:
    assert all("RetentionInDays" in log for log in resources("AWS::Logs::LogGroup").values())


# The monitor, run as Lambda would: the code of the template, asked about a server that says what ours says.

NOW = 1_800_000_000.0
Measure = Callable[[dict[str, Any], float], dict[str, int]]


def code() -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(compile(resources("AWS::Lambda::Function")["Monitor"]["Code"]["ZipFile"], "monitor", "exec"), names)
    return names


def queue(name: str, messages: int, age: int | None) -> dict[str, Any]:
    oldest = None if age is None else NOW - age
    return {"queue_name": name, "messages": messages, "bytes": 0, "recipients": 0, "oldest_arrival_time": oldest}


def listing(mail_system: str = "running", complete: bool = True) -> dict[str, Any]:
    queues = [queue("active", 0, None), queue("deferred", 7, 300), queue("hold", 5, 86400)]
    return {"snapshot": {"mail_system": mail_system, "complete": complete}, "queues": queues}


UP = {"AgentUp": 1, "MailSystemUp": 1}


@pytest.mark.parametrize(
    ("found", "metrics"),
    [
        (listing(), {**UP, "Messages": 7, "OldestMessageSeconds": 300}),
        (listing("down"), {**UP, "MailSystemUp": 0, "Messages": 7, "OldestMessageSeconds": 300}),
        (listing(complete=False), UP),
        ({"snapshot": listing()["snapshot"], "queues": []}, {**UP, "Messages": 0, "OldestMessageSeconds": 0}),
        ({"code": "agent_unavailable"}, {"AgentUp": 0}),
        ({"code": "unauthorized"}, {}),
    ],
    ids=["well", "Postfix down", "a partial listing", "nothing queued", "agent down", "token refused"],
)
def test_the_monitor_measures_what_is_known_and_leaves_out_the_rest(
    found: dict[str, Any], metrics: dict[str, int]
) -> None:
    assert code()["measure"](found, NOW) == metrics


@contextlib.contextmanager
def api(status: int, body: object) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            assert self.headers["Authorization"] == "Bearer the-token"
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/v1/queues"
        thread.join()


@pytest.mark.parametrize(("status", "body"), [(200, listing()), (503, {"code": "agent_unavailable"})])
def test_the_monitor_prints_one_line_of_the_embedded_metric_format(
    monkeypatch: pytest.MonkeyPatch, status: int, body: object
) -> None:
    names = code()
    names["token"] = lambda: "the-token"
    said = io.StringIO()
    with api(status, body) as url, contextlib.redirect_stdout(said):
        monkeypatch.setenv("URL", url)
        monkeypatch.setenv("NAME", "mail")
        names["handler"]({}, None)
    (line,) = said.getvalue().splitlines()
    event = json.loads(line)
    directive = event["_aws"]["CloudWatchMetrics"][0]
    assert event["Service"] == "mail"
    assert directive["Dimensions"] == [["Service"]]
    assert {metric["Name"] for metric in directive["Metrics"]} == set(event) - {"_aws", "Service"}


def test_every_alarm_watches_a_metric_that_the_monitor_sends() -> None:
    sent = {*code()["measure"](listing(), NOW)}
    watched = {alarm["MetricName"] for alarm in resources("AWS::CloudWatch::Alarm").values()}
    assert watched == sent


def test_the_password_of_nobody_stands_in_it() -> None:
    secrets = [name for name, parameter in load()["Parameters"].items() if parameter.get("NoEcho")]
    assert secrets == ["Credentials", "MonitorToken", "RelayPassword"]
    assert {parameter(name).get("Default", "none") for name in secrets} == {"none"}
    assert not re.search(r"\$2[aby]\$", FILE.read_text())
