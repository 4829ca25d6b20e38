# SPDX-License-Identifier: Apache-2.0
"""Loading maps and programs together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kcap.closing import Closing
from kcap.kernel.maps import Map
from kcap.kernel.programs import Program

if TYPE_CHECKING:
    from kcap.kernel.spec import CollectionSpec


class Collection(Closing):
    """Loaded maps and programs by name; closes them all with its context.

    :ivar maps: by the name in the spec, data sections included.
    :ivar programs: by the name in the spec.
    """

    def __init__(self) -> None:
        self.maps: dict[str, Map] = {}
        self.programs: dict[str, Program] = {}

    @classmethod
    def load(cls, spec: CollectionSpec, log_level: int = 0) -> Collection:
        """Create all maps, then load all programs; if one fails nothing is left behind.

        :param log_level: as for ``Program.load``.
        :raises VerifierError: the verifier refused a program.
        :raises SyscallError: another refusal.
        """
        loaded = cls()
        try:
            for map_spec in (*spec.maps, *spec.data):
                loaded.maps[map_spec.name] = Map.create(map_spec)
            for program in spec.programs:
                loaded.programs[program.name] = Program.load(program, loaded.maps, log_level)
        except BaseException:
            loaded.close()
            raise
        return loaded

    def close(self) -> None:
        """Close all; doing it twice is harmless."""
        for program in self.programs.values():
            program.close()
        for loaded in self.maps.values():
            loaded.close()
