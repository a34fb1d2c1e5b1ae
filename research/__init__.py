# SPDX-License-Identifier: Apache-2.0
"""Studies that check published results, on the public interface of ``jaxcompress``."""
