# SPDX-License-Identifier: Apache-2.0
"""QEMU guests with a chosen kernel: for trying a script safely, and for the tests.

``kcap.vm.guest.Guest`` boots one; ``kcap.vm.kernels`` says which kernels there are and fetches
them. Nothing is imported here, so that a program that only looks pays for nothing.
"""
