# SPDX-License-Identifier: Apache-2.0
"""The page of ``kcap follow`` in a real browser: headless Chromium."""

from __future__ import annotations

import re
import subprocess
from html import unescape
from pathlib import Path

import pytest

from kcap.packet.headers import Change
from kcap.session.follow_page import page_of
from kcap.session.journey import End, Function, Journey, Step
from kcap.session.namespaces import NetnsNames
from support import PATIENCE

TIME = 1_700_000_000_123_456_789


def journey(number: int, end: End, *, copy_of: int = 0, comm: str = "ping") -> Journey:
    steps = [
        Step(TIME, 0, Function("ip_rcv", ""), 0, "eth0", 40, 0, 98, 0, 7, comm, [],
             ("ip_rcv+1", "process_backlog+2")),
        Step(TIME + 900, 900, Function("ip_rcv_core", ""), 0, "eth0", 40, 0, 98, 0, 7, comm),
        Step(TIME + 2000, 2000, Function("nf_nat_manip_pkt", "nf_nat"), 0, "eth0", 40, 0, 98, 0, 7,
             comm, [Change("ip.src", "10.0.0.1", "192.0.2.1"), Change("gre", "", "gre key 7")]),
        Step(TIME + 2500, 2500, Function("", ""), number + 1),
    ]  # fmt: skip
    return Journey(number, 0x10, TIME + number * 10_000, number * 10_000, copy_of,
                   f"UDP number {number}", steps, end)  # fmt: skip


WAYS = [
    journey(1, End("dropped", "NO_SOCKET", "udp_rcv+31", 9000)),
    journey(2, End("socket", "", "tcp_queue_rcv", 9000), copy_of=1),
    journey(9000, End(), comm="</script><b>"),  # long after the others
]
#: Appended to the page: what a person does, and then what there is to see.
ACT = """<script>(() => {
const see = selector => document.querySelector(selector);
const all = selector => [...document.querySelectorAll(selector)].map(e => e.textContent);
const press = k => document.body.dispatchEvent(
  new KeyboardEvent("keydown", { key: k, bubbles: true }));
const say = (name, value) => { const e = document.createElement("output"); e.id = "said-" + name;
  e.textContent = value; document.body.append(e); };
const title = () => see("#way h2").textContent;
const rows = () => all("#lanes [role=option]").length;
const left = () => parseFloat(document.querySelectorAll("#lanes .mark")[2].style.left);
say("rows", rows()); say("counts", see("#counts").textContent);
say("breaks", all(".break").length); say("after", all("#axis .after").join());
say("first", title()); say("end", see("#way .end").textContent);
say("steps", all("#way .step > div > span.mono").join());
say("changes", all("#way .change").join());
say("stack", all("#way .stack div").join());
const functions = () => all("#way .step > div > span.mono").join() + all("#way .skipped").join();
press("o"); say("brief", functions()); press("o");
press("c"); say("change", see(".step.now > div > .mono").textContent);
press("ArrowDown"); say("second", title());
const before = left(); press("+"); say("zoomed", left() > before);
press("0"); say("back", left() === before);
press("End"); say("spaces", all("#way .place").join("; "));
say("crossed", see("#way .change").textContent);
press("ArrowUp"); say("third", title()); say("process", see("#way .place").textContent);
const find = see("#find"); press("/"); say("focus", document.activeElement === find);
find.value = "no_socket"; find.dispatchEvent(new Event("input"));
say("found", rows() + " " + title());
find.value = "no such thing"; find.dispatchEvent(new Event("input"));
say("nothing", rows() + " " + !see("#none").hidden);
find.blur(); press("t"); const first = document.documentElement.dataset.theme; press("t");
say("themes", [first, document.documentElement.dataset.theme].sort().join());
})();</script>"""


