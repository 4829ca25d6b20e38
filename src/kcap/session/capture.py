# SPDX-License-Identifier: Apache-2.0
"""Capturing packets at kernel functions without writing a script: ``kcap capture``.

What is asked for becomes a script, which runs as any other does: one probe for each function, the
plain filters and the pcap-filter expression as a condition, skboutput(), and two counters.
"""

from __future__ import annotations

import mmap
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from kcap.closing import Closing
from kcap.errors import UsageError
from kcap.functions.skb_record import is_pcapng
from kcap.records import dataclass
from kcap.session.iteration import Reading
from kcap.session.namespaces import netns_number
from kcap.session.preparation import Preparation
from kcap.session.script import Options
from kcap.session.skb_functions import SkbPoint, find_point

if TYPE_CHECKING:
    from kcap.packet.decode import Packet
    from kcap.packet.files import OutputFile
    from kcap.packet.rotation import Rotation
    from kcap.probes.system import System
    from kcap.session.script import Checked
    from kcap.session.trace import Trace

#: What is done, how many are, of how many.
Progress = Callable[[str, int, int], None]

_PAGE_KIB = mmap.PAGESIZE >> 10
#: The length argument of skboutput() that asks for the whole packet.
WHOLE = 262144
#: Functions and events that are told why a packet is dropped.
TOLD_WHY = frozenset({"kfree_skb", "kfree_skb_reason", "sk_skb_reason_drop"})
#: What a capture to a stream and one to nowhere are called in the script.
STREAM, STREAM_PCAP, NOWHERE = "stdout.pcapng", "stdout.pcap", "nowhere.pcap"
#: With a stream, the rings are looked at this often, in seconds: a packet waits for two looks at
#: most, since the first one holds it back for packets of other CPUs.
STREAM_TICK = 0.045
#: With a file, where nobody waits for single packets: full rings wake the reader all the same.
FILE_TICK = 1.0


@dataclass(frozen=True, slots=True)
class CaptureRequest:
    """What to capture.

    :param places: functions and tracepoints, as :func:`find_point` takes them.
    :param expression: a pcap-filter expression; '' for every packet.
    :param path: the file to write to: pcapng if its name ends so, else pcap; '-' for a stream to
        standard output, '' for none.
    :param pcap: make the stream a pcap, not a pcapng.
    :param snaplen: bytes to capture from skb->data on; what stands before is added. 0: all.
    :param count: how many packets; 0 for any number.
    :param interface: the name of skb->dev.
    :param netns: a network namespace: its inode number, its name (ip-netns(8)), or a path.
    :param mark: skb->mark, ``VALUE`` or ``VALUE/MASK``, decimal or 0x…
    :param pid: the process that is current while the packet passes, not the one that it is for.
    :param immediate: look at every packet as it comes.
    :param buffer: KiB of each CPU's ring, rounded up to a power of two of pages; 0: the default.
    :param rotation: write several files, one after the other.
    :param user: the user who owns the files.
    :param descriptor: where a stream goes.
    """

    places: Sequence[str]
    expression: str = ""
    path: str = ""
    pcap: bool = False
    snaplen: int = 0
    count: int = 0
    interface: str = ""
    netns: str = ""
    mark: str = ""
    pid: int = 0
    immediate: bool = False
    buffer: int = 0
    rotation: Rotation | None = None
    user: str = ""
    descriptor: int = 1

    @property
    def script_path(self) -> str:
        """The path that the script names."""
        if self.path == "-":
            return STREAM_PCAP if self.pcap else STREAM
        return self.path or NOWHERE


@dataclass(slots=True)
class PlaceStats:
    """What became of the packets at one place.

    :param place: the function or event, with its probe type where there are several of its name.
    :param seen: calls with a packet, whatever it was.
    :param matched: packets that the filters took.
    :param captured: packets written (or yielded).
    :param lost: packets that matched and found the ring full.
    """

    place: str
    seen: int = 0
    matched: int = 0
    captured: int = 0
    lost: int = 0


def _own_file(request: CaptureRequest) -> OutputFile:
    """The file or files of a request that asks for more than a plain one."""
    from kcap.packet.files import OutputFile
    from kcap.packet.rotation import RotatingFile
    from kcap.session.privileges import files_of

    with files_of(request.user):
        if request.rotation is None:
            return OutputFile(request.path)
        return RotatingFile(request.path, request.rotation, pcapng=is_pcapng(request.path))


