"""Rules and dashboard ask for metrics that exist, and each rule was seen to fire."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

yaml = pytest.importorskip("yaml")
pytest.importorskip("prometheus_client")

from amplitude_async import Amplitude, DropReason, Health  # noqa: E402 - after the skip
from amplitude_async.integrations.prometheus import AmplitudeCollector  # noqa: E402

__all__: list[str] = []

OPERATE = Path(__file__).parents[2] / "docs" / "operate"
RULES = OPERATE / "alerts.yml"
DASHBOARD = OPERATE / "grafana.json"
PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(
    PROMTOOL is None, reason="promtool is not installed: it comes with prometheus"
)

NAME = re.compile(r"\bamplitude_\w+")
SUFFIXES = {"counter": ["_total"], "histogram": ["_bucket", "_count", "_sum"]}
# What Grafana puts in, as one of its panels would have it.
VARIABLES = {
    "$__rate_interval": "5m",
    "$__range": "3h",
    "$job": ".*",
    "$client": ".*",
}

HERE = 'job="shop",client="amplitude",destination="amplitude"'


def rules() -> list[dict[str, Any]]:
    """Return all alert rules."""
    found = yaml.safe_load(RULES.read_text("utf-8"))
    return [rule for group in found["groups"] for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    """Return all panels of the dashboard, without the headings."""
    dashboard = json.loads(DASHBOARD.read_text("utf-8"))
    return [one for one in dashboard["panels"] if one["type"] != "row"]


def expressions() -> Iterator[str]:
    """Give each expression of the rules and the dashboard."""
    yield from (rule["expr"] for rule in rules())
    for panel in panels():
        yield from (target["expr"] for target in panel["targets"])
    for variable in json.loads(DASHBOARD.read_text("utf-8"))["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["definition"]


def collector() -> AmplitudeCollector:
    """Return a collector of a client that nobody has started."""
    return AmplitudeCollector(Amplitude("key"), registry=None)


def exported() -> set[str]:
    """Return the name of every series that the collector can give."""
    return {
        family.name + suffix
        for family in collector().describe()
        for suffix in SUFFIXES.get(family.type, [""])
    }


def test_every_expression_names_metrics_that_exist() -> None:
    """A metric that is renamed leaves no alert behind that never fires."""
    asked = {name for text in expressions() for name in NAME.findall(text)}
    assert asked - exported() == set()
    assert len(asked) > 10


def test_every_metric_is_on_the_dashboard() -> None:
    """What is measured is shown, but for the sums of histograms."""
    asked = {name for text in expressions() for name in NAME.findall(text)}
    shown = {n for n in exported() if not n.endswith(("_sum", "_count"))}
    assert shown - asked == set()


def test_every_label_that_is_asked_for_exists() -> None:
    """So do its values, where an expression names one."""
    values = {
        "outcome": {"delivered", "rejected", "dropped", "stored"},
        "origin": {"tracked", "recovered"},
        "state": {state.value for state in Health},
        "error_type": {reason.value for reason in DropReason},
    }
    samples = [s for family in collector().collect() for s in family.samples]
    for label, known in values.items():
        assert known <= {sample.labels.get(label) for sample in samples}
    for text in expressions():
        for label, told in re.findall(r'(\w+)\s*[!=]~?\s*"([^"$]*)"', text):
            assert set(told.split("|")) <= values[label], text


def test_each_rule_says_what_to_do() -> None:
    """And the page has a section for each, and for no other."""
    names = [rule["alert"] for rule in rules()]
    for rule in rules():
        assert rule["labels"]["severity"] in {"warning", "critical"}
        assert len(rule["annotations"]["runbook"]) > 100
        assert {"summary", "description"} <= rule["annotations"].keys()
    page = (OPERATE / "alerts.md").read_text("utf-8")
    assert re.findall(r"^### `(\w+)`", page, re.MULTILINE) == names


def test_the_dashboard_can_be_imported() -> None:
    """It has what Grafana asks for, no panel covers another, no number is taken."""
    dashboard = json.loads(DASHBOARD.read_text("utf-8"))
    assert dashboard["id"] is None
    assert dashboard["uid"]
    assert dashboard["title"]
    assert dashboard["schemaVersion"] >= 36
    numbers = [panel["id"] for panel in dashboard["panels"]]
    assert len(numbers) == len(set(numbers))
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert taken.isdisjoint(cells), panel["title"]
        taken |= cells
    sources = {variable["name"] for variable in dashboard["templating"]["list"]}
    assert sources == {"datasource", "job", "client"}
    for panel in panels():
        assert panel["title"]
        assert panel["description"]
        assert panel["datasource"]["uid"] == "${datasource}"
        references = [target["refId"] for target in panel["targets"]]
        assert references == sorted(set(references))
        assert all(
            target["expr"] and target["legendFormat"] for target in panel["targets"]
        )


# --- By promtool ---


def promtool(*arguments: str) -> None:
    """Run promtool; fail with what it says."""
    assert PROMTOOL is not None
    done = subprocess.run(
        [PROMTOOL, *arguments], check=False, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_the_rules_are_valid() -> None:
    """As Prometheus reads them."""
    promtool("check", "rules", str(RULES))


@needs_promtool
def test_the_expressions_of_the_dashboard_are_valid(tmp_path: Path) -> None:
    """Each can be parsed, once Grafana has filled it in."""
    recorded = []
    for number, panel in enumerate(panels()):
        for target in panel["targets"]:
            text = target["expr"]
            for variable, value in VARIABLES.items():
                text = text.replace(variable, value)
            assert "$" not in text
            recorded.append(
                {"record": f"panel:{number}:{target['refId']}", "expr": text}
            )
    # A name may have letters, digits and colons only, and begins with a letter.
    path = tmp_path / "panels.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "p", "rules": recorded}]}))
    promtool("check", "rules", str(path))


def series(name: str, values: str, **labels: str) -> dict[str, str]:
    """Script one series, a value a minute."""
    told = "".join(f',{label}="{value}"' for label, value in labels.items())
    return {"series": f"amplitude_client_{name}{{{HERE}{told}}}", "values": values}


ENDS = [("delivered", ""), ("rejected", "rejected"), ("stored", "")]
ENDS += [("dropped", reason.value) for reason in DropReason]


def healthy(**other: str) -> list[dict[str, str]]:
    """Script a client that delivers 60 events a minute; some series otherwise.

    Args:
        other: values of single series, by the last word of their labels or name.
    """
    steady, none = "0+60x60", "0x60"
    return [
        series("event_accepted_total", other.get("tracked", steady), origin="tracked"),
        series("event_accepted_total", none, origin="recovered"),
        *(
            series(
                "event_processed_total",
                other.get(error or outcome, steady if outcome == "delivered" else none),
                outcome=outcome,
                error_type=error,
            )
            for outcome, error in ENDS
        ),
        series("event_inflight", "10x60"),
        series("event_oldest_age_seconds", other.get("age", "5x60")),
        series("queue_size", other.get("size", "10x60")),
        series("queue_capacity", "20000x60"),
        series("spool_events", other.get("spool", "20x60")),
        *(
            series("health", other.get(state, none), state=state.value)
            for state in Health
        ),
    ]


FIRING: dict[str, dict[str, str]] = {
    "AmplitudeEventsDropped": {"overflow": "0x20 5+5x40"},
    "AmplitudeEventsRejected": {"rejected": "0+2x60"},
    "AmplitudeRefused": {"refused": "0x20 1x40"},
    "AmplitudeQueueFilling": {"size": "10x20 17000x40"},
    "AmplitudeEventsOld": {"age": "5x10 60+60x50"},
    "AmplitudeSpoolGrowing": {"spool": "0+60x60"},
    "AmplitudeNothingDelivered": {"delivered": "0x60", "tracked": "0+60x60"},
}
QUIET: dict[str, dict[str, str]] = {
    "all is well": {},
    "nobody tracks anything": {"delivered": "0x60", "tracked": "0x60"},
    "events are opted out": {"delivered": "0x60", "opt_out": "0+60x60"},
    "somebody purged": {"purged": "0x20 50x40"},
    "one event in a thousand is bad": {"rejected": "0+0.06x60"},
    "a spool empties": {"spool": "9000-60x60"},
    "a hiccup": {"failing": "0x20 1x2 0x38", "size": "10x20 17000x1 10x38"},
}


def firing(path: Path, script: dict[str, str]) -> set[str]:
    """Say which rules fire after 40 minutes, by asking for each of them alone."""
    found = set()
    for name in FIRING:
        test = {
            "rule_files": [str(RULES)],
            "evaluation_interval": "1m",
            "tests": [
                {
                    "interval": "1m",
                    "input_series": healthy(**script),
                    "alert_rule_test": [
                        {"eval_time": "40m", "alertname": name, "exp_alerts": []}
                    ],
                }
            ],
        }
        path.write_text(yaml.safe_dump(test))
        assert PROMTOOL is not None
        done = subprocess.run(
            [PROMTOOL, "test", "rules", str(path)],
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
        )
        if done.returncode != 0:
            # Otherwise it is the test itself that is wrong.
            assert f"alertname: {name}" in done.stdout + done.stderr
            assert "got:" in done.stdout + done.stderr
            found.add(name)
    return found


@needs_promtool
@pytest.mark.parametrize("rule", FIRING)
def test_a_rule_fires(rule: str, tmp_path: Path) -> None:
    """Where what it is about happens, and no other rule does."""
    assert firing(tmp_path / "test.yml", FIRING[rule]) == {rule}


@needs_promtool
@pytest.mark.parametrize("case", QUIET)
def test_nothing_fires_without_need(case: str, tmp_path: Path) -> None:
    """Where all is well, or what happens is what somebody wanted."""
    assert firing(tmp_path / "test.yml", QUIET[case]) == set()


def test_there_is_a_case_for_each_rule() -> None:
    """No rule is added that nobody has seen fire."""
    assert [rule["alert"] for rule in rules()] == list(FIRING)


# --- The page of Kubernetes ---


def test_the_grace_period_is_longer_than_all_that_it_is_for() -> None:
    """The example keeps the rule that the page gives."""
    page = (OPERATE / "kubernetes.md").read_text("utf-8")
    [manifest] = re.findall(r"^```yaml\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    pod = yaml.safe_load(manifest)["spec"]["template"]["spec"]
    [container] = pod["containers"]
    pre_stop = int(container["lifecycle"]["preStop"]["exec"]["command"][-1])
    arguments = container["args"]
    server = int(arguments[arguments.index("--timeout-graceful-shutdown") + 1])
    environment = {one["name"]: one.get("value") for one in container["env"]}
    client = float(environment["AMPLITUDE_SHUTDOWN_TIMEOUT"])
    mounts = {mount["name"] for mount in container["volumeMounts"]}

    assert pod["terminationGracePeriodSeconds"] > pre_stop + server + client
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert mounts == {volume["name"] for volume in pod["volumes"]}
