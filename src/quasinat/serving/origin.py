"""Which pages in a browser may ask: the service's own, under a name that is the service's.

A browser sends what any page asks it to, also to a service that only this machine reaches. It says whose page it was:
in `Origin`, with every body (Fetch, "`Origin` header"), and in `Sec-Fetch-Site` (Fetch Metadata Request Headers). To
the browser a page whose site's name was made to mean this machine (DNS rebinding) is the service's own; its `Host`
tells the two apart.
"""

import ipaddress
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from quasinat.serving.refusal import Refused

_OWN = ("", "same-origin", "none")  # of Sec-Fetch-Site; none is an address that a person typed


@dataclass(frozen=True)
class Hosts:
    """What the service is called.

    Attributes:
        named: names under which clients and browsers know it, such as that of a proxy.
        only: whether a `Host` that is neither one of them nor a name of the loopback is refused.
    """

    named: frozenset[str] = frozenset()
    only: bool = False


def loopback(host: str) -> bool:
    """Whether a name or an address means this machine wherever it is used."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_origin(method: str, headers: Headers, hosts: Hosts) -> None:
    """Refuses what a page of another site sends; a person who follows a link comes in.

    Raises:
        Refused: 403.
    """
    host = headers.get("host", "").lower()
    name = host_name(host)
    if hosts.only and host and not (name in hosts.named or loopback(name)):
        problem = f"the service is not called {name or 'that'}"
        raise Refused(403, problem, "ask it at 127.0.0.1, or start it with --allow-host NAME")
    origin = headers.get("origin")
    if origin is not None:
        place = origin.lower().partition("://")[2]
        foreign = not place or (place != host and host_name(place) not in hosts.named)
    else:
        follows = method == "GET" and headers.get("sec-fetch-mode") == "navigate"
        foreign = headers.get("sec-fetch-site", "") not in _OWN and not follows
    if foreign:
        remedy = "use the service's own page, or start it with --allow-host NAME where a proxy is called otherwise"
        raise Refused(403, "a page of another site asks", remedy)


def host_name(place: str) -> str:
    """The host of `host:port`, in lower case; empty where there is none."""
    try:
        return urlsplit(f"//{place}").hostname or ""
    except ValueError:
        return ""
