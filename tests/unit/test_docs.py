"""The pages say what is: links resolve, files and names exist, commands and code blocks are good."""

from __future__ import annotations

import ast
import builtins
import functools
import re
from pathlib import Path

import pytest

import coterie
from coterie.actors.config import Config
from coterie.actors.observability.metrics import Metrics
from tests.metrics_contract import CONTRACT, OURS, declared
from tools import generate_cli_reference, generate_configuration, generate_screenshots

ROOT = Path(__file__).parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
FOLDERS = ("actors", "benchmarks", "coterie", "deploy", "docs", "examples", "proto", "tests", "tools", "transport")
# What looks like a path and is none of the repository: files that a node or a command makes, and a thread.
ELSEWHERE = {
    "coterie/log",
    "coterie/trace",
    "figures.json",
    "data.mdb",
    "lock.mdb",
    "node.json",
    "members.json",
    "peers.json",
    "quorum.json",
    "damaged.json",
}
# Names of go-cluster's API, for the page that maps them to ours.
OF_GO_CLUSTER = frozenset(
    re.findall(
        r"\w+",
        """ErrNotLeader LeaderCh AppWrite HandleWrite HandleRead HandleSync NodeID RaftAddr MemBind MemAdv MgmtAddr MgmtProto DiscoveryKind SeedsCSV
        DNSNamesCSV DNSPort DiscRefresh FilePath FileEnv DataDir AppHandlers ReplWindow ReplRetry ReplBufferDir OnLeaderChange OnElectionStart OnElectionEnd""",
    )
)

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


@functools.cache
def text_of(page: Path) -> str:
    return page.read_text()


def prose(page: Path) -> str:
    """Without the fenced blocks."""
    return re.sub(r"^```.*?^```$", "", text_of(page), flags=re.M | re.S)


def in_backticks(page: Path) -> list[str]:
    return re.findall(r"`([^`\n]+)`", prose(page))


@functools.cache
def all_files() -> frozenset[str]:
    found = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.is_file()]
    return frozenset(path.relative_to(ROOT).as_posix() for path in found)


@functools.cache
def definitions(path: str) -> frozenset[str]:
    tree = ast.parse((ROOT / path).read_text())
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)))


def heading_anchor(line: str) -> str:
    return re.sub(r"[^\w\- ]", "", line.lstrip("#").strip().lower()).replace(" ", "-")


def test_there_are_pages() -> None:
    assert {"README.md", "CHANGELOG.md", "architecture.md", "formats.md", "guarantees.md", "management.md"} <= {page.name for page in PAGES}


@pages
def test_links_resolve(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        where = (page.parent / path).resolve() if path else page
        assert where.exists(), f"{page.name}: {target}"
        if anchor:
            assert anchor in {heading_anchor(line) for line in where.read_text().splitlines() if line.startswith("#")}, (
                f"{page.name}: {target}"
            )


@pages
def test_files_exist(page: Path) -> None:
    """A path from the root must be there as it is; a bare file name, somewhere."""
    names = {path.rpartition("/")[2] for path in all_files()}
    for word in in_backticks(page):
        path = word.partition("::")[0].rstrip("/")
        if path in ELSEWHERE:
            continue
        if re.fullmatch(rf"({'|'.join(FOLDERS)})/[\w./-]+", path):
            assert (ROOT / path).exists(), f"{page.name}: {word}"
        elif re.fullmatch(r"[\w-]+\.(py|md|proto|json|mdb)", path):
            assert path in names, f"{page.name}: {word}"


@pages
def test_python_blocks_compile(page: Path) -> None:
    for block in re.findall(r"^```python\n(.*?)^```", text_of(page), re.M | re.S):
        compile(block, page.name, "exec")


@pages
def test_commands_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))
    commands = [word for word in in_backticks(page) if word.startswith("make ")] + re.findall(
        r"^(?:\$ | {4})(make \w+)", text_of(page), re.M
    )
    assert {command.split()[1] for command in commands} <= targets, page.name
    for module in re.findall(r"python -m ([a-z_.]+)", text_of(page)):
        path = module.replace(".", "/")
        assert {f"{path}.py", f"{path}/__main__.py"} & all_files() or module == "pip", f"{page.name}: {module}"


@pages
def test_errors_and_messages_exist(page: Path) -> None:
    """A word in CamelCase is defined somewhere of ours, unless it belongs to somebody named here."""
    theirs = {
        "WatchdogSec",
        "AddNode",
        "RemoveNode",
        "AppendEntries",
        "InstallSnapshot",
        "ThreadingActor",
        "CoterieConflict",
        "LaTeX",
        "PySyncObj",
        "SemVer",
        "ActorDeadError",
    } | (OF_GO_CLUSTER if page.name == "migration.md" else frozenset())
    defined = (
        set(dir(builtins))
        | set(coterie.__all__)
        | {name for path in all_files() if path.endswith(".py") and "_pb2" not in path for name in definitions(path)}
    )
    defined |= set(
        re.findall(
            r"(?:service|message|rpc) (\w+)", "".join((ROOT / "proto" / f"{name}.proto").read_text() for name in ("cluster", "node"))
        )
    )
    documents = ("requests", "raft_document")
    fields = set(re.findall(r'"(\w+)"', "".join((ROOT / f"actors/management/{name}.py").read_text() for name in documents)))
    for word in in_backticks(page):
        for name in re.findall(r"(?<![\w.\"'-])[A-Z][a-z]+[A-Z]\w+(?![\w.\"'/-])", word):
            assert name in defined | theirs | fields, f"{page.name}: {name}"


