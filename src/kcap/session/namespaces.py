# SPDX-License-Identifier: Apache-2.0
"""Network namespaces: the kernel numbers them, and ip-netns(8) gives some of them names."""

from __future__ import annotations

import os

from kcap.errors import UsageError

#: Where ip-netns(8) binds namespaces to names.
DIRECTORY = "/run/netns"
OWN = "/proc/self/ns/net"


def netns_number(text: str) -> int:
    """The inode number of a network namespace.

    :param text: the number itself, a name of ``ip netns``, or a path such as /proc/1/ns/net.
    :raises UsageError: there is no such namespace.
    """
    if text.isdigit():
        return int(text)
    path = text if "/" in text else f"{DIRECTORY}/{text}"
    try:
        return os.stat(path).st_ino
    except OSError as error:
        raise UsageError(
            f"--netns {text}: {error.strerror}", hint="ip netns list shows those that have names"
        ) from error


class NetnsNames:
    """What interfaces of several network namespaces are called.

    :param directory: where namespaces have names.
    """

    def __init__(self, directory: str = DIRECTORY) -> None:
        self._own = os.stat(OWN).st_ino
        self._directory = directory
        self._names: dict[int, str] = {}

    def interface(self, name: str, netns: int) -> str:
        """``eth0`` for one of our own namespace, else ``web/eth0`` or ``4026532201/eth0``.

        :param name: the interface's; '' for none.
        :param netns: inode number of the namespace it is in, 0 if that is not known.
        """
        return name if not name or netns in (0, self._own) else f"{self.name(netns)}/{name}"

    def name(self, netns: int) -> str:
        """A namespace's name, or its number where ``ip netns`` has none."""
        if netns not in self._names:
            self._read()
        return self._names.setdefault(netns, str(netns))

    def _read(self) -> None:
        """Learn the names there are; of several of a namespace the first in the alphabet."""
        try:
            names = sorted(os.listdir(self._directory), reverse=True)
        except OSError:  # nobody has named one yet
            return
        for name in names:
            try:
                self._names[os.stat(f"{self._directory}/{name}").st_ino] = name
            except OSError:  # gone meanwhile
                continue
