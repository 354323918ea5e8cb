"""Whose data may go where: reports and labels under an agreement do not leave for somebody else's machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from umif.config import REGISTRY
from umif.errors import InputError, RegistryError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from umif.language.llm.endpoint import Endpoint
    from umif.language.llm.items import Item

# What anyone may pass on. All else is under an agreement, or is somebody's own.
_FREE = ("open", "built-in")
UNKNOWN = "(a file that names no dataset)"


def restricted(items: Iterable[Item]) -> list[str]:
    """Return the datasets among the items whose texts may not be passed on without permission, sorted.

    A dataset that no reader knows, and a file that names none, are taken for restricted.
    """
    names = {item.dataset for item in items}
    return sorted(UNKNOWN if name is None else name for name in names if not _is_free(name))


def _is_free(name: str | None) -> bool:
    if name is None:
        return False
    try:
        access = REGISTRY.get("reader", name).card.access
    except RegistryError:
        return False
    return access in _FREE


def check_permission(items: Iterable[Item], to: Endpoint, *, permitted: bool) -> list[str]:
    """Refuse to send restricted data to a machine that is not local, unless the user states that it is permitted.

    Returns:
        The restricted datasets that the statement covers.

    Raises:
        InputError: it is not stated.
    """
    names = [] if to.local else restricted(items)
    if names and not permitted:
        raise InputError(
            f"{', '.join(names)}: access is restricted, and {to.host} is no machine of a local network",
            where="--endpoint",
            fix="use a model on your own machine (http://localhost:…); if your agreement allows this endpoint, "
            "say so by --i-am-permitted-to-send",
        )
    return names
