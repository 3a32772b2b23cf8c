"""Which Host names this server answers to, and which web origins are its own."""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Iterable

from modules.core.errors import AppError, BadRequest

# A name or an address, with brackets around IPv6, and perhaps a port; nothing that could break out of a header or a page.
_HOST = re.compile(r"(?P<name>\[[0-9a-f:.]{2,45}\]|[a-z0-9_](?:[a-z0-9._-]{0,253}))(?::(?P<port>\d{1,5}))?", re.ASCII)
_ORIGIN = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<host>[^/?#@\s]+)", re.ASCII)
_DEFAULT_PORT = {"http": "80", "https": "443"}
LOOPBACK = ("127.0.0.1", "localhost", "::1")


class WrongHost(AppError):
    status = 421
    code = "wrong_host"


def local_hosts(listen: bool) -> set[str]:
    """The names this machine is reached by, without brackets: loopback, and with `listen` its addresses and host names.

    Looks nothing up on the network, because a name server that does not answer would hold up the start.
    """
    hosts = set(LOOPBACK)
    if listen:
        import psutil

        kinds = (socket.AF_INET, socket.AF_INET6)
        for addresses in psutil.net_if_addrs().values():
            hosts |= {host_name(address.address.partition("%")[0]) for address in addresses if address.family in kinds}
        name = socket.gethostname().lower().rstrip(".")
        short = name.partition(".")[0]
        hosts |= {name, short, short + ".local"}
    return {host for host in hosts if host and host != ".local"}


def host_name(host: str) -> str:
    """A Host header or a bare name in the form to compare: lower case, no port, brackets or final dot; empty if malformed."""
    text = host.strip().lower()
    if ":" in text and not text.startswith("[") and text.count(":") > 1:
        text = f"[{text}]"
    found = _HOST.fullmatch(text)
    if found is None:
        return ""
    name = found["name"].strip("[]").rstrip(".")
    try:
        return ipaddress.ip_address(name).compressed
    except ValueError:
        return "" if ":" in name else name


class HostRules:
    """The Host allow-list. Entries are names or addresses; `*.example.com` stands for every name below it, `*` for all."""

    def __init__(self, allowed: Iterable[str], *, has_key: bool) -> None:
        self._names: set[str] = set()
        self._suffixes: list[str] = []
        self._is_open = False
        for entry in allowed:
            name = host_name(entry.removeprefix("*."))
            if entry == "*" and not has_key:
                raise BadRequest("allowed_hosts may be * only together with an API key: any web page could reach the "
                                 "server otherwise. Name the hosts, or give --api-key.", param="allowed_hosts")
            if entry == "*":
                self._is_open = True
            elif not name:
                raise BadRequest(f"allowed_hosts must be host names or addresses; got {entry[:80]!r}.", param="allowed_hosts")
            elif entry.startswith("*."):
                self._suffixes.append("." + name)
            else:
                self._names.add(name)

    def check(self, headers: list[str], arrived_at: str) -> str:
        """The request's only Host header, or WrongHost (BadRequest when malformed).

        `arrived_at` is the address of our own end of the connection: a laptop that joins another network has a new one,
        and no name can be rebound to it, so it needs no entry.
        """
        name = host_name(headers[0]) if len(headers) == 1 else ""
        if not name:
            raise BadRequest("The request must have one well-formed Host header.")
        is_known = self._is_open or name in self._names or name.endswith(tuple(self._suffixes))
        if not is_known and (name != host_name(arrived_at) or not _is_address(name)):
            raise WrongHost(f"This server does not answer to the host {name!r}. "
                            f"If that name is yours, start Colloquy with --allowed-hosts {name}.")
        return headers[0].strip().lower()


def is_same_origin(origin: str, host: str) -> bool:
    """Whether an Origin header names the host that the request was sent to, port included.

    The scheme decides only the default port: behind a proxy that ends TLS the page is https and this server is not.
    """
    found = _ORIGIN.fullmatch(origin.strip().lower())
    if found is None or found["scheme"] not in _DEFAULT_PORT:
        return False
    ours, theirs = _HOST.fullmatch(host), _HOST.fullmatch(found["host"])
    if ours is None or theirs is None:
        return False
    default = _DEFAULT_PORT[found["scheme"]]
    return (ours["name"], ours["port"] or default) == (theirs["name"], theirs["port"] or default)


class OriginRules:
    """The web origins whose pages may call the API: `https://example.com`, port included where it is not the usual one."""

    def __init__(self, allowed: Iterable[str], *, has_key: bool) -> None:
        self._origins = {entry.strip().lower().rstrip("/") for entry in allowed}
        for entry in self._origins:
            if entry in ("*", "null") and not has_key:
                raise BadRequest(f"cors_origins may be {entry} only together with an API key: any web page could use the "
                                 "models otherwise. Name the origins, or give --api-key.", param="cors_origins")
            if entry not in ("*", "null") and _ORIGIN.fullmatch(entry) is None:
                raise BadRequest(f"cors_origins must be origins such as https://example.com; got {entry[:80]!r}.",
                                 param="cors_origins")

    def allows(self, origin: str) -> bool:
        """Whether a page of this origin may call the API."""
        return "*" in self._origins or origin.strip().lower() in self._origins


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
