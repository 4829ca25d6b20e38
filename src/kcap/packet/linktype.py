# SPDX-License-Identifier: Apache-2.0
"""Link types of capture files, and the few EtherTypes that this package must know.

Source: https://www.tcpdump.org/linktypes.html and include/uapi/linux/if_ether.h.
"""

from __future__ import annotations

from typing import Final

from kcap.functions import skb_record as layout

ETHERNET: Final = 1
#: An IPv4 or IPv6 packet, told apart by its first nibble.
RAW: Final = 101
#: Reserved for private use: kcap's "bytes from a position that no link type describes".
USER0: Final = 147

NAMES: Final = {ETHERNET: "Ethernet", RAW: "raw IP", USER0: "user-defined 0"}

ETH_P_IP: Final = 0x0800
ETH_P_IPV6: Final = 0x86DD
ETH_P_ARP: Final = 0x0806
ETH_P_802_2: Final = 0x0004  # in skb->protocol only: an 802.3 frame with LLC
#: IEEE 802 Local Experimental EtherType 1: every reader shows what follows as plain data.
ETH_P_EXPERIMENTAL: Final = 0x88B5
VLAN_TYPES: Final = frozenset(layout.VLAN_TYPES)

#: As large as libpcap allows for these link types; the same in every interface of a file, because
#: libpcap refuses a pcapng in which it differs.
SNAPLEN: Final = 262144
