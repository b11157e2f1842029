"""`make reference`: `docs/configuration.md`, from the fields of `Config`, what its docstring says of each, and the flags of `clusterctl run`.

The docstring is the text: of its section `Attributes`, one paragraph for each field. A field that it does not describe is an error, so that no knob stays
without a word.
"""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import attrs

from coterie.actors.config import Config
from coterie.cli import commands

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "configuration.md"

HEAD = """# Configuration

<!-- Made by `make reference` from `Config`; do not edit. -->

Every field of `Config`, in Python; as a flag of `clusterctl run`; and as an environment variable of it. A bad value is refused when the
`Config` is made, with an error that names the field, the value and what would be valid.

Durations are seconds as a number, a `timedelta`, or Go's notation: `1500ms`, `1.5s`, `5s`. Addresses are `host:port`, `:port` for all
interfaces, or with port 0 for a free one.

<!-- part -->
```python
from coterie import Cluster, Config

config = Config(node_id="n1", raft_addr="10.0.0.1:9520", mem_bind="10.0.0.1:7946", data_dir="/var/lib/orders", bootstrap=True)
```

| field | default | flag | meaning |
|---|---|---|---|
"""

# Flags whose name is not the field's.
FLAGS = {
    "node_id": "id",
    "seeds_csv": "join",
    "discovery_kind": "discovery",
    "dns_names_csv": "dns-names",
    "dns_servers_csv": "dns-servers",
    "data_dir": "data",
}


def descriptions() -> dict[str, str]:
    """{field: text}, from the docstring. Raises ValueError for a field without a text."""
    _, _, section = inspect.cleandoc(Config.__doc__ or "").partition("Attributes:\n")
    paragraphs = re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", section, re.M)
    found = {name: " ".join(meaning.split()) for name, meaning in paragraphs}
    missing = [field.name for field in attrs.fields(Config) if field.name not in found]
    if missing:
        raise ValueError(f"the docstring of Config says nothing of {', '.join(sorted(missing))}")
    return found


def flags() -> set[str]:
    """The flags of `clusterctl run`."""
    return {option.removeprefix("--") for parameter in commands.commands["run"].params for option in parameter.opts}


def default_of(field: attrs.Attribute[Any]) -> str:
    if field.default is attrs.NOTHING:
        return "required"
    if field.default is None:
        return "none"
    if isinstance(field.default, bool):
        return str(field.default).lower()
    if field.converter is not None and isinstance(field.default, float):
        return f"{field.default:g} s"
    return f"`{field.default}`" if field.default != "" else "empty"


def page() -> str:
    texts, known = descriptions(), flags()
    rows = []
    for field in attrs.fields(Config):
        flag = FLAGS.get(field.name, field.name.replace("_", "-"))
        shown = f"`--{flag}` `COTERIE_{flag.upper().replace('-', '_')}`" if flag in known else ""
        rows.append(f"| `{field.name}` | {default_of(field)} | {shown} | {texts[field.name].replace('|', '&#124;')} |\n")
    return HEAD + "".join(rows)


if __name__ == "__main__":
    PAGE.write_text(page())
    print(PAGE.relative_to(ROOT))
