"""Versions of installed packages, for manifests and names of caches."""

from importlib.metadata import PackageNotFoundError, version

FROM_SOURCE = "source"


def version_of(package: str) -> str:
    """Its version; ``source`` where its code runs without having been installed, as in an exported package.

    Examples
    --------
    >>> version_of("no such package")
    'source'
    """
    try:
        return version(package)
    except PackageNotFoundError:
        return FROM_SOURCE