def quote(text: str) -> str:
    """A text as a string literal of the language."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def generate(
    points: Sequence[SkbPoint],
    request: CaptureRequest,
    *,
    extra: str = "",
    output: bool = True,
    after: str = "",
) -> str:
    """The script for a request.

    :param extra: a statement for each packet that the filters take.
    :param output: whether to write packets at all.
    :param after: a statement for each packet that was sent, behind that.
    :raises UsageError: a filter that cannot be taken.
    """
    config = "print_maps_on_exit = 0"
    if request.buffer:
        config += f"; perf_rb_pages = {-(-request.buffer // _PAGE_KIB)}"
    probes = [f"config = {{ {config} }}"]
    for number, point in enumerate(points):
        wanted = " && ".join(conditions(point, request))
        function = "skboutput_linear" if point.provider == "kprobe" else "skboutput"
        length = request.snaplen or WHOLE
        take = f"@matched_{number} = count(); {extra}"
        send = f"{function}({quote(request.script_path)}, {point.skb}, {length}, 0)"
        if after:
            take += f"if ({send} == 0) {{ {after}}}"
        elif output:
            take += f"{send};"
        body = f"if ({wanted}) {{ {take} }}" if wanted else take
        probes.append(f"{point.probe} {{ @seen_{number} = count(); {body} }}")
    return "\n".join(probes) + "\n"


def conditions(point: SkbPoint, request: CaptureRequest) -> Iterator[str]:
    """A request's filters for a place, the cheapest first, as a script writes them.

    :raises UsageError: one cannot be taken.
    """
    skb = point.skb
    if request.pid:
        yield f"pid == {request.pid}"
    if request.mark:
        value, slash, mask = request.mark.partition("/")
        number = _number(value, "--mark")
        if slash:
            yield f"({skb}.mark & {_number(mask, '--mark')}) == {number}"
        else:
            yield f"{skb}.mark == {number}"
    if request.netns:
        yield f"{skb}.dev.nd_net.net.ns.inum == {netns_number(request.netns)}"
    if request.interface:
        if len(request.interface.encode()) > 15:
            raise UsageError(f"-i {request.interface}: no interface has a name this long")
        yield f"{skb}.dev.name == {quote(request.interface)}"
    if request.expression:
        yield f"skbfilter({skb}, {quote(request.expression)})"


def _number(text: str, option: str) -> int:
    try:
        number = int(text, 0)
    except ValueError:
        number = -1
    if not 0 <= number < 1 << 32:
        raise UsageError(
            f"{option}: '{text}' is not a number of 32 bits",
            hint="such as 5, 0x10, or with a mask 0x10/0xff",
        )
    return number


class Capture(Closing):
    """A capture that runs. Use it as a context manager, and iterate over it.

    Iteration yields every :class:`kcap.packet.decode.Packet` when nothing is written (``path`` is
    empty), else nothing; it ends with :meth:`stop`, or after ``count`` packets.

    :param request: what to capture.
    :param progress: called while many probes are loaded, attached, detached, as
        :attr:`kcap.probes.system.System.progress` is.
    :raises UsageError: a function that is not there or takes no packet, a filter that is wrong.
    :raises ScriptError: the expression is wrong.
    :raises KcapError: the kernel refuses it, or the file cannot be written.
    """

    def __init__(self, request: CaptureRequest, progress: Progress | None = None) -> None:
        self.request = request
        self._progress = progress
        self._preparation = Preparation(Options())
        self._trace: Trace | None = None
        self._reading = Reading()
        self._messages: list[object] = []
        #: Is told what else the trace says, while it runs: losses, warnings.
        self.on_message: Callable[[object], None] | None = None
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    def __repr__(self) -> str:
        places = ", ".join(point.probe for point in self.points)
        return f"<{type(self).__name__} at {places}>"

    def _start(self) -> None:
        from kcap.packet.stream import Discarded, StreamFile
        from kcap.probes.system import System
        from kcap.session.packets import PacketOptions

        request = self.request
        if request.expression:
            from kcap.functions.skbfilter import check_filter

            check_filter(request.expression)
        system = System()
        self.points = self._places(system)
        self.script = self._script(system)
        self.checked: Checked = self._preparation.check(self.script, "kcap capture")
        if self._progress is not None:
            self.checked.system.progress = self._progress
        self._prepare()
        files: dict[str, OutputFile] = {}
        if request.path == "-":
            files[request.script_path] = StreamFile(request.descriptor, request.script_path)
        elif not request.path:
            files[NOWHERE] = Discarded(NOWHERE)
        elif request.rotation is not None or request.user:
            files[request.path] = _own_file(request)
        options = PacketOptions(
            deliver=self._delivers,
            limit=self._limit,
            immediate=request.immediate,
            files=files,
            reasons=self._drop_reasons(system),
        )
        self._trace = self._preparation.trace(self.checked, packets=options)
        if request.path in ("", "-"):
            self._trace.tick = STREAM_TICK
        elif not request.immediate:
            self._trace.tick = FILE_TICK

    def _drop_reasons(self, system: System) -> Mapping[int, str]:
        """Names of drop reasons by number, if there are any to tell."""
        if not any(point.name in TOLD_WHY for point in self.points):
            return {}
        from kcap.session.drop_reasons import Reasons

        return Reasons.of(system).names

    # What derived classes do in another way

    def _places(self, system: System) -> list[SkbPoint]:
        """Where to look at packets."""
        return list({find_point(place, system): None for place in self.request.places})

    def _script(self, system: System) -> str:
        return generate(self.points, self.request)

    def _prepare(self) -> None:
        """Complete what was checked, before it is compiled."""

    @property
    def _delivers(self) -> bool:
        """Whether packets are yielded."""
        return not self.request.path

    @property
    def _limit(self) -> int:
        """The trace ends after so many records of packets; 0 for any number."""
        return self.request.count

    @property
    def trace(self) -> Trace:
        """The trace that does the work."""
        assert self._trace is not None
        return self._trace

    def drop_privileges(self) -> None:
        """Go on as the request's user, with no capability but those for reading BPF maps.

        Everything has to be attached before. No way leads back.

        :raises UsageError: there is no such user, or the kernel refuses.
        """
        from kcap.session.privileges import become

        trace = self.trace
        trace.kernel_symbols.find(0)  # /proc/kallsyms shows nothing to others
        become(self.request.user)

    def attach(self) -> None:
        """Attach the probes, unless they are.

        :raises NotAttachedError: a function cannot be attached to.
        """
        self.trace.attach()

    def stop(self) -> None:
        """End the capture; may be called from a signal handler or another thread."""
        self.trace.stop()

    def __iter__(self) -> Iterator[Packet]:
        from kcap.packet.decode import Packet

        for event in self.trace:
            if isinstance(event, Packet):
                yield event
            else:
                self._messages.append(event)
                if self.on_message is not None:
                    self.on_message(event)

    def __aiter__(self) -> AsyncIterator[Packet]:
        """The same packets for ``async for``; see :meth:`kcap.session.trace.Trace.__aiter__`."""
        return self._reading.awaited(self, self.stop)

    @property
    def stats(self) -> list[PlaceStats]:
        """What became of the packets so far, by place."""
        from kcap.packet.sink import SiteStats

        trace = self.trace
        sites = trace.packet_stats
        names = [point.name for point in self.points]
        found = []
        for number, point in enumerate(self.points):
            site = sites[number] if sites else SiteStats()
            # What is counted first is read last: packets still come, and more are seen than match.
            matched, seen = (
                sum(count for _, count in trace.read_map(f"@{name}_{number}"))
                for name in ("matched", "seen")
            )
            place = point.name if names.count(point.name) == 1 else point.probe
            found.append(PlaceStats(place, seen, matched, site.written, site.lost))
        return found

    @property
    def unjudged(self) -> int:
        """Packets that the filter did not match because it asks for bytes in fragments."""
        from kcap.functions.events import Lost

        lost = (event for event in self._messages if isinstance(event, Lost))
        return sum(event.count for event in lost if event.kind == "filter")

    def close(self) -> None:
        """Detach and close the file. May be called twice.

        :raises FileError: the file could not take its last packets.
        """
        try:
            self._reading.close()
            if self._trace is not None:
                self._trace.close()
        finally:
            self._preparation.__exit__(None, None, None)
