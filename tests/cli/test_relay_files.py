"""Container file, Kubernetes example and page of relays are of one piece."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from amplitude_async.cli.app import app
from amplitude_async.cli.relay import health
from amplitude_async.cli.relay.running import LEAVE_PATIENCE
from amplitude_async.integrations import prometheus_relay

__all__: list[str] = []

OPERATE = Path(__file__).parents[2] / "docs" / "operate"
PAGE = (OPERATE / "relay.md").read_text(encoding="utf-8")
DOCKERFILE = (OPERATE / "relay.Dockerfile").read_text(encoding="utf-8")


def options_of(*words: str) -> set[str]:
    """Return the options that a command of relays takes."""
    command: Any = typer.main.get_command(app)
    for word in ("relay", *words):
        command = command.commands[word]
    return {name for one in command.params for name in one.opts if name[0] == "-"}


@pytest.fixture
def parts() -> dict[str, Any]:
    """Return the objects of the example by kind."""
    yaml = pytest.importorskip("yaml")
    text = (OPERATE / "relay.yaml").read_text(encoding="utf-8")
    return {one["kind"]: one for one in yaml.safe_load_all(text)}


def test_probes_ask_what_the_command_answers(parts: dict[str, Any]) -> None:
    """Liveness never asks for the log: a restart mends no server."""
    pod = parts["Deployment"]["spec"]["template"]
    [container] = pod["spec"]["containers"]
    paths = {
        name: container[f"{name}Probe"]["httpGet"]["path"]
        for name in ("startup", "liveness", "readiness")
    }

    assert paths == {
        "startup": health.LIVE,
        "liveness": health.LIVE,
        "readiness": health.READY,
    }
    annotations = pod["metadata"]["annotations"]
    [port] = container["ports"]
    assert annotations["prometheus.io/path"] == health.METRICS
    assert annotations["prometheus.io/port"] == str(port["containerPort"])
    assert container["args"][-1].endswith(f":{port['containerPort']}")


def test_the_grace_period_is_longer_than_a_relay_takes(parts: dict[str, Any]) -> None:
    """Nobody kills it while it gives its partitions back."""
    spec = parts["Deployment"]["spec"]["template"]["spec"]

    assert spec["terminationGracePeriodSeconds"] >= LEAVE_PATIENCE + 5


def test_keys_are_in_a_secret_and_the_pod_is_locked(parts: dict[str, Any]) -> None:
    """No variable has its value in the file, and nobody is root."""
    spec = parts["Deployment"]["spec"]["template"]["spec"]
    containers = spec["containers"] + spec["initContainers"]

    assert spec["securityContext"]["runAsNonRoot"] is True
    for one in containers:
        assert one["securityContext"]["readOnlyRootFilesystem"] is True
        assert one["securityContext"]["allowPrivilegeEscalation"] is False
        for variable in one["env"]:
            assert set(variable) == {"name", "valueFrom"}
            assert variable["valueFrom"]["secretKeyRef"]["name"] == "relay"


def test_the_parts_mean_the_same_pods(parts: dict[str, Any]) -> None:
    """Selectors select what the deployment makes, and a drain leaves one of them."""
    labels = parts["Deployment"]["spec"]["template"]["metadata"]["labels"]
    budget = parts["PodDisruptionBudget"]["spec"]

    assert parts["Deployment"]["spec"]["selector"]["matchLabels"] == labels
    assert parts["Service"]["spec"]["selector"] == labels
    assert budget["selector"]["matchLabels"] == labels
    assert budget["minAvailable"] < parts["Deployment"]["spec"]["replicas"]


def test_containers_run_commands_that_there_are(parts: dict[str, Any]) -> None:
    """With options that these take."""
    spec = parts["Deployment"]["spec"]["template"]["spec"]
    for one in spec["containers"] + spec["initContainers"]:
        name, *rest = one["args"]
        assert {word for word in rest if word[0] == "-"} <= options_of(name)


def test_the_container_is_no_root_and_gets_its_signals() -> None:
    """Its first process is the command, and not a shell."""
    assert re.search(r"^USER 10001:10001$", DOCKERFILE, re.MULTILINE)
    assert 'ENTRYPOINT ["amplitude-async", "relay"]' in DOCKERFILE
    assert f":8080{health.LIVE}'" in DOCKERFILE
    assert not re.search(r"KEY|SECRET|PASSWORD", DOCKERFILE)


def test_the_page_shows_commands_that_there_are() -> None:
    """Whoever types a line of it is not told that an option does not exist."""
    lines = re.findall(r"^\$ amplitude-async relay (.+)$", PAGE, re.MULTILINE)
    assert len(lines) >= 3
    for line in lines:
        name, *rest = shlex.split(line)
        assert {word for word in rest if word[0] == "-"} <= options_of(name)


def test_the_page_knows_each_option_path_and_metric() -> None:
    """Nothing of the command is left for people to find out."""
    for name in options_of("run") - {"--help", "-h"}:
        assert f"`{name}`" in PAGE
    for path in (health.LIVE, health.READY, health.METRICS):
        assert f"`{path}`" in PAGE
    assert f"{LEAVE_PATIENCE:.0f} seconds" in PAGE
    assert f"{prometheus_relay.MOST_PLACES:,} places" in PAGE
