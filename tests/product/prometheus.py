"""A real Prometheus (Debian's package) on a loopback port, with the rules of `deploy/` in a hurry."""

from __future__ import annotations

import contextlib
import http.server
import json
import re
import shutil
import subprocess
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import yaml

from tests.product.nodes import free_port
from tests.product.wait import wait_for

ROOT: Final = Path(__file__).parents[2]
RULES: Final = ROOT / "deploy/prometheus/rules.yml"
DASHBOARDS: Final = tuple(sorted((ROOT / "deploy/grafana").glob("*.json")))
MISSING: Final = next(
    (f"{tool} is not installed: apt-get install prometheus" for tool in ("prometheus", "promtool") if not shutil.which(tool)), ""
)

# What waits for minutes in production waits for this long here; thresholds in seconds become this many. What a busy machine does by itself must be over within the
# patience: a scrape that takes as long as the pause between two and is missed, and for the cluster as a whole an election.
EVERY: Final = "2s"
PATIENCE: Final = "5s"
PATIENCE_OF: Final = {"CoterieNoLeader": "15s", "CoterieNoQuorum": "15s"}
THRESHOLDS: Final = {"CoterieHandlerStalled": ("> 30", "> 2")}


def alerts() -> list[dict[str, Any]]:
    """The alert rules as they are delivered."""
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def hurried_rules() -> str:
    """The same rules, with short patience."""
    document = yaml.safe_load(RULES.read_text())
    for group in document["groups"]:
        for rule in group["rules"]:
            if "for" in rule:
                rule["for"] = PATIENCE_OF.get(rule["alert"], PATIENCE)
            if rule["alert"] in THRESHOLDS:
                before, after = THRESHOLDS[rule["alert"]]
                assert before in rule["expr"], rule
                rule["expr"] = rule["expr"].replace(before, after)
    return str(yaml.safe_dump(document))


def dashboard_queries() -> list[tuple[str, str, str]]:
    """(dashboard, panel, query) of every query there is."""
    found = []
    for path in DASHBOARDS:
        for panel in json.loads(path.read_text())["panels"]:
            found += [(path.stem, panel["title"], target["expr"]) for target in panel.get("targets", ())]
    return found


def filled_in(query: str, job: str, instances: str = ".*") -> str:
    """What Grafana makes of a query: its variables replaced."""
    values = {"__rate_interval": "10s", "__range": "1m", "job": job, "instance": instances, "topic": ".*", "node": ".*"}
    return re.sub(r"\$(\w+)", lambda match: values[match[1]], query)


def metrics_in(query: str) -> set[str]:
    return set(re.findall(r"\b(?:coterie|go_cluster|process)_\w+", query))


class Prometheus:
    """Scrapes and evaluates every two seconds. jobs: {job: [host:port of a management API over HTTP]}."""

    def __init__(self, directory: Path, jobs: dict[str, list[str]]) -> None:
        self._directory, self.address = directory, f"127.0.0.1:{free_port()}"
        every = {"scrape_interval": EVERY, "scrape_timeout": EVERY, "evaluation_interval": EVERY}
        scrapes = [{"job_name": job, "static_configs": [{"targets": targets}]} for job, targets in jobs.items()]
        (directory / "rules.yml").write_text(hurried_rules())
        (directory / "prometheus.yml").write_text(yaml.safe_dump({"global": every, "rule_files": ["rules.yml"], "scrape_configs": scrapes}))

    @contextlib.contextmanager
    def running(self) -> Iterator[Prometheus]:
        log = self._directory / "prometheus.log"
        with log.open("wb") as stderr:
            process = subprocess.Popen(
                [
                    "prometheus",
                    f"--config.file={self._directory / 'prometheus.yml'}",
                    f"--storage.tsdb.path={self._directory / 'data'}",
                    f"--web.listen-address={self.address}",
                    "--log.level=warn",
                ],
                stdout=stderr,
                stderr=stderr,
            )
        try:
            wait_for(lambda: process.poll() is not None or self._ready(), 30, "Prometheus is ready", every=0.1)
            assert process.poll() is None, log.read_text()
            yield self
        finally:
            process.terminate()
            try:
                process.wait(15)
            finally:
                process.kill()
                process.wait()

    def _ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://{self.address}/-/ready", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def query(self, text: str) -> list[tuple[dict[str, str], float]]:
        """The instant vector of a query: (labels, value)."""
        return [(row["metric"], float(row["value"][1])) for row in self._ask("query", query=text)["result"]]

    def types(self) -> dict[str, str]:
        """metric -> type, as Prometheus has read it."""
        return {metric: rows[0]["type"] for metric, rows in self._ask("metadata").items()}

    def _ask(self, what: str, **parameters: str) -> Any:
        """Raises AssertionError with Prometheus' own words when it refuses."""
        try:
            with urllib.request.urlopen(f"http://{self.address}/api/v1/{what}?{urllib.parse.urlencode(parameters)}", timeout=10) as answer:
                return json.loads(answer.read())["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{parameters}: {error.read().decode()}") from None

    def firing(self, job: str) -> dict[str, set[str]]:
        """alert -> the instances it fires for ("" for the job as a whole)."""
        found: dict[str, set[str]] = {}
        for labels, _ in self.query(f'ALERTS{{alertstate="firing", job="{job}"}}'):
            found.setdefault(labels["alertname"], set()).add(labels.get("instance", ""))
        return found

    def wait_firing(self, job: str, alert: str, *instances: str, deadline: float = 60) -> None:
        """Until it fires for one of `instances` ("" is the job as a whole)."""
        last: dict[str, set[str]] = {}

        def fires() -> bool:
            last.clear()
            last.update(self.firing(job))
            return bool(last.get(alert, set()) & set(instances))

        try:
            wait_for(fires, deadline, f"{alert} of {job} fires for {' or '.join(instances)}", every=0.2)
        except AssertionError as error:
            raise AssertionError(f"{error}; firing: {last}") from None

    def wait_quiet(self, job: str, alert: str, deadline: float = 60) -> None:
        wait_for(lambda: alert not in self.firing(job), deadline, f"{alert} is over", every=0.2)


@contextlib.contextmanager
def exposing(text: Callable[[], bytes]) -> Iterator[str]:
    """A server of these metrics; -> its host:port."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = text()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            return

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
