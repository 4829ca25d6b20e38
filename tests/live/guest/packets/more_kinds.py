# SPDX-License-Identifier: Apache-2.0
"""More kinds of links between a and b of ``all_kinds``: Geneve, IP in IP, MPLS and ESP, each with a
network of its own: 10.N.0.1 at a, 10.N.0.2 at b.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from live.guest.packets import all_kinds as world

MODULES = ("geneve", "ipip", "mpls_iptunnel", "mpls_router", "esp4", "xfrm_user")
GENEVE, IPIP, MPLS, ESP = range(100, 104)
#: Labels at an end are this and its number; an ESP packet's SPI has the number of who sends it.
LABEL, SPI = 100, 0x1000


def set_up() -> None:
    """Make all of it; ``world.set_up()`` comes first."""
    subprocess.run(["modprobe", "-a", *MODULES], check=True)
    for name, device, own, other in (("w-a", "a0", 1, 2), ("w-b", "b0", 2, 1)):
        with world.entered(name):
            Path("/proc/sys/net/mpls/platform_labels").write_text("1000")
            Path(f"/proc/sys/net/mpls/conf/{device}/input").write_text("1")
        ends = f"local 10.{world.PLAIN}.0.{own} remote 10.{world.PLAIN}.0.{other}"
        # (an address that is made by chance may begin as an IP packet does)
        world.run_ip(
            name,
            f"link add gnv1 address 02:00:00:02:00:0{own} type geneve id 55 "
            f"remote 10.{world.PLAIN}.0.{other}",
            f"link add ipip1 type ipip {ends}",
            *(
                line
                for made, net in (("gnv1", GENEVE), ("ipip1", IPIP))
                for line in (f"link set {made} up", f"addr add 10.{net}.0.{own}/24 dev {made}")
            ),
            f"addr add 10.{MPLS}.0.{own}/32 dev lo",
            f"route add 10.{MPLS}.0.{other}/32 encap mpls {LABEL + other} via inet "
            f"10.{world.PLAIN}.0.{other} src 10.{MPLS}.0.{own}",
            *_esp(own, other),
        )
        # (in a batch ip takes no family)
        subprocess.run(
            ["ip", "-n", name, "-f", "mpls", "route", "add", str(LABEL + own), "dev", "lo"],
            check=True,
        )


def _esp(own: int, other: int) -> list[str]:
    """What lets packets between the ends' addresses be sent encrypted, in tunnel mode."""
    lines = [
        f"addr add 10.{ESP}.0.{own}/32 dev lo",
        f"route add 10.{ESP}.0.{other}/32 via 10.{world.PLAIN}.0.{other} src 10.{ESP}.0.{own}",
    ]
    key = "0x" + "07" * 20
    for source, target, direction in ((own, other, "out"), (other, own, "in")):
        ends = f"src 10.{world.PLAIN}.0.{source} dst 10.{world.PLAIN}.0.{target}"
        lines += [
            f"xfrm state add {ends} proto esp spi {SPI + source} mode tunnel "
            f"aead rfc4106(gcm(aes)) {key} 128",
            f"xfrm policy add src 10.{ESP}.0.{source}/32 dst 10.{ESP}.0.{target}/32 "
            f"dir {direction} tmpl {ends} proto esp mode tunnel",
        ]
    return lines
