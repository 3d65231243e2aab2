"""Scans in the order of their stamps."""

from collections.abc import Iterable, Iterator

from ofvl_core.errors import DataError
from ofvl_core.lidar.scan import Scan


def rising(scans: Iterable[Scan]) -> Iterator[Scan]:
    """The same scans. Raises DataError where a stamp is not after the one before."""
    last = None
    for number, scan in enumerate(scans, 1):
        if last is not None and scan.stamp <= last:
            raise DataError(
                f"scan {number} is stamped {scan.stamp * 1e-9:.6f} s, which is not after the scan before "
                f"({last * 1e-9:.6f} s): cut the recording where its clock jumped back, or sort the scans"
            )
        last = scan.stamp
        yield scan
