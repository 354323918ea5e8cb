"""One request to an OpenAI-compatible chat endpoint, under a time limit, and what its failure means.

The standard library's client is enough: one connection for each request, no redirects (one could carry a report to
another host), one deadline over the whole exchange however slowly it drips.
"""

from __future__ import annotations

import http.client
import ipaddress
import json
import os
import re
import socket
import ssl
import threading
import time
import urllib.request
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from umif.errors import EndpointError, InputError
from umif.language.llm.cache import Answer

CHARS_PER_TOKEN = 3.5
MAX_BODY_BYTES = 16 * 2**20
_PATH = "/chat/completions"
_LOCAL = tuple(
    ipaddress.ip_network(net)
    for net in ("127.0.0.0/8", "::1/128", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7", "fe80::/10")
)
_RETRIED = {408, 409, 425, 429}
_ITEMS_FAULT = {400, 413, 422}


class RequestError(Exception):
    """A request that gave no answer.

    Attributes:
        retry: The same request may succeed later.
        items_fault: The endpoint refuses this very item.
        wait_s: How long the endpoint asks to wait.
        billed: It may have been worked on, and so be paid for.
    """

    def __init__(
        self,
        what: str,
        *,
        retry: bool = True,
        items_fault: bool = False,
        wait_s: float | None = None,
        billed: bool = False,
    ) -> None:
        super().__init__(what)
        self.what, self.retry, self.items_fault = what, retry, items_fault
        self.wait_s, self.billed = wait_s, billed


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where requests go. The key is never shown, logged or stored."""

    host: str
    port: int
    path: str
    https: bool
    local: bool
    key: str | None = field(default=None, repr=False)

    @property
    def url(self) -> str:
        """The full address."""
        return f"{'https' if self.https else 'http'}://{self.host}:{self.port}{self.path}"


def endpoint(url: str, key: str | None = None) -> Endpoint:
    """Read an address such as `http://localhost:11434/v1`. Its host's name is looked up; nothing is sent.

    Raises:
        InputError: no address, one with a user name or query, a name that is unknown, or a host elsewhere without TLS.
    """
    try:
        parts = urlsplit(url.strip())
        port = parts.port
    except ValueError as error:
        raise InputError(f"{url!r} is no address: {error}", where="--endpoint") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        fix = "give the base address, such as http://localhost:11434/v1 or https://api.example.org/v1"
        raise InputError(f"{url!r} is no address of an endpoint", where="--endpoint", fix=fix)
    if parts.username is not None or parts.password is not None:
        fix = "name an environment variable that holds the key: --key-env NAME"
        raise InputError("an address may not hold a name or password", where="--endpoint", fix=fix)
    if key is not None and (not key.isascii() or not key.isprintable()):
        raise InputError("the key holds characters that no HTTP header can", where="--key-env")
    https = parts.scheme == "https"
    path = parts.path.rstrip("/")
    local = is_local(parts.hostname)
    if not https and not local:
        raise InputError(
            f"{parts.hostname} is not a local machine and the address is not encrypted",
            where="--endpoint",
            fix="use https://",
        )
    full = path if path.endswith(_PATH) else path + _PATH
    return Endpoint(parts.hostname, port or (443 if https else 80), full, https, local, key)


def key_from(variable: str | None) -> str | None:
    """Return the key that an environment variable holds.

    Raises:
        InputError: there is no such variable.
    """
    if variable is None:
        return None
    key = os.environ.get(variable, "").strip()
    if not key:
        raise InputError(f"the environment variable {variable!r} is not set", where="--key-env")
    return key


def is_local(host: str) -> bool:
    """Whether every address of a host is this machine's or a private network's.

    Raises:
        InputError: the name cannot be resolved.
    """
    try:
        found = {str(info[4][0]) for info in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    except (OSError, UnicodeError) as error:
        raise InputError(f"the host {host!r} cannot be found: {error}", where="--endpoint") from None
    return bool(found) and all(_is_local_address(address) for address in found)


def _is_local_address(text: str) -> bool:
    address = ipaddress.ip_address(text.partition("%")[0])
    mapped = getattr(address, "ipv4_mapped", None)
    address = mapped or address
    return any(address in net for net in _LOCAL if net.version == address.version)


def ask(to: Endpoint, payload: dict[str, Any], limit_s: float) -> Answer:
    """Send one chat request and return its answer.

    Raises:
        RequestError: it gave none; says whether to try again.
        EndpointError: no request to this endpoint can succeed (no right, no such model or address).
    """
    body = json.dumps(payload).encode()
    started = time.monotonic()
    try:
        status, headers, data = _exchange(to, body, limit_s)
    except TimeoutError:
        raise RequestError("no answer in time", billed=True) from None
    except ssl.SSLCertVerificationError as error:
        raise EndpointError(f"its certificate is not trusted: {error.verify_message}", where=to.url) from None
    except (ConnectionRefusedError, socket.gaierror) as error:
        raise RequestError(f"no connection: {error.strerror or error}") from None
    except (OSError, http.client.HTTPException) as error:
        raise RequestError(f"the connection broke: {type(error).__name__}", billed=True) from None
    if status != HTTPStatus.OK:
        raise _refusal(to, status, headers, data)
    return _parse(data, payload, time.monotonic() - started)


def _exchange(to: Endpoint, body: bytes, limit_s: float) -> tuple[int, http.client.HTTPMessage, bytes]:
    deadline = time.monotonic() + limit_s
    connection = _connection(to, limit_s)
    late = threading.Event()
    try:
        connection.connect()
        wire = connection.sock
        # The name was looked up before; it could lead elsewhere by now.
        if to.local and not _is_local_address(str(wire.getpeername()[0])):
            raise EndpointError(f"{to.host} leads to another machine than before", where=to.url)

        def hang_up() -> None:
            late.set()
            try:
                # The plain socket's: an encrypted one would drop its state under the reader's feet.
                socket.socket.shutdown(wire, socket.SHUT_RDWR)
            except OSError:
                return  # closed already

        watch = threading.Timer(max(0.0, deadline - time.monotonic()), hang_up)
        watch.daemon = True
        watch.start()
        try:
            return _talk(connection, to, body)
        except (OSError, http.client.HTTPException, ValueError) as error:
            if late.is_set():
                raise TimeoutError from None
            raise error if not isinstance(error, ValueError) else http.client.HTTPException(str(error)) from None
        finally:
            watch.cancel()
    finally:
        connection.close()


def _connection(to: Endpoint, limit_s: float) -> http.client.HTTPConnection:
    if not to.https:
        return http.client.HTTPConnection(to.host, to.port, timeout=limit_s)
    context = ssl.create_default_context()
    proxy = "" if to.local or urllib.request.proxy_bypass(to.host) else urllib.request.getproxies().get("https", "")
    if not proxy:
        return http.client.HTTPSConnection(to.host, to.port, timeout=limit_s, context=context)
    parts = urlsplit(proxy if "//" in proxy else f"//{proxy}")
    tunnel = http.client.HTTPSConnection(parts.hostname or "", parts.port or 80, timeout=limit_s, context=context)
    tunnel.set_tunnel(to.host, to.port)
    return tunnel


def _talk(
    connection: http.client.HTTPConnection, to: Endpoint, body: bytes
) -> tuple[int, http.client.HTTPMessage, bytes]:
    headers = {"Content-Type": "application/json", "Accept": "application/json", "Connection": "close"}
    if to.key is not None:
        headers["Authorization"] = f"Bearer {to.key}"
    connection.request("POST", to.path, body, headers)
    response = connection.getresponse()
    data = response.read(MAX_BODY_BYTES + 1)
    length = response.headers.get("Content-Length", "")
    if len(data) > MAX_BODY_BYTES or (length.isdigit() and len(data) < int(length)):
        raise http.client.IncompleteRead(data)
    return response.status, response.headers, data


def _refusal(to: Endpoint, status: int, headers: http.client.HTTPMessage, data: bytes) -> Exception:
    said = _said(data, to.key)
    what = f"answered {status}{f': {said}' if said else ''}"
    if status in _RETRIED or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return RequestError(what, wait_s=_retry_after(headers.get("Retry-After")))
    if status in _ITEMS_FAULT:
        return RequestError(what, retry=False, items_fault=True)
    fix = {
        401: "give the key's environment variable: --key-env NAME",
        403: "check the key's rights",
        404: "check --endpoint and --model",
    }.get(status, "check --endpoint")
    return EndpointError(what, where=to.url, fix=fix)


def _said(data: bytes, key: str | None) -> str:
    """Return the beginning of an error's message; an endpoint may echo what it was sent, the key included."""
    try:
        error = json.loads(data).get("error")
        text = str(error.get("message", "")) if isinstance(error, dict) else str(error or "")
    except (ValueError, AttributeError):
        return ""
    text = text.replace(key, "…") if key else text
    return re.sub(r"\s+", " ", text).strip()[:160]


def _retry_after(text: str | None) -> float | None:
    """Return the seconds that `Retry-After` asks for, given as a number or a date."""
    if text is None:
        return None
    try:
        return max(0.0, float(text)) if float(text) < float("inf") else None
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return None


def _parse(data: bytes, payload: dict[str, Any], seconds: float) -> Answer:
    """Read the body. One that is no chat answer is a fault on the way, like a broken connection."""
    try:
        body = json.loads(data)
        choice = body["choices"][0]
        text = choice["message"]["content"]
        if not isinstance(text, str):
            raise TypeError("content is no text")
        finish = str(choice.get("finish_reason") or "stop")
        usage = body.get("usage") or {}
        sent = sum(len(message["content"]) for message in payload["messages"])
        tokens_in, tokens_out = usage.get("prompt_tokens"), usage.get("completion_tokens")
        return Answer(
            text=text,
            finish=finish,
            model=str(body.get("model") or payload["model"]),
            tokens_in=tokens_in if isinstance(tokens_in, int) else tokens_of(sent),
            tokens_out=tokens_out if isinstance(tokens_out, int) else tokens_of(len(text)),
            seconds=round(seconds, 3),
        )
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        raise RequestError("the answer is no chat completion", billed=True) from None


def tokens_of(characters: int) -> int:
    """Return about how many tokens a text of so many characters is; a little more than usual tokenizers make."""
    return int(characters / CHARS_PER_TOKEN) + 1