def test_every_wound_names_a_test_that_exists_or_the_version_that_brings_it() -> None:
    rows = [line for line in text_of(ROOT / "docs/wounds.md").splitlines() if line.startswith("| ") and not line.startswith("| what went")]
    assert len(rows) == 34
    for row in rows:
        last = row.strip("| ").rpartition(" | ")[2]
        tests = re.findall(r"`(test_\w+\.py)::(\w+)`", last)
        assert tests or "comes with" in last, row
        for file, name in tests:
            assert name in definitions(f"tests/wounds/{file}"), row


def test_every_public_error_is_in_the_troubleshooting() -> None:
    public = {
        name
        for name in coterie.__all__
        if isinstance(getattr(coterie, name), type) and issubclass(getattr(coterie, name), coterie.CoterieError)
    }
    first = re.findall(r"^\| (`.*?) \|", text_of(ROOT / "docs/troubleshooting.md"), re.M)
    assert public - {"CoterieError"} <= set(re.findall(r"\w+", " ".join(first)))


def test_every_public_name_is_in_the_api_page() -> None:
    """By itself (`::: path.Name`), or among the members of its module."""
    page = text_of(ROOT / "docs/api.md")
    shown = re.findall(r"^::: [\w.]+\.([A-Z]\w+)$", page, re.M) + re.findall(r"\w+", " ".join(re.findall(r"members: \[(.*?)\]", page)))
    assert set(coterie.__all__) - set(shown) == set()


def test_every_page_is_in_the_navigation_and_in_the_readme() -> None:
    pages = {page.relative_to(ROOT / "docs").as_posix() for page in (ROOT / "docs").rglob("*.md")}
    assert sorted(re.findall(r":\s(\S+\.md)$", text_of(ROOT / "mkdocs.yml").partition("\nnav:")[2], re.M)) == sorted(pages)
    assert pages - {"index.md"} <= set(re.findall(r"\]\(docs/([\w/-]+\.md)", text_of(ROOT / "README.md")))
    linked = set(re.findall(r"\]\(([\w/-]+\.md)", text_of(ROOT / "docs/index.md")))
    assert pages - {"index.md"} == linked


def test_metrics_and_settings_named_in_the_pages_exist() -> None:
    metrics = declared(Metrics("n1").text().decode())
    fixtures = definitions("coterie/pytest_plugin.py")
    for page in PAGES:
        for text in in_backticks(page):
            for name in re.findall(r"\b(?:coterie|go_cluster)_\w+", text):
                assert {name, re.sub(r"_(bucket|count|sum)$", "", name)} & (metrics.keys() | fixtures), f"{page.name}: {name}"
    settings = {field.name for field in Config.__attrs_attrs__}
    for page in PAGES:
        for name in re.findall(r"`((?:repl|mgmt|mem|tls|disc|dns)_[a-z_]+)`", text_of(page)):
            assert name in settings, f"{page.name}: {name}"


def test_the_monitoring_page_has_every_metric_with_its_type_and_labels() -> None:
    rows = re.findall(r"^\| `((?:coterie|go_cluster)_\w+)` \| (\w+) \|(.*?)\| \S.* \|$", text_of(ROOT / "docs/monitoring.md"), re.M)
    written = {name: (kind, tuple(sorted(re.findall(r"`(\w+)`", labels)))) for name, kind, labels in rows}
    assert len(written) == len(rows)
    assert written == {**CONTRACT, **OURS}


def test_nothing_of_the_workplace_is_named() -> None:
    for page in PAGES:
        assert not re.search(r"TODO|FIXME|\.\./\.\.", text_of(page)), page.name


def test_the_configuration_page_is_what_config_is() -> None:
    assert generate_configuration.PAGE.read_text() == generate_configuration.page(), "run `make reference`"


def test_the_command_line_page_is_what_the_commands_are() -> None:
    assert generate_cli_reference.PAGE.read_text() == generate_cli_reference.page(), "run `make reference`"


@pytest.mark.parametrize("name", generate_screenshots.SHOTS)
def test_the_screenshots_are_what_the_commands_show(name: str) -> None:
    """Word for word; how it is drawn is the affair of rich, whose versions differ."""
    image = (ROOT / "docs" / "images" / f"{name}.svg").read_text()
    texts = [re.findall(r"<text[^>]*>([^<]*)</text>", picture) for picture in (image, generate_screenshots.picture(name))]
    assert texts[0] == texts[1], "run `make reference`"
    assert any("n3" in text for text in texts[0])
    assert "url(http" not in image and "@import" not in image, "it fetches nothing from elsewhere"
