# SPDX-License-Identifier: Apache-2.0
"""Packets: decoding skboutput's records, and writing them to pcap and pcapng files."""
