"""Which source of seeds a `Config` asks for. The seeds of `seeds_csv` are used with every kind."""

from __future__ import annotations

from typing import Final

from coterie.actors.config import Config
from coterie.actors.membership.discovery import Discovery, Found, StaticSeeds
from coterie.actors.membership.file_seeds import FileSeeds

MOST_SEEDS: Final = 256


class Together:
    """The seeds that are always there, and after them those of a source. A source that names thousands is not followed: see `MOST_SEEDS`."""

    def __init__(self, always: StaticSeeds, source: Discovery) -> None:
        self._always, self._source = always, source

    @property
    def refresh(self) -> float | None:
        return self._source.refresh

    def find(self) -> Found:
        found = self._source.find()
        seeds = tuple(dict.fromkeys((*self._always.find().seeds, *found.seeds)))
        if len(seeds) <= MOST_SEEDS:
            return Found(seeds, found.problems)
        return Found(seeds[:MOST_SEEDS], (*found.problems, f"{len(seeds)} seeds are named; the first {MOST_SEEDS} are used"))


def source(config: Config) -> Discovery:
    always = StaticSeeds(config.seeds_csv)
    if config.discovery_kind == "static":
        return always
    if config.discovery_kind == "file":
        return Together(always, FileSeeds(config.file_path, config.file_env, config.disc_refresh))
    # dnspython takes a tenth of a second to import, which only those pay who use it
    from coterie.actors.membership.dns_seeds import DnsSeeds
    from coterie.transport.name_lookup import Resolver

    return Together(always, DnsSeeds(config.dns_names(), config.dns_port, config.disc_refresh, Resolver(config.dns_servers())))
