# SPDX-License-Identifier: Apache-2.0
"""What several tests share. Imported as ``support.…`` here and in guests."""

#: How long tests wait, in seconds, for what has to come: long enough for an emulated guest on a
#: busy machine. It is there only to end a test that would wait for ever.
PATIENCE = 400.0