#: The same where there are too many packets for the screen.
ACT_ON_MANY = """<script>(() => {
const press = k => document.body.dispatchEvent(
  new KeyboardEvent("keydown", { key: k, bubbles: true }));
const say = (name, value) => { const e = document.createElement("output"); e.id = "said-" + name;
  e.textContent = value; document.body.append(e); };
const lanes = document.querySelector("#lanes"), inside = () => lanes.querySelectorAll("*").length;
const title = () => document.querySelector("#way h2").textContent;
const chosen = () => document.querySelector("#lanes [aria-selected=true]");
const inSight = e => { const a = e.getBoundingClientRect(), b = lanes.getBoundingClientRect();
  return a.top > b.top - 1 && a.bottom < b.bottom + 1; };
const counts = [inside()];
for (const key of ["+", "+", "ArrowRight", "0", "End"]) { press(key); counts.push(inside()); }
say("most", Math.max(...counts));
say("last", [chosen().id, chosen().ariaPosInSet, inSight(chosen())].join());
say("active", lanes.getAttribute("aria-activedescendant"));
press("z"); say("ticks", chosen().querySelectorAll(".tick").length);
press("0"); say("breaks", document.querySelectorAll(".break").length);
say("labels", document.querySelectorAll("#scale span").length <= lanes.clientWidth / 40);
lanes.scrollTop = 500 * 24; lanes.dispatchEvent(new Event("scroll"));
const row = document.querySelector("#lane501"), box = row.getBoundingClientRect();
row.dispatchEvent(new MouseEvent("click", { clientX: box.left + 9, clientY: box.top + 9,
  bubbles: true }));
say("clicked", title());
const find = document.querySelector("#find"); find.value = "number 77 ";
find.dispatchEvent(new Event("input")); say("found", title());
})();</script>"""


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return what the page showed while the keyboard was used, by name."""
    directory = tmp_path_factory.mktemp("page")
    web = directory / "web"
    web.touch()
    ways = [*WAYS, journey(9001, End())]
    ways[-1].time_ns = ways[-2].time_ns
    ways[-1].steps[0].netns = web.stat().st_ino
    ways[-1].steps[1].changes = [Change("netns", str(web.stat().st_ino), "40")]
    return show(directory, page_of(ways, "udp and <b>", NetnsNames(str(directory))) + ACT)


def show(directory: Path, text: str) -> dict[str, str]:
    """Show a page in a browser; return what it said, by name."""
    page = directory / "way.html"
    page.write_text(text, encoding="utf-8")
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    command += [f"--user-data-dir={directory / 'profile'}", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=True)
    pairs = re.findall(r'<output id="said-(\w+)">(.*?)</output>', done.stdout, re.DOTALL)
    return {name: unescape(value) for name, value in pairs}


def test_page_shows_packets_and_a_way(said: dict[str, str]) -> None:
    assert said["rows"] == "4"
    assert said["counts"] == "4 packets, 1 dropped"
    assert said["first"] == "Packet 1: UDP number 1"
    assert said["end"] == "✕ dropped: NO_SOCKET at udp_rcv+31"
    assert said["steps"] == "ip_rcv,ip_rcv_core,nf_nat_manip_pkt,nf_nat"
    assert said["changes"] == "ip.src 10.0.0.1 → 192.0.2.1,header added gre key 7"


def test_page_shows_only_changes_and_stacks_on_demand(said: dict[str, str]) -> None:
    assert said["brief"] == "ip_rcv,nf_nat_manip_pkt,nf_nat⋯ 1 more"
    assert said["stack"] == "ip_rcv+1,process_backlog+2"


def test_time_without_packets_is_shortened(said: dict[str, str]) -> None:
    assert (said["breaks"], said["after"]) == ("1", "89.99 ms")


def test_keys_move_and_zoom(said: dict[str, str]) -> None:
    assert said["change"] == "nf_nat_manip_pkt"
    assert said["second"] == "Packet 2: UDP number 2"
    assert said["third"] == "Packet 9000: UDP number 9000"
    assert (said["zoomed"], said["back"], said["focus"]) == ("true", "true", "true")
    assert said["themes"] == "dark,light"


def test_filter_leaves_packets_that_match(said: dict[str, str]) -> None:
    assert said["found"] == "1 Packet 1: UDP number 1"
    assert said["nothing"] == "0 true"


def test_only_what_is_in_sight_is_drawn_of_many_packets(tmp_path: Path) -> None:
    """1,000 packets 10 ms apart: 999 times without packets, 4,000 steps."""
    ways = []
    for number in range(1, 1001):
        way = journey(number, End("consumed", "", "icmp_rcv+1", 9000))
        way.time_ns, way.what = TIME + number * 10_000_000, f"UDP number {number} "
        way.steps[-1].copy = 0
        ways.append(way)
    said = show(tmp_path, page_of(ways, "udp") + ACT_ON_MANY)
    assert int(said["most"]) < 1000
    assert said["last"] == "lane1000,1000,true"
    assert said["active"] == "lane1000"
    assert said["ticks"] == "4"
    assert (said["breaks"], said["labels"]) == ("0", "true")
    assert said["clicked"] == "Packet 501: UDP number 501 "
    assert said["found"] == "Packet 77: UDP number 77 "


def test_namespaces_have_their_names(said: dict[str, str]) -> None:
    assert said["spaces"].split("; ") == [
        "eth0 · netns web · CPU 0 · ping[7]", "eth0 · netns 40 · CPU 0 · ping[7]",
    ]  # fmt: skip
    assert said["crossed"] == "netns web → 40"


def test_names_of_processes_are_text(said: dict[str, str]) -> None:
    assert "</script><b>[7]" in said["process"]


def test_page_needs_nothing_from_elsewhere() -> None:
    page = page_of(WAYS, "udp and <b>")
    assert not re.search(r"""(src|href)\s*=\s*["']?(http|//)|@import|url\(""", page)
    assert "<title>kcap follow: udp and &lt;b&gt;</title>" in page
    assert "@@" not in page
