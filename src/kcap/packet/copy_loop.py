# SPDX-License-Identifier: Apache-2.0
"""The loop that copies packets from the rings to a file's buffer, in LLVM IR.

Python spends some 400 ns a packet on walking the rings, on sorting and on the list of what is to be
written; this loop spends 40 and the copying. It does exactly what ``PacketSink.consume`` does with
the packets that need no finishing touch, and stops at each of the others, so the files are the
same to the byte.

One function is called, ``i64 run(ptr drain)``, on the structures below; all members are 64 bits
wide. It does what three others do: ``collect``, ``write``, ``release``. It returns what ``write``
does; unless that is DONE it is called again, and goes on with ``write``.

``collect`` makes a list, sorted by time, of the rings' records that are older than ``until``. Each
CPU's records are nearly in order (an interrupt may put a younger one before one that is being
made), so the rings are merged, and what is still out of order is moved to its place. Younger
records stay in the ring, behind ``stop``; where a record was taken from among them is noted in the
ring's list ``taken`` (the kernel lets nobody write to its records). A record that runs over its
ring's end is put together in ``scratch``.

``write`` copies the listed records, from ``next`` on, to the buffers of their files, and returns
why it stopped: DONE; FULL, the buffer of the file of record ``next`` is to be written first; ODD,
record ``next`` is Python's. For a pcap file the bytes stand in the record as they are. For a
pcapng file the block's head is made here; the options at its end are the same for most packets of
a function and process: they come from a template, found by the record's fields; the template of the
packet before is tried first.

``release`` gives the rings' space up to what was listed back to the kernel, and notes how many
positions the lists ``taken`` have.
"""

from __future__ import annotations

from kcap.packet import copy_collect, copy_write
from kcap.packet.copy_code import DONE, DRAIN, Code


def module() -> str:
    """The text of the module."""
    # Called in one place each: to save registers for it would cost more than it does.
    inlined = (copy_collect.collect(), copy_write.write(), copy_collect.release())
    parts = {"noinline": [*copy_collect.functions(), copy_collect.walk()], "alwaysinline": inlined}
    return "\n".join(
        [
            *(
                part.text().replace(" #0 {", f" #0 {how} {{", 1)
                for how, some in parts.items()
                for part in some
            ),
            _run().text(),
            # no-builtins: a loop must not become a call of memcpy, which nobody would link.
            'attributes #0 = { nounwind "no-builtins" }',
            # Calls of what is seldom needed.
            "attributes #1 = { cold }",
        ]
    )


def _run() -> Code:
    """All that is done with one look at the rings, or what is left of it to do."""
    c = Code("run", "ptr %drain", ".text")
    with c.if_(c.is_("eq", c.get("%drain", DRAIN, "listed"), 0)):
        c.op("call i64 @collect(ptr %drain)")
        c.set("%drain", DRAIN, "next", 0)
        c.set("%drain", DRAIN, "listed", 1)
    why = c.op("call i64 @write(ptr %drain)")
    with c.if_(c.is_("eq", why, DONE)):
        c.set("%drain", DRAIN, "noted", c.op("call i64 @release(ptr %drain)"))
        c.set("%drain", DRAIN, "listed", 0)
    c.ret(why)
    return c
